"""Runs and poems as two levels: against scipy where it knows the case, and against a mixed model of statsmodels."""

import numpy as np
import pytest
from scipy import stats

from tangeval.analysis.recipes import Spread, between_runs, estimate, runs_needed

# Two recipes, four runs each, ten poems; y ~ recipe + (1|poem) + (1|recipe:poem) + (1|run).
FIRST = [
    [-1.0, 0.3, -0.3, -1.6, 0.6, 1.0, 0.6, -0.2, -0.4, 1.1], [0.5, 1.4, -0.7, -2.5, 0.4, 0.8, -1.3, -0.2, -0.5, -0.6],
    [1.2, 2.2, 0.7, -0.8, 1.7, 2.3, 0.6, 0.8, 1.0, 0.7], [1.5, 1.4, 0.9, -0.7, 0.6, 1.5, 0.2, 1.2, -0.0, 0.2],
]  # fmt: skip
SECOND = [
    [1.0, 0.8, 1.5, -0.0, -0.7, 0.6, 1.5, 1.3, -0.0, 1.5], [1.8, 1.7, 2.0, 0.5, 0.6, 1.5, 2.0, 0.2, 0.7, 1.9],
    [-0.0, 0.8, 0.4, -0.1, -0.3, 1.1, 1.2, 0.7, -0.6, 0.3], [0.7, -0.2, -0.5, -1.3, -1.1, 0.4, -0.2, -0.3, -1.3, 0.5],
]  # fmt: skip


def runs(generator: np.random.Generator, k: int, poems: int, tau: float, rest: float = 1.0) -> np.ndarray:
    return tau * generator.normal(size=(k, 1)) + rest * generator.normal(size=(k, poems))


def test_the_error_is_a_mixed_models():
    """statsmodels 0.15.0, MixedLM by REML, which balanced data give the mean squares' answer."""
    found = estimate(np.array(SECOND), np.array(FIRST))
    assert found.value == pytest.approx(0.15)
    assert np.sqrt(found.spread.variance()[0]) == pytest.approx(0.50605, abs=3e-4)
    assert found.spread.runs - found.spread.rest / 10 == pytest.approx(0.38872, abs=3e-4)
    assert found.spread.rest == pytest.approx(0.24765, abs=1e-4)


def test_poems_without_a_part_leave_students_test_of_runs():
    generator = np.random.default_rng(1)
    poems = generator.normal(size=12)
    first, second = poems + generator.normal(size=(3, 1)), poems + generator.normal(size=(4, 1))
    found = estimate(first, second)
    theirs = stats.ttest_ind(first.mean(axis=1), second.mean(axis=1))
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, *theirs.confidence_interval()))


def test_runs_that_are_alike_leave_students_test_of_poems():
    generator = np.random.default_rng(2)
    first, second = generator.normal(size=(2, 12))
    found = estimate(np.tile(first, (3, 1)), np.tile(second, (3, 1)))
    theirs = stats.ttest_rel(first, second)
    assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, *theirs.confidence_interval()))


def test_one_run_each_is_an_interval_over_poems_alone():
    generator = np.random.default_rng(3)
    first, second = generator.normal(size=(2, 1, 30))
    found = estimate(first, second)
    assert found.spread.free == 0
    assert found.p == pytest.approx(stats.ttest_rel(first[0], second[0]).pvalue)
    assert np.isnan(between_runs(first)).all()
    assert np.isnan(runs_needed(found.spread, 0.1, 0.8))


def test_a_checkpoint_beside_a_recipe_is_itself():
    generator = np.random.default_rng(4)
    recipe, checkpoint = runs(generator, 4, 200, 1.0), generator.normal(size=200)
    assert estimate(recipe, checkpoint).spread.weight == 1 / 4
    assert estimate(recipe, checkpoint[None]).spread.weight == 1 / 4 + 1


def test_alike_recipes_are_called_different_in_one_of_twenty():
    """By poems alone it is more than half of them: length_match of tang-mini, 200 poems, six seeds."""
    generator, alone, whole = np.random.default_rng(5), 0, 0
    for _ in range(1000):
        first, second = (runs(generator, 3, 200, 0.0216, 0.0098 * 10) for _ in range(2))
        alone += estimate(first[0], second[0]).p <= 0.05
        whole += estimate(first, second).p <= 0.05
    assert 500 < alone < 620
    assert 30 < whole < 70


def test_a_recipes_interval_holds_its_value_and_is_no_wider_than_it_must():
    """Most of the variance is the poems', which many tell; three runs have two degrees of freedom."""
    generator = np.random.default_rng(9)
    found = [
        estimate(runs(generator, 3, 200, 0.0216, 0.098) + 0.3 * generator.normal(size=200))
        for _ in range(1000)
    ]
    assert 0.93 < np.mean([each.low <= 0 <= each.high for each in found]) < 0.97


def test_drawing_runs_and_poems_anew_gives_the_same_error():
    """Owen, *Annals of Applied Statistics* 1, 2007: it counts the rest three times, which is little here."""
    generator = np.random.default_rng(6)
    first, second = (runs(generator, 25, 60, 0.5) for _ in range(2))
    poems = generator.multinomial(60, np.full(60, 1 / 60), 4000) / 60
    drawn = [generator.multinomial(25, np.full(25, 1 / 25), 4000) / 25 @ side for side in (first, second)]
    by_bootstrap = ((drawn[0] - drawn[1]) * poems).sum(axis=1).std()
    assert np.sqrt(estimate(first, second).spread.variance()[0]) == pytest.approx(by_bootstrap, rel=0.06)


def test_tau_is_found_and_its_interval_holds_it():
    generator = np.random.default_rng(7)
    found = np.array([between_runs(runs(generator, 5, 50, 0.4)) for _ in range(1000)])
    tau, low, high = found.T
    assert (tau**2).mean() == pytest.approx(0.16, rel=0.1)
    assert 930 < ((low <= 0.4) & (high >= 0.4)).sum() < 970


def test_runs_needed_find_what_they_are_to_find():
    generator, poems, tau = np.random.default_rng(8), 200, 0.3
    known = Spread(tau**2 + 1 / poems, 2.0, 1.0, poems, 2.0, 10**6)
    needed = int(runs_needed(known, 0.5, 0.8))
    assert needed == 8
    found = [
        estimate(runs(generator, needed, poems, tau) + 0.5, runs(generator, needed, poems, tau)).p < 0.05
        for _ in range(1000)
    ]
    assert 0.78 < np.mean(found) < 0.90
    assert runs_needed(known, 0.5, 0.8, family=10) > needed


def test_no_number_of_runs_makes_up_for_poems():
    few = Spread(0.0, 5.0, 1.0, 15, 2 / 3, 4)
    assert np.isinf(runs_needed(few, 0.1, 0.8))
    assert np.isfinite(runs_needed(few, 5.0, 0.8))


def test_without_any_variance_a_difference_is_sure_and_none_is_none():
    ones, halves = np.ones((3, 10)), np.full((3, 10), 0.5)
    assert estimate(ones, halves).p < 1e-9
    assert estimate(ones, ones).p == 1
    assert np.isnan(estimate(ones[:, :1], halves[:, :1]).low)
