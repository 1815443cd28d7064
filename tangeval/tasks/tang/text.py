"""The shape of a poem: clauses, metre, normalisation, and the marks of verse.

In: text. Out: clauses, folded text, punctuated text. Knows nothing of data, models or metrics. Single source of truth for what counts as a Han character.
"""

import re
from collections.abc import Sequence
from functools import cache, partial

from opencc import OpenCC

from tangeval.core.types import ASSETS

# The blocks of Unicode's Unified Ideographs, the two signs that stand for a character in
# printed editions (〇, and □ for one that is lost), and the private-use area, where HW5's
# files keep a character that Unicode did not have.
HAN = "\u3007\u25a1\u3400-\u4dbf\u4e00-\u9fff\ue000-\uf8ff\uf900-\ufaff\U00020000-\U000323af"
_CLAUSE = re.compile(f"[{HAN}]+")
_NOT_HAN = re.compile(f"[^{HAN}]+")

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


@cache
def _fold_character(character: str) -> str:
    folded: str = _converter().convert(character)
    return variants().get(folded, folded)


def fold(text: str) -> str:
    """Return ``text`` with the variants of each character made one, in as many characters, for comparing.

    OpenCC's ``t2s``, one character at a time, so that a character folds alike in every context, then
    ``variants()``.
    """
    return "".join(map(_fold_character, text))


def han(text: str) -> str:
    """Return the Han characters of ``text``, everything else left out."""
    return _NOT_HAN.sub("", text)


def clauses(text: str) -> tuple[str, ...]:
    """Return the clauses of ``text``: its unbroken runs of Han characters, in order."""
    return tuple(_CLAUSE.findall(text))


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
