"""What a task is: what is asked, what the answer is compared with, and what is measured.

Nothing outside ``tasks/`` knows what a couplet, a clause, Han or HW5 is. A task is an object with the
attributes of ``Task``; ``tasks/tang/`` is one, and the default.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

from tangeval.core.digest import digest
from tangeval.core.types import Example, Split
from tangeval.metrics import copying
from tangeval.metrics.base import Metrics
from tangeval.models.tokens import Prompt


@dataclass(frozen=True, eq=False)
class Dataset:
    """The examples of one source, in file order within each split; ``digest`` covers all that decides them."""

    name: str
    folder: Path
    examples: tuple[Example, ...]
    digest: str

    def split(self, name: Split) -> tuple[Example, ...]:
        return tuple(example for example in self.examples if example.split == name)

    @cached_property
    def by_id(self) -> dict[str, Example]:
        return {example.id: example for example in self.examples}


@dataclass(frozen=True)
class Outputs:
    """Texts made elsewhere, read from one file: one for each example, in the examples' order."""

    name: str
    texts: tuple[str, ...]
    matched: str  #: how they were matched with the examples, in words
    notes: tuple[str, ...]  #: what was cut or is odd, with its lines

    @property
    def summary(self) -> str:
        """One paragraph: name, how the outputs were matched, and the notes."""
        return "; ".join((f"{self.name}: {self.matched}", *self.notes))


class Task(Hashable, Protocol):
    """What is asked and what is measured."""

    name: str
    #: Names of prompt templates, the default first; ``chat`` is the tokenizer's own.
    templates: tuple[str, ...]
    metrics: Metrics

    # The data.

    def load(self, spec: str, validation: int | None) -> Dataset:
        """Read a data set by its name or folder; ``validation`` is the size of that split (None: its own)."""
        ...

    def parts(self, example: Example) -> tuple[str, ...]:
        """Return the normalised parts (lines, sentences) of input and reference; copies of a text share them."""
        ...

    def identity(self, example: Example) -> str:
        """Return a digest of the whole text: what a fine-tuning records in ``train_ids.json``."""
        ...

    # What a model is asked, and what it answers.

    def prompt(self, example: Example, template: str) -> Prompt:
        """Return what a model is asked, as one of ``templates`` has it: text without BOS; for ``chat``, messages."""
        ...

    def target(self, example: Example) -> str:
        """Return the answer as a model should write it: what is trained on, and whose likelihood is measured."""
        ...

    # What is measured.

    def normalise(self, text: str) -> str:
        """Return what of a text is compared, variants of a character made one."""
        ...

    def characters(self, text: str) -> str:
        """Return the characters of a text that likelihood is counted in."""
        ...

    def group(self, example: Example) -> int | str:
        """Return what examples of one shape have in common: the likelihood's curve has a panel for each."""
        ...

    def baseline(self, dataset: Dataset, example: Example, seed: int, draws: int) -> list[str]:
        """Return random training answers of the example's shape, never from a training text that is its own.

        Raises:
            TangevalError: there is none.
        """
        ...

    def signatures(self) -> Mapping[str, str]:
        """Return how metrics are computed, by name: versions, and what is done to a text before."""
        ...

    # What a reader sees, and files of outputs.

    def show(self, text: str) -> str:
        """Return a text set for a reader, in lines."""
        ...

    def read_outputs(
        self, files: Sequence[Path], examples: Sequence[Example], others: Sequence[Example]
    ) -> list[Outputs]:
        """Return the outputs that files made elsewhere hold for ``examples``.

        ``others`` are the data's other examples: a file that answers those is refused.

        Raises:
            TangevalError: a file cannot be read as outputs of ``examples``.
        """
        ...

    def outputs_file(self, examples: Sequence[Example], texts: Sequence[str]) -> str:
        """Return the chosen setting's outputs in the task's own format."""
        ...


@dataclass(frozen=True)
class RhymeGroup:
    """Characters that rhyme; ``level`` is their tone (平)."""

    level: bool
    characters: str


@dataclass(frozen=True)
class Verse:
    """How verse is read: the class of its characters in a regular expression, what each variant is compared as, rhymes."""

    characters: str
    variants: Mapping[str, str]
    rhymes: Sequence[RhymeGroup]


@runtime_checkable
class ReadsVerse(Protocol):
    """What a task of verse has besides, so that the page can mark its rhymes and tones."""

    def verse(self, characters: Iterable[str]) -> Verse:
        """Return how these characters are read."""
        ...


def training_index(task: Task, dataset: Dataset) -> copying.Index:
    """Return the index of the training texts, for metrics of copying."""
    return copying.index(
        (e.id, task.normalise(e.input + e.reference), task.parts(e)) for e in dataset.split("train")
    )


def duplicates(task: Task, dataset: Dataset) -> list[list[str]]:
    """Return the groups of ids whose whole texts are the same, part by part."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for example in dataset.examples:
        groups.setdefault(task.parts(example), []).append(example.id)
    return [group for group in groups.values() if len(group) > 1]


def leaks(task: Task, dataset: Dataset, split: Split) -> dict[str, list[str]]:
    """Return, for each example of ``split`` that shares parts with training, these parts."""
    seen = {part for example in dataset.split("train") for part in task.parts(example)}
    found = {e.id: sorted(seen.intersection(task.parts(e))) for e in dataset.split(split)}
    return {name: shared for name, shared in found.items() if shared}


def part_digests(task: Task, example: Example) -> list[str]:
    """Return digests of an example's parts: what a fine-tuning records beside ``Task.identity``."""
    return [digest(part) for part in task.parts(example)]
