"""Bradley–Terry strengths: who is preferred to whom, on one scale, with intervals over examples.

In: wins by example and pair. Out: log-odds and their ends. Knows nothing of texts, judges or files.
"""

import numpy as np
from scipy import special
from scipy.sparse.csgraph import connected_components

from tangeval.analysis.intervals import LEVEL, Floats

_TOLERANCE = 1e-10


def strengths(wins: Floats) -> Floats:
    """Return the log-odds strengths ``[K]``, of mean 0, that ``wins`` ``[K, K]`` are most likely under.

    ``wins[i, j]`` says how often i was preferred to j, a tie being half a win of each. j loses to i with
    the odds exp(strength i − strength j) (Bradley & Terry, *Biometrika* 39, 1952). By the MM algorithm of
    Hunter, *Annals of Statistics* 32, 2004.

    Raises:
        ValueError: some sides won or lost all against the others, so that no strengths are the most likely.
    """
    if connected_components(wins > 0, connection="strong")[0] > 1:
        raise ValueError("some sides won or lost all against the others")
    won, met = wins.sum(axis=1), wins + wins.T
    found: Floats = np.zeros(len(wins))
    while True:
        odds = np.exp(found)
        new: Floats = np.log(won / (met / (odds[:, None] + odds)).sum(axis=1))
        new -= new.mean()
        if np.abs(new - found).max() < _TOLERANCE:
            return new
        found = new


def strength_intervals(by_poem: Floats, level: float = LEVEL) -> tuple[Floats, Floats, Floats]:
    """Return strengths and both ends, ``[K]`` each, of wins by poem, ``[P, K, K]``, NaN where a pair has no answer.

    A poem is one comparison of each of its pairs, and half a poem more, of ties alone, keeps a side that won
    or lost all finite. Sandwich variance with poems as clusters (Liang & Zeger, *Biometrika* 73, 1986), the
    added one among them, t with P − 1 degrees of freedom. ``benchmarks/judge.py`` measures what they hold.
    All are NaN where some sides did not meet the others, not even through a third.
    """
    by_poem = by_poem[~np.isnan(by_poem).all(axis=(1, 2))]
    poems, sides = by_poem.shape[:2]
    asked = ~np.isnan(by_poem).all(axis=0) & ~np.eye(sides, dtype=bool)
    if connected_components(asked)[0] > 1:
        nothing = np.full(sides, np.nan)
        return nothing, nothing, nothing
    wins = np.concatenate([np.nan_to_num(by_poem), asked[None] / 4])
    found = strengths(wins.sum(axis=0))
    expected = special.expit(found[:, None] - found)
    met = wins + wins.transpose(0, 2, 1)
    scores = (wins - met * expected).sum(axis=2)
    weights = met.sum(axis=0) * expected * expected.T
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    clusters = len(wins)
    spread = inverse @ (scores.T @ scores) @ inverse * clusters / (clusters - 1)
    half = special.stdtrit(max(poems - 1, 1), (1 + level) / 2) * np.sqrt(np.diag(spread))
    return found, found - half, found + half
