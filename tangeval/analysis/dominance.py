"""Dominance in several metrics: which settings none beats, and which are shown to be beaten.

In: M metrics of C settings on the same P examples, means over them, of which more is better. Out: which settings are
on the front, and which other is shown to dominate each. Knows nothing of metrics or files.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tangeval.analysis.hypothesis_tests import ERROR, MOST, swaps
from tangeval.analysis.intervals import Floats
from tangeval.analysis.selection_bias import Bools, Ints

#: Examples that must differ: with fewer, no two-sided exact test by swapping them rejects.
FEWEST = 1 + math.ceil(math.log2(1 / ERROR))
#: Ways to swap: as many as this allows of settings × settings × metrics × ways, for time, and some in any case.
_STATISTICS, _WAYS = 1_500_000_000, 1000
_TIE = 1e-6  # of a scaled statistic: rounding breaks no tie
_SAME = 1e-9  # a difference that rounding left


def on_front(values: Floats) -> Bools:
    """Return which of C settings of ``values`` ``[M, C]`` no other dominates: no worse in any metric, better in one.

    More is better.
    """
    others, own = values[:, :, None], values[:, None, :]
    no_worse, better = np.all(others >= own, axis=0), np.any(others > own, axis=0)
    front: Bools = ~np.any(no_worse & better, axis=0)
    return front


def dominated_by(by_poem: Floats, front: Bools, seed: int = 0) -> Ints:
    """Return the setting of the ``front`` that is shown to be better in every metric, for each setting ``[C]``; −1: none.

    ``by_poem`` ``[M, P, C]`` are M metrics, of which more is better. A setting is shown to be dominated where the
    smallest of its differences over the metrics is significant (intersection–union: Berger, *Technometrics* 24, 1982).
    The critical value is that of the largest difference over all pairs of settings and all metrics, under the same
    swaps of examples, each difference scaled by its root mean square over the swaps: the order of Student's t.
    In steps: settings that are shown to be dominated leave the family (Romano & Wolf, *JASA* 100, 2005). So with
    probability 1 − ``ERROR`` no setting of the true front is called dominated, whatever the point estimates chose.
    """
    lowest, largest = _statistics(by_poem, _ways(by_poem.shape, seed))
    lowest[~front] = -np.inf
    found, size = lowest.argmax(axis=0), lowest.max(axis=0)
    left = np.ones(len(found), bool)
    while True:
        null = largest[left].max(axis=0)
        p = (null[:, None] >= size - _TIE).mean(axis=0)
        shown = left & (p <= ERROR)
        if not shown.any():
            return np.where(left, -1, found)
        left &= ~shown


def _ways(shape: tuple[int, ...], seed: int) -> Floats:
    """Signs ``[n, P]`` of the examples' differences; the first are as observed."""
    metrics, poems, settings = shape
    most = max(_WAYS, min(MOST, _STATISTICS // (metrics * settings**2)))
    signs = 1 - 2 * swaps(poems, most, seed)
    generator = np.random.default_rng([seed, poems, 3])
    some = np.append(0, 1 + generator.permutation(len(signs) - 1)[: most - 1])
    # ``swaps`` has one of each two opposite ways, which a one-sided test tells apart.
    ways: Floats = signs[some] * np.append(1, generator.choice([-1, 1], len(some) - 1))[:, None]
    return ways


def _statistics(by_poem: Floats, signs: Floats) -> tuple[Floats, NDArray[np.float32]]:
    """How far each setting lies above each other in every metric ``[C, C]``, −∞ where too few examples differ; and
    the most that any lies above each in any metric, in each way: ``[C, n]``."""
    sums, settings = (signs @ by_poem).astype(np.float32), by_poem.shape[2]  # [M, n, C]
    lowest = np.full((settings, settings), np.inf)
    largest = np.full((settings, len(signs)), -np.inf, np.float32)
    for place in range(settings):
        for own, summed in zip(by_poem, sums, strict=True):
            apart = np.abs(own - own[:, [place]])
            scale = np.sqrt((apart**2).sum(axis=0))
            scaled = summed - summed[:, [place]]
            scaled /= np.where(scale > _SAME, scale, np.inf).astype(np.float32)
            enough = (apart > _SAME).sum(axis=0) >= FEWEST
            np.minimum(lowest[:, place], np.where(enough, scaled[0], -np.inf), out=lowest[:, place])
            np.maximum(largest[place], scaled.max(axis=1), out=largest[place])
    return lowest, largest
