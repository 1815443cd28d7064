"""Cross-fitting and joint intervals against enumeration and against what they promise."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from tangeval.analysis.intervals import mean_interval, resample_weights
from tangeval.analysis.selection_bias import cross_fitted, folds, joint_stretch


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def of_means(by_poem, fold, better="high", allowed=None):
    """The best of settings whose values are means of ``by_poem`` ``[C, P]``."""

    def on(weights):
        return weights @ by_poem.T / weights.sum(axis=1, keepdims=True)

    def put_together(picked):
        known = picked >= 0
        return by_poem[picked[known], np.flatnonzero(known)].mean()

    return cross_fitted(on, put_together, fold, better, allowed)


def stretch_of(by_poem, seed):
    poems = by_poem.shape[1]
    return joint_stretch(resample_weights(poems, seed) @ by_poem.T / poems, by_poem.mean(axis=1))


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
    found = of_means(by_poem, fold)
    for repeat, number in product(range(3), range(5)):
        best = by_poem[:, fold[repeat] != number].mean(axis=1).argmax()
        assert (found.picked[repeat, fold[repeat] == number] == best).all()
    measured = [by_poem[picked, np.arange(30)] for picked in found.picked]
    assert found.value == pytest.approx(np.mean(measured))


def test_low_is_high_of_the_negative(generator):
    by_poem, fold = generator.random((7, 30)), folds(30, 0)
    assert of_means(by_poem, fold, "low").value == -of_means(-by_poem, fold).value


def test_a_setting_that_is_best_everywhere_keeps_its_value(generator):
    by_poem = generator.random((7, 30))
    by_poem[4] += 2
    found = of_means(by_poem, folds(30, 0))
    assert set(found.picked.flat) == {4}
    assert found.value == pytest.approx(by_poem[4].mean())


def test_only_settings_that_are_allowed_without_the_fold_are_picked(generator):
    by_poem, form, fold = generator.random((7, 30)), generator.random((7, 30)), folds(30, 0)

    def allowed(weights):
        return weights @ form.T / weights.sum(axis=1, keepdims=True) >= 0.5

    found = of_means(by_poem, fold, allowed=allowed)
    for repeat, number in product(range(10), range(8)):
        rest = fold[repeat] != number
        permitted = np.flatnonzero(form[:, rest].mean(axis=1) >= 0.5)
        best = permitted[by_poem[permitted][:, rest].mean(axis=1).argmax()]
        assert (found.picked[repeat, ~rest] == best).all()


def test_where_no_setting_is_allowed_nothing_is_measured(generator):
    by_poem, fold = generator.random((7, 30)), folds(30, 0, repeats=1)
    none = of_means(by_poem, fold, allowed=lambda weights: np.zeros((len(weights), 7), bool))
    assert np.isnan(none.value)
    assert (none.picked == -1).all()
    # Poem 0's fold alone has nothing to pick.
    some = of_means(by_poem, fold, allowed=lambda weights: np.repeat(weights[:, :1] == 1, 7, axis=1))
    own = fold[0] == fold[0, 0]
    assert (some.picked[0, own] == -1).all()
    assert some.value == by_poem[some.picked[0, ~own], np.flatnonzero(~own)].mean()


def test_one_poem_cannot_pick():
    alone = of_means(np.ones((3, 1)), folds(1, 0))
    assert (alone.picked == -1).all()
    assert np.isnan(alone.value)


def test_cross_fitting_takes_out_the_winners_noise(generator):
    naive, corrected = [], []
    for run in range(150):
        by_poem = generator.normal(size=(60, 50))
        naive.append(by_poem.mean(axis=1).max())
        corrected.append(of_means(by_poem, folds(50, run, repeats=3)).value)
    assert np.mean(naive) > 0.25
    assert abs(np.mean(corrected)) < 0.05


def test_the_stretch_of_one_setting_is_none_and_of_independent_settings_sidaks(generator):
    by_poem = generator.normal(size=(40, 300))
    assert stretch_of(by_poem[:1], 0) == pytest.approx(1, abs=0.05)
    sidak = stats.norm.ppf((1 + 0.95 ** (1 / 40)) / 2) / stats.norm.ppf(0.975)
    assert stretch_of(by_poem, 0) == pytest.approx(sidak, rel=0.08)
    assert stretch_of(np.repeat(by_poem[:1], 40, axis=0), 0) == stretch_of(by_poem[:1], 0)
    assert stretch_of(np.ones((3, 20)), 0) == 1


def test_stretched_intervals_hold_all_truths_at_once(generator):
    held = []
    for run in range(150):
        by_poem = generator.normal(size=(30, 60)) + generator.normal(size=60)
        low, high = mean_interval(by_poem.T, stretch_of(by_poem, run))
        held.append(((low <= 0) & (high >= 0)).all())
    assert np.mean(held) > 0.9
