"""What choosing the setting for each example could win over the best single setting.

In: values of C settings × P examples × S samples. Out: the room, with its interval, luck not counted. Knows nothing
of metrics or files.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tangeval.analysis.intervals import Clusters, Floats, mean_interval
from tangeval.analysis.selection_bias import Ints, folds


class Room(NamedTuple):
    """``single`` is the best single setting's value, ``adaptive`` that of each example's own; ``room`` is between them.

    ``with_luck`` is what the outputs seem to say: each example's best setting, picked and scored on the same samples,
    less the best single one likewise. What adaptive decoding can win lies between ``room`` and ``with_luck``.
    """

    single: float
    adaptive: float
    room: float
    low: float
    high: float
    with_luck: float


def room(values: NDArray[np.floating], seed: int, clusters: Clusters | None = None) -> Room:
    """Return the room in ``values`` ``[C, P, S]``, of which more is better; of one sample NaN, but for ``with_luck``.

    Each example's setting is chosen on half of its samples and scored on the other half, then the other way about, for
    ten ways to halve them. How a setting does on all other examples, and on this one, are weighed against each other: an
    example's own deviations count by the slope with which one half foretells the other on other examples, which is 0
    where samples tell nothing of the example (the best linear prediction: Robinson, *Statistical Science* 6, 1991).
    The best single setting is that of the other examples, scored on the same half. So where settings do not differ
    between examples, both choose alike. A room below 0, as chance alone makes it, is 0. A chooser who knew more than
    half of the samples say could win more. ``clusters`` of examples stay in one fold.
    """
    poems, samples = values.shape[1:]
    mean = values.mean(axis=2, dtype=np.float64)
    with_luck = float(mean.max(axis=0).mean() - mean.mean(axis=1).max())
    if samples < 2:
        return Room(np.nan, np.nan, np.nan, np.nan, np.nan, with_luck)
    single, adaptive = np.zeros(poems), np.zeros(poems)
    generator = np.random.default_rng([seed, poems, 4])
    fold = folds(poems, seed) if clusters is None else folds(len(clusters.size), seed)[:, clusters.of]
    for own in fold:
        order = generator.permutation(samples)
        halves = [values[..., part].mean(axis=2, dtype=np.float64) for part in np.array_split(order, 2)]
        for seen, scored in (halves, halves[::-1]):
            one, each = _picked(mean, seen, scored, own)
            single += scored[one, np.arange(poems)]
            adaptive += scored[each, np.arange(poems)]
    single, adaptive = single / (2 * len(fold)), adaptive / (2 * len(fold))
    won = adaptive - single
    apart = won if clusters is None else clusters.linear(won)
    low, high = (float(end - won.mean()) for end in mean_interval(apart))
    value = max(float(won.mean()), 0.0)
    ends = max(value + low, 0.0), value + high
    return Room(float(single.mean()), float(adaptive.mean()), value, *ends, with_luck)


def _picked(mean: Floats, seen: Floats, scored: Floats, fold: Ints) -> tuple[Ints, Ints]:
    """The best single setting, and each example's own ``[P]``, by the other folds and by what was ``seen`` of the example."""
    # Of what one half says of an example's settings beside each other, as much counts as the other half confirms.
    left, right = seen - seen.mean(axis=0), scored - scored.mean(axis=0)
    square, product = (left**2).sum(axis=0), (left * right).sum(axis=0)
    single, own = np.zeros(len(fold), np.int64), np.zeros(len(fold), np.int64)
    for number in np.unique(fold):
        here, others = fold == number, fold != number
        if not (count := others.sum()):
            continue
        sums = [side.sum(axis=1) - side[:, here].sum(axis=1) for side in (mean, left, right)]
        overall = sums[0] / count
        size = square[others].sum() - sums[1] @ sums[1] / count
        alike = product[others].sum() - sums[1] @ sums[2] / count
        slope = min(max(alike / size, 0.0), 1.0) if size > 1e-9 else 0.0
        expected = overall[:, None] + slope * (left[:, here] - (overall - overall.mean())[:, None])
        single[here], own[here] = overall.argmax(), expected.argmax(axis=0)
    return single, own
