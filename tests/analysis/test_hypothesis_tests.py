"""Randomisation tests against scipy's, sacrebleu's and closed testing, and against what they promise."""

from itertools import product

import numpy as np
import pytest
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats as scipy_stats

from tangeval.analysis import hypothesis_tests
from tangeval.analysis.hypothesis_tests import (
    ERROR,
    Corpora,
    corpora_tests,
    family_tests,
    holm,
    poems_needed,
    power_of,
    smallest_effect,
    swaps,
)
from tangeval.metrics import bleu


@pytest.fixture
def generator():
    return np.random.default_rng(7)


def p_of(differences, seed=0):
    return family_tests(list(np.atleast_2d(differences.T)), seed).p


def test_swaps_of_few_poems_are_scipys_exact_test(generator):
    differences = generator.normal(0.5, size=(9, 3))
    theirs = scipy_stats.permutation_test(
        (differences, np.zeros_like(differences)), lambda x, y, axis: (x - y).mean(axis), n_resamples=np.inf,
        permutation_type="samples", vectorized=True, axis=0,
    )  # fmt: skip
    assert np.allclose(p_of(differences), theirs.pvalue)


def test_random_swaps_approach_the_exact_test(generator):
    differences = generator.normal(0.4, size=(16, 5))
    signs = 1 - 2 * (np.arange(2**15)[:, None] >> np.arange(16) & 1)
    exact = (np.abs(signs @ differences) >= np.abs(differences.sum(axis=0)) - 1e-9).mean(axis=0)
    assert np.allclose(exact, p_of(differences), atol=4 * np.sqrt(0.25 / 10_000))


def test_a_large_difference_has_the_smallest_p_there_is():
    assert p_of(np.ones((200, 1))) == 1 / 10_000
    assert p_of(np.ones((15, 1))) == 2 / 2**15


def test_no_difference_has_p_1_and_an_interval_that_is_0():
    found = family_tests([np.zeros(30), np.zeros(30)], 0)
    assert found.p.tolist() == found.adjusted.tolist() == [1, 1]
    assert found.low.tolist() == found.high.tolist() == [0, 0]


def test_ties_count_although_sums_are_rounded():
    differences = np.array([0.1, 0.2, 0.3, -0.3, -0.2, 0.1])[:, None]
    assert p_of(differences) == p_of(np.rint(differences * 10))


def test_swaps_are_keyed_by_the_seed():
    assert np.array_equal(swaps(60, 300, 1), swaps(60, 300, 1))
    assert not np.array_equal(swaps(60, 300, 1), swaps(60, 300, 2))
    assert not swaps(60, 300, 1)[0].any()  # what was observed


def test_bleus_p_is_sacrebleus_paired_randomisation(generator):
    """Texts in which few 4-grams match: where the parts of BLEU by poem are no guide to it."""
    words = list("山水風月花鳥人天")
    references = ["".join(generator.choice(words, 20)) for _ in range(12)]
    one, other = (["".join(generator.choice(words, 20)) for _ in range(12)] for _ in range(2))
    one[3] = references[3][:8] + one[3][8:]
    counts = [
        np.array(
            [
                [(*bleu.matches([t], [r])[0, :4], 20, 19, 18, 17, 20)]
                for t, r in zip(ts, references, strict=True)
            ],
            float,
        )
        for ts in (one, other)
    ]
    ours = family_tests([Corpora(bleu.score, *counts)], 0).p[0]
    named = [("one", one), ("other", other)]
    _, theirs = PairedTest(
        named, {"BLEU": BLEU(tokenize="char")}, references=[references], test_type="ar", n_samples=4000
    )()
    assert 0.01 < ours < 0.9
    assert ours == pytest.approx(theirs["BLEU"][1].p_value, abs=0.04)


def test_corpora_of_a_metric_that_is_a_mean_are_tested_as_means(generator):
    first, second = generator.random((2, 30, 4))
    counted = [np.stack([side, np.ones_like(side)], axis=-1) for side in (first, second)]
    corpora = Corpora(lambda counts: counts[..., 0] / counts[..., 1], *counted)
    found = family_tests([corpora, (first - second).mean(axis=1)], 0)
    assert found.p[0] == found.p[1]


@pytest.mark.parametrize("poems", [12, 40])
def test_corpora_tested_together_are_one_corpus_metric_of_them_all(generator, poems):
    """Counts of few matches, some without any, beside one other side; as many swaps as the joint test makes."""
    most = np.array([20, 6, 2, 1, 20, 20, 20, 20, 20])
    sides = generator.integers(0, most + 1, (7, poems, 2, 9)).astype(float)
    sides[..., 4:] = most[4:] - sides[..., 4:] % 3
    sides[2, ..., 3] = 0
    *first, second = sides
    adjusted, together = corpora_tests([Corpora(bleu.score, own, second) for own in first], 3)
    alone = family_tests([Corpora(bleu.score, own, second) for own in first], 3)
    whole = Corpora(bleu.score, np.concatenate(first, axis=1), np.tile(second, (1, 6, 1)))
    assert adjusted.tolist() == alone.adjusted.tolist()
    assert together == family_tests([whole], 3).p[0]
    assert len(set(adjusted)) > 2


def test_adjusted_p_are_those_of_a_closed_test(generator):
    """Of every subset of hypotheses, the largest scaled statistic is tested (Marcus, Peritz & Gabriel 1976)."""
    differences = generator.normal([0.9, 0.6, 0.1, 0.7], size=(9, 4)) * [1, 10, 1, 0.1]
    sums = np.abs((1 - 2 * swaps(9, 1, 0)) @ differences) / np.sqrt((differences**2).sum(axis=0))
    subsets = [np.flatnonzero(s) for s in product((False, True), repeat=4) if any(s)]
    p_of_subset = [(sums[:, s].max(axis=1) >= sums[0, s].max() - 1e-9).mean() for s in subsets]
    closed = [max(p for s, p in zip(subsets, p_of_subset, strict=True) if place in s) for place in range(4)]
    assert np.allclose(family_tests(list(differences.T), 0).adjusted, closed)


def test_a_family_of_nulls_is_rejected_seldom_and_beats_bonferroni(generator):
    rejected = []
    for run in range(300):
        shared = generator.normal(size=(40, 1))
        found = family_tests(list((generator.normal(size=(40, 8)) + 2 * shared).T), run)
        rejected.append([found.adjusted.min() <= ERROR, 8 * found.p.min() <= ERROR])
    family, bonferroni = np.mean(rejected, axis=0)
    assert bonferroni <= family <= 0.09


@pytest.mark.parametrize("poems", [6, 9, 15, 16, 60])
def test_p_and_interval_never_disagree(generator, poems):
    """Lattices of shares, skewed values, and what is just at the level."""
    values = [*generator.normal(0.5, size=(40, poems)), *generator.integers(-1, 3, (40, poems)) / 2]
    found = family_tests([*values, *(generator.lognormal(size=(40, poems)) - 1)], 1)
    outside = (found.low > 0) | (found.high < 0)
    assert np.array_equal(outside, found.p <= ERROR)
    assert 5 < outside.sum() < 115


def test_the_interval_is_what_the_test_does_not_reject(generator):
    differences = generator.gamma(1, size=9)
    found = family_tests([differences], 0)
    for end, inside in ((found.low[0], 1e-6), (found.high[0], -1e-6)):
        assert p_of(differences - end - inside) > ERROR
        assert p_of(differences - end + inside) <= ERROR


def test_five_poems_leave_any_difference_possible():
    found = family_tests([np.arange(1.0, 6)], 0)
    assert found.p[0] == 1 / 16
    assert np.isnan([found.low, found.high]).all()


def test_what_was_not_measured_has_no_p_and_is_no_part_of_the_family(generator):
    known = generator.normal(1, size=9)
    found = family_tests([known, np.full(9, np.nan)], 0)
    assert np.isnan([found.p[1], found.adjusted[1]]).all()
    assert found.adjusted[0] == found.p[0]


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


@pytest.mark.parametrize(("poems", "effect"), [(6, 0.5), (30, 0.5), (200, 0.1), (120, 4.0)])
def test_power_is_that_of_the_noncentral_t(poems, effect):
    critical = scipy_stats.t.ppf(0.975, poems - 1)
    expected = scipy_stats.nct.sf(critical, poems - 1, min(effect * poems**0.5, 30))
    assert power_of(1.0, effect, poems) == pytest.approx(expected, abs=1e-6)


def test_the_smallest_effect_is_what_so_many_poems_are_needed_for():
    for poems in (10, 50, 500):
        assert poems_needed(1.0, smallest_effect(1.0, poems)) == poems
    assert smallest_effect(1.0, 5) == np.inf
    assert power_of(1.0, 100.0, 5) == 0


def test_holms_rule_is_statsmodels():
    """statsmodels 0.15.0, ``multipletests(…, method="holm")``."""
    adjusted = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    assert adjusted == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_of_very_many_examples_fewer_ways_are_held(monkeypatch):
    monkeypatch.setattr(hypothesis_tests, "_HELD", 2_000 * 100)
    assert [len(swaps(poems, 10_000, 0)) for poems in (20, 100, 2_000)] == [10_000, 2_000, 1_000]
