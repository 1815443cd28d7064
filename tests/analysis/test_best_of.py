"""The best of k of n against all ways to draw them."""

from itertools import combinations
from math import comb

import numpy as np
import pytest

from tangeval.analysis.best_of import best_of, chances, ladder


@pytest.mark.parametrize("k", [1, 2, 3, 6])
@pytest.mark.parametrize(("better", "take"), [("high", max), ("low", min)])
def test_it_is_the_mean_over_all_ways_to_draw_k(k, better, take):
    values = np.random.default_rng(0).integers(0, 4, (3, 6)).astype(float)  # with ties
    expected = [np.mean([take(drawn) for drawn in combinations(row, k)]) for row in values]
    assert best_of(values, k, better) == pytest.approx(expected)


def test_of_shares_it_is_pass_at_k():
    """1 − C(n − c, k) ÷ C(n, k) where c of n pass."""
    for passed in range(9):
        share = best_of(np.array([1.0] * passed + [0.0] * (8 - passed)), 3)
        assert share == pytest.approx(1 - comb(8 - passed, 3) / comb(8, 3))


def test_many_overflow_nothing():
    found = chances(3000, 1500)
    assert found.sum() == pytest.approx(1)
    assert found[:3] == pytest.approx([1 / 2, 1 / 4, 1 / 8], rel=1e-2)


def test_what_was_not_measured_stays_so():
    assert np.isnan(best_of(np.array([1.0, np.nan, 2.0]), 1))


def test_more_than_there_are_cannot_be_drawn():
    with pytest.raises(ValueError, match="9 of 8"):
        chances(8, 9)


def test_the_ladder_ends_at_all():
    assert [ladder(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]
