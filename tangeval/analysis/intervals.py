"""Intervals: BCa and means of the bootstrap over examples, Hall's t, Wilson's score.

In: arrays with one axis of examples, P long. Out: the ends of intervals. Samples nest in examples, so
that examples alone are resampled (cluster bootstrap: Davison & Hinkley, *Bootstrap Methods and their
Application*, 1997, section 3.8). docs/statistics.md says what is used where, and how each was chosen by
simulation. Knows nothing of metrics or files.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95


def resample_weights(poems: int, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each poem is drawn in each resample: ``[resamples, poems]``.

    The same poems and seed give the same weights: things measured on the same poems are paired.
    """
    generator = np.random.default_rng([seed, poems])
    return generator.multinomial(poems, np.full(poems, 1 / poems), size=resamples).astype(np.float64)


def bca_interval(
    value: Floats, resampled: Floats, jackknife: Floats, level: float = LEVEL
) -> tuple[Floats, Floats]:
    """Return the BCa interval: percentiles, corrected for bias and for skewness.

    ``value`` is ``[...]``, ``resampled`` ``[B, ...]``, ``jackknife`` ``[P, ...]`` the value without each poem
    in turn. Where the resamples are all equal, both ends are ``value``. Efron, "Better bootstrap confidence
    intervals", JASA 82, 1987; of resamples that equal the value one half lies below it, as in
    scipy.stats.bootstrap.
    """
    value = np.asarray(value, dtype=np.float64)
    count = len(resampled)
    below = ((resampled < value).mean(axis=0) + (resampled <= value).mean(axis=0)) / 2
    bias = special.ndtri(np.clip(below, 0.5 / count, 1 - 0.5 / count))
    influence = jackknife.mean(axis=0) - jackknife
    # Skewness has no unit, and values near 0 (BLEU of a text that is hardly any) have no cubes.
    largest = np.abs(influence).max(axis=0)
    influence = influence / np.where(largest > 0, largest, 1)
    spread = (influence**2).sum(axis=0)
    acceleration = (influence**3).sum(axis=0) / (6 * np.where(spread > 0, spread, 1) ** 1.5)
    ordered = np.sort(resampled, axis=0)
    ends = []
    for normal in special.ndtri([(1 - level) / 2, (1 + level) / 2]):
        shifted = bias + normal
        share = special.ndtr(bias + shifted / (1 - acceleration * shifted))
        ends.append(np.where(ordered[0] == ordered[-1], value, _quantile(ordered, share)))
    return ends[0], ends[1]


def mean_interval(by_poem: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return an interval of the mean of ``by_poem`` ``[P, ...]`` over its poems, of any range.

    Student's t with its skewness transformed away: Hall, "On the removal of skewness by transformation", JRSS
    B 54, 1992 (the cubic); t with P − 1 degrees of freedom instead of the normal. Without variation both ends
    are the mean; of one poem they are NaN.
    """
    poems = len(by_poem)
    mean = by_poem.mean(axis=0)
    if poems < 2:
        return np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    centred = by_poem - mean
    second = (centred**2).mean(axis=0)
    error = np.sqrt(second / (poems - 1))
    skew = (centred**3).mean(axis=0) / np.where(second > 0, second, 1) ** 1.5 / math.sqrt(poems)
    t = special.stdtrit(poems - 1, (1 + level) / 2)
    return mean - error * _unskewed(t, skew), mean - error * _unskewed(-t, skew)


def rate_interval(by_poem: Floats, samples: int, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return an interval of a share's mean over poems, which does not collapse at 0 and 1.

    ``by_poem`` ``[P, ...]``, between 0 and 1, is each poem's mean over its ``samples``. Wilson's score
    interval (JASA 22, 1927) with the number of independent outputs that has the same variance (Korn &
    Graubard, *Survey Methodology* 24, 1998). That number is an estimate: t takes the place of the normal,
    with Satterthwaite's degrees of freedom (*Biometrics Bulletin* 2, 1946) from the fourth moment between
    poems, P − 1 at most, or just that for one sample, where the mean says the variance. Where all poems are
    equal, each counts as one independent output. NaN gives NaN.
    """
    poems = len(by_poem)
    mean = by_poem.mean(axis=0)
    squares = (by_poem - mean) ** 2
    total = squares.sum(axis=0)
    varied = total > 1e-12
    binomial = mean * (1 - mean)
    outputs = np.where(varied, binomial * poems * (poems - 1) / np.where(varied, total, 1), poems)
    freedom = np.full_like(mean, max(poems - 1, 1))
    if samples > 1:
        uneven = (squares**2).sum(axis=0) / np.where(varied, total, 1) ** 2 - 1 / poems
        few = varied & (uneven > 2 / freedom)
        freedom = np.where(few, 2 / np.where(few, uneven, 1), freedom)
    t = special.stdtrit(freedom, (1 + level) / 2)
    shrink = 1 + t**2 / outputs
    centre = (mean + t**2 / (2 * outputs)) / shrink
    half = t * np.sqrt(np.maximum(binomial, 0) / outputs + t**2 / (4 * outputs**2)) / shrink
    # Rounding alone could leave a mean of 0 or 1 outside.
    return np.minimum(np.maximum(centre - half, 0), mean), np.maximum(np.minimum(centre + half, 1), mean)


def _quantile(ordered: Floats, share: Floats) -> Floats:
    """The quantile at ``share`` ``[...]`` of each column of ``ordered`` ``[B, ...]``, linearly interpolated."""
    places = np.linspace(0, 1, len(ordered))
    columns = ordered.reshape(len(ordered), -1).T
    found = [np.interp(at, places, column) for at, column in zip(share.flat, columns, strict=True)]
    return np.reshape(found, share.shape)


def _unskewed(t: float, skew: Floats) -> Floats:
    """The T for which Hall's ``T + skew T²/3 + skew² T³/27 + skew/6`` is t."""
    safe = np.where(np.abs(skew) > 1e-6, skew, 1)
    solved = 3 / safe * (np.cbrt(1 + skew * (t - skew / 6)) - 1)
    return np.where(np.abs(skew) > 1e-6, solved, t + 0 * skew)
