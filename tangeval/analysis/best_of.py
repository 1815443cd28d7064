"""The best of k of n, without drawing any: outputs of a poem, or settings of a family.

In: n values each. Out: the mean of the best of k over all ways to draw k of the n. Knows nothing of metrics or files.
"""

from typing import Literal

import numpy as np

from tangeval.analysis.intervals import Floats


def chances(n: int, k: int) -> Floats:
    """Return the chance that the best, second, … of ``n`` is the best of ``k`` drawn without replacement: ``[n]``.

    C(n − i, k − 1) ÷ C(n, k) of the i-th, by the ratio of neighbours, so that no binomial overflows.
    """
    if not 1 <= k <= n:
        raise ValueError(f"{k} of {n} cannot be drawn")
    before = np.arange(n - 1)
    ratio = np.maximum(n - k - before, 0) / (n - 1 - before)
    found: Floats = k / n * np.cumprod(np.append(1.0, ratio))
    return found


def best_of(values: Floats, k: int, better: Literal["high", "low"] = "high") -> Floats:
    """Return what the best of ``k`` of n ``values`` ``[..., n]`` is expected to be: ``[...]``.

    Unbiased for the best of k independent outputs (Walder & Karkhanis, arXiv 2505.15201; of shares pass@k: Chen et
    al., arXiv 2107.03374). NaN among the values gives NaN.
    """
    ordered = np.sort(values, axis=-1)
    ordered = ordered[..., ::-1] if better == "high" else ordered
    found: Floats = ordered @ chances(values.shape[-1], k)
    return found


def ladder(n: int) -> list[int]:
    """Return the k that are looked at: 1, 2, 4, … and n."""
    return sorted({2**power for power in range(n.bit_length())} | {n})
