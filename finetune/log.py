"""What a training run shows and keeps of itself: ``training_log.csv``, ``loss.png``, ``timings.json``.

In: the Trainer's events. Out: files in the run's folder and lines on a console. Knows nothing of how
the model is made or its training set up.
"""

import csv
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from bitsandbytes.nn import Linear4bit
from rich.console import Console
from transformers import TrainerCallback

from tangeval.cli.progress import make_bar
from tangeval.core.errors import DamagedError, TangevalError
from tangeval.results.checksums import seal
from tangeval.results.files import DELETE, write_bytes, write_text
from tangeval.results.machine import hardware

from .config import Config
from .data import Layout, collate, padding_of, summed_loss
from .packing import IGNORED, REMEDY, keep_apart

COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_loss", "seconds")
_VALIDATION_BATCH = 32


class Log(TrainerCallback):
    """Writes ``training_log.csv``, measures the validation loss at each save, shows progress.

    Of several processes the first does so, and the others wait for it at the next step. Where they
    share the model out (FSDP) each computes the loss, for each holds a part of the weights.
    """

    def __init__(self, config: Config, held_out: Any, folder: Path, console: Console) -> None:
        self.held_out, self.file, self.console = held_out, folder / "training_log.csv", console
        self.together, self.rate_asked = config.fsdp, config.learning_rate
        self.layout = Layout(padding="packed" if padding_of(config) == "packed" else "longest")
        self.rows: dict[int, dict[str, Any]] = {}
        self.rate, self.step_began, self.began = 0.0, 0.0, time.monotonic()
        self.bar = make_bar(console)
        self.task = self.bar.add_task("fine-tuning", total=None, more="")
        self.steps: list[float] = []

    def resume(self, step: int) -> None:
        """Keep the rows of an earlier run up to ``step``, from where this one goes on."""
        if self.file.is_file():
            earlier = csv.DictReader(io.StringIO(self.file.read_text("utf-8", "replace")))
            try:
                names = dict.fromkeys((*COLUMNS, *(earlier.fieldnames or ())))
                rows = {int(row["step"]): {name: row[name] or "" for name in names} for row in earlier}
            except (ValueError, LookupError, TypeError, csv.Error) as error:
                raise DamagedError(f"{self.file}: not a training's log ({error}); {DELETE}") from None
            self.rows = {at: row for at, row in rows.items() if at <= step}

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.bar.update(self.task, total=state.max_steps, completed=state.global_step)
        if not state.global_step:
            if self.layout.padding == "packed" and (state.is_world_process_zero or self.together):
                check_packing(model, kwargs["train_dataloader"].dataset)
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
            loss = validation_loss(model, self.held_out, self.layout)
            if len(self.held_out):
                self.check("validation loss", loss, state.global_step)
            if state.is_world_process_zero:
                self.record(state.global_step, **values, validation_loss=loss)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if "loss" in logs and state.is_world_process_zero:
            self.bar.update(self.task, more=f"loss {logs['loss']:.3f}")
            self.record(state.global_step, epoch=state.epoch, loss=logs["loss"], learning_rate=self.rate)

        found = {
            name.removeprefix("eval_"): value for name, value in logs.items() if name.startswith("eval_")
        }
        if found and state.is_world_process_zero:  # of StudyCallback
            self.record(state.global_step, epoch=state.epoch, **found)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()  # each process writes a part of the checkpoint
        if not state.is_world_process_zero:
            return
        seal(self.file.with_name(f"checkpoint-{state.global_step}"))
        loss = self.rows[state.global_step]["validation_loss"]
        said = "no validation poems" if loss == "" else f"validation loss {loss:.3f} nats a token"
        self.console.print(f"checkpoint-{state.global_step}: {said}", highlight=False)

    def check(self, what: str, value: float, step: int) -> None:
        """Stop a run whose ``value`` is NaN or infinite: from there on it learns nothing more."""
        if not math.isfinite(value):
            raise TangevalError(
                f"step {step}: the {what} is {value}, so the run stops here; earlier checkpoints are kept in {self.file.parent}. "
                f"Begin anew with a learning_rate below {self.rate_asked:g} or more warmup_steps, and another output_dir or --overwrite"
            )

    def timings(self) -> dict[str, Any]:
        """Where the training ran, the seconds of its steps without saving and validation, and the GPU's memory.

        Times differ from run to run, so they are kept apart from the log's losses.
        """
        on_gpu = torch.cuda.is_available()
        losses = [loss for _, row in sorted(self.rows.items()) if (loss := row["validation_loss"]) != ""]
        return place() | {
            "steps": len(self.steps),
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
        names = dict.fromkeys((*COLUMNS, *(name for own in self.rows.values() for name in own)))
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows[s] for s in sorted(self.rows))
        write_text(self.file, text.getvalue())


def place() -> dict[str, Any]:
    """Return where this process trains: the GPU, or the CPU of which machine."""
    found = hardware(None)
    machine = f"{found['machine']}, {found['cores']} cores, {found['memory_gib']} GiB"
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "machine": machine,
    }


def check_packing(model: Any, rows: Any) -> None:
    """Raise a TangevalError where a few texts' loss is another packed than padded: the model does not keep them apart."""
    few = [rows[n] for n in range(min(4, len(rows)))]
    try:
        packed = validation_loss(model, few, Layout(padding="packed"))
    except (TangevalError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever its own code makes of a mask that it does not know
        raise TangevalError(f"padding: packed: the model cannot take it ({error}); {REMEDY}") from error
    padded = validation_loss(model, few, Layout(padding="longest"))
    if math.isfinite(padded) and not math.isclose(
        packed, padded, rel_tol=1e-4 if model.dtype == torch.float32 else 2e-2
    ):
        raise TangevalError(
            f"padding: packed: the first texts' loss is {packed:.4f} packed and {padded:.4f} padded; {REMEDY}"
        )


@torch.no_grad()
def validation_loss(model: Any, rows: Any, layout: Layout) -> float:
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
        batch = collate([rows[n] for n in range(begin, min(begin + _VALIDATION_BATCH, len(rows)))], layout)
        batch = keep_apart({name: tensor.to(model.device) for name, tensor in batch.items()}, model.config)
        labels = batch.pop("labels")
        total += float(summed_loss(model(**batch).logits, labels))
        tokens += int((labels != IGNORED).sum())
    model.train(training)
    return total / tokens


def draw_loss(rows: dict[int, dict[str, Any]], file: Path) -> None:
    """Draw training and validation loss against the step; below, form and rhyme with their intervals, where they were measured."""
    from matplotlib.figure import Figure

    shown = [name for name in ("form", "rhyme") if any(row.get(name, "") != "" for row in rows.values())]
    figure = Figure(figsize=(7, 6.5 if shown else 4), dpi=150, layout="constrained")
    axes, *below = figure.subplots(1 + bool(shown), squeeze=False, sharex=True)[:, 0]
    for column, style, label in (
        ("loss", "-", "training (mean since the last point)"),
        ("validation_loss", "o-", "validation, at each checkpoint"),
    ):
        found = points(rows, column)
        if len(found):
            # A save logs too: a mean over the few steps since the last point would be mostly noise.
            steps = np.diff(found[:, 0], prepend=0)
            found = found[steps >= steps.max() / 2] if column == "loss" else found
            axes.plot(found[:, 0], found[:, 1], style, label=label)
    axes.set(ylabel="nats per token of the completion", title="Loss while fine-tuning")
    for marker, name in zip("os", shown, strict=False):
        steps, values, *ends = points(rows, name, f"{name}_low", f"{name}_high").T
        below[0].plot(steps, values, f"{marker}-", label=name)
        below[0].fill_between(steps, *ends, alpha=0.2)
    if shown:
        below[0].set(ylim=(0, 1), ylabel="share of texts, 95 % interval")
    for each in (axes, *below):
        each.spines[["top", "right"]].set_visible(False)
        each.legend(frameon=False)
    (axes, *below)[-1].set(xlabel="step")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(file, buffer.getvalue())


def points(rows: dict[int, dict[str, Any]], *columns: str) -> Any:
    """Return the steps at which the first column was measured, and its and the others' numbers there: ``[N, 1 + columns]``."""
    there = {step: row for step, row in sorted(rows.items()) if row.get(columns[0], "") != ""}
    numbers = ([row.get(name, "") for name in columns] for row in there.values())
    table = [[math.nan if value == "" else float(value) for value in own] for own in numbers]
    return np.insert(np.array(table).reshape(len(there), len(columns)), 0, list(there), axis=1)
