"""What the poems can show: resampling, intervals, paired tests, and a winner's corrected value.

In: arrays of numbers with one axis of poems, P long. Out: intervals, p-values, counts. numpy
and scipy's distributions; knows nothing of metrics or files. Samples nest in poems, so poems
alone are resampled, flipped and left out (a cluster bootstrap: Davison & Hinkley, *Bootstrap
Methods and their Application*, 1997, section 3.8). docs/statistics.md says what is used where,
and how each was chosen by simulation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Signs = NDArray[np.int8]
RESAMPLES = 1000
LEVEL = 0.95
#: The largest share of differences that are not there which a test may call real.
ERROR = 0.05
FOLDS, REPEATS = 8, 10
FEWEST_FLIPS, MOST_FLIPS = 20_000, 200_000
_CHUNK = 2048  # rows of signs in one matrix product


def resample_weights(poems: int, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each poem is drawn in each resample: ``[resamples, poems]``.

    The same poems and seed give the same weights, so that two things measured on the same
    poems are resampled together and their difference is paired.
    """
    generator = np.random.default_rng([seed, poems])
    return generator.multinomial(poems, np.full(poems, 1 / poems), size=resamples).astype(np.float64)


# Intervals


def interval(resampled: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return the percentile interval of ``resampled`` ``[resamples, ...]`` along its first axis."""
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def bca_interval(
    value: Floats, resampled: Floats, jackknife: Floats, level: float = LEVEL
) -> tuple[Floats, Floats]:
    """Return the BCa interval: percentiles, corrected for bias and for skewness.

    ``value`` is ``[...]``, ``resampled`` ``[B, ...]``, ``jackknife`` ``[P, ...]`` the value
    without each poem in turn. Where the resamples are all equal, both ends are ``value``.
    Efron, "Better bootstrap confidence intervals", JASA 82, 1987; of resamples that equal the
    value one half lies below it, as in scipy.stats.bootstrap.
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

    Student's t with its skewness transformed away: Hall, "On the removal of skewness by
    transformation", JRSS B 54, 1992 (the cubic, which is monotone and has an inverse); t with
    P − 1 degrees of freedom instead of the normal. Without variation both ends are the mean;
    of one poem they are NaN.
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

    ``by_poem`` ``[P, ...]``, between 0 and 1, is each poem's mean over its ``samples``. Wilson's
    score interval (JASA 22, 1927) with the number of independent outputs that has the same
    variance (Korn & Graubard, *Survey Methodology* 24, 1998). That number is an estimate: t
    takes the place of the normal, with Satterthwaite's degrees of freedom (*Biometrics
    Bulletin* 2, 1946) from the fourth moment between poems, P − 1 at most, or just that for one
    sample, where the mean says the variance. Where all poems are equal, each counts as one
    independent output. NaN gives NaN.
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


# Paired tests


def sign_flip_p(differences: Floats, flips: int, seed: int) -> Floats:
    """Return two-sided p-values ``[...]`` of the mean of ``differences`` ``[P, ...]`` against 0.

    Under the null hypothesis each poem's two values could be swapped, so each difference could
    have the other sign: p is the share of flips that give a sum at least as far from 0. What was
    observed counts as one of them, which keeps p above 0 and the test exact (the add-one rule:
    Phipson & Smyth, *SAGMB* 9, 2010). Where no more than ``flips`` can differ, all are tried and
    nothing is random. All columns are flipped with the same signs. NaN gives NaN.
    """
    columns = differences.reshape(len(differences), -1)
    observed, scale = columns.sum(axis=0), np.abs(columns).sum(axis=0)
    extreme, count = np.zeros(columns.shape[1]), 0
    for signs in _sign_chunks(len(columns), flips, seed):
        extreme += _as_extreme(signs.astype(np.float64) @ columns, observed, scale).sum(axis=0)
        count += len(signs)
    p = np.where(np.isnan(observed), np.nan, extreme / count)
    return p.reshape(differences.shape[1:])


def holm(p: Floats) -> Floats:
    """Return p-values ``[m]`` adjusted for their number; NaN is left out of it.

    Of all hypotheses that are true, one or more is rejected with probability ``level`` at most,
    however they depend on each other (Holm, *Scandinavian Journal of Statistics* 6, 1979).
    """
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def flips_for(family: int, level: float = ERROR) -> int:
    """Return how many flips ``family`` comparisons need that Holm's rule adjusts.

    The smallest p is 1/flips, and Holm multiplies it by the family. With 20 × family / level
    flips it adjusts to level/20, and a p that just passes rests on 20 flips as extreme: its
    Monte Carlo error is 1/√20, 22 %. At least 20,000, which makes 15 poems exact. At most
    200,000, for time: beyond 500 comparisons that error grows, and beyond 10,000 nothing could
    be shown.
    """
    return min(max(FEWEST_FLIPS, math.ceil(20 * family / level)), MOST_FLIPS)


def poems_needed(sd: float, effect: float, level: float = ERROR, power: float = 0.8, family: int = 1) -> int:
    """Return how many poems show a mean difference of ``effect`` with probability ``power``.

    ``sd`` is the standard deviation of the differences between poems, in the unit of ``effect``;
    ``family`` how many comparisons share ``level`` (the first step of Holm's rule). The normal
    formula, its quantiles replaced by t's and solved by iteration; never fewer than allow p to
    reach level / family by flipping signs.

    Raises:
        ValueError: ``effect`` or ``sd`` is not positive.
    """
    if not (effect > 0 and sd > 0):
        raise ValueError(f"an effect of {effect} and a deviation of {sd} are not both positive")
    tail = level / family / 2
    fewest = 2 + math.floor(math.log2(1 / (2 * tail)))

    def needed(freedom: float) -> int:
        quantiles = float(special.stdtrit(freedom, 1 - tail) + special.stdtrit(freedom, power))
        return max(fewest, math.ceil((quantiles * sd / effect) ** 2))

    poems = needed(1e9)  # as for the normal: too few, by two or so
    while needed(poems - 1) > poems:
        poems += 1
    return poems


# A winner's corrected value


@dataclass(frozen=True)
class CrossFitted:
    """A winner's value, corrected for its having been picked.

    ``value`` is the mean of ``by_poem`` ``[P]``: each poem's value for the setting picked without it,
    averaged over repeats. ``picked`` ``[R, P]`` is that setting's place. Where no setting was allowed,
    −1, and NaN if in no repeat; the mean is of the others. The poems differ less than the value
    does between samples of poems, as one poem sways the picks of the rest: take no interval from
    ``by_poem``, but the winner's own at ``joint_level``.
    """

    value: float
    by_poem: Floats
    picked: Ints


def folds(poems: int, seed: int, most: int = FOLDS, repeats: int = REPEATS) -> Ints:
    """Return the fold of each poem, drawn anew in each repeat: ``[repeats, poems]``.

    ``most`` folds, or as many as there are poems, of sizes that differ by one at most. More folds
    take less bias from a winner that is truly best (at most 1 / (2 × (folds − 1)) of what noise
    added), but vary more; repeats vary less.
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

    ``by_poem`` is ``[C, P]``, ``fold`` ``[R, P]`` from ``folds``. The largest of many means is too
    large, because noise helped to pick it. Here each fold is measured with the setting that is best
    on the other folds (Stone, "Cross-validatory choice", JRSS B 36, 1974). ``allowed`` says which
    settings ``[C]`` may be picked, given the poems that may be looked at. Of equals, the first.
    Every value must have been measured.
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

    ``by_poem`` is ``[C, P]``. All then hold their truth with probability ``level``, and so does
    that of the one that was picked, however it was (Berk et al., "Valid post-selection
    inference", *Annals of Statistics* 41, 2013). The largest of the settings' standardised deviations
    in a bootstrap, which knows how alike they are, as a level of the normal. The winner's end on
    the worse side needs this level; noise having helped it, ``level`` is enough for the other.
    Settings without variation are left out.
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


# A winner for less


@dataclass(frozen=True)
class Round:
    """One round of a race: the settings in it, the samples that each had by its end, and the settings that it let on."""

    settings: tuple[int, ...]
    samples: int
    kept: tuple[int, ...]


def successive_halving(
    settings: int, samples: int, rank: Callable[[Sequence[int], int], Sequence[int]], keep: float = 0.5
) -> list[Round]:
    """Return the rounds of a race of ``settings`` for the best, the last of which keeps the winner alone.

    One sample of all settings, then twice as many of the best ``keep`` of them, and so on until
    those left have ``samples``. ``rank`` is given settings and samples and returns the settings, best
    first. Karnin et al., "Almost optimal exploration in multi-armed bandits", ICML 2013; here the
    samples that a setting has are kept, and shared noise makes one sample tell much.
    """
    racing, have = tuple(range(settings)), 1
    rounds = []
    while True:
        ranked = tuple(rank(racing, have))
        last = have == samples or len(ranked) == 1
        kept = ranked[: 1 if last else math.ceil(len(ranked) * keep)]
        rounds.append(Round(racing, have, kept))
        if last:
            return rounds
        racing, have = tuple(sorted(kept)), min(2 * have, samples)


def spent(rounds: Sequence[Round]) -> int:
    """Return how many settings × samples a race took; without one it is all settings × all samples."""
    before = [0, *(r.samples for r in rounds)]
    return sum(len(r.settings) * (r.samples - had) for r, had in zip(rounds, before, strict=False))


def _quantile(ordered: Floats, share: Floats) -> Floats:
    """The quantile at ``share`` ``[...]`` of each column of ``ordered`` ``[B, ...]``, between
    neighbours linearly, as numpy's."""
    place = np.nan_to_num(share) * (len(ordered) - 1)
    below = np.minimum(place.astype(np.int64), max(len(ordered) - 2, 0))
    low, high = (
        np.take_along_axis(ordered, np.minimum(at, len(ordered) - 1)[None], axis=0)[0]
        for at in (below, below + 1)
    )
    between: Floats = low + (place - below) * (high - low)
    return np.where(np.isnan(share), np.nan, between)


def _unskewed(t: float, skew: Floats) -> Floats:
    """The T for which Hall's ``T + skew T²/3 + skew² T³/27 + skew/6`` is t."""
    safe = np.where(np.abs(skew) > 1e-6, skew, 1)
    solved = 3 / safe * (np.cbrt(1 + skew * (t - skew / 6)) - 1)
    return np.where(np.abs(skew) > 1e-6, solved, t + 0 * skew)


def _sign_chunks(poems: int, flips: int, seed: int) -> Iterator[Signs]:
    """Rows of signs, 1 or −1, some at a time; the first is all 1: what was observed.

    A row and its negative give the same two-sided result. So where all are tried the last poem is
    never flipped, and 2^(poems − 1) rows are all.
    """
    if exact := poems - 1 < 62 and 2 ** (poems - 1) <= flips:
        flips = 2 ** (poems - 1)
    generator = np.random.default_rng([seed, poems, 2])
    for begin in range(0, flips, _CHUNK):
        rows = min(_CHUNK, flips - begin)
        if exact:
            flipped = (np.arange(begin, begin + rows)[:, None] >> np.arange(poems) & 1).astype(np.int8)
        else:
            flipped = generator.integers(0, 2, (rows, poems), dtype=np.int8)
            flipped[: begin == 0] = 0
        yield 1 - 2 * flipped


def _as_extreme(flipped: Floats, observed: Floats, scale: Floats) -> Bools:
    """Which ``[F, ...]`` are at least as far from 0 as ``observed``; rounding breaks no tie."""
    return np.abs(flipped) >= np.abs(observed) - 1e-9 * scale
