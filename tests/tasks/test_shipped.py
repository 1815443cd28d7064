"""The package's tasks in files: their samples hold what their checks ask, and their studies run."""

from pathlib import Path

import pandas as pd
import pytest

from tangeval import api, tasks
from tangeval.analysis import scoring
from tangeval.tasks.base import duplicates
from tests.support.command import succeeds

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
def test_its_study_runs_to_the_end(name, tiny_model, tmp_path):
    """Texts so short that some metrics say nothing of any: and what picks samples is a check, which reads no reference."""
    few = ["samples=2", "decoding.temperature=0.8", "decoding.max_length=4"]
    study = Path("studies", f"{name}.yaml").resolve()
    assert "best setting:" in succeeds(tmp_path, "run", study, f"base_model={tiny_model}", *few).out
    summary = pd.read_csv(tmp_path / "results" / name / "summary.csv")
    assert set(summary["checkpoint"]) == {"base", "random", "reference"}
    assert summary["chrf"].notna().all()
    succeeds(tmp_path, "headroom", f"results/{name}")
    picked = pd.read_csv(tmp_path / "results" / name / "reranked.csv")
    assert set(picked["rerank"]) == {"none", "form", "mbr"}


def test_a_text_without_verse_is_explained_and_its_settings_are_halved(tiny_model, tmp_path):
    few = [f"base_model={tiny_model}", "decoding.temperature=[0.8,1.0]", "decoding.max_length=4"]
    study = Path("studies", "haiku.yaml").resolve()
    halved = succeeds(tmp_path, "halving", study, *few)
    assert "best setting:" in halved.out
    assert "warning" not in halved.out + halved.err
    explained = succeeds(tmp_path, "explain", study, *few, "--reference").raw
    assert "rose\nThe rose is open\n" in explained
