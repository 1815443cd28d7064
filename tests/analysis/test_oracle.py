"""The room for a setting of each example's own, in studies whose truth is known."""

import numpy as np
import pytest

from tangeval.analysis.oracle import room


def study(run, apart, settings=12, poems=50, samples=4, suits=0.0):
    """Settings ``apart`` from each other, and each ``suits`` some examples better; noise is in part shared."""
    generator = np.random.default_rng([run, poems, samples])
    size = (settings, poems, samples)
    truth = apart * np.arange(settings)[:, None] + suits * generator.normal(size=size[:2])
    shared = generator.normal(size=(1, poems, 1)) + generator.normal(size=(1, poems, samples))
    return truth[..., None] + shared + generator.normal(size=size), truth


@pytest.mark.parametrize("apart", [0.0, 0.1])
@pytest.mark.parametrize("shares", [False, True])
def test_luck_is_no_room(apart, shares):
    """Intervals of 60 studies without room reach 0 in 95 of 100, and what luck makes is gone."""
    found = []
    for run in range(60):
        values, _ = study(run, apart)
        found.append(room((values > 1.0) if shares else values, run))
    low, value, luck = (
        np.array([getattr(each, name) for each in found]) for name in ("low", "room", "with_luck")
    )
    assert (low > 0).sum() <= 6  # of 60 intervals that hold in 95 of 100, more than 6 miss in 4 of 100 tries
    assert value.mean() < 0.05 * luck.mean()


def test_a_room_that_is_there_is_found_between_none_and_all_of_it():
    values, truth = study(1, 0.05, poems=200, samples=16, suits=1.0)
    true = truth.max(axis=0).mean() - truth.mean(axis=1).max()
    found = room(values, 0)
    assert 0.85 * true < found.room < found.with_luck
    assert found.low < true < found.high


def test_without_noise_all_of_it_is_found():
    truth = np.array([[1.0, 0.0] * 20, [0.0, 1.0] * 20, [0.6, 0.6] * 20])
    found = room(np.repeat(truth[..., None], 4, axis=2), 0)
    assert (found.single, found.adaptive, found.with_luck) == pytest.approx((0.6, 1.0, 0.4))


def test_one_sample_tells_luck_alone():
    found = room(np.random.default_rng(0).normal(size=(3, 20, 1)), 0)
    assert np.isnan([found.room, found.low, found.high]).all()
    assert found.with_luck > 0.3


def test_one_example_has_no_others_to_go_by():
    found = room(np.random.default_rng(0).normal(size=(3, 1, 4)), 0)
    assert found.room == 0
    assert np.isnan(found.low)
