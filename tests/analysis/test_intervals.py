"""Intervals against scipy's, and against what they promise."""

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tangeval.analysis.intervals import (
    LEVEL,
    corpus_difference_interval,
    corpus_interval,
    mean_interval,
    rate_difference_interval,
    rate_interval,
)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def counted(generator, matched: float, poems: int = 60, runs: int = 1):
    """A ratio of sums and what it is without each poem, and each poem's matches: ``[P, runs]``."""
    length = generator.choice([20.0, 28.0, 60.0], (poems, runs))
    found = generator.poisson(length * generator.gamma(2, 0.5, (poems, runs)) * matched).astype(float)
    value = found.sum(axis=0) / length.sum(axis=0)
    return value, (found.sum(axis=0) - found) / (length.sum(axis=0) - length), found


def test_corpus_interval_is_the_delta_methods_on_the_log(generator):
    """A ratio of sums has a textbook standard error, which the jackknife comes near."""
    value, without, found = (each[..., 0] for each in counted(generator, 0.3, poems=400))
    low, high = corpus_interval(float(value), without, found)
    carrying = found.sum() ** 2 / (found**2).sum()
    assert low * high == pytest.approx(value**2)
    error = np.log(high / value) / scipy_stats.t.ppf(0.975, carrying - 1)
    again = np.std([np.log(counted(generator, 0.3, poems=400)[0][0]) for _ in range(400)])
    assert error == pytest.approx(again, rel=0.15)


@pytest.mark.parametrize("matched", [0.005, 0.02, 0.3])
def test_corpus_intervals_that_are_shown_hold_the_truth(generator, matched):
    """Near the floor, where a handful of poems has a match, as well as above it."""
    found = [
        corpus_interval(*each)
        for each in zip(*(x.T for x in counted(generator, matched, runs=1500)), strict=True)
    ]
    low, high = np.array(found)[~np.isnan(found).any(axis=1)].T
    assert len(low) > 750
    assert ((low <= matched) & (matched <= high)).mean() > 0.92


def test_a_corpus_that_two_poems_carry_has_no_interval():
    without = np.full(50, 0.1)
    for rare in (np.eye(50)[0], np.eye(50)[0] + np.eye(50)[1], np.zeros(50), [9.0, 1, 1, 1] + [0.0] * 46):
        assert np.isnan(corpus_interval(0.1, without, np.array(rare))).all()
        assert np.isnan(corpus_difference_interval(without, [np.ones(50), np.array(rare)])).all()
    assert corpus_interval(0.1, without, np.array([1.0, 1, 1] + [0.0] * 47)) == (0.1, 0.1)


def test_the_interval_of_a_difference_of_corpora_is_students(generator):
    apart, rare = generator.normal(1, size=30), [np.ones(30), np.repeat([1.0, 0.0], [8, 22])]
    theirs = scipy_stats.t.interval(LEVEL, 7, apart.mean(), scipy_stats.sem(apart))
    assert corpus_difference_interval(apart, rare) == pytest.approx(theirs)


def test_mean_intervals_without_variation_are_the_value():
    same = np.full((20, 3), 0.5)
    assert np.array_equal(mean_interval(same), same[:2])


def test_a_stretched_interval_is_as_many_times_as_far():
    by_poem = np.random.default_rng(3).normal(size=40)
    (low, high), (far_low, far_high) = (
        mean_interval(np.r_[by_poem, -by_poem]),
        mean_interval(np.r_[by_poem, -by_poem], 1.7),
    )
    assert (far_low, far_high) == pytest.approx((1.7 * low, 1.7 * high))
    assert rate_interval(by_poem > 0, 1, 1.7)[0] < rate_interval(by_poem > 0, 1)[0]


def ends_of(*sides, samples: int = 1):
    return [tuple(float(end) for end in rate_interval(side, samples)) for side in sides]


def test_the_interval_of_a_difference_of_shares_is_newcombes(generator):
    """Method 10 of Newcombe (1998) joins Wilson's ends with the correlation between pairs: his worked example."""
    # Both 36, the first alone 12, the second alone 2, neither 0 of 50 pairs.
    first, second = np.repeat([1.0, 1.0, 0.0], [36, 12, 2]), np.repeat([1.0, 0.0, 1.0], [36, 12, 2])
    ends = [
        tuple(scipy_stats.binomtest(int(side.sum()), 50).proportion_ci(method="wilson"))
        for side in (first, second)
    ]
    phi = np.corrcoef(first, second)[0, 1]
    (a, b), (c, d) = ends
    p, q = first.mean(), second.mean()
    low = p - q - np.sqrt((p - a) ** 2 - 2 * phi * (p - a) * (d - q) + (d - q) ** 2)
    high = p - q + np.sqrt((b - p) ** 2 - 2 * phi * (b - p) * (q - c) + (q - c) ** 2)
    assert rate_difference_interval(first, second, ends, 1) == pytest.approx((low, high))
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=0.01)


@pytest.mark.parametrize("rates", [(1.0, 1.0), (1.0, 0.0), (0.98, 0.98), (0.9, 0.6)])
def test_a_difference_of_shares_has_an_interval_inside_its_range_that_is_not_flat(generator, rates):
    for _ in range(50):
        first, second = (generator.random((2, 15)) < np.array(rates)[:, None]).astype(float)
        low, high = rate_difference_interval(first, second, ends_of(first, second), 1)
        assert -1 <= low <= first.mean() - second.mean() <= high <= 1
        assert high - low > 0.05


@pytest.mark.parametrize("samples", [1, 4])
def test_shares_that_agree_on_every_poem_have_an_interval_of_their_difference(generator, samples):
    share = generator.integers(0, samples + 1, 15) / samples
    low, high = rate_difference_interval(share, share, ends_of(share, share, samples=samples), samples)
    assert low < -0.01 < 0.01 < high


@pytest.mark.parametrize("poems", [15, 200])
def test_intervals_of_differences_of_shares_near_1_cover(generator, poems):
    held = []
    for _ in range(600):
        easy = generator.beta(0.97 * 4, 0.03 * 4, poems)
        first, second = generator.binomial(2, easy, (2, poems)) / 2
        low, high = rate_difference_interval(first, second, ends_of(first, second, samples=2), 2)
        held.append(low <= 0 <= high)
    assert np.mean(held) > 0.92


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
