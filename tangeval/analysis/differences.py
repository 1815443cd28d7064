"""Pairs of things measured on the same examples → how far apart they are, and whether that is real.

In: parts of what was measured. Out: for each pair and metric the difference, its interval and its p-values. All
that compares goes through here. Knows nothing of files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from tangeval.analysis import intervals
from tangeval.analysis.aggregate import Part
from tangeval.analysis.hypothesis_tests import ERROR, Column, Corpora, family_tests, joint_critical
from tangeval.analysis.intervals import Floats
from tangeval.metrics.base import Metric


@dataclass(frozen=True)
class Difference:
    """One value less another, its 95 % interval, and two-sided p-values: alone, and adjusted for the family."""

    value: float
    low: float  #: NaN where there is no interval to believe
    high: float
    p: float
    p_adjusted: float

    @property
    def real(self) -> bool:
        return self.p_adjusted <= ERROR

    @property
    def reversed(self) -> "Difference":
        """The other value less the one."""
        return replace(self, value=-self.value, low=-self.high, high=-self.low)


@dataclass(frozen=True)
class Pair:
    """Two parts to be compared by a metric."""

    first: Part
    second: Part
    metric: str

    @property
    def value(self) -> float:
        return self.first.value(self.metric) - self.second.value(self.metric)

    @property
    def by_poem(self) -> Floats:
        """Each example's difference ``[P]``; what rounding left is none."""
        return np.round(self.first.by_poem(self.metric) - self.second.by_poem(self.metric), 12)

    @property
    def spread(self) -> float:
        """The standard deviation of the difference between examples."""
        return float(self.linear.std(ddof=1))

    @property
    def linear(self) -> Floats:
        """``by_poem`` as independent values ``[P]`` that have the difference's mean and variance."""
        return np.round(self.first.linear(self.metric) - self.second.linear(self.metric), 12)

    @property
    def _metric(self) -> Metric:
        return self.first.measured.metrics[self.metric]

    def examples_in(self, clusters: int) -> int:
        """Return how many examples so many of the P have."""
        return math.ceil(clusters * len(self.first.measured.examples) / self.first.measured.poems)

    def column(self) -> Column:
        """Return what is tested: each example's difference ``[P]``, or its counts on both sides."""
        if self._metric.level != "corpus":
            return self.by_poem
        return facing(self._metric, self.first.counts(self.metric), self.second.counts(self.metric))

    def interval(self, stretch: float = 1.0) -> tuple[float, float] | None:
        """Return the interval of the difference where it is not that of the test: of shares, and of corpora."""
        sides, name = (self.first, self.second), self.metric
        if self._metric.share:
            ends = [side.interval(name, stretch) for side in sides]
            first, second = (side.linear(name) for side in sides)
            outputs = min(side.outputs_per_poem for side in sides)
            return intervals.rate_difference_interval(first, second, ends, outputs)
        if self._metric.level == "corpus":
            rare = [side.rare(name) for side in sides]
            return intervals.corpus_difference_interval(self.by_poem, rare, stretch)
        return None


def facing(metric: Metric, first: Floats, second: Floats) -> Corpora:
    """Return two sides' counts ``[P, N, K]`` of a corpus metric as one comparison.

    Of unequal numbers N of corpora, the fewer stand beside the others again and again.
    """
    corpora = np.arange(max(first.shape[1], second.shape[1]))
    first, second = (np.take(side, corpora, axis=1, mode="wrap") for side in (first, second))
    return Corpora(metric.score, first, second)


def differences(pairs: Sequence[Pair]) -> list[Difference]:
    """Return each pair's difference; p-values are adjusted for all pairs together.

    The interval is MOVER's of shares, the jackknife's of corpora, else what the test does not reject.
    """
    size = pairs[0].first.measured.size if pairs else None
    tested = family_tests([pair.column() for pair in pairs], seed=0, size=size)
    found = []
    for place, pair in enumerate(pairs):
        low, high = pair.interval() or (float(tested.low[place]), float(tested.high[place]))
        found.append(Difference(pair.value, low, high, float(tested.p[place]), float(tested.adjusted[place])))
    return found


def joint_intervals(
    pairs: Sequence[Pair], found: Sequence[Difference]
) -> tuple[list[tuple[float, float]], float]:
    """Return intervals that hold for all pairs at once in 95 %, and the value of Student's t that they reach to.

    They agree with the tests of the same family, ``found``: a difference that is not real has 0 in its interval, and a
    real one has not more than an end there. One example has none. Distances of means are Student's t.
    """
    apart = np.stack([pair.linear for pair in pairs])
    poems = apart.shape[1]
    if poems < 2:
        return [(np.nan, np.nan)] * len(pairs), np.nan
    critical = joint_critical(apart - apart.mean(axis=1, keepdims=True), sides=2)
    stretch = critical / float(special.stdtrit(poems - 1, (1 + intervals.LEVEL) / 2))
    rows = []
    for pair, each in zip(pairs, found, strict=True):
        far = critical * pair.spread / np.sqrt(poems)
        low, high = pair.interval(stretch) or (each.value - far, each.value + far)
        if each.real:
            low, high = (max(low, 0.0), high) if each.value > 0 else (low, min(high, 0.0))
        elif not np.isnan(low):
            low, high = min(low, 0.0), max(high, 0.0)
        rows.append((float(low), float(high)))
    return rows, critical
