"""What a fine-tuning would be, before it is: records, tokens, steps, learning rates, memory and time.

In: a ``Config`` and the ``Run`` that it makes. Out: lines for a reader. The tokenizer reads every text; the model is built
without weights. Nothing is written, and no time or peak is told that was not measured.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from transformers import AutoModelForCausalLM, TrainingArguments, get_scheduler

from tangeval.models.loading import dtype_of, load_config, load_tokenizer
from tangeval.results.records import read_record

from .config import Config
from .data import layout_of, tokenize
from .log import place
from .packing import IGNORED
from .run import RECORD, Run
from .train import arguments, check_rows, while_training, with_lora

#: What decides nothing of a step's time and memory.
_OF_NO_WEIGHT = {
    "epochs", "learning_rate", "warmup_steps", "logging_steps", "save_steps", "save_total_limit", "seed", "records",
    "validation", "include_validation", "resume_adapter", "start_fingerprint",
}  # fmt: skip
#: Bytes of a parameter that is trained: its value, its gradient and Adam's two means, in float32.
_TRAINED = 16
#: Bytes of a number of a linear layer by quantisation; nf4's with its double quantisation (Dettmers et al. 2023, section 3).
_STORED = {"nf4": (4 + 0.127) / 8, "int8": 1.0}


def plan(config: Config, run: Run, *, overwrite: bool = False) -> Iterator[str]:
    """Yield what the run would be, a line each; with ``overwrite`` it begins anew.

    Raises:
        TangevalError: what the run itself would be refused for before its first step.
    """
    settings, tokenizer = arguments(config), load_tokenizer(run.base)
    layout = layout_of(config, tokenizer)
    rows, left_out = tokenize(tokenizer, run.examples, run.settings["prompt"], layout, run.task.prompt)
    check_rows(rows, left_out, config.cutoff)
    lengths = [len(ids) for ids in rows["input_ids"]]
    learnt = sum(label != IGNORED for labels in rows["labels"] for label in labels)
    yield (
        f"records: {len(rows):,}; {left_out:,} longer than cutoff {config.cutoff} are left out; {len(run.validation):,} for "
        "the validation loss"
    )
    yield (
        f"tokens: {sum(lengths):,} an epoch, {learnt:,} of them under the loss; the longest text has {max(lengths):,}, the "
        f"mean {sum(lengths) / len(lengths):,.0f}; padding: {layout.padding}"
    )
    steps = steps_of(len(rows), settings)
    saves = [*range(config.save_steps, steps, config.save_steps), steps]
    yield (
        f"steps: {steps:,} of {config.batch} texts, {config.per_device_batch_size} at a time; checkpoints at "
        f"{', '.join(map(str, saves))}"
    )
    logged = sorted({*range(config.logging_steps, steps + 1, config.logging_steps), *saves})
    rates = rates_of(steps, settings)
    yield "learning rates: " + ", ".join(f"{rates[step - 1]:.3g} at {step}" for step in logged)
    if steps <= config.warmup_steps:
        yield (
            f"warm-up: warmup_steps {config.warmup_steps} end after the last step, so that learning_rate {config.learning_rate:g} is "
            "never reached; give fewer"
        )
    if config.evaluate:
        study = while_training(config, run, tokenizer).evaluations.study
        yield f"evaluation: {study.file}, {len(study.decoding.settings())} settings, beside the steps' time"
    yield f"memory: {_memory(config, run)}"
    yield from _measured(run, steps)
    newest = run.newest()
    there = "is complete: the command would do nothing" if run.complete() else ""
    there = there or (f"goes on from step {newest.step}" if newest else "has no checkpoint yet")
    if overwrite and newest:
        there = f"has checkpoints up to step {newest.step}, which are moved to quarantine/"
    yield f"folder: {run.folder} {there}"


def steps_of(records: int, settings: TrainingArguments) -> int:
    """Return the Trainer's steps: whole micro batches, the last of an epoch part of a step."""
    micro = math.ceil(records / (settings.per_device_train_batch_size * settings.world_size))
    return math.ceil(settings.num_train_epochs * math.ceil(micro / settings.gradient_accumulation_steps))


def rates_of(steps: int, settings: TrainingArguments) -> list[float]:
    """Return the learning rate that each step uses, by the Trainer's own scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=settings.learning_rate)
    warmup = settings.get_warmup_steps(steps)
    scheduler: Any = get_scheduler(settings.lr_scheduler_type, optimizer, warmup, steps)
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


def _memory(config: Config, run: Run) -> str:
    """What is known of the memory before a step was measured: weights, and what training keeps of those it changes."""
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(load_config(run.base))
        model = get_peft_model(base, _own(run.start)) if run.start else with_lora(base, config)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in model.parameters()) - trained
    stored = _STORED.get(config.load.quantization)
    linear = [m for name, m in model.named_modules() if _is_linear(name, m)] if stored else []
    few = sum(m.weight.numel() for m in linear)
    weights = (whole - few) * dtype_of(config.load_settings()).itemsize + few * (stored or 0)
    adapter = trained * _TRAINED
    return (
        f"at least {_size(weights + adapter)}: {whole:,} weights {_size(weights)}; {trained:,} of the adapter, with gradients "
        f"and Adam's means, {_size(adapter)}; activations and logits come on top"
    )


def _own(adapter: Path) -> PeftConfig:
    """What an adapter that is trained on is made of."""
    config = PeftConfig.from_pretrained(str(adapter))
    config.inference_mode = False
    return config


def _size(octets: float) -> str:
    return f"{octets / 2**20:,.1f} MiB" if octets < 2**30 else f"{octets / 2**30:,.1f} GiB"


def _is_linear(name: str, module: Any) -> bool:
    """Whether bitsandbytes would quantise a layer: those of the base but the output's."""
    return isinstance(module, torch.nn.Linear) and "lora_" not in name and "lm_head" not in name


def _measured(run: Run, steps: int) -> Iterator[str]:
    """What a run beside this one, of the same texts, model and step on the same machine, took."""
    own = _of_weight(run.settings)
    for file in sorted(run.folder.parent.glob("*/timings.json")):
        told, record = read_record(file) or {}, read_record(file.with_name(RECORD)) or {}
        if {key: told.get(key) for key in place()} != place() or _of_weight(
            record.get("settings", {})
        ) != own:
            continue
        each, peak = told["seconds_a_step"], told.get("peak_gib")
        at = f" and a peak of {peak} GiB" if peak else ""
        yield (
            f"time: about {steps * each / 60:.1f} min for the steps, at the {each:g} s a step{at} measured in {file.parent}; "
            "loading, validation and saves come on top"
        )
        return
    yield "time: not known, as no such run was measured beside this one; it is shown as soon as the first steps are made"


def _of_weight(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in _OF_NO_WEIGHT}


def each_seed(config: Config) -> Config:
    """Return the run of a configuration's first seed; the configuration itself where it has one."""
    if not config.seeds:
        return config
    first = config.seeds[0]
    changes = {"seed": first, "seeds": None, "output_dir": str(config.folder_of(first))}
    return config.model_copy(update=changes)
