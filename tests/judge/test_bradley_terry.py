"""Strengths against a published table and scipy's optimiser; intervals against the worlds that they are made for."""

import numpy as np
import pytest
from scipy import optimize, special

from tangeval.judge.bradley_terry import strength_intervals, strengths

#: Games of seven baseball teams in 1987, and their strengths with the last at 0: Agresti, *Categorical Data
#: Analysis*, 2002, section 10.6.
GAMES = np.array([
    [0, 7, 9, 7, 7, 9, 11], [6, 0, 7, 5, 11, 9, 9], [4, 6, 0, 7, 7, 8, 12], [6, 8, 6, 0, 6, 7, 10],
    [6, 2, 6, 7, 0, 7, 12], [4, 4, 5, 6, 6, 0, 6], [2, 4, 1, 3, 1, 7, 0],
], float)  # fmt: skip
AGRESTI = [1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.00]


def test_strengths_are_those_of_the_textbook():
    found = strengths(GAMES)
    assert found.mean() == pytest.approx(0, abs=1e-12)
    assert (found - found[-1]).round(2).tolist() == AGRESTI


def test_strengths_with_ties_are_most_likely():
    """Half wins, and a pair that never met; scipy maximises the likelihood."""
    wins = np.random.default_rng(0).integers(1, 20, (5, 5)) / 2
    np.fill_diagonal(wins, 0)
    wins[0, 4] = wins[4, 0] = 0

    def loss(s):
        return -(wins * special.log_expit(s[:, None] - s)).sum() + s.mean() ** 2

    assert strengths(wins) == pytest.approx(optimize.minimize(loss, np.zeros(5), tol=1e-9).x, abs=1e-4)


def test_a_side_that_won_all_has_no_strength_of_its_own():
    with pytest.raises(ValueError, match="won or lost all"):
        strengths(np.array([[0.0, 3], [0, 0]]))


def poems(wins):
    """``[P, 2, 2]`` of one pair's wins."""
    return np.stack([np.array([[0, w], [1 - w, 0]]) for w in wins])


def test_a_side_that_won_all_keeps_a_wide_interval():
    found, low, high = strength_intervals(poems([1.0] * 15))
    assert found[0] == pytest.approx(np.log(15.25 / 0.25) / 2)
    assert low[0] < found[0] - 0.5
    assert high[0] > found[0] + 0.5


def test_what_was_not_asked_says_nothing():
    asked = poems([1, 0.5, 0, 1, 1, 0.5, 1, 0])
    three = np.full((8, 3, 3), np.nan)
    three[:, :2, :2] = asked
    assert np.isnan(strength_intervals(three)).all()
    three[:, :2, 2], three[:, 2, :2] = np.nan, np.nan
    three[0, 0, 2], three[0, 2, 0] = 0.5, 0.5  # the third met the first, in one poem
    found, *_ = strength_intervals(three)
    assert np.ptp(found[:2]) == pytest.approx(np.ptp(strength_intervals(asked)[0]))
    assert np.isnan(strength_intervals(three[:0])).all()


def test_intervals_hold_where_poems_differ():
    """Three sides, 15 poems that suit each differently, two orders a pair: 95 % hold; 300 worlds, two errors allowed."""
    from benchmarks.judge import coverage

    held = coverage([1.0, 0.0, -1.0], poems=15, worlds=300, seed=1)
    assert held.min() > 0.925
    assert held.max() < 0.985
