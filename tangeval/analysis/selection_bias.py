"""The winner's curse: the value and the interval of what was picked as the best of many.

In: each candidate's part of its value on each of P examples. Out: the winner's value by cross-fitting, and
the level of an interval that holds after selection. Knows nothing of metrics or files.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tangeval.analysis.intervals import LEVEL, Floats, resample_weights

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
FOLDS, REPEATS = 8, 10


@dataclass(frozen=True)
class CrossFitted:
    """A winner's value, corrected for its having been picked.

    ``value`` is the mean of ``by_poem`` ``[P]``: each poem's value for the setting picked without it,
    averaged over repeats. ``picked`` ``[R, P]`` is that setting's place. Where no setting was allowed, −1,
    and NaN if in no repeat; the mean is of the others. One poem sways the picks of the rest, so ``by_poem``
    gives no interval.
    """

    value: float
    by_poem: Floats
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
    by_poem: Floats,
    fold: Ints,
    better: Literal["high", "low"] = "high",
    allowed: Callable[[Bools], Bools] | None = None,
) -> CrossFitted:
    """Return the value of the best of C settings, measured on poems that did not pick it.

    ``by_poem`` is ``[C, P]``, without NaN, ``fold`` ``[R, P]`` from ``folds``. Each fold is measured with the
    setting that is best on the other folds (Stone, "Cross-validatory choice", JRSS B 36, 1974); of equals,
    the first. ``allowed`` says which settings ``[C]`` may be picked, given the poems that may be looked at.
    """
    sign = 1 if better == "high" else -1

    def pick(rest: Bools) -> int:
        means = sign * (by_poem @ rest.astype(np.float64)) / rest.sum()
        if allowed is not None:
            means = np.where(allowed(rest), means, -np.inf)
        most = means.max()
        # The product may round equal settings differently.
        return -1 if most == -np.inf else int((means >= most - 1e-12 * abs(most)).argmax())

    picked = np.full(fold.shape, -1)
    for row, repeat in zip(picked, fold, strict=True):
        for number in np.unique(repeat):
            rest = repeat != number
            if rest.any():
                row[~rest] = pick(rest)
    known = picked >= 0
    values = np.where(known, by_poem[picked, np.arange(by_poem.shape[1])], 0)
    times = known.sum(axis=0)
    by_poem_fitted = np.where(times > 0, values.sum(axis=0) / np.maximum(times, 1), np.nan)
    value = float(by_poem_fitted[times > 0].mean()) if times.any() else math.nan
    return CrossFitted(value, by_poem_fitted, picked)


def joint_level(by_poem: Floats, seed: int, level: float = LEVEL) -> float:
    """Return the level at which each of C settings' intervals makes all of them hold at once.

    ``by_poem`` is ``[C, P]``. All then hold their truth with probability ``level``, and so does that of the
    one that was picked, however it was (Berk et al., "Valid post-selection inference", *Annals of Statistics*
    41, 2013). The largest of the settings' standardised deviations in a bootstrap, as a level of the normal.
    The winner's end on the worse side needs this level; noise having helped it, ``level`` is enough for the
    other.
    """
    poems = by_poem.shape[1]
    resampled = resample_weights(poems, seed) @ by_poem.T / poems
    spread = resampled.std(axis=0)
    varied = spread > 1e-12
    if not varied.any():
        return level
    deviations = np.abs(resampled - by_poem.mean(axis=1))[:, varied] / spread[varied]
    joint = 2 * special.ndtr(np.quantile(deviations.max(axis=1), level)) - 1
    return max(float(joint), level)
