"""Do the intervals of Bradley–Terry strengths hold the true strengths? Simulated judges of simulated poems.

python -m benchmarks.judge

In: worlds with known strengths. A poem suits each side differently (a normal of deviation 1, so that its two orders
agree more than two poems do), the judge favours what it is shown first by a logit, and ties where two are
alike. True is what infinitely many poems would give.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tangeval.judge.bradley_terry import strength_intervals, strengths

WORLDS = ([0, 0, 0], [1, 0, -1], [3, 0, -3], [5, 0, 0, -5], [2, 1.5, 1, -2, -3])
_MANY = 50_000


def main() -> None:
    for poems in (15, 50, 200):
        for sides in WORLDS:
            held = coverage(sides, poems, worlds=400, seed=1)
            print(f"{poems:3} poems, strengths {sides}: each interval holds {(100 * held).round(1)} %")


def coverage(sides: Sequence[float], poems: int, worlds: int, seed: int) -> NDArray[np.float64]:
    """Return the share of ``worlds`` whose interval holds the true strength, for each side."""
    generator = np.random.default_rng(seed)
    true = strengths(_wins(np.array(sides, float), _MANY, generator).mean(axis=0))
    held = np.zeros(len(sides))
    for _ in range(worlds):
        _, low, high = strength_intervals(_wins(np.array(sides, float), poems, generator))
        held += (low <= true) & (true <= high)
    return held / worlds


def _wins(sides: NDArray[np.float64], poems: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Wins of row over column by poem, the mean of both orders."""
    count = len(sides)
    own = sides + generator.normal(0, 1, (poems, count))
    ahead = own[:, :, None] - own[:, None, :]
    upper = np.triu(np.ones((count, count), bool), 1)
    won = np.zeros((poems, count, count))
    for first in (1, -1):
        tied = generator.random(ahead.shape) < 0.3 * np.exp(-((ahead + first) ** 2) / 2)
        better = generator.random(ahead.shape) < special.expit(ahead + first)
        won += np.where(tied, 0.5, better) / 2
    return np.where(upper, won, np.where(upper.T, 1 - won.transpose(0, 2, 1), 0))


if __name__ == "__main__":
    main()
