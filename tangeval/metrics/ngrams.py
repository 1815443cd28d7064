"""n-grams of many texts at once: numbers at the places where they begin.

In: texts. Out: arrays over the characters of all texts, one after another, with a place after each text that is
``NONE``. Knows nothing of metrics or tasks.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]
#: n-grams: the places where they begin, in order, and an id or key of each.
Grams = tuple[Ints, Ints]
#: Where no n-gram begins: after a text, or where fewer than n characters are left of it.
NONE = -1
#: More than any code point.
CODES = 0x110000


def code_points(text: str) -> Ints:
    """Return the code point of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64)


def characters(texts: Sequence[str]) -> tuple[Ints, Ints]:
    """Return the texts' code points, ``NONE`` after each text, and which text each place is of."""
    sizes = lengths(texts) + 1
    codes = code_points("\n".join((*texts, "")))
    codes[sizes.cumsum() - 1] = NONE
    return codes, np.repeat(np.arange(len(texts)), sizes)


def lengths(texts: Sequence[Sized]) -> Ints:
    return np.fromiter(map(len, texts), np.int64, len(texts))


def different(keys: Ints) -> Ints:
    """Return the different keys, sorted; numpy's ``unique`` hashes them, which takes ten times as long."""
    ordered: Ints = np.sort(keys)
    return np.delete(ordered, np.flatnonzero(ordered[1:] == ordered[:-1]))


def begun(keys: Ints) -> Grams:
    """Return the n-grams of order 1: where ``keys`` is not ``NONE``."""
    places = np.flatnonzero(keys != NONE)
    return places, keys[places]


def longer(grams: Grams) -> Grams:
    """Return the (n + 1)-grams that are two of these n-grams one place apart."""
    places, ids = grams
    at = np.flatnonzero(places[1:] == places[:-1] + 1)
    return places[at], ids[at] * (ids.max(initial=0) + 1) + ids[at + 1]


def shared(there: Ints, here: Ints) -> Iterator[tuple[Grams, Grams]]:
    """Yield for each order, from 1 on, the n-grams of each of two arrays that the other has too, by the same ids.

    ``there`` and ``here`` are keys of characters, ``NONE`` after each text. The last order is the first without any.
    """
    sides = [begun(there), begun(here)]
    while all(len(places) for places, _ in sides):
        vocabulary = pd.Index(different(min((keys for _, keys in sides), key=len)))
        ids = [vocabulary.get_indexer(pd.Index(keys)) for _, keys in sides]
        both = np.logical_and(*(np.bincount(own + 1, minlength=len(vocabulary) + 1) > 0 for own in ids))
        both[0] = False  # those of neither
        sides = [
            (places[both[own + 1]], own[both[own + 1]]) for (places, _), own in zip(sides, ids, strict=True)
        ]
        yield sides[0], sides[1]
        sides = list(map(longer, sides))


def share(held: NDArray[Any], of: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``held`` ÷ ``of``; 0 where that is of nothing."""
    shares: NDArray[np.float64] = np.divide(held, of, out=np.zeros(len(of)), where=of > 0)
    return shares


class Lookup:
    """What a function of a character gives, for many code points at once; it is asked once a character."""

    def __init__(self, of: Callable[[str], Any], kind: type) -> None:
        self.of, self.asked = of, np.zeros(CODES, bool)
        self.table: NDArray[Any] = np.zeros(CODES, kind)

    def __call__(self, codes: Ints) -> NDArray[Any]:
        new = different(codes[~self.asked[codes]])
        self.table[new], self.asked[new] = [self.of(chr(code)) for code in new], True
        found: NDArray[Any] = self.table[codes]
        return found
