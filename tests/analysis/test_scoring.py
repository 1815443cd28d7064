"""Scores of texts: baselines in sets as large as the runs'; what is kept of a text's own."""

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis import scoring
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset

SAMPLE = dataset.load("sample")
OVER_SAMPLES = [m.name for m in TANG.metrics.values() if m.level == "samples"]


@pytest.mark.parametrize("samples", [1, 3, 5, 31, 64])
def test_the_random_baseline_is_measured_in_whole_sets_as_large_as_the_runs(samples):
    rows = scoring.random_rows(TANG, SAMPLE, "test", 42, samples)
    sizes = rows.groupby(["example_id", "set"]).size()
    assert set(sizes) == {samples}
    assert rows.groupby("example_id").size().between(32, 32 + samples + 32).all()
    scores = scoring.score_texts(rows, TANG, SAMPLE)
    assert scores["self_bleu"].isna().any() == (samples == 1)
    first = rows[rows["set"] == 0]
    alone = scoring.score_texts(first.drop(columns="set"), TANG, SAMPLE)
    pd.testing.assert_frame_equal(
        scores.loc[first.index, OVER_SAMPLES].reset_index(drop=True), alone[OVER_SAMPLES]
    )


def test_draws_are_a_few_more_at_most_than_were_asked_for():
    counts = {
        n: scoring.random_rows(TANG, SAMPLE, "test", 42, n).groupby("example_id").size().max()
        for n in (3, 32, 64)
    }
    assert counts == {3: 33, 32: 32, 64: 64}
    assert len(scoring.random_rows(TANG, SAMPLE, "test", 42, 2, draws=2)) == 2 * 15


def test_a_row_has_every_metric_of_the_task_and_the_counts_of_those_of_a_corpus():
    scores = scoring.score_texts(scoring.reference_rows(TANG, SAMPLE, "test"), TANG, SAMPLE)
    for metric in TANG.metrics.values():
        wanted = {"corpus": metric.counts, "reference": ()}.get(metric.level, (metric.name,))
        assert set(wanted) <= set(scores), metric.name
    counts = scores[list(TANG.metrics["bleu"].counts)].to_numpy(float).sum(axis=0)
    assert TANG.metrics["bleu"].score(counts) == pytest.approx(100)


def test_the_same_text_scores_alike_wherever_it_stands():
    example = SAMPLE.split("test")[0]
    other = SAMPLE.split("test")[1]
    texts = ["欲窮千里目，更上一層樓。", example.reference, "欲窮千里目，更上一層樓。"]
    rows = [scoring.outputs_frame(f"m{n}", [example, other], [text, text]) for n, text in enumerate(texts)]
    scores = scoring.score_texts(pd.concat(rows, ignore_index=True), TANG, SAMPLE)
    numbers = scores.select_dtypes(float)
    assert np.array_equal(numbers[:2], numbers[4:], equal_nan=True)
    assert scores.loc[2, "chrf"] == 100
    assert scores.loc[3, "chrf"] < 20


def test_texts_measured_together_score_as_each_alone(monkeypatch):
    rows = scoring.random_rows(TANG, SAMPLE, "test", 42, 2, draws=2)
    faults = ["", "no verse", "白日，", "々々", "欲窮千里目更上一層樓", "a" * 40]
    rows.loc[rows.index[: len(faults)], "text"] = faults
    together = scoring.score_texts(rows, TANG, SAMPLE)
    monkeypatch.setattr(scoring, "TEXTS_AT_ONCE", 1)
    pd.testing.assert_frame_equal(scoring.score_texts(rows, TANG, SAMPLE), together, check_exact=True)


def test_random_draws_of_many_examples_come_in_parts_and_are_fewer(monkeypatch):
    whole = scoring.random_rows(TANG, SAMPLE, "test", 42, 2)
    monkeypatch.setattr(scoring, "SCORE_CHUNK_ROWS", 64)
    parts = list(scoring.random_parts(TANG, SAMPLE, "test", 42, 2))
    assert [len(part) for part in parts[:2]] == [64, 64]
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    monkeypatch.setattr(scoring, "BASELINE_TEXTS", 60)
    assert set(scoring.random_rows(TANG, SAMPLE, "test", 42, 2).groupby("example_id").size()) == {4}
