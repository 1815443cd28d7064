"""LoRA fine-tuning with transformers' Trainer.

In: a ``Config``. Out: ``checkpoint-N/`` folders, ``training_log.csv``, ``loss.png``,
``train_ids.json`` and ``run.json`` in its ``output_dir``. A run that was cut off goes on
from its newest whole checkpoint and ends in the same weights.
"""

import csv
import io
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from rich.console import Console
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.integrations import get_available_reporting_integrations

from tangeval.cli.progress import make_bar
from tangeval.core.errors import TangevalError
from tangeval.core.types import ADAPTER, Base
from tangeval.models.loading import check_names, has_bfloat16, load_model, load_tokenizer, with_adapter
from tangeval.results.files import read_json, write_bytes, write_json, write_text

from .config import Config
from .data import IGNORED, Layout, collate, layout_of, summed_loss, tokenize
from .run import Run

COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_loss", "seconds")
_VALIDATION_BATCH = 50


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
    layout = layout_of(config, tokenizer)
    rows, left_out = tokenize(tokenizer, run.examples, config.prompt, layout)
    # However a run learns, its validation loss is on whole completions, EOS included.
    held_out, _ = tokenize(tokenizer, run.validation, config.prompt, Layout(config.cutoff))
    if not len(rows):
        raise TangevalError(
            f"cutoff: all {left_out} records are longer than {config.cutoff} tokens; raise it"
        )
    if left_out:
        console.print(f"left out: {left_out} records longer than cutoff {config.cutoff}")
    model = adapted(config, run.base)
    log = Log(config, held_out, run.folder, console)
    trainer = _Trainer(
        model=model,
        args=settings,
        train_dataset=rows,
        data_collator=partial(collate, layout=layout),
        compute_loss_func=mean_loss,
        callbacks=[log],
    )
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    newest = run.newest()
    log.resume(newest.step if newest else 0)
    # Past the last step of part of an epoch the Trainer would find more batches, and train on them.
    if newest is None or newest.step < read_json(newest.path / "trainer_state.json")["max_steps"]:
        trainer.train(resume_from_checkpoint=str(newest.path) if newest else None)
    if settings.should_save:
        draw_loss(log.rows, run.folder / "loss.png")
        if log.steps:
            write_json(run.folder / "timings.json", log.timings())
        run.finish()


def fix_seeds(seed: int) -> None:
    """Seed Python, numpy and torch and choose deterministic kernels, as the homework does."""
    set_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def adapted(config: Config, base: Base) -> Any:
    """Return the base model with an adapter to train: a new one, or ``resume_adapter``'s to go on with."""
    model = load_model(base, config.load_settings(), shared_out=config.fsdp)
    if config.load.quantization != "none":
        model = prepare_model_for_kbit_training(
            model,
            use_gradient_checkpointing=config.gradient_checkpointing and not config.fsdp,
            gradient_checkpointing_kwargs={"use_reentrant": False},
        )
    model.config.use_cache = False
    if config.resume_adapter:
        adapted = with_adapter(model, Path(config.resume_adapter), trainable=True)
        check_names(adapted, Path(config.resume_adapter, ADAPTER))
        return _in_order(adapted)
    lora = config.lora
    adapter = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.target_modules),
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return _in_order(get_peft_model(model, adapter))
    except ValueError as error:
        raise TangevalError(f"lora.target_modules: {error}") from error


def _in_order(adapted: Any) -> Any:
    """Let ``adapter_config.json`` name the modules in one order.

    peft keeps them as a set, which Python orders anew in each process: a run that was cut off
    would end in other bytes, and its checkpoints in another fingerprint.
    """
    for adapter in adapted.peft_config.values():
        if isinstance(adapter.target_modules, set):
            adapter.target_modules = sorted(adapter.target_modules)
    return adapted


def arguments(config: Config) -> TrainingArguments:
    """Return the configuration as the Trainer takes it, for this process of those that torchrun started.

    Raises:
        TangevalError: the machine does not compute so, or cannot report so.
    """
    on_gpu = torch.cuda.is_available()
    precision = config.precision
    if precision == "auto":
        # bfloat16 has float16's speed without a loss scale, which may skip steps.
        precision = "bfloat16" if has_bfloat16() else "float16" if on_gpu else "float32"
    if precision == "float16" and not on_gpu:
        raise TangevalError(
            "precision: float16, as the homework has it, wants a GPU; set precision=auto to train without one"
        )
    processes = PartialState(cpu=not on_gpu).num_processes
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
    return TrainingArguments(
        output_dir=config.output_dir,
        num_train_epochs=config.epochs,
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=config.warmup_steps,
        per_device_train_batch_size=config.per_device_batch_size,
        gradient_accumulation_steps=config.batch // (config.per_device_batch_size * processes),
        gradient_checkpointing=config.gradient_checkpointing and not config.fsdp,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        logging_steps=config.logging_steps,
        save_steps=config.save_steps,
        save_total_limit=config.save_total_limit,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=not on_gpu,
        seed=config.seed,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        log_level="error",
        **(sharing(config) if config.fsdp else {}),
    )


def sharing(config: Config) -> dict[str, Any]:
    """Return the Trainer's settings for FSDP.

    A unit is what the model itself says must not be split, one of its layers, and a unit is whole
    on a GPU only while it computes. State is gathered when it is saved: adapters are whole files.
    Without quantisation the first process of a machine alone reads the weights.
    """
    alone = config.load.quantization == "none"
    # transformers asks the variable, before there is a Trainer, whether to read weights in this process.
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    return {
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "reshard_after_forward": True,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "state_dict_type": "FULL_STATE_DICT",
            "cpu_ram_efficient_loading": alone,
            "activation_checkpointing": config.gradient_checkpointing,
        },
    }


class _Trainer(Trainer):
    """The Trainer, which reports the validation loss too."""

    def log(self, logs: dict[str, float], *arguments: Any, **named: Any) -> None:
        for watch in (c for c in self.callback_handler.callbacks if isinstance(c, Log)):
            logs = logs | watch.measured(self.state.global_step)
        super().log(logs, *arguments, **named)


class Log(TrainerCallback):
    """Writes ``training_log.csv``, measures the validation loss at each save, shows progress.

    Of several processes the first does so, and the others wait for it at the next step. Where they
    share the model out (FSDP) each computes the loss, for each holds a part of the weights.
    """

    def __init__(self, config: Config, held_out: Any, folder: Path, console: Console) -> None:
        self.held_out, self.file, self.console = held_out, folder / "training_log.csv", console
        self.together = config.fsdp
        self.rows: dict[int, dict[str, Any]] = {}
        self.rate, self.began = 0.0, time.monotonic()
        self.bar = make_bar(console)
        self.task = self.bar.add_task("fine-tuning", total=None, more="")
        self.step_began = 0.0
        self.steps: list[float] = []

    def resume(self, step: int) -> None:
        """Keep the rows of an earlier run up to ``step``, from where this one goes on."""
        if self.file.is_file():
            earlier = csv.DictReader(io.StringIO(self.file.read_text("utf-8")))
            self.rows = {int(row["step"]): dict(row) for row in earlier if int(row["step"]) <= step}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        self.bar.start()
        if not state.global_step:
            self.watch(state, model, epoch=0.0)

    def on_step_begin(
        self, args: Any, state: Any, control: Any, lr_scheduler: Any = None, **kwargs: Any
    ) -> None:
        # The rate that this step uses: after the step the scheduler already holds the next one's.
        self.rate = lr_scheduler.get_last_lr()[0]
        self.step_began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.bar.update(self.task, completed=state.global_step)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.steps.append(time.monotonic() - self.step_began)
        if control.should_save:
            # Before the save, so that a run which goes on from it has the row; with the training loss,
            # since a checkpoint does not hold what the Trainer has added up since the last one logged.
            control.should_log = True
            self.watch(state, model, epoch=state.epoch, learning_rate=self.rate)

    def watch(self, state: Any, model: Any, **values: Any) -> None:
        """Measure the validation loss and record it."""
        if state.is_world_process_zero or self.together:
            loss = validation_loss(model, self.held_out)
            if state.is_world_process_zero:
                self.record(state.global_step, **values, validation_loss=loss)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs and state.is_world_process_zero:
            self.bar.update(self.task, more=f"loss {logs['loss']:.3f}")
            self.record(state.global_step, epoch=state.epoch, loss=logs["loss"], learning_rate=self.rate)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        loss = self.rows[state.global_step]["validation_loss"]
        said = "no validation poems" if loss == "" else f"validation loss {loss:.3f} nats a token"
        self.console.print(f"checkpoint-{state.global_step}: {said}", highlight=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar.stop()

    def timings(self) -> dict[str, Any]:
        """Where the training ran, the seconds of its steps without saving and validation, and the GPU's memory.

        Times differ from run to run, so they are kept apart from the log's losses.
        """
        on_gpu = torch.cuda.is_available()
        losses = [
            row["validation_loss"] for _, row in sorted(self.rows.items()) if row["validation_loss"] != ""
        ]
        return {
            "device": torch.cuda.get_device_name() if on_gpu else "cpu", "steps": len(self.steps),
            "seconds": round(sum(self.steps), 3), "seconds_a_step": round(float(np.median(self.steps)), 4),
            "peak_gib": round(torch.cuda.max_memory_reserved() / 2**30, 3) if on_gpu else None,
            "validation_loss": float(losses[-1]) if losses else None,
        }  # fmt: skip

    def measured(self, step: int) -> dict[str, float]:
        """What is known of a step beside what the Trainer logs, for ``report_to``."""
        loss = self.rows.get(step, {}).get("validation_loss", "")
        return {} if loss == "" else {"validation_loss": loss}

    def record(self, step: int, **values: Any) -> None:
        """Add to a step's row and write the whole log."""
        row = self.rows.setdefault(step, dict.fromkeys(COLUMNS, ""))
        row |= {"step": step, "seconds": round(time.monotonic() - self.began, 1)}
        row |= {name: float(f"{value:.6g}") for name, value in values.items() if not math.isnan(value)}
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[s] for s in sorted(self.rows))
        write_text(self.file, text.getvalue())


def mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
    """Return a micro batch's part of the loss, as the Trainer adds it up: nats per token of the whole batch."""
    return summed_loss(outputs.logits, labels) / num_items_in_batch


@torch.no_grad()
def validation_loss(model: Any, rows: Any) -> float:
    """Return the mean loss on the completions' tokens, in nats a token; NaN without rows."""
    if not len(rows):
        return math.nan
    training = model.training
    model.eval()
    for layer in model.modules():
        # In evaluation mode bitsandbytes packs 4-bit weights for a CPU's bfloat16 instructions, for good,
        # and no gradient goes back through packed ones.
        if isinstance(layer, Linear4bit):
            layer.train()
    total, tokens = 0.0, 0
    for begin in range(0, len(rows), _VALIDATION_BATCH):
        batch = collate([rows[n] for n in range(begin, min(begin + _VALIDATION_BATCH, len(rows)))])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        labels = batch.pop("labels")
        total += float(summed_loss(model(**batch).logits, labels))
        tokens += int((labels != IGNORED).sum())
    model.train(training)
    return total / tokens


def draw_loss(rows: dict[int, dict[str, Any]], file: Path) -> None:
    """Draw training and validation loss against the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    for column, style, label in (
        ("loss", "-", "training (mean since the last point)"),
        ("validation_loss", "o-", "validation, at each checkpoint"),
    ):
        points = np.array([(s, float(r[column])) for s, r in sorted(rows.items()) if r[column] != ""])
        if len(points):
            # A save logs too: a mean over the few steps since the last point would be mostly noise.
            steps = np.diff(points[:, 0], prepend=0)
            points = points[steps >= steps.max() / 2] if column == "loss" else points
            axes.plot(points[:, 0], points[:, 1], style, label=label)
    axes.set(xlabel="step", ylabel="nats per token of the completion", title="Loss while fine-tuning")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(file, buffer.getvalue())
