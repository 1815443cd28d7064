"""Couplets and texts → their clauses and characters, as arrays: what form and prosody count in.

In: a couplet and a text a poem. Out: ``Poems``. Knows no rule of verse.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.metrics.base import Texts
from tangeval.metrics.ngrams import Ints, Lookup, code_points, lengths, share
from tangeval.tasks.tang.text import HAN, fold, spelt

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
_IS_HAN = re.compile(f"[{HAN}]").match
_han = Lookup(lambda character: bool(_IS_HAN(character)), bool)
_folded = Lookup(lambda character: ord(fold(character)) if _IS_HAN(character) else 0, np.int64)


@dataclass(frozen=True, eq=False)
class Poems:
    """n poems: C clauses one after another, each poem's couplet first, and N characters, marks among them.

    ``place`` is a clause's number in its text, from 0; of the couplet's clauses it is below 0, the last being -1.
    """

    count: int
    codes: Ints  #: ``[N]`` code points, spelt
    poem_of: Ints  #: ``[N]`` the poem of each character
    in_text: Bools  #: ``[N]`` whether it is of the text; the end of each text is one more
    han: Bools  #: ``[N]``
    replaced: Bools  #: ``[N]`` marks of iteration that were spelt
    poem: Ints  #: ``[C]``
    place: Ints  #: ``[C]``
    begin: Ints  #: ``[C]`` where its characters begin
    length: Ints  #: ``[C]`` how many it has

    @cached_property
    def folded(self) -> Ints:
        """The code points, variants made one, 0 for what is not Han ``[N]``."""
        return _folded(self.codes)

    @cached_property
    def clauses(self) -> list[str]:
        """The clauses, folded ``[C]``."""
        text = self.folded.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        ends = (self.begin + self.length).tolist()
        return [text[begin:end] for begin, end in zip(self.begin.tolist(), ends, strict=True)]

    @cached_property
    def kinds(self) -> Ints:
        """A number for each clause, the same for those that are the same, folded ``[C]``."""
        return pd.factorize(np.array(self.clauses, dtype=object))[0]

    @property
    def written(self) -> Bools:
        """Which clauses are the texts' ``[C]``."""
        return self.place >= 0

    @property
    def lines(self) -> Ints:
        """How many clauses each text has ``[n]``."""
        return self.counted(self.written)

    @cached_property
    def number(self) -> Ints:
        """Each clause's number in its poem, from 0 ``[C]``."""
        return self.place + self.counted(~self.written)[self.poem]

    @cached_property
    def couplets(self) -> tuple[Ints, Ints]:
        """The texts' couplets: the numbers of their first clauses, and of their second ones."""
        pair = (self.poem[1:] == self.poem[:-1]) & self.written[:-1] & (self.place[:-1] % 2 == 0)
        first = np.flatnonzero(pair)
        return first, first + 1

    def at(self, values: NDArray[Any], place: int, clauses: Ints | slice = slice(None)) -> NDArray[Any]:
        """Return what stands at a place of clauses, in values ``[N]``; 0 where they lack it; below 0 from the end."""
        begin, length = self.begin[clauses], self.length[clauses]
        there = length > place if place >= 0 else length >= -place
        return np.where(there, values[np.where(there, begin + place + (length if place < 0 else 0), 0)], 0)

    def counted(self, clauses: Bools | Ints | slice) -> Ints:
        """Return how many of these clauses each poem has ``[n]``."""
        return np.bincount(self.poem[clauses], minlength=self.count)

    def none(self, clauses: Bools | Ints) -> Bools:
        """Return which poems have none of these clauses ``[n]``."""
        return ~(self.counted(clauses) > 0)

    def share(self, held: Bools, judged: Bools, clauses: Ints | slice = slice(None)) -> Floats:
        """Return each poem's share ``[n]`` of what was held in what was judged: ``[clauses]`` or ``[clauses, …]``."""
        of = np.broadcast_to(self.poem[clauses].reshape(-1, *[1] * (held.ndim - 1)), held.shape)
        return share(*(np.bincount(of[which], minlength=self.count) for which in (held & judged, judged)))


def read(couplets: Sequence[str], texts: Sequence[str]) -> Poems:
    """Return the poems that begin with ``couplets`` and go on with ``texts``."""
    joined = "".join(f"{couplet}\n{text}\n" for couplet, text in zip(couplets, texts, strict=True))
    sizes = np.stack([lengths(couplets), lengths(texts)], axis=1).ravel() + 1
    part = np.repeat(np.arange(len(sizes)), sizes)  # even for a couplet, odd for a text
    raw, codes = code_points(joined), code_points(spelt(joined))
    han = _han(codes)
    edges = np.diff(han.astype(np.int8), prepend=0)
    begin, end = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    poem, given = part[begin] // 2, part[begin] % 2 == 0
    first = np.searchsorted(poem, np.arange(len(texts))) + np.bincount(poem[given], minlength=len(texts))
    place = np.arange(len(begin)) - first[poem]
    return Poems(
        len(texts), codes, part // 2, part % 2 == 1, han, raw != codes, poem, place, begin, end - begin
    )


def poems(texts: Texts) -> Poems:
    """Return the texts as poems."""
    return read([example.input for example in texts.examples], texts.written)
