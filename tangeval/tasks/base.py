"""What a task is: what is asked, what the answer is compared with, and what is measured.

Nothing outside ``tasks/`` knows what a couplet, a clause, Han or HW5 is. A task is an object with the
attributes of ``Task``; ``tasks/tang/`` is one, and the default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tangeval.core.types import Example, Split
from tangeval.metrics.base import Metrics


@dataclass(frozen=True)
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


class Task(Protocol):
    """What is asked and what is measured."""

    name: str
    #: Prompt templates, the default first; ``chat`` is the tokenizer's own.
    templates: tuple[str, ...]
    metrics: Metrics

    def load(self, spec: str, validation: int | None) -> Dataset:
        """Read a data set by its name or folder; ``validation`` is the size of that split (None: its own)."""
        ...

    def prompt(self, example: Example, template: str) -> str:
        """Return the prompt as text, without BOS."""
        ...

    def messages(self, example: Example) -> list[dict[str, str]]:
        """Return what a chat template is asked with."""
        ...

    def target(self, example: Example) -> str:
        """Return the answer as a model should write it: what is trained on, and whose likelihood is measured."""
        ...

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
        """Return random training answers of the example's shape.

        Raises:
            TangevalError: there is none.
        """
        ...

    def identity(self, example: Example) -> str:
        """Return a digest of the whole text: what a fine-tuning records in ``train_ids.json``."""
        ...

    def show(self, text: str) -> str:
        """Return a text set for a reader."""
        ...

    def outputs_file(self, examples: Sequence[Example], texts: Sequence[str]) -> str:
        """Return the chosen setting's outputs in the task's own format."""
        ...
