"""When to stop a training: on made-up trainings whose truth is known."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.stopping import ended, made_up
from tangeval.analysis.stopping import Evaluation, decide, falls
from tangeval.core.errors import TangevalError

FLAT, OVERFITS = np.zeros(20), np.array([0, 0.6, 0.8, 0.9, 0.7, 0.5, 0.3, 0.1, 0, -0.1, -0.2, -0.2])


def training(truth, examples, seed, alike=0.8, law="normal"):
    return made_up(law, np.array(truth), alike, examples, seed)


def history(scores):
    return [
        Evaluation(10 * (place + 1), {str(name): float(value) for name, value in enumerate(row)})
        for place, row in enumerate(scores)
    ]


def cut(rows, examples):
    """Leave so many examples at each step."""
    for each in rows:
        for name in list(each.scores)[examples:]:
            each.scores.pop(name)


def naive_stop(scores):
    """Whether Student's t ever calls each of the last three worse than the best so far."""
    for now in range(3, len(scores)):
        best = scores[: now + 1].mean(axis=1).argmax()
        last = scores[now - 2 : now + 1]
        if (
            best <= now - 3
            and (stats.ttest_1samp(scores[best] - last, 0, axis=1, alternative="greater").pvalue < 0.05).all()
        ):
            return True
    return False


def test_a_fall_stops_and_one_dip_does_not():
    fall = decide(history(training([0, 1, 2, 1, 0.5, 0], 30, 0)))
    assert (fall.best, fall.stop) == (30, True)
    assert fall.reason.startswith("step 30 has the best mean, 2.033; the last 3 (1.026, ")
    assert not any(decide(history(training([0, 1, 2, -2, 2, 2, -2, 2], 30, 0)[:n])).stop for n in range(1, 9))


@pytest.mark.parametrize(("examples", "law"), [(12, "normal"), (30, "normal"), (30, "pass or fail")])
def test_alike_evaluations_stop_a_training_in_five_of_a_hundred_at_most(examples, law):
    count = 60
    drawn = [training(FLAT, examples, seed, law=law) for seed in range(count)]
    margin = stats.binom.ppf(0.995, count, 0.05)
    assert sum(ended(scores)[1] is not None for scores in drawn) <= margin
    if law == "normal" and examples == 30:  # what a test at each evaluation would do
        assert sum(map(naive_stop, drawn)) > margin


def test_a_training_that_gets_better_goes_on():
    drawn = [training(0.1 * np.arange(12), 30, seed) for seed in range(100)]
    assert sum(ended(scores)[1] is not None for scores in drawn) <= stats.binom.ppf(0.995, 100, 0.05)


def test_overfitting_is_stopped_with_a_third_of_the_steps_to_go_and_a_good_step_kept():
    found = [ended(training(OVERFITS, 30, seed)) for seed in range(60)]
    assert np.mean([stop is not None and stop + 1 <= 0.7 * len(OVERFITS) for _, stop in found]) > 0.9
    assert np.mean([stop is not None and OVERFITS[kept] >= 0.7 for kept, stop in found]) > 0.9


def test_one_look_is_the_exact_paired_test():
    alpha, decided = 0.8, []  # the first look spends an eleventh
    for seed in range(40):
        first, second = training([0.4, 0], 9, seed, alike=0)
        exact = stats.permutation_test(
            (first, second), lambda a, b, axis: (a - b).mean(axis=axis), permutation_type="samples",
            n_resamples=np.inf, alternative="greater", vectorized=True,
        ).pvalue  # fmt: skip
        decided.append(falls(np.stack([first, second]), 1, alpha)[1, 0])
        assert decided[-1] == (exact <= alpha / 11)
    assert 0 < sum(decided) < len(decided)


def test_what_comes_later_changes_no_decision():
    scores = training(OVERFITS, 15, 3)
    assert (falls(scores[:8], 3, 0.05) == falls(scores, 3, 0.05)[:8, :8]).all()


def test_less_may_be_better():
    scores = training(OVERFITS, 30, 1)
    up, down = decide(history(scores)), decide(history(-scores), higher=False)
    assert (up.best, up.stop) == (down.best, down.stop) == (40, True)


def test_of_equal_means_the_earliest_is_kept():
    assert decide(history(np.ones((4, 8)))).best == 10


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[1].scores.pop("3"), "step 20 has no score of 3"),
        (lambda rows: rows[1].scores.update({"3": float("nan")}), "step 20 has no score of 3"),
        (lambda rows: rows.append(rows[0]), "step 10 follows step 30"),
        (lambda rows: rows.clear(), "no evaluation"),
        (lambda rows: cut(rows, 5), "give 6 examples at least"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, said):
    rows = history(training([0, 1, 2], 30, 0))
    change(rows)
    with pytest.raises(TangevalError, match=said):
        decide(rows)
