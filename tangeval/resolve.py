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
from tangeval.models import checkpoints as checkpoints_on_disk
from tangeval.models.checkpoints import Skipped
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
        left = tuple(c for c in self.checkpoints if (c.path or Path(self.base.source)) not in lost)
        if not left:
            raise TangevalError("checkpoints: none can be used: " + "; ".join(s.reason for s in failed))
        return replace(self, checkpoints=left, skipped=(*self.skipped, *failed))

    @cached_property
    def base_fingerprint(self) -> str:
        """What tells the base model from others; empty where a server holds it."""
        return "" if self.served else checkpoints_on_disk.identity(self.base)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each checkpoint's digest, by name; the base model's own is empty."""
        return {c.name: checkpoints_on_disk.fingerprint(c.path) if c.path else "" for c in self.checkpoints}

    def seen(self, checkpoint: Checkpoint) -> dict[str, int] | None:
        """How many poems of each split a checkpoint was fine-tuned on; None if it keeps no record."""
        record = checkpoints_on_disk.trained_on(checkpoint)
        if record is None:
            return None
        return {
            split: sum(
                record.saw(self.task.identity(e), part_digests(self.task, e)) for e in self.examples(split)
            )
            for split in self.study.ordered_splits()
        }


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
        if value not in (KNOB["constrain"].off, *task.constraints) and not value.startswith(REGEX):
            known = ", ".join(("none", *task.constraints, "{regex: …}"))
            raise TangevalError(f"decoding.constrain: {task.name} has no {value}; there are {known}")
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
        found, skipped = checkpoints_on_disk.discover(study.checkpoints, allow_pickle=allow_pickle)
    if study.include_base:
        found = (Checkpoint(BASE, None, None, "base"), *found)
    if not found:
        raise TangevalError(
            f"checkpoints: no whole checkpoint in {', '.join(study.checkpoints)}: "
            + "; ".join(f"{s.path.name}: {s.reason}" for s in skipped)
        )
    for checkpoint in found:
        checkpoints_on_disk.check_tokenizer(base, checkpoint)
    return ResolvedStudy(study, base, found, skipped, data, allow_pickle)
