"""Ranks of many: what the tests of all pairs leave, and how often they claim what is not there."""

from itertools import combinations

import numpy as np
import pytest

from tangeval.analysis.hypothesis_tests import family_tests
from tangeval.analysis.ranks import shown_better


@pytest.mark.parametrize("kind", ["normal", "share"])
def test_of_equals_some_pair_is_told_apart_in_five_classes_of_a_hundred(kind):
    generator, classes, wrong = np.random.default_rng(0), 300, 0
    for _ in range(classes):
        hard = generator.random(15)  # how hard each poem is for all
        drawn = (
            generator.normal(size=(20, 15)) + hard if kind == "normal" else generator.random((20, 15)) < hard
        )
        wrong += shown_better(drawn.astype(float)).any()
    assert wrong / classes < 0.05 + 2 * (0.05 * 0.95 / classes) ** 0.5


def test_who_is_better_in_every_poem_is_shown_to_be():
    generator = np.random.default_rng(1)
    drawn = generator.normal(size=(30, 15))
    drawn[4] += 6
    better = shown_better(drawn)
    assert better[4].sum() == 29
    assert not better[:, 4].any()


def test_what_was_not_measured_of_one_hides_nobody_elses_rank():
    drawn = np.random.default_rng(1).normal(size=(6, 15))
    drawn[4] += 6
    drawn[0, 0] = np.nan
    assert shown_better(drawn)[4, [1, 2, 3, 5]].all()
    assert not shown_better(drawn)[0].any()


def test_the_most_distant_pair_is_told_as_the_family_of_all_pairs_tells_it():
    generator, told = np.random.default_rng(2), set()
    for _ in range(40):
        drawn = generator.normal(size=(4, 10)) + generator.choice([0, 1.2], size=(4, 1))
        family = family_tests([drawn[a] - drawn[b] for a, b in combinations(range(4), 2)], seed=0)
        told.add(bool(shown_better(drawn).any()))
        assert shown_better(drawn).any() == (family.adjusted.min() <= 0.05)
    assert told == {True, False}


def test_equal_rows_are_a_tie():
    assert not shown_better(np.tile(np.arange(15.0), (5, 1))).any()
