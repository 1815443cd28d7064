"""Checks that a task file may list: does a text have the form that was asked for?

In: a check's options, and texts beside their examples. Out: a ``Metric`` of 1 and 0 for each, and ``form``, 1 if all
hold. A check's value stands in the task file, or in a field of each record (``from``). A regular expression has
``SECONDS`` for a text.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import regex

from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs
from tangeval.metrics.base import Metric, Texts
from tangeval.tasks.tang.prosody import tones

#: What a regular expression may take for one text.
SECONDS = 0.5
_LETTER = regex.compile(r"\p{L}")
_CLAUSE = regex.compile(r"[\p{L}\p{N}]+")
#: The scripts that a language is written in, by ISO 639-1; its first is what every text of it has.
SCRIPTS = {
    "ar": ("Arabic",), "el": ("Greek",), "en": ("Latin",), "he": ("Hebrew",), "hi": ("Devanagari",),
    "ja": ("Hiragana", "Katakana", "Han"), "ko": ("Hangul",), "ru": ("Cyrillic",), "th": ("Thai",), "zh": ("Han",),
}  # fmt: skip
#: The share of letters that are to be of these: names and terms of other languages stand in any text.
LANGUAGE = 0.9
#: Says of a text, stripped, and the check's value whether it holds.
Check = Callable[[str, Any], bool]


def _matches(text: str, pattern: Any) -> bool:
    try:
        return compiled(str(pattern)).fullmatch(text, timeout=SECONDS) is not None
    except TimeoutError:
        raise TangevalError(
            f"regex {pattern!r:.60}: takes more than {SECONDS:g} s for {text!r:.60}; let no part that repeats hold another"
        ) from None


@cache
def compiled(pattern: str) -> "regex.Pattern[str]":
    """Return a regular expression, ready; a ``TangevalError`` says what is wrong with it."""
    try:
        return regex.compile(pattern, regex.DOTALL)
    except regex.error as error:
        raise TangevalError(f"regex {pattern!r:.60}: {error}") from None


def _lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


def _numbers(value: Any) -> list[int]:
    """The numbers of a list, or of a text such as 7,5,7,5."""
    found = value if isinstance(value, list) else regex.findall(r"\d+", str(value))
    if not found:
        raise ValueError
    return list(map(_count, found))


def _count(value: Any) -> int:
    if (number := int(str(value))) < 0:
        raise ValueError
    return number


def _letters(text: str) -> str:
    return "".join(_LETTER.findall(text))


def scripts(language: str) -> tuple[str, ...]:
    """Return the scripts of a language; a ``TangevalError`` names those that are known."""
    if language not in SCRIPTS:
        known = ", ".join(SCRIPTS)
        raise TangevalError(f"checks: language: {language} is none of {known}; script takes any script")
    return SCRIPTS[language]


def _language(text: str, code: Any) -> bool:
    own = [rf"\p{{Script={script}}}" for script in scripts(str(code))]
    letters, there = _letters(text), compiled("[" + "".join(own) + "]")
    first = compiled(own[0]).search(letters)
    return bool(first) and sum(map(bool, map(there.match, letters))) >= LANGUAGE * len(letters)


def _syllables(text: str, wanted: Any) -> bool:
    with needs("the check syllables", "tasks"):
        import syllapy
    words = (regex.findall(r"[A-Za-z]+(?:['’][A-Za-z]+)*", line) for line in _lines(text))
    return [sum(map(syllapy.count, line)) for line in words] == _numbers(wanted)


def _opposed(text: str, given: Any) -> bool:
    """The 2nd, 4th, 6th characters are of another tone than the given line's, and the last is level."""
    first, second = _letters(str(given)), _letters(text)
    pairs = list(zip(first, second, strict=False))[1:6:2]
    apart = all(len(tones(a) | tones(b)) == 2 or not tones(a) or not tones(b) for a, b in pairs)
    return apart and tones(second[-1:]) != {"仄"}


CHECKS: dict[str, Check] = {
    "regex": _matches,
    "lines": lambda text, n: len(_lines(text)) == _count(n),
    "pattern": lambda text, lengths: [len(c) for c in _CLAUSE.findall(text)] == _numbers(lengths),
    "max_characters": lambda text, n: len("".join(text.split())) <= _count(n),
    "min_characters": lambda text, n: len("".join(text.split())) >= _count(n),
    "max_words": lambda text, n: len(text.split()) <= _count(n),
    "min_words": lambda text, n: len(text.split()) >= _count(n),
    "script": lambda text, name: all(map(compiled(rf"\p{{Script={name}}}").match, _LETTER.findall(text))),
    "language": _language,
    "same_length": lambda text, given: len(_letters(text)) == len(_letters(str(given))),
    "no_repeat": lambda text, given: max(Counter(_letters(f"{text}{given}")).values(), default=1) == 1,
    "opposed_tones": _opposed,
    "syllables": _syllables,
}


def make(name: str, kind: str, value: Callable[[Any], Any]) -> Metric:
    """Return the check of a kind as a metric; ``value`` gives its value for an example."""

    def compute(texts: Texts) -> list[bool]:
        given = texts.of_examples(value)
        return [
            _held(name, CHECKS[kind], text.strip(), own)
            for text, own in zip(texts.written, given, strict=True)
        ]

    said = {"en": name, "zh": name}
    return Metric(name, said, "high", share=True, flaw=said, compute=compute)


def refuse_value(name: str, kind: str, value: Any) -> None:
    """Raise a ``TangevalError`` where a check of a kind takes no such value."""
    if value == "" and kind != "no_repeat":
        raise TangevalError(f"checks: {name}: it has no value; give {{{kind}: value}}, or from: FIELD")
    if kind == "syllables":
        _numbers(value)  # its library may not be there, and is not needed yet
    else:
        _held(name, CHECKS[kind], "a", value)


def _held(name: str, check: Check, text: str, value: Any) -> bool:
    try:
        return bool(text) and check(text, value)
    except (ValueError, TypeError):
        raise TangevalError(f"checks: {name}: {value!r:.60} is no value of it") from None


def _complete(texts: Texts) -> list[float]:
    return [math.nan if reason is None else float(reason == "stop") for reason in texts.finish_reasons]


#: Whether a text ended by itself; NaN of one that was not generated here. Every task has it.
COMPLETE = Metric(
    "complete", {"en": "ended by itself", "zh": "自行收尾"}, "high", share=True, headline=True,
    flaw={"en": "cut off", "zh": "截斷"}, compute=_complete,
)  # fmt: skip


def form(checks: Sequence[Metric]) -> Metric:
    """Return ``form``: 1 where all of these checks hold; one that is NaN is left out."""

    def compute(texts: Texts) -> Any:
        return np.logical_and.reduce([np.asarray(check.compute(texts), float) != 0 for check in checks])

    label = {"en": "form: all checks hold", "zh": "體式全對"}
    return Metric("form", label, "high", share=True, headline=True, compute=compute)
