"""Paired tests: sign-flip permutation, Holm's correction, the size of a study.

In: differences of two things measured on the same P examples. Out: p-values and counts. Knows nothing of
metrics or files.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy import special

from tangeval.analysis.intervals import Floats

#: The error rate of tests: of a family of true null hypotheses, the chance that one or more is rejected.
ERROR = 0.05
FEWEST_FLIPS, MOST_FLIPS = 20_000, 200_000
_CHUNK = 2048  # rows of signs in one matrix product


def sign_flip_p(differences: Floats, flips: int, seed: int) -> Floats:
    """Return two-sided p-values ``[...]`` of the mean of ``differences`` ``[P, ...]`` against 0.

    p is the share of random signs of the differences that give a sum at least as far from 0. What was
    observed counts as one of them, which keeps p above 0 and the test exact (the add-one rule: Phipson &
    Smyth, *SAGMB* 9, 2010). Where no more than ``flips`` can differ, all are tried. All columns are flipped
    with the same signs. NaN gives NaN.
    """
    columns = differences.reshape(len(differences), -1)
    observed, scale = columns.sum(axis=0), np.abs(columns).sum(axis=0)
    extreme, count = np.zeros(columns.shape[1]), 0
    for signs in _sign_chunks(len(columns), flips, seed):
        # Rounding breaks no tie.
        extreme += (np.abs(signs @ columns) >= np.abs(observed) - 1e-9 * scale).sum(axis=0)
        count += len(signs)
    p = np.where(np.isnan(observed), np.nan, extreme / count)
    return p.reshape(differences.shape[1:])


def holm(p: Floats) -> Floats:
    """Return p-values ``[m]`` adjusted for their number (Holm, *Scandinavian Journal of Statistics* 6, 1979).

    NaN is left out of it. They may depend on each other in any way.
    """
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def flips_for(family: int, level: float = ERROR) -> int:
    """Return how many flips ``family`` comparisons need that Holm's rule adjusts.

    With 20 × family / level flips the smallest p, 1/flips, adjusts to level/20, and the Monte Carlo error of
    a p that just passes is 1/√20, 22 %. At least 20,000, which makes 15 poems exact. At most 200,000, for
    time: beyond 500 comparisons that error grows, and beyond 10,000 nothing could be shown.
    """
    return min(max(FEWEST_FLIPS, math.ceil(20 * family / level)), MOST_FLIPS)


def poems_needed(sd: float, effect: float, level: float = ERROR, power: float = 0.8, family: int = 1) -> int:
    """Return how many poems show a mean difference of ``effect`` with probability ``power``.

    ``sd`` is the standard deviation of the differences between poems, in the unit of ``effect``, both above
    0; ``family`` how many comparisons share ``level`` (the first step of Holm's rule). The normal formula,
    its quantiles replaced by t's and solved by iteration; never fewer than allow p to reach level / family by
    flipping signs.
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


def _sign_chunks(poems: int, flips: int, seed: int) -> Iterator[Floats]:
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
            flipped = np.arange(begin, begin + rows)[:, None] >> np.arange(poems) & 1
        else:
            flipped = generator.integers(0, 2, (rows, poems), dtype=np.int8)
            flipped[: begin == 0] = 0
        yield (1 - 2 * flipped).astype(np.float64)
