"""How much of a text stands verbatim in the texts that were there to be trained on.

In: the training texts, normalised and indexed once, and normalised texts. Out: the longest run of characters
that also stands in one of them, and which of a text's parts (lines, sentences) do. Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.ngrams import NONE, Ints, characters, lengths, shared

SEVERAL = -2


@dataclass(frozen=True, eq=False)
class Index:
    """Texts to look for."""

    names: dict[str, int]  #: the texts' ids, numbered
    codes: Ints  #: code points of all of them, ``NONE`` after each
    owner: Ints  #: which text each is of
    parts: dict[str, int]  #: which text holds each part, ``SEVERAL`` where more than one do


def index(texts: Iterable[tuple[str, str, Sequence[str]]]) -> Index:
    """Return the index of (id, normalised text, its parts)."""
    names, whole, parts = zip(*texts, strict=True) if (texts := list(texts)) else ((), (), ())
    holders = dict[str, int]()
    for owner, own in enumerate(parts):
        holders |= {part: owner if holders.get(part, owner) == owner else SEVERAL for part in own}
    return Index({name: place for place, name in enumerate(names)}, *characters(whole), holders)


def _owners(index: Index, own: Sequence[str | None]) -> Ints:
    return np.array([index.names.get(name, NONE) if name else NONE for name in own], np.int64)


def reach(index: Index, texts: Sequence[str], own: Sequence[str | None]) -> Ints:
    """Return for each character how long a run begins there that an indexed text has too, and 0 after each text.

    The indexed text whose id is the text's ``own`` is left out.
    """
    codes, text = characters(texts)
    owner = _owners(index, own)[text]
    longest = np.zeros(len(codes), np.int64)
    for order, ((there, known), (here, found)) in enumerate(shared(index.codes, codes), 1):
        first, last = (
            np.full(known.max(initial=0) + 1, len(index.names)),
            np.full(known.max(initial=0) + 1, NONE),
        )
        np.minimum.at(first, known, index.owner[there])
        np.maximum.at(last, known, index.owner[there])
        # Another text has it unless the only one that does is its own.
        longest[here[(first[found] != owner[here]) | (last[found] != owner[here])]] = order
    return longest


def runs(reached: Ints, least: int) -> tuple[Ints, Ints]:
    """Return where the runs of at least ``least`` characters in what ``reach`` says begin, and how long they are.

    Those that no other such run contains, in order; they may overlap.
    """
    ends = np.arange(len(reached)) + reached
    # A run that does not reach beyond the one that begins before it is part of it.
    begins = np.flatnonzero((np.diff(ends, prepend=0) > 0) & (reached >= least))
    return begins, reached[begins]


def copied(index: Index, parts: Sequence[str], own: Sequence[str | None]) -> NDArray[np.bool_]:
    """Return whether each part stands as a part in an indexed text whose id is not its ``own``."""
    holder = np.array([index.parts.get(part, NONE) for part in parts], np.int64)
    found: NDArray[np.bool_] = (holder != NONE) & (holder != _owners(index, own))
    return found


def _compute(texts: Texts) -> Ints:
    reached = reach(texts.training, texts.compared, texts.of_examples(lambda example: example.id))
    longest: Ints = np.maximum.reduceat(reached, [0, *(lengths(texts.compared) + 1).cumsum()[:-1]])
    return longest


_LABEL = {"en": "longest run from training (characters)", "zh": "最長抄自訓練的字數"}
TRAIN_OVERLAP = Metric("train_overlap", _LABEL, better="low", compute=_compute)
