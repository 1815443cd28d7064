"""Resampling: poems are drawn with replacement, whatever is measured on them comes along.

In: arrays of numbers with one axis of poems. Out: intervals. Pure numpy; knows nothing of
metrics or files. Samples nest in poems, so poems alone are resampled (a cluster bootstrap:
Davison & Hinkley, *Bootstrap Methods and their Application*, 1997, section 3.8).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95


def resample_weights(poems: int, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each poem is drawn in each resample: ``[resamples, poems]``.

    The same poems and seed give the same weights, so that two things measured on the same
    poems are resampled together and their difference is paired.
    """
    generator = np.random.default_rng([seed, poems])
    return generator.multinomial(poems, np.full(poems, 1 / poems), size=resamples).astype(np.float64)


def interval(resampled: Floats, level: float = LEVEL) -> tuple[Floats, Floats]:
    """Return the percentile interval of ``resampled`` ``[resamples, ...]`` along its first axis."""
    tail = (1 - level) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
