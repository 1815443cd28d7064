"""What a metric is, and what it is computed from.

In: nothing. Out: ``Metric``, whose ``name`` is a column of scores and of every table, and
``Output``, one text beside its example. Knows nothing of any task: a task lists its metrics, and says how
texts are normalised before they are compared.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tangeval.core.types import Example

#: ``text``: a number for each output. ``samples``: one for all outputs of an example and setting. ``corpus``: of
#: all examples together, from counts that are summed. ``reference``: of a checkpoint, whatever it writes.
Level = Literal["text", "samples", "corpus", "reference"]


@dataclass(frozen=True)
class Output:
    """One text beside its example; ``finish_reason`` is None where it was not generated here."""

    text: str
    example: Example
    finish_reason: str | None
    normalise: Callable[[str], str]
    training: Any = None  #: ``copying.Index`` of the texts that may have been copied

    @cached_property
    def compared(self) -> str:
        """The text as it is compared."""
        return self.normalise(self.text)

    @cached_property
    def reference(self) -> str:
        """The reference as it is compared."""
        return self.normalise(self.example.reference)


def _undefined(*_: Any) -> Any:
    raise NotImplementedError("a metric of this level is computed otherwise")


@dataclass(frozen=True)
class Metric:
    """One number that a checkpoint and setting are measured by.

    ``label`` is by language (``en``, ``zh``); ``share`` says that it lies between 0 and 1 and gets a
    rate's interval; ``headline`` that readers see it without asking: in tables, pictures and on the page.
    ``flaw`` is what is said of a text where a check (a share of 0 or 1) fails, by language.

    ``compute`` takes an ``Output`` (level ``text``), the normalised texts of all samples (``samples``), or an
    ``Output`` and returns counts named ``counts`` (``corpus``), which ``score`` turns into the corpus's
    value: a function of arrays ``[..., len(counts)]`` of summed counts, giving ``[...]``, ``most`` at most.

    Where few examples carry a value, it has no interval. Of a corpus ``rarest`` is the count of the rarest events that
    it is made of; a mean of values from 0 to ``most`` is carried by those from ``rare_from`` on, where that is set.
    """

    name: str
    label: Mapping[str, str]
    better: Literal["high", "low"]
    level: Level = "text"
    share: bool = False
    headline: bool = False
    flaw: Mapping[str, str] | None = None
    compute: Callable[..., Any] = _undefined
    counts: tuple[str, ...] = ()
    rarest: str = ""
    rare_from: float = 0
    most: float = math.inf
    score: Callable[..., Any] = _undefined

    @property
    def per_setting(self) -> bool:
        """Whether it depends on how is decoded."""
        return self.level != "reference"


#: A task's metrics by name, in the order of its tables.
Metrics = Mapping[str, Metric]
