"""Bounds of how far below the best a candidate lies, on made-up examples whose truth is known, and what is taken."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tangeval import api
from tangeval.analysis.aggregate import Measured, Part
from tangeval.analysis.as_good import as_good, shortfall_bounds
from tangeval.analysis.select import _PREFERENCES, Candidate
from tangeval.core.errors import TangevalError
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG
from tests.support.folders import make_results


def parts(metric: str, by_poem: np.ndarray, samples: int = 1) -> list[Part]:
    """Settings with values ``[P, C]``."""
    poems, settings = by_poem.shape
    value, names = {metric: by_poem.mean(axis=0)}, tuple(map(str, range(poems)))
    knobs = pd.DataFrame({"place": range(settings)})
    measured = Measured(TANG.metrics, knobs, names, samples, value, {metric: by_poem}, {})
    return [Part(measured, [place]) for place in range(settings)]


@pytest.fixture
def generator():
    return np.random.default_rng(5)


def test_the_bound_of_two_is_a_one_sided_paired_t(generator):
    by_poem = generator.normal([0.0, 0.4], size=(200, 2))
    bound, best = shortfall_bounds(parts("chrf", by_poem), "chrf")
    theirs = stats.ttest_rel(by_poem[:, 1], by_poem[:, 0]).confidence_interval(0.90)
    assert bound == pytest.approx(theirs.high, abs=0.02)
    assert best == pytest.approx(max(0, -theirs.low), abs=0.02)


def test_low_is_high_of_the_negative(generator):
    by_poem = generator.normal(size=(30, 5))
    low, high = (
        shortfall_bounds(parts("reference_nll", by_poem), "reference_nll"),
        shortfall_bounds(parts("chrf", -by_poem), "chrf"),
    )
    assert np.allclose(low, high)
    fails = (generator.random((30, 5)) < 0.2).astype(float)
    low, high = (
        shortfall_bounds(parts("copied_clauses", fails), "copied_clauses"),
        shortfall_bounds(parts("form", 1 - fails), "form"),
    )
    assert TANG.metrics["copied_clauses"].better == "low"
    assert np.allclose(low, high)


def test_fifteen_poems_on_which_all_is_alike_show_little():
    """Two settings without a failure: not told apart, and still no claim that they are within 0.05."""
    bounds, good = as_good(parts("form", np.ones((15, 2))), {"form": 0.05})
    assert (bounds["form"] > 0.1).all()
    assert not good.any()
    assert as_good(parts("form", np.ones((400, 2))), {"form": 0.05})[1].all()


@pytest.mark.parametrize("metric", ["chrf", "form"])
def test_a_candidate_beyond_the_margin_is_seldom_declared(generator, metric):
    """One is truly best and the others just beyond the margin."""
    wrong, right = [], []
    for _ in range(200):
        if metric == "chrf":
            by_poem = generator.normal(size=(100, 1)) + generator.normal(
                [1.0, 0.99, 0.79, 0.79, 0.79], 0.4, (100, 5)
            )
        else:
            by_poem = (
                generator.random((100, 5, 2)) < np.array([0.99, 0.985, 0.78, 0.78, 0.78])[:, None]
            ).mean(axis=2)
        _, good = as_good(parts(metric, by_poem, 2), {metric: 0.2})
        wrong.append(good[2:].any())
        right.append(good[1])
    assert np.mean(wrong) <= 0.08
    assert np.mean(right) > 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("margins")
    make_results(place, select={"checkpoint": "chrf", "setting": {"by": "chrf"}})
    return place


def test_the_preferred_of_those_as_good_is_taken_and_the_best_is_named(folder):
    chosen = api.select(folder, within={"chrf": 1000.0}, prefer="shortest", assume_unseen=True).selection
    rows = chosen["as_good"]["settings"]
    assert all(row["as_good"] and 0 <= row["chrf"] < 1000 for row in rows)
    summary = RunFolder(folder).read_table("summary")
    own = summary[
        (summary["checkpoint"] == chosen["checkpoint"]["checkpoint"]) & (summary["split"] == "validation")
    ]
    assert chosen["validation"]["chrf"]["value"] == pytest.approx(
        own.loc[own["n_tokens"] == own["n_tokens"].min(), "chrf"].max()
    )
    assert chosen["best"]["settings"] in [
        {k: v for k, v in row.items() if k not in ("chrf", "as_good")} for row in rows
    ]
    earliest = api.select(folder, within={"chrf": 1000.0}, prefer="earliest", assume_unseen=True).selection
    assert earliest["checkpoint"]["checkpoint"] == "base"


def test_the_base_model_was_before_all_and_what_has_no_step_after_all():
    _, when = _PREFERENCES["earliest"]
    steps = {"average-1-2": None, "checkpoint-2": 2, "base": None, "checkpoint-1": 1}
    made = [Candidate({"checkpoint": name, "step": step}, None) for name, step in steps.items()]
    names = [each.labels["checkpoint"] for each in sorted(made, key=when)]
    assert names == ["base", "checkpoint-1", "checkpoint-2", "average-1-2"]


def test_nothing_is_taken_instead_where_nothing_is_shown(folder):
    plain = api.select(folder, assume_unseen=True).selection
    careful = api.select(folder, within={"chrf": 1e-9}, prefer="shortest", assume_unseen=True).selection
    assert "as_good" not in plain
    assert careful["setting"] == plain["setting"]
    assert "best" not in careful


@pytest.mark.parametrize(
    ("within", "prefer", "message"),
    [
        ({"bleu": 1.0}, None, "bleu is no mean over examples.*shared_pairs"),
        ({"from": 0.1}, None, "select.within: from is no metric"),
        ({"form": -0.1}, None, "within"),
        ({}, "shortest", "say how good is enough"),
        ({"reference_nll": 0.1}, "shortest", "prefer: shortest of settings that within does not tell apart"),
        ({"form": 0.1}, "cheapest", "'earliest', 'shortest' or 'most_varied'"),
    ],
)
def test_a_margin_that_says_nothing_is_refused(folder, within, prefer, message):
    with pytest.raises(TangevalError, match=message):
        api.select(folder, within=within, prefer=prefer, assume_unseen=True)
