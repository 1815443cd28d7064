"""A study's names → the base model, checkpoints and data that they stand for.

In: a validated study. Out: ``ResolvedStudy``, plain data. Reads folders and fingerprints; loads no
weights, and knows nothing of torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from tangeval import tasks
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, REGEX
from tangeval.core.study import Study
from tangeval.core.types import BASE, Base, Checkpoint, Example
from tangeval.models import adapter_base, averages
from tangeval.models import checkpoints as checkpoints_on_disk
from tangeval.models.checkpoints import Skipped, TrainRecord
from tangeval.tasks.base import Dataset, Task, part_digests


@dataclass(frozen=True)
class ResolvedStudy:
    """A study whose names are resolved."""

    study: Study
    base: Base
    checkpoints: tuple[Checkpoint, ...]
    skipped: tuple[Skipped, ...]
    dataset: Dataset
    allow_pickle: bool = False

    @property
    def task(self) -> Task:
        return tasks.load(self.study.task)

    @property
    def template(self) -> str:
        """The name of the prompt's template: the study's, else the task's first."""
        return self.study.prompt or self.task.templates[0]

    def examples(self, split: str) -> tuple[Example, ...]:
        return tuple(e for e in self.dataset.examples if e.split == split)

    @property
    def served(self) -> bool:
        """Whether another process holds the weights."""
        return bool(self.study.engine and self.study.engine.models)

    def without(self, failed: Sequence[Skipped]) -> "ResolvedStudy":
        """The same without checkpoints that could not be used, which are then among those skipped.

        Raises:
            TangevalError: none is left.
        """
        lost = {skipped.path for skipped in failed}
        left = tuple(c for c in self.checkpoints if self.place(c) not in lost)
        if not left:
            raise TangevalError("checkpoints: none can be used: " + "; ".join(s.reason for s in failed))
        return replace(self, checkpoints=left, skipped=(*self.skipped, *failed))

    def place(self, checkpoint: Checkpoint) -> Path:
        """What a checkpoint is known by among those that were skipped: its folder; of an average its name."""
        return checkpoint.path or Path(checkpoint.name if checkpoint.members else self.base.source)

    @cached_property
    def first_records(self) -> TrainRecord:
        """What a training on the first ``trained_records`` of the training file saw.

        Raises:
            TangevalError: the file has fewer.
        """
        count = self.study.trained_records or 0
        numbered = {e: int(e.id[6:]) for e in self.dataset.examples if e.id.startswith("train-")}
        saw = [e for e, number in numbered.items() if number <= count]
        if max(numbered.values(), default=0) < count:
            has = f"the training file has {len(numbered)} records"
            raise TangevalError(f"trained_records: {count} were said to be trained on, and {has}")
        digests = (part for e in saw for part in part_digests(self.task, e))
        return TrainRecord(frozenset(map(self.task.identity, saw)), frozenset(digests))

    @cached_property
    def base_fingerprint(self) -> str:
        """What tells the base model from others; empty where a server holds it."""
        return "" if self.served else self.base.digest or checkpoints_on_disk.identity(self.base)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each checkpoint's digest, by name; the base model's own is empty."""
        return {c.name: c.digest or averages.fingerprint_of(c) for c in self.checkpoints}

    def misfits(self) -> dict[Skipped, Checkpoint]:
        """The adapters whose tensors cannot stand on the base model, each with whose it is and what to set."""
        if self.served:
            return {}
        shapes, ours = adapter_base.base_shapes(self.base), self.base.name
        if "base_model" not in self.study.model_fields_set:
            ours += ", as it names none"
        found = {}
        for checkpoint in self.checkpoints:
            if reason := adapter_base.misfit(checkpoint, shapes):
                named = adapter_base.trained_from(checkpoint)
                whose, add = named or "another base model", named or "THE-MODEL-IT-WAS-TRAINED-ON"
                said = (
                    f"trained on {whose}; this study's base_model is {ours} ({reason}): add base_model={add}"
                )
                found[Skipped(self.place(checkpoint), said)] = checkpoint
        return found

    def of_other_names(self) -> dict[str, str]:
        """The adapters that name another hub model than the base model, and which it is."""
        named = {c.name: adapter_base.trained_from(c) for c in self.checkpoints}
        ours = f"{self.base.source}/{self.base.name}".replace("--", "/").casefold()
        return {
            name: whose
            for name, whose in named.items()
            if whose and whose.count("/") == 1 and not Path(whose).exists()
            and whose.rpartition("/")[2].casefold() not in ours.split("/")
        }  # fmt: skip

    def seen(self, checkpoint: Checkpoint) -> dict[str, int] | None:
        """How many poems of each split a checkpoint was fine-tuned on; None if that is not known.

        One without a record saw the first ``trained_records`` of the training file, where the study says so.
        """
        record = averages.record_of(checkpoint)
        if record is None and self.study.trained_records is not None:
            record = self.first_records
        if record is None:
            return None
        return {
            split: sum(
                record.saw(self.task.identity(e), part_digests(self.task, e)) for e in self.examples(split)
            )
            for split in self.study.ordered_splits()
        }


def check_constrain(task: Task, value: str) -> None:
    """Raise ``TangevalError`` where the task has no such value of the knob ``constrain``."""
    if value not in (KNOB["constrain"].off, *task.constraints) and not value.startswith(REGEX):
        known = ", ".join(("none", *task.constraints, "{regex: …}"))
        raise TangevalError(f"decoding.constrain: {task.name} has no {value}; there are {known}")


def resolve(study: Study, *, allow_pickle: bool = False) -> ResolvedStudy:
    """Resolve the study's names: base model, checkpoints, data.

    Raises:
        TangevalError: one of them does not exist or cannot be used.
    """
    task = tasks.load(study.task)
    if study.prompt not in (None, *task.templates):
        raise TangevalError(
            f"prompt: {study.prompt} is no template of {task.name}; there are {', '.join(task.templates)}"
        )
    for value in dict.fromkeys(study.decoding.constrain):
        check_constrain(task, value)
    data = task.load(study.data_name, study.validation_size)
    if study.engine and study.engine.models:
        if allow_pickle:
            raise TangevalError(
                "--allow-pickle: with a server (engine) no weights are read here; leave it out"
            )
        base = Base("served", "served")
        return ResolvedStudy(study, base, checkpoints_on_disk.served(study.engine.models), (), data)
    base = checkpoints_on_disk.resolve_base(study.base_model, study.cache_dir, allow_pickle=allow_pickle)
    if isinstance(study.checkpoints, dict):
        found, skipped = checkpoints_on_disk.discover_runs(study.checkpoints, allow_pickle=allow_pickle)
    else:
        places = [place for place in study.checkpoints if isinstance(place, str)]
        found, skipped = checkpoints_on_disk.discover(places, allow_pickle=allow_pickle)
        declared = [place for place in study.checkpoints if not isinstance(place, str)]
        found += averages.averaged(found, declared, allow_pickle=allow_pickle)
    if study.include_base:
        found = (Checkpoint(BASE, None, None, "base"), *found)
    if not found:
        raise TangevalError(
            f"checkpoints: no whole checkpoint in {', '.join(map(str, study.checkpoints))}: "
            + "; ".join(f"{s.path.name}: {s.reason}" for s in skipped)
        )
    for part in (part for checkpoint in found for part in averages.parts(checkpoint)):
        checkpoints_on_disk.check_tokenizer(base, part)
    return ResolvedStudy(study, base, found, skipped, data, allow_pickle)
