"""The winner's curse: the value and the interval of what was picked as the best of many.

In: what candidates are worth on any of the examples. Out: the winner's value by cross-fitting, and how much
wider an interval must be that holds after selection. Knows nothing of metrics or files.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tangeval.analysis.intervals import LEVEL, Floats

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
FOLDS, REPEATS = 8, 10


@dataclass(frozen=True)
class CrossFitted:
    """A winner's value, corrected for its having been picked.

    ``picked`` ``[R, P]`` is the place of the candidate that each poem is measured with, picked without it; −1
    where none was allowed. ``value`` is the mean over repeats; NaN if nothing was allowed in any.
    """

    value: float
    picked: Ints


def folds(poems: int, seed: int, most: int = FOLDS, repeats: int = REPEATS) -> Ints:
    """Return the fold of each poem, drawn anew in each repeat: ``[repeats, poems]``.

    ``most`` folds, or as many as there are poems, of sizes that differ by one at most. More folds take less
    bias from a winner that is truly best (at most 1 / (2 × (folds − 1)) of what noise added), but vary more;
    repeats vary less.
    """
    generator = np.random.default_rng([seed, poems, 1])
    return np.stack([generator.permutation(poems) % min(poems, most) for _ in range(repeats)])


def cross_fitted(
    on: Callable[[Floats], Floats],
    put_together: Callable[[Ints], float],
    fold: Ints,
    better: Literal["high", "low"] = "high",
    allowed: Callable[[Floats], Bools] | None = None,
) -> CrossFitted:
    """Return the value of the best of C candidates, measured on poems that did not pick it.

    Each fold of ``fold`` ``[R, P]`` (from ``folds``) is measured with the candidate that is best on the other folds
    (Stone, "Cross-validatory choice", JRSS B 36, 1974); of equals, the first. ``on`` gives the candidates' values
    ``[n, C]``, without NaN, on the poems whose weight in ``[n, P]`` is 1, not 0; ``allowed`` which may be picked there.
    ``put_together`` is given a candidate for each poem, −1 for none, and returns the value of all poems together,
    each of its own candidate: a mean, or the score of one corpus.
    """
    folds_of = [(repeat, number) for repeat, row in enumerate(fold) for number in np.unique(row)]
    rest = np.stack([fold[repeat] != number for repeat, number in folds_of]).astype(np.float64)
    looked_at = rest.any(axis=1)
    values = np.full((len(rest), 1), -np.inf)
    if looked_at.any():
        own = on(rest[looked_at]) * (1 if better == "high" else -1)
        own = own if allowed is None else np.where(allowed(rest[looked_at]), own, -np.inf)
        values = np.full((len(rest), own.shape[1]), -np.inf)
        values[looked_at] = own
    most = values.max(axis=1, keepdims=True)
    # A product may round equal candidates differently.
    first = (values >= most - 1e-12 * np.where(np.isfinite(most), np.abs(most), 0)).argmax(axis=1)
    picked = np.full(fold.shape, -1)
    for (repeat, number), place, top in zip(folds_of, first, most[:, 0], strict=True):
        picked[repeat, fold[repeat] == number] = place if top > -np.inf else -1
    found = [put_together(row) for row in picked if (row >= 0).any()]
    return CrossFitted(float(np.mean(found)) if found else math.nan, picked)


def joint_stretch(resampled: Floats, value: Floats, better: Literal["high", "low"] = "high") -> float:
    """Return how many times as far as its own each of C candidates' worse ends must lie for all to hold at once.

    All then hold their truth with probability (1 + ``LEVEL``) / 2, and so does that of the one that was picked, however
    it was (Berk et al., "Valid post-selection inference", *Annals of Statistics* 41, 2013). The largest of the standardised
    deviations of ``resampled`` ``[B, C]`` from ``value`` ``[C]`` towards the better side, where noise lifts a winner, by
    the normal's quantile. Its other end needs no more than its own.
    """
    spread = resampled.std(axis=0)
    varied = spread > 1e-12
    if not varied.any():
        return 1.0
    lifted = (resampled - value if better == "high" else value - resampled)[:, varied] / spread[varied]
    level = (1 + LEVEL) / 2
    return max(float(np.quantile(lifted.max(axis=1), level) / special.ndtri(level)), 1.0)
