"""The package's tasks in files: their samples hold what their checks ask, and their studies run."""

from pathlib import Path

import pandas as pd
import pytest

from tangeval import api, tasks
from tangeval.analysis import scoring
from tangeval.tasks.base import duplicates
from tests.support.study import evaluate

DECLARED = [name for name in tasks.names() if name != "tang"]


@pytest.mark.parametrize("name", DECLARED)
def test_a_sample_is_clean_and_passes_its_own_checks(name):
    task = tasks.load(name)
    data = api.data("sample", task=name)
    assert not duplicates(task, data.dataset)
    assert not any(data.leaks.values())
    assert len((tasks.DECLARED / f"{name}.yaml").read_text("utf-8").splitlines()) <= 25
    rows = [scoring.reference_rows(task, data.dataset, split) for split in ("train", "validation", "test")]
    assert scoring.score_texts(pd.concat(rows), task, data.dataset)["form"].all()
    assert all(len(data.dataset.split(split)) for split in ("train", "validation", "test"))


@pytest.mark.parametrize("name", DECLARED)
def test_its_study_runs(name, tiny_model, tmp_path):
    few = ["samples=1", "decoding.temperature=0.8", "decoding.max_length=4", "splits=[test]", "select=null"]
    evaluate(Path("studies") / f"{name}.yaml", tmp_path / name, f"base_model={tiny_model}", *few)
    summary = pd.read_csv(tmp_path / name / "summary.csv")
    assert set(summary["checkpoint"]) == {"base", "random", "reference"}
    assert summary["chrf"].notna().all()
