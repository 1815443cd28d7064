"""Paired randomisation tests of a family of comparisons, and the size of a study.

In: pairs of things measured on the same P examples. Out: p-values, the same adjusted for the size of the
family, and intervals. Knows nothing of settings or files.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tangeval.analysis.intervals import Floats

#: The error rate of tests: of a family of true null hypotheses, the chance that one or more is rejected.
ERROR = 0.05
#: The chance with which a study of the right size shows its effect.
POWER = 0.8
#: Ways to swap the examples' values: all of them where there are no more than ``EXACT``, which is up to 15
#: examples; else ``MOST`` at random, or fewer, for time, where many corpora are scored in each.
EXACT, MOST, FEWEST = 2**14, 10_000, 2_000
#: Swaps × examples that are held at a time, and the ways of so many examples that this leaves fewer.
_HELD, _FEWEST_OF_MANY = 100_000_000, 1_000
_CORPORA = 10_000_000  # corpora that are scored in a family, about
_CHUNK = 16_384  # corpora that are scored at once
_ROWS = 256  # sums that are taken in one matrix product
_TIE = 1e-6  # of a scaled statistic: rounding breaks no tie


@dataclass(frozen=True)
class Corpora:
    """Two things measured by a corpus metric: its value is the mean of those of N corpora.

    ``first`` and ``second`` are each example's counts in each corpus ``[P, N, K]``; ``score`` is ``Metric.score``.
    """

    score: Callable[..., Floats]
    first: Floats
    second: Floats

    @property
    def apart(self) -> Floats:
        """What a sum gains where an example changes places ``[K · N, P]``."""
        return np.reshape((self.second - self.first).transpose(2, 1, 0), (-1, len(self.first)))

    @cached_property
    def totals(self) -> tuple[Floats, Floats]:
        """Both sides' sums over examples ``[K, N, 1]``."""
        first, second = (side.sum(axis=0).T[..., None] for side in (self.first, self.second))
        return first, second

    def difference(self, moved: Floats | NDArray[np.float32]) -> Floats:
        """Return the first's value less the second's ``[n]``, where the sums ``[K · N, n]`` are ``moved`` to the first."""
        kinds, corpora, _ = self.totals[0].shape
        moved = moved.reshape(kinds, corpora, -1)
        # Counts stand first, so that each is contiguous: scoring is four times as fast.
        sides = np.empty((kinds, 2, *moved.shape[1:]))
        np.add(self.totals[0], moved, out=sides[:, 0])
        np.subtract(self.totals[1], moved, out=sides[:, 1])
        first, second = self.score(np.moveaxis(sides, 0, -1)).mean(axis=1)
        difference: Floats = first - second
        return difference


#: What is tested: each example's difference ``[P]`` of two means, or ``Corpora``.
Column = Floats | Corpora


@dataclass(frozen=True)
class Tested:
    """A family's two-sided p-values ``[m]``, alone and adjusted, and 95 % intervals of the differences of means."""

    p: Floats
    adjusted: Floats
    low: Floats  #: NaN for corpora, and where fewer than six examples leave any difference possible
    high: Floats


def family_tests(columns: Sequence[Column], seed: int, size: Floats | None = None) -> Tested:
    """Test m comparisons on the same P examples against no difference, with the same swaps.

    ``columns`` are each a difference by example ``[P]``, in the metric's unit, or ``Corpora``; ``seed`` draws the swaps
    of more than 15 examples; ``size`` is ``Measured.size`` where what is swapped is of unequal weight. Examples change places between the two sides (of means: a difference changes its
    sign), corpora are scored anew (Riezler & Maxwell, *ACL Workshop on Evaluation Measures* 2005). p is the share of
    ways that give a statistic at least as far from 0, what was observed being one of them, so that the test is exact
    (Phipson & Smyth, *SAGMB* 9, 2010).

    Adjusted by the step-down maximum of the statistics, each scaled by its root mean square over the ways
    (Westfall & Young, *Resampling-Based Multiple Testing*, 1993): of differences of means, the order of Student's t.

    The interval of a difference of means is what the test does not reject, so that the two agree. The statistic
    of a way is at least as extreme for a true difference below the mean of the examples that it swaps, or of the
    others (Hartigan, "Using subsample values as typical values", JASA 64, 1969).

    NaN gives NaN, and is left out of the family.
    """
    if not columns:
        return Tested(*np.empty((4, 0)))
    corpora = [column for column in columns if isinstance(column, Corpora)]
    means = {place: column for place, column in enumerate(columns) if not isinstance(column, Corpora)}
    ways = _ways(corpora, len(corpora[0].first if corpora else means[0]), seed)
    poems = ways.shape[1]
    statistic = np.empty((len(columns), len(ways)), np.float32)
    if corpora:
        statistic[[place for place in range(len(columns)) if place not in means]] = _swapped(corpora, ways)[0]
    differences = np.stack(list(means.values())) if means else np.empty((0, poems))
    statistic[list(means)] = differences.sum(axis=1, keepdims=True) - 2 * (differences @ ways.T)
    ends, count = np.full((2, len(columns)), np.nan), ways @ (np.ones(poems) if size is None else size)
    for place in means:
        ends[:, place] = _inverted(statistic[place], count, poems)
    p, adjusted = step_down(statistic)
    kept = p > ERROR  # rounding puts no end on the other side of 0 than p does
    low, high = (
        np.where(kept, bound(end, 0), end) for bound, end in zip((np.minimum, np.maximum), ends, strict=True)
    )
    return Tested(p, adjusted, low, high)


def corpora_tests(columns: Sequence[Corpora], seed: int) -> tuple[Floats, float]:
    """Return the p-values ``[m]`` of one or more ``Corpora``, as ``family_tests`` adjusts them, and p of all together.

    Together they are one corpus metric, the mean over the corpora of all; each is to have as many.
    """
    statistic, together = _swapped(columns, _ways(columns, len(columns[0].first), seed))
    return step_down(statistic)[1], float(step_down(together[None])[0][0])


def _ways(columns: Sequence[Corpora], poems: int, seed: int) -> Floats:
    """Ways to swap, fewer where many corpora are scored in each."""
    corpora = sum(column.first.shape[1] for column in columns)
    return swaps(poems, max(FEWEST, min(MOST, _CORPORA // (2 * max(corpora, 1)))), seed)


def _swapped(columns: Sequence[Corpora], ways: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each one's first value less its second ``[m, n]``, and their mean ``[n]``, examples having changed places where
    ``ways`` ``[n, P]`` is 1."""
    found, total = np.empty((len(columns), len(ways)), np.float32), np.zeros(len(ways))
    apart = [column.apart for column in columns]
    # Sums of whole numbers below 2^24 are exact in single precision, which is twice as fast.
    exact = all(np.abs(own).sum(axis=1).max(initial=0) < 2**24 and not (own % 1).any() for own in apart)
    kind = np.float32 if exact else np.float64
    swapped = np.asfortranarray(ways, kind)
    blocks = np.cumsum([len(own) for own in apart]) // _ROWS
    for block in np.unique(blocks):
        places = np.flatnonzero(blocks == block).tolist()
        rows, which = _distinct(np.concatenate([apart[place] for place in places]).astype(kind))
        size = max(1, _CHUNK // max(columns[place].first.shape[1] for place in places))
        for begin in range(0, len(ways), size):
            moved, end = rows @ swapped[begin : begin + size].T, 0
            for place in places:
                own = which[end : (end := end + len(apart[place]))]
                found[place, begin : begin + size] = value = columns[place].difference(moved[own])
                total[begin : begin + size] += value
    return found, (total / max(len(columns), 1)).astype(np.float32)


def _distinct(rows: NDArray[Any]) -> tuple[NDArray[Any], list[int]]:
    """The distinct rows, and which of them each row is: lengths, and n-grams of several orders, often differ alike."""
    numbers: dict[bytes, int] = {}
    which = [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows]
    return np.stack([np.frombuffer(row, rows.dtype) for row in numbers]), which


def holm(p: Floats) -> Floats:
    """Return p-values ``[m]`` adjusted for their number, whatever tests they are of (Holm, *Scandinavian Journal of
    Statistics* 6, 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1)
    return adjusted


def swaps(poems: int, most: int, seed: int) -> Floats:
    """Return ways to swap examples ``[n, P]``, 1 where one is; the first is what was observed.

    A way and its opposite give the same two-sided result. So where all are tried the last example is never
    swapped, and 2^(P − 1) ways are all.
    """
    if poems - 1 < 62 and 2 ** (poems - 1) <= EXACT:
        return (np.arange(2 ** (poems - 1))[:, None] >> np.arange(poems) & 1).astype(np.float64)
    most = min(most, max(_FEWEST_OF_MANY, _HELD // poems))
    ways = np.random.default_rng([seed, poems, 2]).integers(0, 2, (most, poems), dtype=np.int8)
    ways[0] = 0
    return ways.astype(np.float64)


def step_down(statistic: NDArray[np.float32]) -> tuple[Floats, Floats]:
    """Return p-values ``[m]`` of statistics ``[m, n]``, whose first column was observed, and the same adjusted.

    By the step-down maximum, each statistic scaled by its root mean square.
    """
    scale = np.sqrt(np.einsum("mn,mn->m", statistic, statistic, dtype=np.float64) / statistic.shape[1])
    size = np.abs(statistic) / np.where(scale > 0, scale, 1).astype(np.float32)[:, None]
    observed = size[:, 0] - _TIE
    missing = np.isnan(observed)
    p = np.where(missing, np.nan, (size >= observed[:, None]).mean(axis=1))
    up = [place for place in np.argsort(observed, kind="stable") if not missing[place]]
    adjusted, largest = np.full(len(p), np.nan), np.zeros(statistic.shape[1], np.float32)
    for place in up:
        np.maximum(largest, size[place], out=largest)
        adjusted[place] = (largest >= observed[place]).mean()
    down = up[::-1]
    adjusted[down] = np.maximum.accumulate(adjusted[down])
    return p, adjusted


def joint_critical(differences: Floats, *, sides: int) -> float:
    """Return the 95 % quantile of the largest Student's t of centred differences ``[C, P]`` whose signs are swapped.

    One of two ``sides`` asks how far one goes up, two how far either way; without any that varies, t's own quantile.
    """
    squares = (differences**2).sum(axis=1)
    varied = squares > 1e-12
    poems = differences.shape[1]
    if not varied.any():
        return float(special.stdtrit(poems - 1, 1 - ERROR / sides))
    signs = 1 - 2 * swaps(poems, FEWEST, 0)  # a quantile needs no more
    size = signs @ (differences[varied] / np.sqrt(squares[varied])[:, None]).T
    t = size * np.sqrt((poems - 1) / np.maximum(poems - size**2, 1e-9))
    # A way and its opposite are as likely: both are looked at.
    largest = np.abs(t).max(axis=1) if sides == 2 else np.concatenate([t.max(axis=1), -t.min(axis=1)])
    return float(np.quantile(largest, 1 - ERROR))


def _inverted(statistic: NDArray[np.float32], swapped: Floats, poems: int) -> tuple[float, float]:
    """The least and the greatest difference that are not rejected by ways ``[n]`` that swap so many examples."""
    rank = math.floor(ERROR * len(statistic))
    if rank < 1:
        return np.nan, np.nan
    trivial = np.minimum(swapped, poems - swapped) < _TIE  # as extreme whatever the difference is
    own = (statistic[0] - statistic) / np.where(trivial, np.inf, 2 * swapped)
    others = (statistic[0] + statistic) / np.where(trivial, np.inf, 2 * (poems - swapped))
    lower = np.where(trivial, -np.inf, np.minimum(own, others))[1:]
    upper = np.where(trivial, np.inf, np.maximum(own, others))[1:]
    last = len(upper) - rank
    return float(np.partition(lower, rank - 1)[rank - 1]), float(np.partition(upper, last)[last])


def poems_needed(
    sd: float, effect: float, level: float = ERROR, power: float = POWER, family: int = 1
) -> int:
    """Return how many poems show a mean difference of ``effect`` with probability ``power``.

    ``sd`` is the standard deviation of the differences between poems, in the unit of ``effect``, both above
    0; ``family`` how many comparisons share ``level`` (the first step of Bonferroni's rule). The fewest of which
    ``smallest_effect`` is no larger.
    """
    if not (effect > 0 and sd > 0):
        raise ValueError(f"an effect of {effect} and a deviation of {sd} are not both positive")
    normal = float(special.ndtri(1 - level / family / 2) + special.ndtri(power))
    # As for the normal: too few, by two or so.
    poems = max(_fewest(level / family), math.ceil((normal * sd / effect) ** 2))
    while smallest_effect(sd, poems, level, power, family) > effect:
        poems += 1
    return poems


def smallest_effect(
    sd: float, poems: int, level: float = ERROR, power: float = POWER, family: int = 1
) -> float:
    """Return the mean difference that ``poems`` show with probability ``power``; infinite if they are too few.

    The normal formula with t's quantiles in place of the normal's. Too few are those whose signs cannot be
    flipped in enough ways for p to reach level / family.
    """
    if poems < _fewest(level / family):
        return math.inf
    quantiles = special.stdtrit(poems - 1, 1 - level / family / 2) + special.stdtrit(poems - 1, power)
    return float(quantiles * sd / math.sqrt(poems))


def power_of(sd: float, effect: float, poems: int, level: float = ERROR, family: int = 1) -> float:
    """Return the probability that ``poems`` show a mean difference of ``effect``: that of the t test."""
    if poems < _fewest(level / family):
        return 0.0
    critical = special.stdtrit(poems - 1, 1 - level / family / 2)
    # Beyond 20 the power is 1, and scipy's function ends in NaN.
    return float(1 - special.nctdtr(poems - 1, min(effect * math.sqrt(poems) / sd, 20.0), critical))


def _fewest(level: float) -> int:
    """How many examples can be swapped in enough ways for p to reach ``level``."""
    return 2 + math.floor(math.log2(1 / level))
