"""Intervals: Hall's t, Wilson's score, the jackknife of a corpus's score, and MOVER of two of these.

In: arrays with one axis of examples, P long. Out: the ends of intervals. Samples nest in examples, so
that examples alone are resampled and left out (Davison & Hinkley, *Bootstrap Methods and their Application*,
1997, section 3.8); or clusters of them, where a task names these (``Clusters``). docs/statistics.md says what is used where, and how each was chosen by
simulation. Each can be stretched: that many times as far from the value, in the unit of its own quantile.
Knows nothing of metrics or files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95
#: Examples that must carry a corpus's score for it to have an interval.
CARRYING = 3


@dataclass(frozen=True)
class Clusters:
    """P examples in G clusters, which are resampled whole and count as one long example each.

    ``of`` ``[P]`` is each example's cluster, in the order in which they appear.
    """

    of: NDArray[np.int64]

    @classmethod
    def named(cls, names: Sequence[str]) -> "Clusters":
        """Return the clusters of examples by their names ``[P]``; an example without one ("") is its own."""
        numbers: dict[Any, int] = {}
        own = [name or place for place, name in enumerate(names)]
        return cls(np.array([numbers.setdefault(name, len(numbers)) for name in own], np.int64))

    @property
    def size(self) -> Floats:
        """How many examples each has, in parts of the mean ``[G]``."""
        return self.parts(np.ones(len(self.of)))

    def sums(self, by_example: NDArray[Any]) -> NDArray[Any]:
        """Return each cluster's sum ``[G, ...]`` of values by example ``[P, ...]``."""
        order = np.argsort(self.of, kind="stable")
        begins = np.searchsorted(self.of[order], np.arange(self.of.max() + 1))
        summed: NDArray[Any] = np.add.reduceat(by_example[order], begins, axis=0, dtype=by_example.dtype)
        return summed

    def parts(self, by_example: Floats) -> Floats:
        """Return each cluster's part ``[G, ...]`` in the mean of ``by_example`` ``[P, ...]``, which is that of the parts."""
        summed: Floats = self.sums(by_example) * ((self.of.max() + 1) / len(self.of))
        return summed

    def linear(self, by_example: Floats) -> Floats:
        """Return independent values ``[G, ...]`` that have the mean of ``by_example`` ``[P, ...]``, and its variance."""
        return linear(self.parts(by_example), self.size)


def linear(parts: Floats, size: Floats) -> Floats:
    """Return ``Clusters.parts`` ``[G, ...]`` of a mean as independent values that have its mean and its variance.

    A mean over clusters of unequal ``size`` ``[G]`` is a ratio of sums: its linearised values (Cochran, *Sampling
    Techniques*, 1977, section 9A.4). Clusters of one size are as they were.
    """
    apart = (size - 1).reshape(-1, *[1] * (parts.ndim - 1))
    return parts - apart * parts.mean(axis=0) if apart.any() else parts


def resample_weights(poems: int, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each poem is drawn in each resample: ``[resamples, poems]``.

    The same poems and seed give the same weights: things measured on the same poems are paired.
    """
    generator = np.random.default_rng([seed, poems])
    return generator.multinomial(poems, np.full(poems, 1 / poems), size=resamples).astype(np.float64)


def corpus_interval(value: float, without: Floats, rare: Floats, stretch: float = 1.0) -> tuple[float, float]:
    """Return the interval of a corpus's score above 0; NaN where fewer than ``CARRYING`` examples carry it.

    ``without`` ``[P]`` is the score without each example in turn, ``rare`` ``[P]`` how many of the rarest events
    that it is made of each has. Jackknife of the logarithm (Tukey 1958; Miller, *Biometrika* 61, 1974), with t for
    the normal: as many degrees of freedom as examples carry the score (Kish, *Survey Sampling*, 1965), less one.
    """
    freedom = carrying(rare) - 1
    if np.isnan(freedom) or not (without > 0).all():
        return np.nan, np.nan
    logs = np.log(without)
    error = math.sqrt((len(logs) - 1) * logs.var())
    far = math.exp(stretch * float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * error)
    return value / far, value * far


def corpus_difference_interval(
    by_poem: Floats, rare: Sequence[Floats], stretch: float = 1.0
) -> tuple[float, float]:
    """Return the interval of one corpus's score less another's, of the same poems; NaN where one has none itself.

    ``by_poem`` ``[P]`` are the differences of their pseudo-values, ``rare`` as ``corpus_interval`` takes it.
    Student's t, with the degrees of freedom of the one that fewer examples carry.
    """
    t = stretch * special.stdtrit(np.min([carrying(each) for each in rare]) - 1, (1 + LEVEL) / 2)
    difference, far = by_poem.mean(), t * by_poem.std() / math.sqrt(max(len(by_poem) - 1, 1))
    return float(difference - far), float(difference + far)


def carrying(rare: Floats) -> float:
    """Return how many examples carry a value: Kish's effective number of those that have its rare events ``[P]``.

    NaN where there are fewer than ``CARRYING``: what others could have brought cannot be seen in so few.
    """
    found = float(rare.sum() ** 2 / max((rare**2).sum(), 1))
    return found if found >= CARRYING else math.nan


def mean_interval(by_poem: Floats, stretch: float = 1.0) -> tuple[Floats, Floats]:
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
    t = stretch * special.stdtrit(poems - 1, (1 + LEVEL) / 2)
    return mean - error * _unskewed(t, skew), mean - error * _unskewed(-t, skew)


def rate_interval(
    by_poem: Floats, samples: float, stretch: float = 1.0, carried: float | Floats = math.inf
) -> tuple[Floats, Floats]:
    """Return an interval of a share's mean over poems, which does not collapse at 0 and 1.

    ``by_poem`` ``[P, ...]``, between 0 and 1, is each poem's mean over its ``samples``. Wilson's score
    interval (JASA 22, 1927) with the number of independent outputs that has the same variance (Korn &
    Graubard, *Survey Methodology* 24, 1998). That number is an estimate: t takes the place of the normal,
    with Satterthwaite's degrees of freedom (*Biometrics Bulletin* 2, 1946) from the fourth moment between
    poems, P − 1 at most, or just that for one sample, where the mean says the variance. Where all poems are
    equal, each counts as one independent output. Where few poems carry the mean, ``carried`` says how many: the
    degrees of freedom are one less at most. NaN gives NaN.
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
    t = stretch * special.stdtrit(np.minimum(freedom, carried - 1), (1 + LEVEL) / 2)
    shrink = 1 + t**2 / outputs
    centre = (mean + t**2 / (2 * outputs)) / shrink
    half = t * np.sqrt(np.maximum(binomial, 0) / outputs + t**2 / (4 * outputs**2)) / shrink
    # Rounding alone could leave a mean of 0 or 1 outside.
    return np.minimum(np.maximum(centre - half, 0), mean), np.maximum(np.minimum(centre + half, 1), mean)


def rate_difference_interval(
    first: Floats, second: Floats, ends: Sequence[tuple[float, float]], samples: float
) -> tuple[float, float]:
    """Return an interval of one share less another, of the same poems ``[P]``, from the shares' own ``ends``.

    MOVER: the distances to the own ends, joined as standard errors are, with the correlation between poems (Zou &
    Donner, *Statistics in Medicine* 27, 2008), less half an output of ``samples`` a poem where it is above 0 (Newcombe's
    method 10, *Statistics in Medicine* 17, 1998). It lies within −1 and 1, and is never flat.
    """
    value, other = first.mean(), second.mean()
    deviations = first - value, second - other
    spread = math.sqrt((deviations[0] @ deviations[0]) * (deviations[1] @ deviations[1]))
    together = float(deviations[0] @ deviations[1])
    together = max(together - 0.5 / samples, 0.0) if together > 0 else together
    alike = together / spread if spread > 1e-12 else 0.0
    (low, high), (other_low, other_high) = ends
    below, above = (
        math.sqrt(max(a * a + b * b - 2 * alike * a * b, 0))
        for a, b in ((value - low, other_high - other), (high - value, other - other_low))
    )
    return max(value - other - below, -1.0), min(value - other + above, 1.0)


def _unskewed(t: float, skew: Floats) -> Floats:
    """The T for which Hall's ``T + skew T²/3 + skew² T³/27 + skew/6`` is t."""
    safe = np.where(np.abs(skew) > 1e-6, skew, 1)
    solved = 3 / safe * (np.cbrt(1 + skew * (t - skew / 6)) - 1)
    return np.where(np.abs(skew) > 1e-6, solved, t + 0 * skew)
