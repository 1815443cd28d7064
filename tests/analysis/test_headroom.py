"""What samples know, of a results folder: against the outputs themselves, and what is refused."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics import BLEU

from tangeval import api
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import axes_in
from tests.support.folders import make_results

SAMPLES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "small"
    make_results(folder, samples=SAMPLES)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return api.headroom(folder, checkpoint="base")[0]


@pytest.fixture(scope="module")
def outputs(folder):
    """The scores of one setting, a row an output."""
    scores = pd.read_parquet(folder / "scores.parquet")
    wanted = {
        "checkpoint": "base",
        "split": "validation",
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "max_length": 18,
    }
    return chosen(scores, wanted)


def chosen(frame, wanted):
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def row_of(frame, outputs, **more):
    (row,) = chosen(frame, {name: outputs[name].iloc[0] for name in axes_in(frame)} | more).to_dict("records")
    return row


@pytest.mark.parametrize(("metric", "take"), [("form", max), ("chrf", max), ("train_overlap", min)])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_best_of_k_is_the_mean_over_all_ways_to_draw_k(found, outputs, metric, take, k):
    poems = outputs.groupby("example_id")[metric].apply(
        lambda own: np.mean([take(drawn) for drawn in combinations(own, k)])
    )
    row = row_of(found.best_of, outputs, k=k)
    assert row[metric] == pytest.approx(poems.mean(), rel=1e-6)
    assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]


def test_of_one_sample_and_of_none_picked_it_is_the_summarys_row(folder, found, outputs):
    summary = row_of(pd.read_csv(folder / "summary.csv"), outputs, checkpoint="base", split="validation")
    one, mean = row_of(found.best_of, outputs, k=1), row_of(found.reranked, outputs, rerank="none")
    for metric in ("form", "form_low", "chrf", "chrf_high"):
        assert one[metric] == pytest.approx(summary[metric], rel=1e-5)
        assert mean[metric] == pytest.approx(summary[metric], rel=1e-5)
    assert mean["bleu"] == pytest.approx(summary["bleu"], rel=1e-5)


def test_what_is_picked_by_form_is_measured_as_what_was_written(folder, found, outputs):
    ordered = outputs.sort_values(["example_id", "form", "sample"], ascending=[True, False, True])
    picked = ordered.drop_duplicates("example_id")
    row = row_of(found.reranked, outputs, rerank="form")
    for metric in ("form", "chrf", "rhyme"):
        assert row[metric] == pytest.approx(picked[metric].mean(), rel=1e-6)
    texts = api.load_results(folder).generations.merge(
        picked[["checkpoint", *axes_in(picked), "example_id", "sample"]]
    )
    data, task = api.load_results(folder).dataset, api.load_results(folder).task
    sides = [[task.normalise(text) for text in texts["text"]]]
    sides.append([task.normalise(data.by_id[name].reference) for name in texts["example_id"]])
    assert len(texts) == len(picked)
    assert row["bleu"] == pytest.approx(BLEU(tokenize="char").corpus_score(sides[0], sides[1:]).score)


def test_the_oracles_room_is_there_for_every_metric_of_outputs(found):
    assert {"form", "chrf", "rhyme"} <= set(found.oracle["metric"])
    assert "bleu" not in set(found.oracle["metric"])
    assert (found.oracle["room"] >= 0).all()
    assert (found.oracle["settings"] == 24).all()
    low = found.oracle.set_index("metric").loc["train_overlap"]
    assert 0 <= low["single"] < 20


def test_tables_and_picture_are_written(folder, found):
    for name in ("best_of", "reranked", "oracle"):
        assert len(pd.read_csv(folder / f"{name}.csv")) == len(getattr(found, name))
        assert {file.suffix for file in (folder / "tables").glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    assert (
        "One sample picked of each example's (mbr): best settings by bleu"
        in (folder / "tables/reranked.md").read_text()
    )
    assert (folder / "figures/best_of_validation.svg").is_file()


def test_one_sample_leaves_nothing_to_pick_from(tmp_path):
    make_results(tmp_path, ("base",), samples=1)
    with pytest.raises(TangevalError, match="one of each validation example leaves nothing to pick from"):
        api.headroom(tmp_path)
