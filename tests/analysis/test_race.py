"""What a race's winner is worth on examples that did not pick it."""

from functools import partial

import numpy as np
import pytest

from benchmarks.halving import measured
from tangeval.analysis.race import race
from tangeval.analysis.selection_bias import cross_fitted, folds
from tangeval.core.study import Selection

RULE = Selection.model_validate({"setting": {"by": "chrf"}})


def made_up(seed: int, poems: int = 40, settings: int = 12, samples: int = 4) -> np.ndarray:
    """Outputs of settings that are alike: ``[P, C, S]``."""
    generator = np.random.default_rng(seed)
    suits = 0.3 * generator.normal(size=(poems, settings, 1))
    return suits + generator.normal(size=(poems, settings, samples))


def test_with_one_sample_it_is_the_correction_of_select():
    outputs = made_up(0, samples=1)
    raced = race(12, 1, 40, partial(measured, outputs), RULE, seed=7)
    by_poem = outputs[..., 0]
    fitted = cross_fitted(
        lambda weights: weights @ by_poem / weights.sum(axis=1, keepdims=True),
        lambda picked: float(by_poem[np.arange(40), picked].mean()),
        folds(40, 7, repeats=1),
    )
    assert raced.winner == by_poem.mean(axis=0).argmax()
    assert raced.corrected["value"] == pytest.approx(fitted.value)
    assert raced.on_top == 0


def test_of_settings_that_are_alike_the_winner_is_worth_what_all_are():
    """Where samples vary more than poems, measuring with the real race's samples alone was one bias too low."""
    found = []
    for seed in range(80):
        outputs = made_up(seed)
        raced = race(12, 4, 40, partial(measured, outputs), RULE, seed)
        found.append((outputs[:, raced.winner].mean(), raced.corrected["value"]))
        assert raced.corrected["low"] <= raced.corrected["value"] <= raced.corrected["high"]
    naive, corrected = np.mean(found, axis=0)
    assert naive > 0.1
    assert abs(corrected) < 0.35 * naive  # its own error is an eighth of the naive bias


def test_what_is_measured_is_what_the_races_keep_and_its_cost_is_told():
    asked, outputs = [], made_up(3)

    def measure(places, have):
        asked.append((places, have))
        return measured(outputs, places, have)

    raced = race(12, 4, 40, measure, RULE, seed=3)
    assert [have for _, have in asked] == [r.samples for r in raced.rounds] == [1, 2, 4]
    assert all(set(own.settings) <= set(places) for own, (places, _) in zip(raced.rounds, asked, strict=True))
    cost = len(asked[0][0]) + len(asked[1][0]) + 2 * len(asked[2][0])
    assert cost == 12 + 6 + 2 * 3 + raced.on_top


def test_where_no_winner_meets_what_is_required_nothing_is_corrected():
    rule = Selection.model_validate({"setting": {"by": "chrf", "require": {"chrf": "> 9"}}})
    raced = race(12, 4, 40, partial(measured, made_up(5)), rule, seed=5)
    assert raced.corrected["value"] is None
