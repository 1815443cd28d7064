"""What a task is: what is asked, what the answer is compared with, and what is measured.

Nothing outside ``tasks/`` knows what a couplet, a clause, Han or HW5 is. A task is an object with the
attributes of ``Task``; ``tasks/tang/`` is one, and the default.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import attrgetter
from pathlib import Path

from tangeval.core.digest import digest
from tangeval.core.types import Constraint, Example, Split
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
        return "; ".join((f"{self.name}: {self.matched}", *self.notes))


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


def _as_it_is(text: str, given: str) -> tuple[str, tuple[str, ...]]:
    return text, ()


def cut_note(cuts: Sequence[Sequence[str]]) -> str:
    """Return what was cut, and from how many of the texts, in words; "" where nothing was."""
    found = Counter(what for cut in cuts for what in cut)
    return f"{', '.join(found)} cut from {sum(map(bool, cuts))} of {len(cuts)} texts" if found else ""


def _same(text: str) -> str:
    return text


def _lines(examples: Sequence[Example], texts: Sequence[str]) -> str:
    return "".join(f"{' '.join(text.split())}\n" for text in texts)


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked and what is measured; what has a default may be left out."""

    name: str
    #: Names of prompt templates, the default first; ``chat`` is the tokenizer's own.
    templates: tuple[str, ...]
    metrics: Metrics
    #: Reads a data set by its name or folder; the number is the size of the validation split (None: its own).
    load: Callable[[str, int | None], Dataset]
    #: What a model is asked, as one of ``templates`` has it: text without BOS; for ``chat``, messages.
    prompt: Callable[[Example, str], Prompt]
    #: Texts of random training answers of an example's shape, never from a copy of its own text, given the
    #: data, the example, a seed, and how many. TangevalError: there is none.
    baseline: Callable[[Dataset, Example, int, int], list[str]]
    #: What the baseline is drawn from where training has no text of the example's shape, in words; "" where it has.
    nearest: Callable[[Dataset, Example], str] = field(default=lambda data, example: "", kw_only=True)
    #: The normalised parts (lines, sentences) of input and reference, in order; copies of a text share them.
    parts: Callable[[Example], tuple[str, ...]]
    #: The answer as a model should write it: what is trained on, and whose likelihood is measured.
    target: Callable[[Example], str] = attrgetter("reference")
    #: What of a text is compared, variants of a character made one.
    normalise: Callable[[str], str] = _same
    #: The characters of a text that likelihood is counted in.
    characters: Callable[[str], str] = _same
    #: What examples of one shape have in common: the likelihood's curve has a panel for each.
    group: Callable[[Example], int | str] = attrgetter("instruction")
    #: How metrics are computed, by name: versions, and what is done to a text before.
    signatures: Callable[[Dataset], Mapping[str, str]] = lambda data: {}
    #: Inputs of so many other training examples, alike in form, that an answer is held against; None: no coherence.
    others: Callable[[Dataset, Example, int], Sequence[str]] | None = None
    #: A text set for a reader, in lines.
    show: Callable[[str], str] = _same
    #: The texts of examples in the task's own format of a file.
    outputs_file: Callable[[Sequence[Example], Sequence[str]], str] = _lines
    #: Reads a file made elsewhere; arguments are the file, its name for readers, the examples it answers, and the
    #: data's other examples: a file that answers those is refused. TangevalError: it cannot be read as such.
    read_outputs: Callable[[Path, str, Sequence[Example], Sequence[Example]], Outputs] | None = None
    #: A text without what is known to be none of the answer, and what was cut, given the example's input too.
    unwrap: Callable[[str, str], tuple[str, tuple[str, ...]]] = _as_it_is
    #: What the knob ``constrain`` may hold texts to, by its value: given what each token writes (by id), what makes the
    #: constraint of an example. TangevalError: no text of this example can be so.
    constraints: Mapping[str, Callable[[Sequence[str]], Callable[[Example], Constraint]]] = field(
        default_factory=dict
    )
    #: How these characters are read, where the task is verse: the page marks rhymes and tones.
    verse: Callable[[Iterable[str]], Verse] | None = None
    #: What ``prompt`` puts an example's fields into, where the fields alone do not tell.
    wording: str = ""
    #: Of all that the task says, where it is declared: part of a run's signature.
    digest: str = ""
    #: What a judge is told and asked (``system``, ``user``), by the kind of its prompt.
    judge: Mapping[str, Mapping[str, str]] | None = None

    def identity(self, example: Example) -> str:
        """Return a digest of the whole text: what a fine-tuning records in ``train_ids.json``."""
        text = self.normalise(example.input + example.reference)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def training_index(task: Task, dataset: Dataset) -> copying.Index:
    """Return the index of the training texts, for metrics of copying."""
    return copying.index(
        (e.id, task.normalise(e.input + e.reference), task.parts(e)) for e in dataset.split("train")
    )


@lru_cache(maxsize=4)  # asked when random texts are drawn, and for the signature
def nearest_forms(task: Task, dataset: Dataset, split: Split) -> str:
    """Return which examples of a split have no training text of their form, and what random draws are of; "" if none."""
    examples = dataset.split(split)
    found = [f"{e.id}: {said}" for e in examples if (said := task.nearest(dataset, e))]
    more = f", and {len(found) - 3} more" if len(found) > 3 else ""
    what = f"{len(found)} of {len(examples)} {split} examples have no training text of their form; random draws for"
    return f"{what} {'; '.join(found[:3])}{more}" if found else ""


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
