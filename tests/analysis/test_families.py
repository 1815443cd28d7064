"""Families of a results folder: which settings each has, what the tables say, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from tangeval import api
from tangeval.analysis.best_of import best_of
from tangeval.analysis.families import by_family
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, KNOB
from tests.support.folders import make_results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "small"
    make_results(folder)
    return folder


def knobs(*settings):
    off = {name: KNOB[name].off for name in AXES}
    return pd.DataFrame([off | {"temperature": 1.0, "max_length": 96} | setting for setting in settings])


def test_a_family_is_the_knobs_that_are_on():
    found = by_family(
        knobs({}, {"top_k": 5}, {"top_p": 0.9}, {"top_p": 0.5, "temperature": 0.3}, {"top_k": 5, "top_p": 0.9},
              {"temperature": 0.3}, {"temperature": 0.0}, {"temperature": 0.0, "top_k": 5})
    )  # fmt: skip
    assert found == {"temperature": [0, 5], "top_k": [1], "top_p": [2, 3], "top_k + top_p": [4]}


def test_what_is_on_in_all_settings_tells_none_apart():
    every = {"no_repeat_ngram_size": 3, "top_k": 20}
    assert by_family(knobs(every, every | {"top_p": 0.9})) == {"temperature": [0], "top_p": [1]}


def test_its_naive_values_are_the_summarys_best_and_its_means_those_of_the_settings(folder):
    found, results = api.families(folder, ["form", "bleu"], checkpoint="base")
    summary = results.summary
    own = summary[(summary["split"] == "validation") & (summary["checkpoint"] == "base")]
    own = own[(own["top_k"] == 5) & (own["top_p"] == 1) & (own["temperature"] > 0)]
    table = found.values[found.values["family"] == "top_k"]
    tried = table[table["by"] == "budget"].set_index("at")
    for metric in ("form", "bleu"):
        for k in (1, 2, 4):
            assert tried.loc[k, f"{metric}_naive"] == pytest.approx(best_of(own[metric].to_numpy(), k))
    hot = table[table["by"] == "temperature"].set_index("at")
    assert hot.loc[0.7, "form"] == pytest.approx(own.loc[own["temperature"] == 0.7, "form"].mean())
    assert (tried["settings"] == 4).all()
    assert (hot["settings"] == 2).all()


def test_differences_are_of_the_values_at_the_budget(folder):
    found, results = api.families(folder, ["form", "chrf"], checkpoint="base", budget=2)
    rows = found.values[(found.values["by"] == "budget") & (found.values["at"] == 2)].set_index("family")
    assert set(found.differences["budget"]) == {2}
    assert len(found.differences) == 2 * 6
    for row in found.differences.to_dict("records"):
        assert row["value_a"] == pytest.approx(rows.loc[row["a"], row["metric"]])
        assert row["difference"] == pytest.approx(row["value_a"] - row["value_b"])
        assert row["difference"] >= 0
        assert row["low"] < row["difference"] < row["high"]
        assert row["p"] <= row["p_adjusted"]
    for name, frame in (("families", found.values), ("family_differences", found.differences)):
        assert len(pd.read_csv(folder / f"{name}.csv")) == len(frame)
        assert {file.suffix for file in (folder / "tables").glob(f"{name}.*")} == {".csv", ".md", ".tex"}
    assert results.picture("families_validation").svg


def test_the_better_family_stands_first_where_low_is_better(folder):
    rows = api.families(folder, ["train_overlap"], checkpoint="base")[0].differences
    assert (rows["difference"] <= 0).all()
    assert np.isfinite(rows[["low", "high"]]).all(axis=None)


@pytest.mark.parametrize(
    ("metrics", "options", "message"),
    [
        ([], {}, "give a metric at least"),
        (["taste"], {}, "taste is no metric"),
        (["reference_nll"], {}, "the same for every setting"),
        (["form"], {"budget": 0}, "--budget 0: give the settings that each family tries, 1 or more"),
        (["form"], {"checkpoint": "checkpoint-7"}, "no checkpoint checkpoint-7 on validation"),
        (["form"], {"checkpoint": "all"}, "families are compared on one checkpoint"),
    ],
)
def test_what_cannot_be_asked_is_refused(folder, metrics, options, message):
    with pytest.raises(TangevalError, match=message):
        api.families(folder, metrics, **options)


def test_one_family_is_no_contest(tmp_path):
    make_results(tmp_path, ("base",), decoding={"temperature": [0.5, 1.0], "max_length": 12})
    with pytest.raises(TangevalError, match="of one family, temperature; a contest wants a grid"):
        api.families(tmp_path, ["form"])
