"""The front of a results folder: what its table says, and what is refused."""

import pandas as pd
import pytest

from tangeval import api
from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.results.folder import RunFolder
from tests.support.folders import NAME, make_results

METRICS = ["chrf", "distinct_1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "small"
    make_results(folder)
    return folder


def test_its_values_are_the_summarys_and_its_front_is_the_point_estimates(folder):
    frame, results = api.front(folder, METRICS, checkpoint="all")
    summary = results.summary
    keys = ["checkpoint", "split", "temperature", "top_k", "top_p", "max_length"]
    both = frame.merge(summary, on=keys, suffixes=("", "_there"))
    own = summary[(summary["split"] == "validation") & ~summary["checkpoint"].isin([RANDOM, REFERENCE])]
    assert len(frame) == len(both) == len(own)
    for metric in METRICS:
        for end in ("", "_low", "_high"):
            assert both[metric + end].tolist() == pytest.approx(both[f"{metric}{end}_there"].tolist())
    beaten = [
        any(
            (o[METRICS] >= r[METRICS]).all() and (o[METRICS] > r[METRICS] + 1e-12).any()
            for _, o in frame.iterrows()
        )
        for _, r in frame.iterrows()
    ]
    assert frame["on_front"].tolist() == [1 - b for b in beaten]
    assert frame["on_front"].is_monotonic_decreasing
    assert (folder / "figures" / "front_validation.png").is_file()
    read = pd.read_csv(folder / "front.csv")
    assert list(read) == list(frame)
    assert read["dominated_by"].isna().tolist() == frame["dominated_by"].isna().tolist()


def test_what_dominates_is_named_as_compare_takes_it(folder):
    """Texts that were cut short have no second clause: no tones that oppose, and too few clauses."""
    frame, _ = api.front(folder, ["tone_opposition", "clause_count"], checkpoint="base")
    shown = frame[frame["dominated_by"].notna()]
    assert len(shown)
    assert set(shown["max_length"]) == {6}
    item = shown["dominated_by"].iloc[0]
    (row,) = api.compare(f"{folder}:{item}", f"{folder}:base:max_length=6", metrics=["clause_count"]).to_dict(
        "records"
    )
    assert row["difference"] > 0


def test_the_chosen_checkpoint_is_taken_where_none_is_named(folder):
    chosen = RunFolder(folder).selection["checkpoint"]["checkpoint"]
    assert set(api.front(folder, METRICS)[0]["checkpoint"]) == {chosen}
    assert set(api.front(folder, METRICS, checkpoint=NAME)[0]["checkpoint"]) == {NAME}


def test_low_is_better_where_the_metric_says_so(folder):
    frame, _ = api.front(folder, ["chrf", "train_overlap"], checkpoint="base")
    assert frame["train_overlap"].min() in frame.loc[frame["on_front"] == 1, "train_overlap"].tolist()


@pytest.mark.parametrize(
    ("metrics", "checkpoint", "message"),
    [
        (["chrf"], None, "two metrics at least"),
        (["chrf", "chrf"], None, "two metrics at least"),
        (["chrf", "bleu"], None, "bleu: it is no mean over examples.* take shared_pairs or chrf"),
        (["chrf", "taste"], None, "taste is no metric"),
        (["chrf", "reference_nll"], None, "reference_nll is the same for every setting"),
        (["chrf", "reference_nll"], "all", "reference_nll was not measured"),
        (METRICS, "checkpoint-7", "no checkpoint checkpoint-7 on validation"),
    ],
)
def test_what_cannot_be_asked_is_refused(folder, metrics, checkpoint, message):
    with pytest.raises(TangevalError, match=message):
        api.front(folder, metrics, checkpoint=checkpoint)


def test_without_a_choice_a_checkpoint_must_be_named(tmp_path):
    make_results(tmp_path, select=None)
    with pytest.raises(TangevalError, match="nothing is chosen there; give --checkpoint NAME or all"):
        api.front(tmp_path, METRICS)
