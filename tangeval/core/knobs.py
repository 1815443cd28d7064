"""The decoding knobs, in one list, and the settings that they span.

In: nothing. Out: ``KNOBS``, the only list of decoding parameters there is. The study's schema, the
columns of every table, the plan, requests to servers, the page and ``--help`` are made from it.
Knows nothing of how a knob is applied: ``decoding/warpers.py`` does.
"""

import math
from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: ``contrast`` sets the logits against another model's; ``history`` changes them by what the row has written,
#: ``constraint`` forbids tokens by it; ``scale`` divides them; ``cut`` keeps some candidates of the sorted row;
#: ``search`` follows several texts at once; ``length`` ends the text.
Kind = Literal["contrast", "history", "constraint", "scale", "cut", "search", "length"]
#: What a knob is set to.
Value = float | str


@dataclass(frozen=True, slots=True)
class Knob:
    """One decoding parameter.

    ``off`` is the value at which it changes nothing (greedy decoding for a scale); ``low`` and
    ``high`` bound the values that a study may ask for, ``off`` apart; a text may be any. ``hf`` and ``openai`` are what transformers' GenerationConfig and OpenAI-style
    servers call it; None where they have none. A cut that is ``rising`` removes more, the larger it is.
    """

    name: str
    kind: Kind
    type: type[int] | type[float] | type[str]
    off: Any
    default: Any
    label: Mapping[str, str]
    letter: str
    hf: str | None
    openai: str | None
    low: float = -math.inf
    high: float = math.inf
    rising: bool = False

    def allows(self, value: Value) -> bool:
        return isinstance(value, str) or value == self.off or self.low <= value <= self.high

    @property
    def range(self) -> str:
        """The values that a study may ask for, in words."""
        values = f"{self.low:g} or more" if self.high == math.inf else f"{self.low:g} to {self.high:g}"
        named = self.low <= self.off <= self.high or self.off == math.inf
        return values if named else f"{values}, or {self.off:g}"

    def by_strength(self, values: Iterable[Any]) -> list[Any]:
        """Return values in their order; those of a cut from what cuts most to what cuts least, off last."""
        cut = self.kind == "cut"
        return sorted(values, key=lambda value: (cut and value == self.off, -value if self.rising else value))

    def spell(self, value: Any) -> str:
        """Return a value as a reader is shown it: ``off`` where it changes nothing."""
        if value == self.off and self.kind not in ("scale", "length"):
            return "off"
        return written(value)


KNOBS: tuple[Knob, ...] = (
    # Below 0.001, float32 has no room for the quotients of large logits.
    Knob(
        "temperature", "scale", float, off=0.0, default=0.1, low=1e-3, high=100.0,
        label={"en": "temperature", "zh": "溫度"}, letter="T", hf="temperature", openai="temperature",
    ),
    Knob(
        "top_n_sigma", "cut", float, off=0.0, default=0.0, low=1e-3, high=math.inf,
        label={"en": "top-nσ", "zh": "top-nσ"}, letter="σ", hf=None, openai="top_n_sigma",
    ),
    # Of the 100 largest tokens, as transformers; the paper's own is the next.
    Knob(
        "top_h", "cut", float, off=0.0, default=0.0, low=1e-6, high=1.0,
        label={"en": "top-H", "zh": "top-H"}, letter="h", hf="top_h", openai=None,
    ),
    Knob(
        "top_h_whole", "cut", float, off=0.0, default=0.0, low=1e-6, high=1.0,
        label={"en": "top-H of all", "zh": "top-H（全詞表）"}, letter="H", hf=None, openai=None,
    ),
    Knob(
        "top_k", "cut", int, off=0, default=0, low=1, high=math.inf,
        label={"en": "top-k", "zh": "top-k"}, letter="k", hf="top_k", openai="top_k",
    ),
    Knob(
        "top_p", "cut", float, off=1.0, default=1.0, low=1e-6, high=1.0,
        label={"en": "top-p", "zh": "top-p"}, letter="p", hf="top_p", openai="top_p",
    ),
    Knob(
        "min_p", "cut", float, off=0.0, default=0.0, low=1e-6, high=1.0, rising=True,
        label={"en": "min-p", "zh": "min-p"}, letter="m", hf="min_p", openai="min_p",
    ),
    Knob(
        "typical_p", "cut", float, off=1.0, default=1.0, low=1e-6, high=1.0,
        label={"en": "typical-p", "zh": "typical-p"}, letter="y", hf="typical_p", openai="typical_p",
    ),
    Knob(
        "epsilon_cutoff", "cut", float, off=0.0, default=0.0, low=1e-9, high=0.999, rising=True,
        label={"en": "ε cutoff", "zh": "ε 截斷"}, letter="ε", hf="epsilon_cutoff", openai=None,
    ),
    Knob(
        "eta_cutoff", "cut", float, off=0.0, default=0.0, low=1e-9, high=0.999, rising=True,
        label={"en": "η cutoff", "zh": "η 截斷"}, letter="η", hf="eta_cutoff", openai=None,
    ),
    Knob(
        "p_less", "cut", int, off=0, default=0, low=1, high=1,
        label={"en": "p-less", "zh": "p-less"}, letter="l", hf=None, openai=None,
    ),
    Knob(
        "num_beams", "search", int, off=1, default=1, low=1, high=64,
        label={"en": "beams", "zh": "集束數"}, letter="b", hf="num_beams", openai=None,
    ),
    Knob(
        "length_penalty", "search", float, off=1.0, default=1.0, low=-5.0, high=5.0,
        label={"en": "length penalty", "zh": "長度懲罰"}, letter="w", hf="length_penalty", openai=None,
    ),
    Knob(
        "contrast", "contrast", float, off=0.0, default=0.0, low=0.0, high=10.0,
        label={"en": "contrast with base", "zh": "與基礎模型對比"}, letter="γ", hf=None, openai=None,
    ),
    # Counts output tokens, EOS among them; the prompt does not count.
    Knob(
        "max_length", "length", int, off=math.inf, default=128, low=1, high=4096,
        label={"en": "max_length", "zh": "最大長度"}, letter="L", hf="max_new_tokens", openai="max_tokens",
    ),
    Knob(
        "no_repeat_ngram_size", "constraint", int, off=0, default=3, low=1, high=math.inf,
        label={"en": "no_repeat_ngram_size", "zh": "不重複 n-gram"}, letter="n", hf="no_repeat_ngram_size",
        openai="no_repeat_ngram_size",
    ),
    Knob(
        "repetition_penalty", "history", float, off=1.0, default=1.0, low=0.1, high=10.0,
        label={"en": "repetition penalty", "zh": "重複懲罰"}, letter="r", hf="repetition_penalty",
        openai="repetition_penalty",
    ),
    Knob(
        "presence_penalty", "history", float, off=0.0, default=0.0, low=-2.0, high=2.0,
        label={"en": "presence penalty", "zh": "出現懲罰"}, letter="o", hf=None, openai="presence_penalty",
    ),
    Knob(
        "frequency_penalty", "history", float, off=0.0, default=0.0, low=-2.0, high=2.0,
        label={"en": "frequency penalty", "zh": "頻率懲罰"}, letter="f", hf=None, openai="frequency_penalty",
    ),
    # What it may be beside none is the task's to say; any task's texts may be held to a regular expression.
    Knob(
        "constrain", "constraint", str, off="none", default="none",
        label={"en": "constraint", "zh": "限制"}, letter="c", hf=None, openai=None,
    ),
)  # fmt: skip
KNOB: dict[str, Knob] = {knob.name: knob for knob in KNOBS}
#: The knobs that a study's grid has an axis for, by name; what a setting is made of.
AXES: tuple[str, ...] = tuple(knob.name for knob in KNOBS)
#: The cuts, in the order in which they are applied.
CUTS: tuple[str, ...] = tuple(knob.name for knob in KNOBS if knob.kind == "cut")
#: The knobs that every table has a column for; the others have one where a study sets them.
COMMON = ("temperature", "top_k", "top_p", "max_length", "no_repeat_ngram_size")
#: The common axis that was none at first: where a study has one value it is part of the cache key, and no plan names it.
WIDE = "no_repeat_ngram_size"
COMMON_AXES = tuple(name for name in COMMON if name != WIDE)
#: What a value of ``constrain`` begins with that is a regular expression.
REGEX = "regex:"
_PLACE = {name: place for place, name in enumerate(AXES)}


@dataclass(frozen=True, slots=True, order=True)
class Setting:
    """One point of the decoding grid: a value for each of ``AXES``, in their order.

    A knob's value is an attribute of its name: ``setting.top_k``. ``max_length`` counts output
    tokens, EOS among them.
    """

    values: tuple[Any, ...]

    @classmethod
    def of(cls, **knobs: Value) -> "Setting":
        """Return the setting of the knobs that are given; the others have their defaults."""
        if unknown := knobs.keys() - _PLACE:
            raise TypeError(f"no axis of the grid: {', '.join(sorted(unknown))}")
        return cls(tuple(KNOB[name].type(knobs.get(name, KNOB[name].default)) for name in AXES))

    @classmethod
    def from_row(cls, row: Mapping[Any, Any]) -> "Setting":
        """Return the setting that a row of a table names; a knob without a column is off."""
        there = {name: row[name] for name in AXES if name in row or name in COMMON}
        return cls(tuple(KNOB[name].type(there.get(name, KNOB[name].off)) for name in AXES))

    def changed(self, **knobs: Value) -> "Setting":
        """Return this setting with other values for ``knobs``."""
        return Setting.of(**(self.as_dict() | knobs))

    def __getattr__(self, name: str) -> Any:
        if name not in _PLACE:
            raise AttributeError(name)
        return self.values[_PLACE[name]]

    def at(self, axes: Iterable[str]) -> tuple[Any, ...]:
        """Return the values of some axes."""
        return tuple(self.values[_PLACE[name]] for name in axes)

    def as_dict(self, axes: Iterable[str] = AXES) -> dict[str, Any]:
        return {name: self.values[_PLACE[name]] for name in axes}

    @property
    def sequence(self) -> tuple[Any, ...]:
        """What decides the tokens: greedy settings ignore every cut, and a length only ends the text.

        A search chooses among texts as long as they may be, so its length decides; without beams nothing is searched.
        """
        idle = {"cut"} if self.temperature == 0 else set()
        idle |= {"length", "search"} if self.num_beams == 1 else set()
        return tuple(
            KNOB[name].off if KNOB[name].kind in idle else value
            for name, value in zip(AXES, self.values, strict=True)
        )


def warps(settings: Iterable[Setting]) -> list[Setting]:
    """Return the distinct temperatures and cuts of settings; what else they set is as by default."""
    kinds = {name: KNOB[name].kind for name in AXES}
    own = (dict(zip(AXES, setting.sequence, strict=True)) for setting in settings)
    return list(
        dict.fromkeys(
            Setting.of(**{n: v for n, v in each.items() if kinds[n] in ("scale", "cut")}) for each in own
        )
    )


def warp_name(setting: Setting) -> str:
    """Return temperature and cuts as they are typed, cuts that are off left out: ``temperature=0.7,top_k=5``."""
    (warp,) = warps([setting])
    on = [name for name in CUTS if getattr(warp, name) != KNOB[name].off]
    return ",".join(f"{name}={written(getattr(warp, name))}" for name in ("temperature", *on))


def written(value: Value) -> str:
    """Return a knob's value as it is typed."""
    return value if isinstance(value, str) else f"{value:g}"


def axes_in(columns: Container[str]) -> list[str]:
    """Return the axes that a table has columns of."""
    return [name for name in AXES if name in columns]


def axes_set(settings: Collection[Setting]) -> tuple[str, ...]:
    """Return the axes that tables of ``settings`` have: the common ones, and those that one of them sets."""
    return tuple(
        name
        for place, name in enumerate(AXES)
        if name in COMMON or any(setting.values[place] != KNOB[name].off for setting in settings)
    )


def spelt(
    settings: Collection[Setting], wide: Value | None = None
) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return ``axes_set``, and each setting's values on them: how files have settings.

    Without ``WIDE`` where the whole study has one value of it, ``wide``.
    """
    axes = tuple(axis for axis in axes_set(settings) if axis != WIDE or wide is None)
    return axes, [setting.at(axes) for setting in settings]


def knobs_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the value of every knob that a row of a table has, as JSON has them."""
    return {name: KNOB[name].type(row[name]) for name in axes_in(row)}


def turned(setting: Mapping[str, Any]) -> list[Knob]:
    """Return the knobs that a setting's texts hang on, the common ones always; greedy texts on no scale and no cut."""
    left_out = ("scale", "cut") if setting["temperature"] == 0 else ()
    there = (knob for knob in KNOBS if knob.kind not in left_out and knob.name in setting)
    return [knob for knob in there if knob.name in COMMON or setting[knob.name] != knob.off]
