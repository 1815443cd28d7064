"""Paired tests against scipy's, against enumeration, and against what they promise."""

from itertools import product

import numpy as np
import pytest
from scipy import stats as scipy_stats

from tangeval.analysis.hypothesis_tests import flips_for, holm, poems_needed, sign_flip_p


@pytest.fixture
def generator():
    return np.random.default_rng(7)


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


def test_what_was_not_measured_has_no_p():
    assert np.isnan(sign_flip_p(np.full((9, 2), np.nan), 99, 0)).all()
