"""Scores are grouped by their keys: what is no whole grid is refused with checkpoint, setting, example and sample."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis import scoring
from tangeval.analysis.aggregate import Part, groups
from tangeval.core.errors import TangevalError
from tangeval.results.folder import NO_LIKELIHOOD
from tangeval.tasks.tang import TANG

SAMPLE = TANG.load("sample")
EXAMPLES = SAMPLE.split("validation")[:2]


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Of two settings, one of which writes the references and one none of them; two examples and samples."""
    rows = [
        {
            "checkpoint": "base", "step": pd.NA, "temperature": t, "top_k": 0, "top_p": 1.0, "max_length": 96,
            "no_repeat_ngram_size": 3, "split": "validation", "example_id": e.id, "sample": s,
            "text": TANG.target(e) if t < 0.5 else "壞", "n_tokens": 9.0, "finish_reason": "stop",
        }
        for t, e, s in product((0.1, 1.0), EXAMPLES, range(2))
    ]  # fmt: skip
    return scoring.score_texts(pd.DataFrame(rows), TANG, SAMPLE)


def measured(scores: pd.DataFrame, likelihood: pd.DataFrame = NO_LIKELIHOOD):
    (group,) = groups(scores, likelihood, TANG.metrics)
    return group.measured


def test_rows_in_any_order_measure_the_same(scores):
    expected, found = measured(scores), measured(scores.sample(frac=1, random_state=3))
    assert expected.value["form"].tolist() == [1, 0]
    for metric in expected.value:
        assert np.array_equal(found.value[metric], expected.value[metric], equal_nan=True)


def test_a_row_lost_and_one_added_are_refused(scores):
    """The count of rows is that of a whole grid, as it was where settings were told apart by it."""
    bad = pd.concat([scores.drop(index=3), scores.iloc[[4]].assign(sample=2)], ignore_index=True)
    with pytest.raises(
        TangevalError, match=r"scores of base on validation: temperature 0\.1, .*sample 2 is missing"
    ):
        measured(bad)


def test_a_row_that_is_there_twice_is_refused(scores):
    """Two settings that differ in a knob which is no column, or a setting that was decoded twice."""
    twice = pd.concat([scores, scores.iloc[[5]]], ignore_index=True)
    with pytest.raises(
        TangevalError, match=rf"temperature 1\.0, .*example {EXAMPLES[0].id}, sample 1 is there twice"
    ):
        measured(twice)


def test_parts_of_other_settings_or_samples_are_refused(scores):
    one, other = (scores[scores["example_id"] == e.id] for e in EXAMPLES)
    for bad in (other[other["temperature"] < 0.5], other[other["sample"] == 0]):
        with pytest.raises(TangevalError, match="examples differ in their settings or samples"):
            list(groups([one, bad], NO_LIKELIHOOD, TANG.metrics))


def test_a_likelihood_that_is_missing_or_double_is_refused(scores):
    rows = [
        {"checkpoint": "base", "split": "validation", "example_id": e.id, "reference_nll": 1.0}
        for e in EXAMPLES
    ]
    assert measured(scores, pd.DataFrame(rows)).value["reference_nll"].tolist() == [1, 1]
    with pytest.raises(TangevalError, match=f"{EXAMPLES[1].id} has no likelihood"):
        measured(scores, pd.DataFrame(rows[:1]))
    with pytest.raises(TangevalError, match=f"{EXAMPLES[0].id} has more than one likelihood"):
        measured(scores, pd.DataFrame([*rows, rows[0]]))


def test_no_interval_reaches_beyond_what_a_metric_can_be(scores):
    """Of two examples, of which one has nothing or all, Student's t reaches far beyond."""
    for values in ((0.0, 4.0), (100.0, 96.0)):
        known = dict(zip((e.id for e in EXAMPLES), values, strict=True))
        found = measured(scores.assign(chrf=scores["example_id"].map(known)))
        low, high = Part(found, [0]).interval("chrf")
        assert 0 <= low <= sum(values) / 2 <= high <= 100
        assert (low == 0) is (values[0] == 0)
        assert (high == 100) is (values[0] == 100)


def test_no_likelihood_is_below_0(scores):
    rows = [
        {"checkpoint": "base", "split": "validation", "example_id": e.id, "reference_nll": nll}
        for e, nll in zip(EXAMPLES, (0.1, 9.0), strict=True)
    ]
    low, high = Part(measured(scores, pd.DataFrame(rows)), [0]).interval("reference_nll")
    assert low == 0 < 4.55 < high
