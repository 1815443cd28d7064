"""The tables of docs/statistics.md#when-to-stop: trained seeds, from each run's values by poem, and what could be reached."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks import stopping


def test_a_training_that_overfits_is_stopped_after_three_worse_steps_and_its_best_is_kept(monkeypatch):
    fall = np.abs(np.arange(12) - 1)  # the second of twelve evaluations is the best
    draw = np.random.default_rng(0)
    kept = pd.DataFrame([
        {"seed": seed, "step": 6 * (at + 1), "example_id": str(poem), "reference_nll": 4 + nll + 0.1 * draw.normal()}
        for seed in (1, 2) for at, nll in enumerate(fall) for poem in range(60)
    ])  # fmt: skip
    metric, *shares, best, earliest, smoothed, likeliest = stopping.trained(kept, "reference_nll")
    # The fifth evaluation is the first with three worse ones behind the best: 7 of 12 are saved.
    assert (metric, *shares) == ("reference_nll", *("0", "0", "100", "58", "58", "100", "100", "100"))
    assert best == earliest == smoothed == likeliest
    assert float(best) == pytest.approx(4, abs=0.02)
    monkeypatch.setattr(stopping, "DRAWN", 2)
    assert stopping.anew(kept, "reference_nll") == ["reference_nll", "100", "100", "100"]


def test_who_knows_the_best_step_stops_by_students_t_alone():
    stops = []
    for seed in range(30):
        scores = np.random.default_rng(seed).normal(size=(10, 12)) - 0.1 * np.arange(10)[:, None]
        p = stats.ttest_1samp(scores[1] - scores[2:], 0, axis=1, alternative="greater").pvalue
        worse = (now for now in range(4, 10) if (p[now - 4 : now - 1] < 0.05).all())
        stops.append(stopping.told(scores, 1))
        assert stops[-1] == min(worse, default=None)
    assert 0 < stops.count(None) < len(stops)


def test_one_by_one_stops_at_three_worse_ones_and_not_where_one_of_them_is_as_good():
    for seed in range(20):
        luck = 0.5 * np.random.default_rng(seed).normal(size=(12, 30))
        for worse, stop in ((np.arange(12) > 3, 6), (np.arange(12) % 3 > 0, None)):
            assert stopping.one_by_one(luck - 3.0 * worse[:, None])[1] == stop
