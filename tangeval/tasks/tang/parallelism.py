"""Does each character of a couplet's first clause face one of its kind in the second (對仗)?

In: the text written. Out: the metric ``parallelism``. Knows a table of which characters face each other in
全唐詩, and nothing of the couplet given or of the poet's ending.
"""

from functools import cache
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray

from tangeval.core.types import ASSETS
from tangeval.metrics.base import Metric, Output
from tangeval.tasks.tang.text import clauses, fold

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


@cache
def _place(character: str) -> int:
    return _ratios()[0].get(fold(character), -1)


def parallelism(text: str) -> float:
    """Return how parallel the middle couplets of ``text`` are, in nats a place; about 0.3 by chance.

    It is the mean, over the places of a couplet, of how much more often than by chance the two characters face
    each other in middle couplets of 全唐詩: the positive logarithm of that ratio, smoothed by its low rank (Levy,
    Goldberg & Dagan 2015). A place without two characters, with an unknown one, or with the same one twice counts 0.

    The last couplet need not be parallel and is left out, unless it is the only one. An odd last clause is left
    out; 0 for a text without a couplet.
    """
    parts = clauses(text)
    couplets = list(zip(parts[::2], parts[1::2], strict=False))
    faced = list(
        chain.from_iterable(zip_longest(*couplet, fillvalue="") for couplet in couplets[:-1] or couplets)
    )
    first, second = [_place(one) for one, _ in faced], [_place(other) for _, other in faced]
    return float(_ratios()[1][first, second].sum()) / len(faced) if faced else 0.0


def _compute(output: Output) -> float:
    return parallelism(output.text)


_LABEL = {"en": "middle couplets are parallel", "zh": "對仗"}
PARALLELISM = Metric("parallelism", _LABEL, better="high", compute=_compute)
