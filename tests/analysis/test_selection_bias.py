"""Cross-fitting and joint intervals against enumeration and against what they promise."""

from itertools import product

import numpy as np
import pytest

from tangeval.analysis.intervals import mean_interval
from tangeval.analysis.selection_bias import cross_fitted, folds, joint_level


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def test_folds_are_even_keyed_and_drawn_anew():
    fold = folds(205, 3)
    assert fold.shape == (10, 205)
    assert [sorted(np.bincount(row)) for row in fold] == [[25] * 3 + [26] * 5] * 10
    assert len({tuple(row) for row in fold}) == 10
    assert np.array_equal(fold, folds(205, 3))
    assert not np.array_equal(fold, folds(205, 4))
    assert sorted(folds(15, 0, 20, 1)[0]) == list(range(15))


def test_each_fold_is_measured_with_the_setting_the_others_pick(generator):
    by_poem, fold = generator.random((7, 30)), folds(30, 0, 5, 3)
    found = cross_fitted(by_poem, fold)
    for repeat, number in product(range(3), range(5)):
        best = by_poem[:, fold[repeat] != number].mean(axis=1).argmax()
        assert (found.picked[repeat, fold[repeat] == number] == best).all()
    measured = [by_poem[picked, np.arange(30)] for picked in found.picked]
    assert np.allclose(found.by_poem, np.mean(measured, axis=0))
    assert found.value == pytest.approx(np.mean(measured))


def test_low_is_high_of_the_negative(generator):
    by_poem, fold = generator.random((7, 30)), folds(30, 0)
    assert cross_fitted(by_poem, fold, "low").value == -cross_fitted(-by_poem, fold).value


def test_a_setting_that_is_best_everywhere_keeps_its_value(generator):
    by_poem = generator.random((7, 30))
    by_poem[4] += 2
    found = cross_fitted(by_poem, folds(30, 0))
    assert set(found.picked.flat) == {4}
    assert found.value == pytest.approx(by_poem[4].mean())


def test_only_settings_that_are_allowed_without_the_fold_are_picked(generator):
    by_poem, form, fold = generator.random((7, 30)), generator.random((7, 30)), folds(30, 0)

    def allowed(rest):
        return form[:, rest].mean(axis=1) >= 0.5

    found = cross_fitted(by_poem, fold, allowed=allowed)
    for repeat, number in product(range(10), range(8)):
        rest = fold[repeat] != number
        permitted = np.flatnonzero(allowed(rest))
        best = permitted[by_poem[permitted][:, rest].mean(axis=1).argmax()]
        assert (found.picked[repeat, ~rest] == best).all()


def test_where_no_setting_is_allowed_nothing_is_measured(generator):
    by_poem, fold = generator.random((7, 30)), folds(30, 0, repeats=1)
    none = cross_fitted(by_poem, fold, allowed=lambda rest: np.zeros(7, bool))
    assert np.isnan(none.value)
    assert (none.picked == -1).all()
    # Poem 0's fold alone has nothing to pick.
    some = cross_fitted(by_poem, fold, allowed=lambda rest: np.full(7, rest[0]))
    own = fold[0] == fold[0, 0]
    assert np.isnan(some.by_poem[own]).all()
    assert some.value == some.by_poem[~own].mean()


def test_one_poem_cannot_pick():
    alone = cross_fitted(np.ones((3, 1)), folds(1, 0))
    assert (alone.picked == -1).all()
    assert np.isnan(alone.value)


def test_cross_fitting_takes_out_the_winners_noise(generator):
    naive, corrected = [], []
    for run in range(150):
        by_poem = generator.normal(size=(60, 50))
        naive.append(by_poem.mean(axis=1).max())
        corrected.append(cross_fitted(by_poem, folds(50, run, repeats=3)).value)
    assert np.mean(naive) > 0.25
    assert abs(np.mean(corrected)) < 0.05


def test_joint_level_of_one_setting_is_its_own_and_of_independent_settings_is_sidaks(generator):
    by_poem = generator.normal(size=(40, 300))
    assert joint_level(by_poem[:1], 0) == pytest.approx(0.95, abs=0.01)
    assert joint_level(by_poem, 0) == pytest.approx(0.95 ** (1 / 40), abs=0.0008)
    assert joint_level(np.repeat(by_poem[:1], 40, axis=0), 0) == joint_level(by_poem[:1], 0)
    assert joint_level(np.ones((3, 20)), 0) == 0.95


def test_intervals_at_the_joint_level_hold_all_truths_at_once(generator):
    held = []
    for run in range(150):
        by_poem = generator.normal(size=(30, 60)) + generator.normal(size=60)
        low, high = mean_interval(by_poem.T, joint_level(by_poem, run))
        held.append(((low <= 0) & (high >= 0)).all())
    assert np.mean(held) > 0.9
