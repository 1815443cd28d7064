"""The front of several metrics on numbers whose truth is known, and how often a wrong one is called dominated."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from tangeval.analysis.dominance import FEWEST, dominated_by, on_front


def test_the_front_is_what_no_other_beats():
    values = np.array([[1.0, 2, 3, 2, 3, 0], [3, 2, 1, 2, 0, 3]])
    assert on_front(values).tolist() == [True, True, True, True, False, False]


def exact_p(own: np.ndarray, alternative: str) -> float:
    """Of two settings' ``[P, 2]`` values: scipy's exact sign-flip test."""
    apart = own[:, 1] - own[:, 0]
    return stats.permutation_test(
        (apart,), np.mean, permutation_type="samples", alternative=alternative
    ).pvalue


def test_of_two_settings_in_one_metric_it_is_the_sign_flip_test():
    """No setting is looked at before: either may be the better one, so the test is two-sided."""
    found = []
    for run, shift in enumerate(np.linspace(0, 1.6, 25)):
        by_poem = np.random.default_rng(run).normal(size=(1, 10, 2)) + np.array([0, shift])
        shown = (dominated_by(by_poem, on_front(by_poem.mean(axis=1))) >= 0).any()
        assert shown == (exact_p(by_poem[0], "two-sided") <= 0.05)
        found.append(shown)
    assert set(found) == {True, False}


def test_dominance_takes_every_metric():
    found = []
    for run, shift in enumerate(np.linspace(0.5, 2.5, 25)):
        by_poem = np.random.default_rng(run).normal(size=(2, 10, 2)) + np.array([0, shift])
        shown = dominated_by(by_poem, on_front(by_poem.mean(axis=1)))[0] == 1
        assert shown <= (max(exact_p(own, "greater") for own in by_poem) <= 0.05)
        found.append(shown)
    assert set(found) == {True, False}


def test_what_dominates_is_on_the_front_and_better_in_every_metric():
    by_poem = np.random.default_rng(0).normal(size=(3, 60, 12)) + np.arange(12) / 4
    by_poem[2, :, 5] += 4  # one that is best in one metric
    values = by_poem.mean(axis=1)
    front = on_front(values)
    found = dominated_by(by_poem, front)
    assert (found >= 0).sum() >= 6
    assert not (found[front] >= 0).any()
    for place in np.flatnonzero(found >= 0):
        assert front[found[place]]
        assert (values[:, found[place]] > values[:, place]).all()


def test_the_order_of_settings_changes_nothing():
    by_poem = np.random.default_rng(1).normal(size=(2, 30, 4)) + np.array([0, 0.6, 0.9, 1.2])
    found = dominated_by(by_poem, on_front(by_poem.mean(axis=1)))
    assert (found >= 0).any()
    for order in permutations(range(4)):
        other = by_poem[:, :, order]
        moved = dominated_by(other, on_front(other.mean(axis=1)))
        assert [order[place] if place >= 0 else -1 for place in moved] == found[list(order)].tolist()


@pytest.mark.parametrize(("differing", "shown"), [(FEWEST - 1, False), (FEWEST, True)])
def test_few_examples_that_all_speak_for_one_show_nothing(differing, shown):
    """Shares near 1: one fails in a few of 200 poems, the other in none, so that Student's t has no bound."""
    by_poem = np.ones((2, 200, 2))
    by_poem[:, :differing, 0] = 0
    assert FEWEST == 6
    assert (dominated_by(by_poem, on_front(by_poem.mean(axis=1)))[0] == 1) == shown


def test_settings_of_the_true_front_are_seldom_called_dominated():
    """The worst case: each is better than the next in one metric by next to nothing, far worse in the other."""
    wrong = []
    for run in range(120):
        generator = np.random.default_rng(run)
        by_poem = generator.normal(size=(2, 15, 1)) + generator.normal(size=(2, 15, 12))
        by_poem[1] += np.arange(12)
        wrong.append((dominated_by(by_poem, on_front(by_poem.mean(axis=1))) >= 0).any())
    assert np.mean(wrong) <= 0.05 + 2 * (0.05 * 0.95 / 120) ** 0.5
