"""The knob ``constrain`` from a study to its texts, and what is refused before a model is loaded."""

import json

import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.engines.constraints import check_constraints
from tangeval.models import loading
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder
from tests.support.study import evaluate, write_study

GRID = {
    "temperature": [0.0, 1.0], "max_length": 60, "no_repeat_ngram_size": 0,
    "constrain": ["none", "form", "form+rhyme", {"regex": "[一-鿿]{3,5}。"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def study(tiny_model, tiny_run, tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("constrained"), tiny_model, tiny_run, decoding=GRID, samples=1)


def check(study, *overrides: str) -> None:
    resolved = resolve(load_study(study, overrides))
    check_constraints(resolved, loading.load_tokenizer(resolved.base))


def test_every_checkpoints_texts_are_as_they_are_held_to(study, tmp_path):
    evaluate(study, tmp_path / "out")
    run = RunFolder(tmp_path / "out")
    summary = run.read_table("summary")
    rows = summary[summary["checkpoint"].isin(["base", "checkpoint-10", "checkpoint-20"])]
    mean = rows.groupby("constrain")[["form", "rhyme"]].min()
    assert (mean.loc[["form", "form+rhyme"], "form"] == 1).all()
    assert mean.loc["form+rhyme", "rhyme"] == 1
    assert rows[rows["constrain"] == "none"]["form"].max() < 0.5
    texts = pd.concat(map(pd.read_parquet, run.batch_files()))
    written = texts[texts["constrain"].str.startswith("regex:")]["text"]
    assert len(written)
    assert written.str.fullmatch("[一-鿿]{3,5}。").all()
    assert "constrain" in set(run.read_table("effects")["knob"])
    assert json.loads(run.plan.read_text("utf-8"))["axes"][-1] == "constrain"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("decoding.constrain=rhyme", "tang has no rhyme; there are none, form, form"),
        ("decoding.max_length=8", r"8 tokens hold no whole text of constrain form, which takes 1[37] to 50; set it to 50"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_before_a_model_is_loaded(study, override, said, monkeypatch):
    monkeypatch.setattr(loading, "load_model", lambda *a, **k: pytest.fail("a model was loaded"))
    with pytest.raises(TangevalError, match=said):
        check(study, override)


def test_a_length_that_cuts_some_texts_is_warned_of(study):
    with pytest.warns(UserWarning, match="30 tokens cut some texts of constrain form, which takes up to 50"):
        check(study, "decoding.max_length=[30,60]", "decoding.constrain=form")
