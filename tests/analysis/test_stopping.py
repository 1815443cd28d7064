"""When to stop a training: on made-up trainings whose truth is known."""

import numpy as np
import pytest

from tangeval.analysis.stopping import Evaluation, decide
from tangeval.core.errors import TangevalError


def history(scores):
    return [
        Evaluation(10 * (place + 1), {str(name): float(value) for name, value in enumerate(row)})
        for place, row in enumerate(scores)
    ]


def training(truth, examples, seed, noise=0.5):
    """Scores of examples that differ, each evaluation with noise of its own: ``[T, P]``."""
    draw = np.random.default_rng(seed)
    return (
        np.array(truth)[:, None]
        + draw.normal(size=examples)
        + noise * draw.normal(size=(len(truth), examples))
    )


def test_a_long_fall_stops_and_one_dip_does_not():
    fall = decide(history(training([0, 1, 2, 1, 0.5, 0], 30, 0)))
    assert (fall.best, fall.stop) == (30, True)
    dip = decide(history(training([0, 1, 2, 0, 2, 2], 30, 0)))
    assert not dip.stop


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[1].scores.pop("3"), "step 20 has no score of 3"),
        (lambda rows: rows[1].scores.update({"3": float("nan")}), "step 20 has no score of 3"),
        (lambda rows: rows.append(rows[0]), "step 10 follows step 30"),
        (lambda rows: rows.clear(), "no evaluation"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, said):
    rows = history(training([0, 1, 2], 30, 0))
    change(rows)
    with pytest.raises(TangevalError, match=said):
        decide(rows)
