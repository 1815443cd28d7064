"""The decoding knobs, in one list, and the settings that they span.

In: nothing. Out: ``KNOBS``, the only list of decoding parameters there is. The study's schema, the
columns of every table, the plan, requests to servers, the page and ``--help`` are made from it.
Knows nothing of how a knob is applied: ``decoding/warpers.py`` does.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: ``scale`` divides the logits; ``cut`` keeps the first candidates of the sorted row; ``constraint``
#: forbids tokens by the row's history; ``length`` ends the text.
Kind = Literal["scale", "cut", "constraint", "length"]


@dataclass(frozen=True, slots=True)
class Knob:
    """One decoding parameter.

    ``off`` is the value at which it changes nothing (greedy decoding for a scale); ``low`` and
    ``high`` bound the values that a study may ask for, ``off`` apart. A knob that is no ``axis`` has
    one value for the whole study. ``hf`` and ``openai`` are what transformers' GenerationConfig and
    OpenAI-style servers call it; None where they have none.
    """

    name: str
    kind: Kind
    type: type[int] | type[float]
    off: float
    default: float
    low: float
    high: float
    label: Mapping[str, str]
    letter: str
    hf: str
    openai: str | None
    axis: bool = True

    def allows(self, value: float) -> bool:
        return value == self.off or self.low <= value <= self.high

    @property
    def range(self) -> str:
        """The values that a study may ask for, in words."""
        values = f"{self.low:g} or more" if self.high == math.inf else f"{self.low:g} to {self.high:g}"
        named = self.low <= self.off <= self.high or self.off == math.inf
        return values if named else f"{values}, or {self.off:g}"

    def by_strength(self, values: Iterable[float]) -> list[float]:
        """Return values from what cuts most to what cuts least: ascending, where a cut is off last."""
        return sorted(values, key=lambda value: (self.kind == "cut" and value == self.off, value))

    def spell(self, value: float) -> str:
        """Return a value as a reader is shown it: ``off`` where a cut changes nothing."""
        return "off" if self.kind == "cut" and value == self.off else f"{value:g}"


KNOBS: tuple[Knob, ...] = (
    # Below 0.001, float32 has no room for the quotients of large logits.
    Knob(
        "temperature", "scale", float, off=0.0, default=0.1, low=1e-3, high=100.0,
        label={"en": "temperature", "zh": "溫度"}, letter="T", hf="temperature", openai="temperature",
    ),
    Knob(
        "top_k", "cut", int, off=0, default=0, low=1, high=math.inf,
        label={"en": "top-k", "zh": "top-k"}, letter="k", hf="top_k", openai="top_k",
    ),
    Knob(
        "top_p", "cut", float, off=1.0, default=1.0, low=1e-6, high=1.0,
        label={"en": "top-p", "zh": "top-p"}, letter="p", hf="top_p", openai="top_p",
    ),
    # Counts output tokens, EOS among them; the prompt does not count.
    Knob(
        "max_length", "length", int, off=math.inf, default=128, low=1, high=4096,
        label={"en": "max_length", "zh": "最大長度"}, letter="L", hf="max_new_tokens", openai="max_tokens",
    ),
    Knob(
        "no_repeat_ngram_size", "constraint", int, off=0, default=3, low=1, high=math.inf,
        label={"en": "no_repeat_ngram_size", "zh": "不重複 n-gram"}, letter="n", hf="no_repeat_ngram_size",
        openai="no_repeat_ngram_size", axis=False,
    ),
)  # fmt: skip
KNOB: dict[str, Knob] = {knob.name: knob for knob in KNOBS}
#: The knobs that a study's grid has an axis for, by name; what a setting is made of.
AXES: tuple[str, ...] = tuple(knob.name for knob in KNOBS if knob.axis)
#: The cuts, in the order in which they are applied.
CUTS: tuple[str, ...] = tuple(knob.name for knob in KNOBS if knob.kind == "cut")
#: Every knob's column in a table of generations.
COLUMNS: tuple[str, ...] = (*AXES, *(knob.name for knob in KNOBS if not knob.axis))
_PLACE = {name: place for place, name in enumerate(AXES)}


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the decoding grid: a value for each of ``AXES``, in their order.

    A knob's value is an attribute of its name: ``setting.top_k``. ``max_length`` counts output
    tokens, EOS among them.
    """

    values: tuple[float, ...]

    @classmethod
    def of(cls, **knobs: float) -> "Setting":
        """Return the setting of the knobs that are given; the others have their defaults."""
        if unknown := knobs.keys() - _PLACE:
            raise TypeError(f"no axis of the grid: {', '.join(sorted(unknown))}")
        return cls(tuple(KNOB[name].type(knobs.get(name, KNOB[name].default)) for name in AXES))

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Setting":
        """Return the setting that a row of a table names; its other columns are left alone."""
        return cls(tuple(KNOB[name].type(row[name]) for name in AXES))

    def changed(self, **knobs: float) -> "Setting":
        """Return this setting with other values for ``knobs``."""
        return Setting.of(**(self.as_dict() | knobs))

    def __getattr__(self, name: str) -> Any:
        if name not in _PLACE:
            raise AttributeError(name)
        return self.values[_PLACE[name]]

    def as_dict(self) -> dict[str, float]:
        return dict(zip(AXES, self.values, strict=True))

    @property
    def sequence(self) -> tuple[float, ...]:
        """What decides the tokens: greedy settings ignore every cut, and a length only ends the text."""
        greedy = self.temperature == 0
        return tuple(
            KNOB[name].off if KNOB[name].kind == "length" or (greedy and KNOB[name].kind == "cut") else value
            for name, value in zip(AXES, self.values, strict=True)
        )


def knobs_of(row: Mapping[Any, Any]) -> dict[str, float]:
    """Return every knob's value in a row of a table, as JSON has them."""
    return {name: KNOB[name].type(row[name]) for name in COLUMNS}
