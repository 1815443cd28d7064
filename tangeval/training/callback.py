"""``StudyCallback``: a study of the model at steps of its training.

In: a study, and the Trainer's events. Out: the results of ``evaluation``, a row a step in ``study/training_log.csv``, the
Trainer's log, ``study/best.json``, and a word to stop. What fails in an evaluation is said once, and training goes on.
Knows nothing of how a model is trained.
"""

import math
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import Trainer, TrainerCallback

from tangeval.analysis.stopping import Decision, Evaluation, decide
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import present
from tangeval.core.study import SHIPPED
from tangeval.core.types import Base
from tangeval.decoding.shared_prefix import bare
from tangeval.engines.live import refuse_shared_out
from tangeval.models.loading import load_tokenizer
from tangeval.results.files import read_csv, write_csv, write_json
from tangeval.steps import AnyStudy
from tangeval.training.evaluation import FOLDER, Evaluations, Measured

#: What is run where no study is given.
DEFAULT = SHIPPED / "while_training.yaml"


@dataclass(frozen=True)
class Stopping:
    """Stop once the last ``patience`` evaluations are each worse than the best beyond luck: ``analysis.stopping``."""

    metric: str = "reference_nll"
    patience: int = 3
    alpha: float = 0.05


class StudyCallback(TrainerCallback):  # type: ignore[misc]
    """Evaluates ``study`` before the first step, if it includes the base model, and at each save.

    Or every ``steps`` or ``minutes``. Give it the ``trainer`` that it is added to, and its numbers go to all that the
    Trainer reports to: a callback is told everything but who calls it. ``tokenizer`` is the Trainer's own where none is
    given, else the model's.

    Raises:
        TangevalError: the study, or what is asked for here, cannot be; before training starts.
    """

    def __init__(
        self, study: AnyStudy = DEFAULT, *, steps: int | None = None, minutes: float | None = None,
        stop: Stopping | None = None, tokenizer: Any = None, trainer: Any = None,
    ) -> None:  # fmt: skip
        asked = [each for each in (steps, minutes) if each is not None]
        if asked[1:] or any(each <= 0 for each in asked):
            raise TangevalError(
                "steps and minutes: give one of them, above zero, or none to evaluate at each save"
            )
        self.steps, self.minutes, self.stop = steps, minutes, stop
        self.tokenizer, self.trainer = tokenizer, trainer
        self.evaluations = Evaluations(study)
        rule, metrics = self.evaluations.study.select, self.evaluations.task.metrics
        name = stop.metric if stop else rule.checkpoint if rule else next(iter(metrics))
        if name not in metrics or (stop and metrics[name].level == "corpus"):
            good = ", ".join(metric.name for metric in metrics.values() if metric.level != "corpus")
            raise TangevalError(f"stop.metric: {name} is no mean over examples; give one of {good}")
        self.metric = metrics[name]
        split = self.evaluations.study.ordered_splits()[0]
        if stop:  # what it cannot decide by is refused now
            first = Evaluation(0, {e.id: 0.0 for e in self.evaluations.dataset.split(split)})
            decide([first], patience=stop.patience, alpha=stop.alpha)
        self.history: list[Measured] = []
        self.rows: dict[int, dict[Any, Any]] = {}
        self.best, self.said, self.last = "", False, 0.0

    # The Trainer's events

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        refuse_shared_out(model, bool(args.fsdp))
        if vars(state).setdefault("_study_callback", self) is not self:
            raise TangevalError(
                f"two StudyCallbacks: both would write {args.output_dir}/{FOLDER}; put their settings into one study"
            )
        self.tokenizer = self.tokenizer or more.get("processing_class") or _own_tokenizer(model)
        self.history, self.rows, self.best, self.said, self.last = [], {}, "", False, time.monotonic()
        if state.is_world_process_zero:
            self.evaluations.check(model, self.tokenizer)
            with self._harmless(state):
                self._take_up(Path(args.output_dir), state.global_step)
                self._complete(state)
            self._keep(args, state)
        # A training may have been cut off after a save, before its evaluation was whole.
        at_saves = not (self.steps or self.minutes)
        if at_saves if state.global_step else self.evaluations.study.include_base:
            self._evaluate(args, state, control, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        due = bool(self.steps) and state.global_step % (self.steps or 1) == 0
        if self.minutes:
            due = agreed(time.monotonic() - self.last >= 60 * self.minutes)
        if due:
            self._evaluate(args, state, control, model)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if not (self.steps or self.minutes):
            self._evaluate(args, state, control, model)
        self._keep(args, state)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if state.is_world_process_zero and self.history:
            with self._harmless(state):
                self.evaluations.write_page(model, self.tokenizer)

    # What they do

    def _take_up(self, folder: Path, step: int) -> None:
        """Go on where an earlier process was: its evaluations up to ``step`` are those of this training."""
        self.history = self.evaluations.begin(folder, step)
        if step and present(self.log):
            rows = read_csv(self.log).to_dict("records")
            self.rows = {int(row["step"]): dict(row) for row in rows if row["step"] <= step}
        if self.history:
            self._decide(folder, step)

    def _complete(self, state: Any) -> None:
        """Add to the Trainer's log what it lacks of its step: a save writes that log before it is evaluated."""
        row = self.rows.get(state.global_step, {})
        known = {key for line in state.log_history if line.get("step") == row.get("step") for key in line}
        numbers = {f"eval_{name}": row[name] for name in row.keys() - {"step", "epoch", "seconds", "problem"}}
        if finite(numbers).keys() - known:
            state.log_history.append(finite(numbers) | {"step": row["step"], "epoch": row["epoch"]})
        if isinstance(row.get("problem"), str) and "study_problem" not in known:
            state.log_history.append({"step": row["step"], "study_problem": row["problem"]})

    def _keep(self, args: Any, state: Any) -> None:
        """Let the Trainer call the best checkpoint so, unless it has a metric of its own: it removes no such one."""
        saved = Path(args.output_dir) / self.best
        if self.best and args.metric_for_best_model is None and saved.is_dir():
            state.best_model_checkpoint = str(saved)

    @property
    def log(self) -> Path:
        return self.evaluations.run.path / "training_log.csv"

    def _evaluate(self, args: Any, state: Any, control: Any, model: Any) -> None:
        """Evaluate unless that was done at this step; of several processes the first does, and all do as it says."""
        stop = save = False
        step, began = state.global_step, time.monotonic()
        if state.is_world_process_zero and step not in self.rows:
            with self._harmless(state):
                self.history.append(self.evaluations.evaluate(model, self.tokenizer, step or None))
                self._record(state, control, round(time.monotonic() - began, 1))
                stop, save = self._decide(Path(args.output_dir), step)
                if not self._comparable(self.history[-1]):
                    name = self.metric.name
                    raise TangevalError(
                        f"{name} is no number for some example; no step is compared with this one"
                    )
        stop, save = agreed((stop, save))
        control.should_training_stop |= stop
        control.should_save |= save
        self.last = time.monotonic()

    def _record(self, state: Any, control: Any, seconds: float) -> None:
        """Write the newest evaluation's row, and give its numbers to the Trainer's log."""
        values = finite(self.history[-1].values)
        about = {"step": state.global_step, "epoch": round(state.epoch or 0, 4)}
        self.rows[state.global_step] = about | {"seconds": seconds} | values
        self._write_log()
        if self.trainer is None:
            self._complete(state)
            return
        logging = control.should_log
        # The Trainer's own: what subclasses gather until they log (TRL's do) stays for their own lines.
        Trainer.log(self.trainer, {f"eval_{name}": value for name, value in values.items()})
        control.should_log = logging

    def _write_log(self) -> None:
        write_csv(self.log, pd.DataFrame([self.rows[step] for step in sorted(self.rows)]))

    def _decide(self, folder: Path, step: int) -> tuple[bool, bool]:
        """Write ``best.json``; return whether to stop, and whether to save what may be gone back to."""
        name = self.metric.name
        by_step = {each.checkpoint.step or 0: each for each in self.history if self._comparable(each)}
        if not by_step:
            return False, False
        splits = self.evaluations.study.ordered_splits()
        key = f"{splits[0]}_{name}" if splits[1:] else name
        found = self._decision(by_step, key)
        best = by_step[found.best]
        self.best = best.checkpoint.name
        ends = {f"{key}{end}": best.values.get(f"{key}{end}", math.nan) for end in ("", "_low", "_high")}
        content = {"step": found.best, "checkpoint": self.best, "metric": name, "reason": found.reason}
        write_json(self.evaluations.run.path / "best.json", content | finite(ends))
        lacking = found.best == step > 0 and not (folder / self.best).is_dir()
        return found.stop, lacking and self.stop is not None

    def _comparable(self, measured: Measured) -> bool:
        return all(map(math.isfinite, measured.scores[self.metric.name].values()))

    def _decision(self, by_step: Mapping[int, Measured], key: str) -> Decision:
        """What ``stop`` says of the evaluations so far; without it, which has the best value by ``key``."""
        higher = self.metric.better == "high"
        if self.stop:
            history = [Evaluation(at, each.scores[self.metric.name]) for at, each in by_step.items()]
            return decide(history, patience=self.stop.patience, alpha=self.stop.alpha, higher=higher)
        # Not by the examples' scores: those of a metric of all texts together are parts, with another mean.
        best = max(by_step, key=lambda at: by_step[at].values[key] * (1 if higher else -1))
        return Decision(best, False, "the best value so far")

    @contextmanager
    def _harmless(self, state: Any) -> Iterator[None]:
        """Let training go on whatever an evaluation raises: it is said once, and stands in the row of the step."""
        try:
            yield
        except Exception as error:  # a full disk, memory, NaN: of each library its own
            reason = f"{type(error).__name__}: {error}".removeprefix("TangevalError: ")
            step, own = state.global_step, self.rows.get(state.global_step, {})
            if not self.said:
                warnings.warn(
                    f"the evaluation at step {step} is not whole, and training goes on: {reason}",
                    stacklevel=2,
                )
            self.said = True
            state.log_history.append({"step": step, "study_problem": reason})
            self.rows[step] = {"step": step} | own | {"problem": reason}
            with suppress(Exception):
                self._write_log()


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the values that are numbers: a metric may have no interval."""
    return {name: value for name, value in values.items() if math.isfinite(value)}


def agreed(value: Any) -> Any:
    """Return the first process's value, in each process that trains."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    told = [value]
    torch.distributed.broadcast_object_list(told, src=0)
    return told[0]


def _own_tokenizer(model: Any) -> Any:
    source = getattr(bare(model), "name_or_path", "")
    if not source:
        raise TangevalError(
            "tokenizer: neither the Trainer nor the model has one; give StudyCallback(tokenizer=…)"
        )
    return load_tokenizer(Base(source, source))
