"""The table of trained seeds in docs/statistics.md, from each run's values by poem."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import stopping


def test_a_training_that_overfits_is_stopped_after_three_worse_steps_and_its_best_is_kept():
    fall = np.abs(np.arange(12) - 1)  # the second of twelve evaluations is the best
    draw = np.random.default_rng(0)
    kept = pd.DataFrame([
        {"seed": seed, "step": 6 * (at + 1), "example_id": str(poem), "reference_nll": 4 + nll + 0.1 * draw.normal()}
        for seed in (1, 2) for at, nll in enumerate(fall) for poem in range(60)
    ])  # fmt: skip
    metric, *shares, best, earliest, smoothed = stopping.trained(kept, "reference_nll")
    # The fifth evaluation is the first with three worse ones behind the best: 7 of 12 are saved.
    assert (metric, *shares) == ("reference_nll", "0", "0", "100", "58", "100", "100")
    assert best == earliest == smoothed
    assert float(best) == pytest.approx(4, abs=0.02)
