"""Does each character of a couplet's first clause face one of its kind in the second (對仗)?

In: texts. Out: the metric ``parallelism``. Knows a table of which characters face each other in
全唐詩, and nothing of the couplet given or of the poet's ending.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tangeval.core.types import ASSETS
from tangeval.metrics.base import Metric
from tangeval.metrics.ngrams import Lookup, share
from tangeval.tasks.tang.poems import Floats, Poems
from tangeval.tasks.tang.poems import poems as read_poems

#: ``characters``, folded; ``vectors``, int8, a row each; ``weights``, one a column. The folder's README says whence.
FACING = ASSETS / "tang" / "facing.npz"


@cache
def _ratios() -> tuple[dict[str, int], NDArray[np.float32]]:
    """Each character's place, and the log-ratio of each two; 0 of a character with itself, and in the last place."""
    with np.load(FACING, allow_pickle=False) as file:
        vectors = np.pad(file["vectors"].astype(np.float32), ((0, 1), (0, 0)))
        ratios = (vectors * file["weights"]) @ vectors.T
        np.fill_diagonal(ratios, 0)
        return {character: place for place, character in enumerate(str(file["characters"]))}, ratios


_places = Lookup(lambda character: _ratios()[0].get(character, -1), np.int64)


def parallelism(poems: Poems) -> Floats:
    """Return how parallel the middle couplets of texts are, in nats a place; about 0.3 by chance.

    It is the mean, over the places of a couplet, of how much more often than by chance the two characters face
    each other in middle couplets of 全唐詩: the positive logarithm of that ratio, smoothed by its low rank (Levy,
    Goldberg & Dagan 2015). A place without two characters, with an unknown one, or with the same one twice counts 0.

    The last couplet need not be parallel and is left out, unless it is the only one. An odd last clause is left
    out; 0 for a text without a couplet.
    """
    first, second = poems.couplets
    of = poems.poem[first]
    middle = (np.diff(of, append=poems.count) == 0) | (np.bincount(of, minlength=poems.count)[of] == 1)
    first, second, of = first[middle], second[middle], of[middle]
    width = np.maximum(poems.length[first], poems.length[second])
    couplet = np.repeat(np.arange(len(first)), width)
    place = np.arange(len(couplet)) - np.repeat(width.cumsum() - width, width)
    places = _places(poems.folded)
    one, other = (
        np.where(
            place < poems.length[clause], places[np.minimum(poems.begin[clause] + place, len(places) - 1)], -1
        )
        for clause in (first[couplet], second[couplet])
    )
    ratios, size = _ratios()[1][one, other], np.bincount(of, width, poems.count).astype(np.int64)
    begin, total = size.cumsum() - size, np.zeros(poems.count)
    for length in np.unique(
        size[size > 0]
    ):  # a matrix for those of one length, so that each row is summed by itself
        own = np.flatnonzero(size == length)
        total[own] = ratios[begin[own][:, None] + np.arange(length)].sum(axis=1)
    return share(total, size)


_LABEL = {"en": "middle couplets are parallel", "zh": "對仗"}
PARALLELISM = Metric(
    "parallelism", _LABEL, better="high", compute=lambda texts: parallelism(texts.once(read_poems))
)
