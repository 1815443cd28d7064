"""Intervals against scipy's, and against what they promise."""

from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tangeval.analysis.intervals import LEVEL, bca_interval, mean_interval, rate_interval, resample_weights


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def skewed(generator, poems=40, columns=6):
    return generator.gamma(0.7, size=(poems, columns)) + np.arange(columns)


def resampled_means(by_poem, resamples=4000):
    poems = len(by_poem)
    resampled = resample_weights(poems, 3, resamples) @ by_poem / poems
    return resampled, (1 - np.eye(poems)) @ by_poem / (poems - 1)


def test_bca_of_the_same_resamples_equals_scipys(generator):
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


@pytest.mark.parametrize("statistic", ["mean", "ratio"])
def test_bca_equals_scipys_within_monte_carlo_error(generator, statistic):
    pairs = generator.gamma(0.7, size=(40, 2)) + np.array([0.0, 3.0])

    def measure(weights):
        sums = weights @ pairs
        return sums[:, 0] / (sums[:, 1] if statistic == "ratio" else weights.sum(axis=1))

    value = measure(np.ones((1, 40)))[0]
    resampled = measure(resample_weights(40, 5, 100_000))
    ours = bca_interval(value, resampled, measure(1 - np.eye(40)))
    theirs = scipy_stats.bootstrap(
        tuple(pairs.T),
        lambda x, y, axis: x.mean(axis) / (y.mean(axis) if statistic == "ratio" else 1),
        paired=True, method="BCa", n_resamples=100_000, rng=1,
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
    for found in (rate_interval(missing, 4), mean_interval(missing)):
        assert np.isnan(found).all()


@pytest.mark.parametrize("rate", [0.5, 0.98])
def test_rate_interval_covers_nearly_95_of_100(generator, rate):
    own = generator.beta(rate * 4, (1 - rate) * 4, size=(200, 4000))
    low, high = rate_interval(generator.binomial(4, own) / 4, 4)
    assert 0.93 < ((low <= rate) & (rate <= high)).mean() < 0.975
