"""What of a text is compared, the unit in which it is counted, and its parts.

In: ``schema.Text``. Out: functions of a text. Pure.
"""

import re
import unicodedata
from collections.abc import Callable

from tangeval.core.errors import TangevalError
from tangeval.tasks.declared.schema import Text
from tangeval.tasks.tang.text import fold, han

_WORD = re.compile(r"\w+(?:[’'-]\w+)*")
_MARKS = re.compile(r"[^\w\s]+")
_SENTENCE = re.compile(r"[\n。！？!?]+|\.\s")
#: Units of the shortest sentence that tells where it was copied from.
PART = 5
_ONE: dict[str, Callable[[str], str]] = {
    "nfkc": lambda text: unicodedata.normalize("NFKC", text),
    "t2s": fold,
    "lower": str.casefold,
    "no_marks": lambda text: _MARKS.sub("", text),
}
_KEPT: dict[str, Callable[[str], str]] = {
    "characters": lambda text: "".join(text.split()),
    "han": han,
    "words": lambda text: " ".join(_WORD.findall(text)),
    "text": str.strip,
}


def normaliser(how: Text) -> Callable[[str], str]:
    """Return what makes of a text what is compared."""
    steps = [*map(_ONE.__getitem__, how.normalize), _KEPT[how.compare]]

    def normalise(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return normalise


def sentences(text: str) -> list[str]:
    """Return the lines and sentences of a text."""
    return [part for part in _SENTENCE.split(text) if part.strip()]


_numbers: dict[str, str] = {}


def _as_character(word: str) -> str:
    """A character for each different word, so that what counts characters counts words."""
    if len(_numbers) > 1_000_000:
        raise TangevalError("more than 1,000,000 different words; compare characters")
    return _numbers.setdefault(word, chr(0xE000 + len(_numbers)))


def units(how: Text) -> Callable[[str], str]:
    """Return what makes of a compared text one character for each of its units."""
    return (
        (lambda text: "".join(map(_as_character, text.split())))
        if how.compare == "words"
        else lambda text: text
    )
