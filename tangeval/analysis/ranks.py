"""Many things measured on the same examples → the ranks that each may have.

In: parts of what was measured. Out: for each the least and the greatest rank that the tests of all pairs leave it.
Knows nothing of files.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tangeval.analysis.aggregate import Part
from tangeval.analysis.hypothesis_tests import ERROR, FEWEST, swaps
from tangeval.analysis.intervals import Floats

Ints = NDArray[np.int64]
_TIE = 1e-6  # of a scaled statistic: rounding breaks no tie


def rank_ranges(parts: Sequence[Part], metric: str) -> tuple[Ints, Ints]:
    """Return the least and the greatest rank ``[C]`` of each of C parts by a metric that is a mean over examples.

    1 is the best. Two whose ranges share a rank are a tie. All ranges hold at once with probability 0.95: a part's
    least rank counts those shown to be better, its greatest those shown to be worse, by the tests of all pairs (Mogstad,
    Romano, Shaikh & Wilhelm, "Inference for Ranks", *Review of Economic Studies* 91, 2024).
    """
    sign = 1 if parts[0].measured.metrics[metric].better == "high" else -1
    by_poem = sign * np.stack([part.by_poem(metric) for part in parts])
    better = shown_better(by_poem)
    return 1 + better.sum(axis=0), len(parts) - better.sum(axis=1)


def shown_better(by_poem: Floats) -> NDArray[np.bool_]:
    """Return of values ``[C, P]`` by example which row is shown to be above which column ``[C, C]``.

    Examples change places between the two of a pair, as ``family_tests`` has it, in the same ways for all pairs. Each
    statistic is scaled by its root mean square, and is shown where it is beyond all but 5 % of the largest ones of the
    family of all pairs (single-step max-T: Westfall & Young, *Resampling-Based Multiple Testing*, 1993).
    """
    count, poems = by_poem.shape
    ways = swaps(poems, FEWEST, seed=0)
    if len(ways) > FEWEST:  # some of all ways, what was observed among them, are exact too
        chosen = np.random.default_rng(0).choice(np.arange(1, len(ways)), FEWEST - 1, replace=False)
        ways = ways[[0, *chosen]]
    sums = (np.round(by_poem, 12) @ (1 - 2 * ways.T)).astype(np.float32)  # [C, ways]
    observed, largest = np.zeros((count, count), np.float32), np.zeros(len(ways), np.float32)
    for place in range(count - 1):
        apart = np.round(by_poem[place] - by_poem[place + 1 :], 12)
        scale = np.sqrt((apart**2).sum(axis=1)).astype(np.float32)[:, None]
        size = (sums[place] - sums[place + 1 :]) / np.where(scale > 0, scale, np.inf)
        size = np.nan_to_num(size)  # what was not measured of a text is told from nothing
        np.maximum(largest, np.abs(size).max(axis=0), out=largest)
        observed[place, place + 1 :] = size[:, 0]
    observed -= observed.T
    critical = np.sort(largest)[len(largest) - 1 - int(ERROR * len(largest))]
    return np.asarray(observed > critical + _TIE)
