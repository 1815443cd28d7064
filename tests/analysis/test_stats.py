"""The statistics against scipy's, against enumeration, and against what they promise."""

from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tangeval.analysis.stats import (
    LEVEL,
    bca_interval,
    cross_fitted,
    flips_for,
    folds,
    holm,
    interval,
    joint_level,
    mean_interval,
    poems_needed,
    rate_interval,
    resample_weights,
    sign_flip_p,
)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def skewed(generator, poems=40, columns=6):
    return generator.gamma(0.7, size=(poems, columns)) + np.arange(columns)


def resampled_means(by_poem, resamples=4000):
    poems = len(by_poem)
    resampled = resample_weights(poems, 3, resamples) @ by_poem / poems
    return resampled, (1 - np.eye(poems)) @ by_poem / (poems - 1)


# Intervals


def test_bca_of_the_same_resamples_equals_scipys(generator, monkeypatch):
    by_poem = skewed(generator, columns=1)[:, 0]
    resampled, jackknife = resampled_means(by_poem)
    given = scipy_stats.bootstrap(
        (by_poem,), np.mean, n_resamples=0, bootstrap_result=_Given(resampled), method="BCa"
    )
    ours = bca_interval(by_poem.mean(), resampled, jackknife)
    assert ours == pytest.approx(tuple(given.confidence_interval), rel=1e-9)


class _Given:
    """What scipy.stats.bootstrap takes as an earlier result, to add no resamples to it."""

    def __init__(self, resampled):
        self.bootstrap_distribution = resampled


@pytest.mark.parametrize(("method", "statistic"), [("BCa", "mean"), ("percentile", "mean"), ("BCa", "ratio")])
def test_intervals_equal_scipys_within_monte_carlo_error(generator, method, statistic):
    pairs = generator.gamma(0.7, size=(40, 2)) + np.array([0.0, 3.0])

    def measure(weights):
        sums = weights @ pairs
        return sums[:, 0] / (sums[:, 1] if statistic == "ratio" else weights.sum(axis=1))

    value = measure(np.ones((1, 40)))[0]
    resampled = measure(resample_weights(40, 5, 100_000))
    ours = (
        interval(resampled)
        if method == "percentile"
        else bca_interval(value, resampled, measure(1 - np.eye(40)))
    )
    theirs = scipy_stats.bootstrap(
        tuple(pairs.T),
        lambda x, y, axis: x.mean(axis) / (y.mean(axis) if statistic == "ratio" else 1),
        paired=True, method=method, n_resamples=100_000, rng=1,
    )  # fmt: skip
    # BCa's far end wanders by 0.05 standard errors from seed to seed, scipy's own as well.
    assert ours == pytest.approx(tuple(theirs.confidence_interval), abs=0.15 * theirs.standard_error)


def test_bca_of_many_columns_is_that_of_each(generator):
    by_poem = skewed(generator).reshape(40, 2, 3)
    resampled, jackknife = (m.reshape(-1, 2, 3) for m in resampled_means(by_poem.reshape(40, 6), 500))
    low, high = bca_interval(by_poem.mean(axis=0), resampled, jackknife)
    for place in product(range(2), range(3)):
        alone = bca_interval(by_poem.mean(axis=0)[place], resampled[:, *place], jackknife[:, *place])
        assert np.allclose((low[place], high[place]), alone, rtol=1e-12)


def test_without_variation_bca_and_mean_intervals_are_the_value():
    same = np.full((20, 3), 0.5)
    assert np.array_equal(bca_interval(same[0], *resampled_means(same, 9)), same[:2])
    assert np.array_equal(mean_interval(same), same[:2])


@pytest.mark.filterwarnings("error")
def test_bca_has_no_unit(generator):
    """Values so small that their cubes are 0 have the interval of large ones."""
    by_poem = generator.gamma(2, size=30)
    resampled, jackknife = resampled_means(by_poem, 200)
    for unit in (1e-150, 1e100):
        small = bca_interval(by_poem.mean() * unit, resampled * unit, jackknife * unit)
        assert np.allclose(
            np.array(small) / unit, bca_interval(by_poem.mean(), resampled, jackknife), rtol=1e-9
        )


def test_bca_stays_finite_where_all_resamples_lie_on_one_side(generator):
    low, high = bca_interval(np.array(5.0), generator.random(200), generator.random(10))
    assert 0 <= low <= high <= 1


def test_mean_interval_without_skewness_is_students(generator):
    half = generator.normal(size=(10, 4))
    by_poem = np.concatenate([half, -half]) + 3
    expected = scipy_stats.t.interval(LEVEL, 19, by_poem.mean(axis=0), scipy_stats.sem(by_poem))
    assert np.allclose(mean_interval(by_poem), expected)


def test_mean_interval_reaches_further_towards_the_long_tail(generator):
    by_poem = generator.exponential(size=(60, 5))
    low, high = mean_interval(by_poem)
    assert (high - by_poem.mean(axis=0) > by_poem.mean(axis=0) - low).all()
    mirrored_low, mirrored_high = mean_interval(-by_poem)
    assert np.allclose(mirrored_low, -high)
    assert np.allclose(mirrored_high, -low)


def test_mean_of_one_poem_has_no_interval():
    assert np.isnan(mean_interval(np.ones((1, 2)))).all()


def test_rate_of_one_sample_a_poem_is_wilsons_with_t():
    by_poem = np.repeat([1.0, 0.0], [188, 12])
    t = scipy_stats.t.ppf(0.975, 199)
    level = 2 * scipy_stats.norm.cdf(t) - 1  # scipy's Wilson, told to use t
    # Between-poem variance with P − 1: 199 outputs with 187.06 successes.
    low, high = rate_interval(by_poem, 1)
    theirs = scipy_stats.binomtest(188, 200).proportion_ci(level, method="wilson")
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=3e-4)


def test_rate_of_independent_samples_counts_them_and_of_equal_samples_does_not(generator):
    independent = generator.binomial(8, 0.8, size=(4000, 1)) / 8
    clustered = (generator.random((4000, 1)) < 0.8).astype(float)
    wide, narrow = (np.diff(rate_interval(x, 8), axis=0).item() for x in (clustered, independent))
    assert wide / narrow == pytest.approx(np.sqrt(8), rel=0.06)


@pytest.mark.parametrize("samples", [1, 8])
def test_rate_of_poems_that_are_all_perfect_is_not_certain(samples):
    low, high = rate_interval(np.ones((200, 1)), samples)
    assert high == 1
    assert 0.975 < low < 0.985
    assert np.allclose(rate_interval(np.zeros((200, 1)), samples), (1 - high, 1 - low))


@pytest.mark.parametrize("poems", [1, 2, 15, 200])
@pytest.mark.parametrize("samples", [1, 4])
def test_rate_interval_lies_between_0_and_1_and_holds_the_rate(generator, poems, samples):
    by_poem = generator.binomial(samples, generator.random((1, 500)), size=(poems, 500)) / samples
    low, high = rate_interval(by_poem, samples)
    mean = by_poem.mean(axis=0)
    assert (low >= 0).all()
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert (high <= 1).all()


def test_what_was_not_measured_has_no_interval():
    missing = np.full((9, 2), np.nan)
    for found in (rate_interval(missing, 4), mean_interval(missing), sign_flip_p(missing, 99, 0)):
        assert np.isnan(found).all()


@pytest.mark.parametrize("rate", [0.5, 0.98])
def test_rate_interval_covers_nearly_95_of_100(generator, rate):
    own = generator.beta(rate * 4, (1 - rate) * 4, size=(200, 4000))
    low, high = rate_interval(generator.binomial(4, own) / 4, 4)
    assert 0.93 < ((low <= rate) & (rate <= high)).mean() < 0.975


# Paired tests


def test_sign_flips_of_few_poems_are_scipys_exact_test(generator):
    differences = generator.normal(0.5, size=(9, 3))
    theirs = scipy_stats.permutation_test(
        (differences, np.zeros_like(differences)), lambda x, y, axis: (x - y).mean(axis), n_resamples=np.inf,
        permutation_type="samples", vectorized=True, axis=0,
    )  # fmt: skip
    assert np.allclose(sign_flip_p(differences, 1000, 0), theirs.pvalue)


def test_random_sign_flips_approach_the_exact_test(generator):
    differences = generator.normal(0.4, size=(17, 5))
    exact, drawn = sign_flip_p(differences, 2**16, 0), sign_flip_p(differences, 2**16 - 1, 0)
    assert np.allclose(exact, drawn, atol=4 * np.sqrt(0.25 / 2**16))
    assert not np.array_equal(exact, drawn)


def test_a_large_difference_has_the_smallest_p_there_is():
    assert sign_flip_p(np.ones((200, 1)), 5000, 0) == 1 / 5000
    assert sign_flip_p(np.ones((15, 1)), 20_000, 0) == 2 / 2**15


def test_no_difference_has_p_1():
    assert sign_flip_p(np.zeros((30, 2)), 500, 0).tolist() == [1, 1]


def test_ties_count_although_sums_are_rounded():
    differences = np.array([0.1, 0.2, 0.3, -0.3, -0.2, 0.1])[:, None]
    whole = np.rint(differences * 10)
    assert sign_flip_p(differences, 100, 0) == sign_flip_p(whole, 100, 0)


def test_flips_are_keyed_by_the_seed(generator):
    differences = generator.normal(0.2, size=(60, 1))
    assert sign_flip_p(differences, 3000, 1) == sign_flip_p(differences, 3000, 1)
    assert sign_flip_p(differences, 3000, 1) != sign_flip_p(differences, 3000, 2)


def test_columns_are_tested_as_if_alone(generator):
    differences = generator.normal(0.1, size=(60, 2, 3))
    together = sign_flip_p(differences, 3000, 9)
    assert together.shape == (2, 3)
    assert together[1, 2] == sign_flip_p(differences[:, 1, 2], 3000, 9)


def test_holm_is_the_worked_example_and_leaves_out_what_is_missing():
    p = np.array([0.01, 0.04, np.nan, 0.03, 0.005])
    assert np.allclose(holm(p), [0.03, 0.06, np.nan, 0.06, 0.02], equal_nan=True)
    assert holm(np.array([0.6, 0.9])).tolist() == [1, 1]
    assert holm(np.array([])).tolist() == []


def test_holm_rejects_what_a_closed_test_rejects(generator):
    """Holm is the closed test with Bonferroni for each intersection (Marcus et al. 1976)."""
    p = generator.random(5) ** 3
    subsets = [s for s in product((False, True), repeat=5) if any(s)]
    closed = [max(min(1, p[list(s)].min() * sum(s)) for s in subsets if s[place]) for place in range(5)]
    assert np.allclose(holm(p), closed)


def test_flips_leave_room_below_the_level():
    assert flips_for(1) == flips_for(50) == 20_000
    assert flips_for(100) == 40_000
    assert flips_for(100_000) == 200_000
    assert flips_for(1) >= 2**14  # 15 poems are exact


@pytest.mark.parametrize("effect", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("family", [1, 10])
def test_poems_needed_reaches_the_power_by_the_noncentral_t(effect, family):
    def power(poems):
        bound = scipy_stats.t.ppf(1 - 0.05 / family / 2, poems - 1)
        return scipy_stats.nct.sf(bound, poems - 1, effect * np.sqrt(poems))

    poems = poems_needed(1.0, effect, family=family)
    reachable = 2 / 2 ** (poems - 1) <= 0.05 / family  # one poem fewer could still be significant
    assert power(poems + 1) > 0.8
    assert power(poems - 2) < 0.8 or not reachable


def test_poems_needed_suffice_for_the_smallest_p():
    for family in (1, 10, 1000):
        poems = poems_needed(1.0, 1e6, family=family)
        assert 2 / 2**poems <= 0.05 / family < 2 / 2 ** (poems - 1)
    with pytest.raises(ValueError, match="positive"):
        poems_needed(1.0, 0.0)


# A winner's corrected value


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
