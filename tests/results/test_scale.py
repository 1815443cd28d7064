"""A study scored and summarised in parts is the study scored and summarised whole."""

import subprocess
import sys

import pandas as pd
import pytest

from tangeval import tasks
from tangeval.analysis import compare, processes, select, summarize
from tangeval.analysis import scoring as score
from tangeval.analysis.aggregate import groups
from tangeval.core.errors import TangevalError
from tangeval.results.files import write_parquet
from tangeval.results.folder import NO_LIKELIHOOD, RunFolder
from tests.support.folders import make_results


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Study, data, folder, and its scores as one call makes them."""
    folder = tmp_path_factory.mktemp("whole")
    study, data = make_results(folder, samples=3)
    splits, task = study.ordered_splits(), tasks.load(study.task)
    baselines = [score.random_rows(task, data, s, study.seed, study.samples_of(s)) for s in splits]
    baselines += [score.reference_rows(task, data, s) for s in splits]
    frame = pd.concat([score.read_generations(study, folder), *baselines], ignore_index=True)
    return study, data, folder, score.score_texts(frame, task, data)


@pytest.mark.parametrize("alone", [10**9, 0])
def test_scoring_in_parts_equals_scoring_whole(whole, monkeypatch, alone):
    """In this process, and in two others."""
    study, data, folder, expected = whole
    monkeypatch.setattr(score, "SCORE_CHUNK_ROWS", 200)
    monkeypatch.setattr(processes, "MIN_ROWS_FOR_POOL", alone)
    monkeypatch.setattr(processes, "MAX_PROCESSES", 2)
    score.score(study, data, folder)
    parts = list(RunFolder(folder).scores())
    assert len(parts) > 20
    assert max(map(len, parts)) <= 200 + 48  # and the last example of the part before
    pd.testing.assert_frame_equal(pd.read_parquet(RunFolder(folder).scores_file), expected, check_exact=True)


def test_a_process_that_scores_and_dies_is_said_and_nothing_hangs(whole, tmp_path):
    """A script that calls tangeval outside of a main guard: each process runs it again, and dies of that."""
    *_, folder, _ = whole
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tangeval import api\n"
        "from tangeval.analysis import processes\n"
        "from tangeval.analysis import scoring as score\n"
        "processes.MIN_ROWS_FOR_POOL, score.SCORE_CHUNK_ROWS, processes.MAX_PROCESSES = 0, 200, 2\n"
        f"results = api.load_results(Path({str(folder)!r}))\n"
        "processes.os.sched_getaffinity = lambda which: {0, 1}\n"
        "score.score(results.study, results.dataset, results.folder)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode
    assert "a process of this command was ended" in done.stderr
    assert not list(folder.glob(".*.unfinished"))


def test_what_is_made_of_parts_is_what_is_made_of_the_whole(whole):
    """Parts that end within poems too, as in files of many rows that were written in one go."""
    study, _, folder, expected = whole
    files = ["summary.csv", "effects.csv", "checkpoints.csv", "best/selection.json"]
    found = []
    for rows in (None, 77, 500):
        if rows:
            expected.to_parquet(RunFolder(folder).scores_file, index=False, row_group_size=rows)
        else:
            write_parquet(RunFolder(folder).scores_file, expected)
        summarize.summarize(RunFolder(folder))
        select.select(study, RunFolder(folder))
        found.append([(folder / name).read_bytes() for name in files])
    assert found[0] == found[1] == found[2]


def test_processes_summarise_what_one_does(whole, monkeypatch):
    _, _, folder, expected = whole
    files = ["summary.csv", "effects.csv", "checkpoints.csv"]
    write_parquet(RunFolder(folder).scores_file, expected)
    monkeypatch.setattr(processes, "MAX_PROCESSES", 2)
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda which: {0, 1}, raising=False)
    found = []
    for rows in (10**9, 0):
        monkeypatch.setattr(processes, "MIN_ROWS_FOR_POOL", rows)
        summarize.summarize(RunFolder(folder))
        found.append([(folder / name).read_bytes() for name in files])
    assert found[0] == found[1]


def test_one_checkpoint_on_one_split_is_read_alone(whole):
    _, _, folder, expected = whole
    expected.to_parquet(RunFolder(folder).scores_file, index=False, row_group_size=100)
    part = pd.concat(RunFolder(folder).scores("base", "test"), ignore_index=True)
    own = expected[(expected["checkpoint"] == "base") & (expected["split"] == "test")].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, own)
    assert compare.measure_all([f"{folder}:base"], "test")[0].part.measured.poems == 15


def test_scores_that_do_not_stand_together_are_refused(whole):
    _, _, folder, expected = whole
    base, random = (expected[expected["checkpoint"] == name] for name in ("base", "random"))
    metrics = RunFolder(folder).metrics
    with pytest.raises(TangevalError, match="scores of base on validation: they do not stand together"):
        list(groups([base, random, base], NO_LIKELIHOOD, metrics))
    with pytest.raises(TangevalError, match="scores of base on test: example test-1 is there twice"):
        list(groups([base[base["split"] == "test"]] * 2, NO_LIKELIHOOD, metrics))
