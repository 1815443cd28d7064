"""LoRA fine-tuning with transformers' Trainer.

In: a ``Config``. Out: ``checkpoint-N/`` folders, ``training_log.csv``, ``loss.png``,
``train_ids.json`` and ``run.json`` in its ``output_dir``. A run that was cut off goes on
from its newest whole checkpoint and ends in the same weights.
"""

import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from rich.console import Console
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments, set_seed
from transformers.integrations import get_available_reporting_integrations

from tangeval.core.errors import TangevalError
from tangeval.core.study import DataSection, load_study
from tangeval.core.types import Base
from tangeval.decoding.planning import token_cost
from tangeval.models.adapters import with_adapter
from tangeval.models.loading import has_bfloat16, load_model, load_tokenizer
from tangeval.results.files import read_json, write_json
from tangeval.training import StudyCallback

from .config import Config
from .data import Layout, collate, layout_of, summed_loss, tokenize
from .log import Log, draw_loss
from .packing import IGNORED, keep_apart
from .run import Run


def train(config: Config, run: Run, console: Console) -> None:
    """Fine-tune as ``config`` says, from ``run``'s newest whole checkpoint if there is one.

    Raises:
        TangevalError: the base model cannot be loaded or has no such layers, or no record is short enough.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what an earlier run of this process set aside is no part of this one's peak
        torch.cuda.reset_peak_memory_stats()
    settings = arguments(config)  # chooses this process's GPU, under torchrun
    fix_seeds(config.seed)
    tokenizer = load_tokenizer(run.base)
    study = while_training(config, run, tokenizer) if config.evaluate else None
    layout = layout_of(config, tokenizer)
    rows, left_out = tokenize(tokenizer, run.examples, run.settings["prompt"], layout, run.task.prompt)
    # However a run learns, its validation loss is on whole completions, EOS included.
    held_out, _ = tokenize(
        tokenizer, run.validation, run.settings["prompt"], Layout(config.cutoff), run.task.prompt
    )
    check_rows(rows, left_out, config.cutoff)
    if left_out:
        console.print(f"left out: {left_out} records longer than cutoff {config.cutoff}")
    model = adapted(config, run.base, run.start)
    log = Log(config, held_out, run.folder, console)
    trainer = _Trainer(
        model=model, args=settings, train_dataset=rows, data_collator=partial(collate, layout=layout),
        compute_loss_func=mean_loss, callbacks=[log],
    )  # fmt: skip
    trainer.watch = log
    if study:
        study.trainer = trainer
        trainer.add_callback(study)
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    newest = run.newest()
    log.resume(newest.step if newest else 0)
    # Past the last step of part of an epoch the Trainer would find more batches, and train on them.
    if newest is None or newest.step < read_json(newest.path / "trainer_state.json")["max_steps"]:
        with log.bar:
            trainer.train(resume_from_checkpoint=str(newest.path) if newest else None)
    elif study:
        made = f"`tangeval run {run.folder}/study/study.yaml` evaluates its checkpoints"
        console.print(f"evaluate: the run was cut off after its last step; {made}", highlight=False)
    if settings.should_save:
        draw_loss(log.rows, run.folder / "loss.png")
        if log.steps:
            write_json(run.folder / "timings.json", log.timings())
        run.finish()


def check_rows(rows: Any, left_out: int, cutoff: int) -> None:
    """Raise a TangevalError where nothing is left to learn."""
    if not len(rows):
        raise TangevalError(f"cutoff: all {left_out} records exceed {cutoff} tokens; raise it")
    if all(label == IGNORED for labels in rows["labels"] for label in labels):
        raise TangevalError(f"cutoff: no completion begins within {cutoff} tokens; raise it")


def while_training(config: Config, run: Run, tokenizer: Any) -> StudyCallback:
    """Return what evaluates ``config.evaluate`` on held-out texts of this run.

    Raises:
        TangevalError: the study cannot be read, or would be asked for texts that are trained on.
    """
    asked = load_study(config.evaluate or "")
    size = config.validation if isinstance(asked.data, str) else asked.data.validation
    data = config.data if size is None else DataSection(path=config.data, validation=size)
    own = {"base_model": config.base_model, "cache_dir": config.cache_dir, "task": config.task, "data": data}
    found = StudyCallback(asked.model_copy(update=own | {"prompt": config.prompt}), tokenizer=tokenizer)
    wanted = {e.id for e in found.evaluations.dataset.examples if e.split == "validation"}
    if "validation" in asked.splits and not wanted <= {e.id for e in run.validation}:
        raise TangevalError(
            f"evaluate: {asked.file} asks for {len(wanted)} validation texts, and some are trained on; give its data a validation "
            f"of {len(run.validation)} at most, and no include_validation"
        )
    return found


def fix_seeds(seed: int) -> None:
    """Seed Python, numpy and torch and choose deterministic kernels, as the homework does."""
    set_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def adapted(config: Config, base: Base, start: Path | None = None) -> Any:
    """Return the base model with an adapter to train: a new one, or that of the folder ``start`` to go on with."""
    model = load_model(base, config.load_settings(), shared_out=config.fsdp)
    token_cost(model.config)  # what tangeval could not decode with is not trained
    if config.load.quantization != "none":
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=config.gradient_checkpointing and not config.fsdp,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )  # fmt: skip
    model.config.use_cache = False
    if start:
        return _in_order(with_adapter(model, start, trainable=True))
    return _in_order(with_lora(model, config))


def with_lora(model: Any, config: Config) -> Any:
    """Return a model with a new adapter on it; a TangevalError says that it has no such layers."""
    lora = config.lora
    adapter = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.target_modules),
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        return get_peft_model(model, adapter)
    except ValueError as error:
        raise TangevalError(f"lora.target_modules: {error}") from error


def _in_order(adapted: Any) -> Any:
    """Let ``adapter_config.json`` name the modules in one order: peft keeps them as a set, and each process has another."""
    for adapter in adapted.peft_config.values():
        if isinstance(adapter.target_modules, set):
            adapter.target_modules = sorted(adapter.target_modules)
    return adapted


def arguments(config: Config) -> TrainingArguments:
    """Return the configuration as the Trainer takes it, for this process of those that torchrun started, or refuse it."""
    on_gpu = torch.cuda.is_available()
    precision = config.precision
    if precision == "auto":
        # bfloat16 has float16's speed without a loss scale, which may skip steps.
        precision = "bfloat16" if has_bfloat16() else "float16" if on_gpu else "float32"
    processes = PartialState(cpu=not on_gpu).num_processes
    check_machine(config, precision, processes)
    settings = TrainingArguments(
        output_dir=config.output_dir, seed=config.seed, num_train_epochs=config.epochs,
        learning_rate=config.learning_rate, lr_scheduler_type="linear", warmup_steps=config.warmup_steps,
        per_device_train_batch_size=config.per_device_batch_size,
        gradient_accumulation_steps=config.batch // (config.per_device_batch_size * processes),
        gradient_checkpointing=config.gradient_checkpointing and not config.fsdp,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=config.logging_steps, save_steps=config.save_steps,
        save_total_limit=config.save_total_limit, report_to=list(config.report_to) or "none",
        bf16=precision == "bfloat16", fp16=precision == "float16", use_cpu=not on_gpu,
        logging_nan_inf_filter=False, remove_unused_columns=False, ddp_find_unused_parameters=False, disable_tqdm=True, log_level="error",
        **(sharing(config) if config.fsdp else {}),
    )  # fmt: skip
    # A process trains on one GPU: DataParallel, which the Trainer takes where it sees several, would deal out
    # ``logits_to_keep`` and the packed row among them.
    settings._n_gpu = min(settings.n_gpu, 1)
    return settings


def check_machine(config: Config, precision: str, processes: int) -> None:
    """Raise a TangevalError, with the key and the remedy, for what this machine cannot train."""
    on_gpu = torch.cuda.is_available()
    if precision == "float16" and not on_gpu:
        raise TangevalError(
            "precision: float16, as the homework has it, wants a GPU; set precision=auto to train without one"
        )
    if config.batch % (config.per_device_batch_size * processes):
        raise TangevalError(
            f"batch: {config.batch} is no multiple of per_device_batch_size {config.per_device_batch_size} × {processes} processes"
        )
    if config.fsdp and processes == 1:
        raise TangevalError(
            "fsdp: one process has nobody to share the model with; start it as torchrun --nproc-per-node=GPUS -m "
            "finetune …, or set fsdp=false"
        )
    if config.fsdp and not on_gpu:
        raise TangevalError("fsdp: the model is shared out among GPUs, and there is none; set fsdp=false")
    for name in config.report_to:
        if name not in (known := get_available_reporting_integrations()):
            raise TangevalError(
                f"report_to: {name} is not installed here, or transformers does not know it (there are: "
                f"{', '.join(known) or 'none'}); pip install it"
            )


def sharing(config: Config) -> dict[str, Any]:
    """Return the Trainer's settings for FSDP.

    A unit is what the model itself says must not be split, one of its layers, and a unit is whole
    on a GPU only while it computes. State is gathered when it is saved: adapters are whole files.
    Without quantisation the first process of a machine alone reads the weights.
    """
    # transformers asks the variable, before there is a Trainer, whether to read weights in this process.
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2, "reshard_after_forward": True, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT", "cpu_ram_efficient_loading": config.load.quantization == "none",
            "activation_checkpointing": config.gradient_checkpointing,
        },
    }  # fmt: skip


class _Trainer(Trainer):
    """The Trainer, which takes packed rows, stops where it learns nothing, and reports the validation loss too."""

    watch: Log
    step_loss: Any = 0.0  #: of this step's micro batches so far

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        return super().compute_loss(model, keep_apart(inputs, self.model.config), *arguments, **named)

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        loss = super().training_step(*arguments, **named)
        self.step_loss += loss
        return loss

    def _get_grad_norm(self, *arguments: Any, **named: Any) -> Any:
        """The Trainer's, asked once a step before the weights change."""
        norm = super()._get_grad_norm(*arguments, **named)
        loss, self.step_loss = self.step_loss, 0.0
        scaler = self.accelerator.scaler  # of float16, which skips steps while it looks for a scale
        self.watch.check("loss", float(loss), self.state.global_step + 1)
        if scaler is None or scaler.get_scale() <= 1:
            self.watch.check("gradient's norm", float(norm), self.state.global_step + 1)
        return norm

    def _save_checkpoint(self, *arguments: Any, **named: Any) -> None:
        try:
            super()._save_checkpoint(*arguments, **named)
        except Exception as error:  # of a full disk each library makes one of its own
            step, folder = self.state.global_step, Path(self.args.output_dir)
            free = shutil.disk_usage(folder).free / 2**20
            raise TangevalError(
                f"{folder}/checkpoint-{step} cannot be written: {str(error).splitlines()[0]} ({free:,.0f} MiB are free there); make "
                "room, and give the same command again: earlier checkpoints are kept, and it goes on from the last whole one"
            ) from error

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        super().log(logs | self.watch.measured(self.state.global_step), *arguments, **named)


def mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Return a micro batch's part of the loss, as the Trainer adds it up: nats per token of the whole batch."""
    return summed_loss(outputs.logits, labels) / num_items_in_batch
