"""What a metric is, and what it is computed from.

In: nothing. Out: ``Metric``, whose ``name`` is a column of scores and of every table, and ``Texts``, texts
beside their examples. Knows nothing of any task: a task lists its metrics, and says how texts are normalised
before they are compared.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

from tangeval.core.types import Example

#: ``text``: a number for each output. ``samples``: one for all outputs of an example and setting. ``corpus``: of
#: all examples together, from counts that are summed. ``reference``: of a checkpoint, whatever it writes.
Level = Literal["text", "samples", "corpus", "reference"]
_Made = TypeVar("_Made")


@dataclass(frozen=True, eq=False)
class Texts:
    """n texts, each beside its example; a ``finish_reason`` is None where a text was not generated here."""

    written: Sequence[str]
    examples: Sequence[Example]
    finish_reasons: Sequence[str | None]
    normalise: Callable[[str], str]
    training: Any = None  #: ``copying.Index`` of the texts that may have been copied
    _made: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.written)

    @cached_property
    def compared(self) -> list[str]:
        """The texts as they are compared."""
        return [self.normalise(text) for text in self.written]

    @cached_property
    def references(self) -> list[str]:
        """The references as they are compared."""
        return self.of_examples(lambda example: self.normalise(example.reference))

    def of_examples(self, make: Callable[[Example], _Made]) -> list[_Made]:
        """Return ``make`` of each text's example, made once an example."""
        made = {
            number: make(example)
            for number, example in dict(zip(map(id, self.examples), self.examples, strict=True)).items()
        }
        return [made[id(example)] for example in self.examples]

    def once(self, make: Callable[["Texts"], _Made]) -> _Made:
        """Return ``make(self)``, made once: several metrics in a row ask for the same."""
        if make not in self._made:
            self._made[make] = make(self)
        made: _Made = self._made[make]
        return made


def _undefined(*_: Any) -> Any:
    raise NotImplementedError("a metric of this level is computed otherwise")


@dataclass(frozen=True)
class Metric:
    """One number that a checkpoint and setting are measured by.

    ``label`` is by language (``en``, ``zh``); ``share`` says that it lies between 0 and 1 and gets a
    rate's interval; ``ranks`` that ``better`` holds all the way, so that claims may be made (of a length ÷ the reference's
    1 is best, and none is); ``headline`` that readers see it without asking: in tables, pictures and on the page.
    ``flaw`` is what is said of a text where a check (a share of 0 or 1) fails, by language.

    ``compute`` takes n ``Texts`` and returns n values (level ``text``); or n sequences of the normalised texts of all
    samples (``samples``); or n ``Texts`` and returns ``[n, len(counts)]`` counts (``corpus``), which ``score`` turns
    into the corpus's value: a function of arrays ``[..., len(counts)]`` of summed counts, giving ``[...]``, ``most``
    at most.

    Where few examples carry a value, it has no interval. Of a corpus ``rarest`` is the count of the rarest events that
    it is made of; a mean of values from 0 to ``most`` is carried by those from ``rare_from`` on, where that is set.
    No interval reaches beyond 0 and a finite ``most``.
    """

    name: str
    label: Mapping[str, str]
    better: Literal["high", "low"]
    level: Level = "text"
    share: bool = False
    ranks: bool = True
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


def check_of(metrics: Metrics) -> str | None:
    """Return the check that says of a text alone, without its reference, whether it is as asked; None: there is none.

    ``form``, which sums checks up, else the first that names a flaw.
    """
    return "form" if "form" in metrics else next((m.name for m in metrics.values() if m.flaw), None)
