"""n-grams of many texts at once: numbers at the places where they begin.

In: texts. Out: arrays over the characters of all texts, one after another, with a place after each text that is
``NONE``. Knows nothing of metrics or tasks.
"""

from collections.abc import Iterator, Sequence, Sized
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]
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


def longer(ids: Ints, size: int) -> Ints:
    """Return a key of each (n + 1)-gram: it is two n-grams, whose ``ids`` are below ``size``."""
    both = (ids[:-1] >= 0) & (ids[1:] >= 0)
    return np.append(np.where(both, ids[:-1] * size + ids[1:], NONE), NONE)[: len(ids)]


def shared(there: Ints, here: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield for each order, from 1 on, the ids of the n-grams that two arrays share, at their places in both.

    ``there`` and ``here`` are keys of characters, ``NONE`` after each text, and so are the ids where the other array
    has no such n-gram. The last order is the first that has none.
    """
    while True:
        vocabulary = pd.Index(different(there[there >= 0]))
        found, known = (vocabulary.get_indexer(pd.Index(keys)) for keys in (here, there))
        here_too = np.zeros(len(vocabulary) + 1, bool)
        here_too[found] = True
        known = np.where(here_too[known], known, NONE)
        yield known, found
        if found.max(initial=NONE) == NONE:
            return
        there, here = longer(known, len(vocabulary)), longer(found, len(vocabulary))


def share(held: NDArray[Any], of: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``held`` ÷ ``of``; 0 where that is of nothing."""
    shares: NDArray[np.float64] = np.divide(held, of, out=np.zeros(len(of)), where=of > 0)
    return shares
