"""The shape of a poem: clauses, metre, normalisation, and the marks of verse.

In: text. Out: clauses, folded text, punctuated text. Knows nothing of data, models or metrics. Single source of truth for what counts as a Han character.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, partial

from opencc import OpenCC

from tangeval.core.types import ASSETS

# The blocks of Unicode's Unified Ideographs, the two signs that stand for a character in
# printed editions (〇, and □ for one that is lost), the marks that stand for the character before them
# (々, its vertical form 〻, and the old Chinese one), and the private-use area, where HW5's files keep a
# character that Unicode did not have.
ITERATION = "\u3005\u303b\U00016fe3"
HAN = ITERATION + "\u3007\u25a1\u3400-\u4dbf\u4e00-\u9fff\ue000-\uf8ff\uf900-\ufaff\U00020000-\U000323af"
_CLAUSE = re.compile(f"[{HAN}]+")
_NOT_HAN = re.compile(f"[^{HAN}]+")
_ITERATION = re.compile(f"[{ITERATION}]")
_ITERATED = re.compile(f"(?<=([{HAN}]))[{ITERATION}]+")

#: Marks that may end the first clause of a couplet, and those that may end the second.
PAUSES = "，、；：？！"
STOPS = "。；？！"
MARKS = frozenset(PAUSES + STOPS)

#: Variants of one character that OpenCC's t2s leaves apart, found in HW5's files and in other editions,
#: a line each: the variant, tab, the form that t2s gives its common twin.
VARIANTS_FILE = ASSETS / "tang" / "variants.tsv"


@cache
def variants() -> dict[str, str]:
    """Return the forms of ``VARIANTS_FILE`` by variant."""
    return dict(line.split("\t") for line in VARIANTS_FILE.read_text("utf-8").splitlines())


_converter = cache(partial(OpenCC, "t2s"))


class _Table(dict[int, str | None]):
    """What each character becomes, asked once: a table of ``str.translate``."""

    def __init__(self, becomes: Callable[[str], str | None]) -> None:
        self.becomes = becomes

    def __missing__(self, code: int) -> str | None:
        self[code] = self.becomes(chr(code))
        return self[code]


def _fold_character(character: str) -> str:
    # A compatibility ideograph (U+F900 and on) is its twin first.
    folded: str = _converter().convert(unicodedata.normalize("NFC", character))
    return variants().get(folded, folded)


_FOLDED = _Table(_fold_character)
_NORMAL = _Table(lambda character: None if _NOT_HAN.match(character) else fold(character))


def fold(text: str) -> str:
    """Return ``text`` with the variants of each Han character made one, in as many characters, for comparing.

    OpenCC's ``t2s``, one character at a time, so that a character folds alike in every context, then
    ``variants()``.
    """
    return text.translate(_FOLDED)


def spelt(text: str) -> str:
    """Return ``text`` with each mark of ``ITERATION`` made the Han character before it, in as many characters."""
    if not _ITERATION.search(text):  # most have none, and the other search is slow
        return text
    return _ITERATED.sub(lambda found: found[1] * len(found[0]), text)


def han(text: str) -> str:
    """Return the Han characters of ``text``, spelt, everything else left out."""
    return _NOT_HAN.sub("", spelt(text))


def normalise(text: str) -> str:
    """Return the Han characters of ``text``, variants folded."""
    return spelt(text).translate(_NORMAL)


def clauses(text: str) -> tuple[str, ...]:
    """Return the clauses of ``text``, spelt: its unbroken runs of Han characters, in order."""
    return tuple(_CLAUSE.findall(spelt(text)))


def line_length(text: str) -> int:
    """Return how many characters the first clause of ``text`` has; 0 if it has none."""
    found = _CLAUSE.search(text)
    return len(found.group()) if found else 0


def punctuate(parts: Sequence[str]) -> str:
    """Join clauses as verse is printed: a comma and a full stop by turns, and a full stop at the end."""
    couplets = (parts[place : place + 2] for place in range(0, len(parts), 2))
    return "".join("，".join(couplet) + "。" for couplet in couplets)


def as_verse(text: str) -> str:
    """Return the clauses of ``text`` with the marks of verse, whatever marks it had."""
    return punctuate(clauses(text))
