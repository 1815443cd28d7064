"""How much of a text stands verbatim in the texts that were there to be trained on.

In: the training texts, normalised and indexed once, and a normalised text. Out: the longest run of characters
that also stands in one of them, and the share of the text's parts (lines, sentences) that do. Pure.

The index is a suffix array (Manber & Myers, 1993): of all suffixes, the one that shares most with a string is
next to where the string would be.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from tangeval.metrics.base import Metric, Output

_END = "\0"  # between texts, so that no run crosses from one to the next


@dataclass(frozen=True, eq=False)
class Index:
    """Texts to look for."""

    text: str  #: all of them, one after another
    suffixes: list[int]  #: places in ``text``, sorted by what begins there
    names: list[str]
    begins: list[int]  #: where the text of each name begins
    parts: dict[str, set[str]]  #: which texts hold each part
    longest: int  #: characters of the longest text

    def owner(self, place: int) -> str:
        return self.names[bisect_right(self.begins, place) - 1]


def index(texts: Iterable[tuple[str, str, Sequence[str]]]) -> Index:
    """Return the index of (id, normalised text, its parts)."""
    texts = list(texts)
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for name, part in ((name, part) for name, _, parts in texts for part in parts):
        holders[part].add(name)
    whole = [text.replace(_END, " ") + _END for _, text, _ in texts]
    joined, begins = "".join(whole), [0, *accumulate(map(len, whole))][: len(whole)]
    longest = max(map(len, whole), default=1) - 1
    return Index(joined, _suffix_array(joined), [name for name, *_ in texts], begins, dict(holders), longest)


def _suffix_array(text: str) -> list[int]:
    """The places of ``text``, sorted by what begins there, by prefix doubling; ends of texts come first."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    ends = codes == ord(_END)
    rank = codes.astype(np.int64) + ends.sum()
    rank[ends] = np.arange(ends.sum())  # each is another letter, so that no two suffixes are equal
    order, width = np.argsort(rank, kind="stable"), 1
    while width < len(text):
        after = np.full(len(text), -1)
        after[:-width] = rank[width:]
        order = np.lexsort((after, rank))
        steps = (np.diff(rank[order]) != 0) | (np.diff(after[order]) != 0)
        rank[order] = np.concatenate([[0], np.cumsum(steps)])
        if steps.all():
            break
        width *= 2
    found: list[int] = order.tolist()
    return found


def longest_run(index: Index, text: str, own: str | None = None) -> int:
    """Return the length of the longest run of ``text`` that an indexed text has too; that of id ``own`` apart."""
    longest = 0
    for begin in range(len(text)):
        if len(text) - begin <= longest:
            break
        longest = max(longest, _at(index, text[begin : begin + index.longest], own, longest))
    return longest


def copied_share(index: Index, parts: Sequence[str], own: str | None = None) -> float:
    """Return the share of ``parts`` that stand as a part in an indexed text; 0 where there is none."""
    found = sum(bool(index.parts.get(part, set()) - {own}) for part in parts)
    return found / len(parts) if parts else 0.0


def runs(index: Index, text: str, least: int, own: str | None = None) -> list[tuple[int, int]]:
    """Return (begin, length) of the longest runs of ``text`` that an indexed text has too.

    Runs of at least ``least`` characters that no other such run contains, in order; they may overlap.
    """
    found: list[tuple[int, int]] = []
    end = 0
    for begin in range(len(text) - least + 1):
        # A run that does not reach beyond the last one is part of it.
        if end == len(text):
            break
        length = _at(index, text[begin : begin + index.longest], own)
        if length >= least and begin + length > end:
            end = begin + length
            found.append((begin, length))
    return found


def _at(index: Index, rest: str, own: str | None, longest: int = 0) -> int:
    """How many of the first characters of ``rest`` stand together in a text; ``longest`` unless more do."""
    size = len(rest)
    place = bisect_left(index.suffixes, rest, key=lambda begin: index.text[begin : begin + size])
    for neighbours in (range(place - 1, -1, -1), range(place, len(index.suffixes))):
        for begin in (index.suffixes[neighbour] for neighbour in neighbours):
            shared = _shared(index.text, begin, rest)
            if shared <= longest:
                break
            if index.owner(begin) != own:
                longest = shared
                break
    return longest


def _shared(text: str, begin: int, rest: str) -> int:
    """How many characters ``rest`` and the text from ``begin`` on begin with alike."""
    for length, letter in enumerate(rest):
        if letter == _END or text[begin + length] != letter:
            return length
    return len(rest)


def _compute(output: Output) -> float:
    return float(longest_run(output.training, output.compared, output.example.id))


_LABEL = {"en": "longest run from training (characters)", "zh": "最長抄自訓練的字數"}
TRAIN_OVERLAP = Metric("train_overlap", _LABEL, better="low", compute=_compute)
