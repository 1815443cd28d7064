"""Results in trackers: a run for the study and one for each checkpoint, read back by each tracker's own reader."""

import sys

import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.reporting.notebook import Results
from tangeval.reporting.sharing import log
from tangeval.reporting.sharing.log import STUDY, runs_of
from tests.support.command import tangeval
from tests.support.folders import make_results

NAMES = ("base", "checkpoint-10", "checkpoint-20")
ROWS = (STUDY, *NAMES, "random", "reference")


@pytest.fixture
def results(tmp_path, monkeypatch):
    make_results(tmp_path / "small", NAMES)
    (tmp_path / "small" / "figures").mkdir(exist_ok=True)
    from matplotlib.figure import Figure

    Figure((1, 1)).savefig(tmp_path / "small" / "figures" / "form.png")
    monkeypatch.chdir(tmp_path)
    return Results(tmp_path / "small")


def written(results, name, column, split="test"):
    frame = pd.read_csv(results.folder / "checkpoints.csv", dtype={"checkpoint": str})
    (row,) = frame[(frame["checkpoint"] == name) & (frame["split"] == split)].to_dict("records")
    return row[column]


def test_each_checkpoint_is_a_run_and_the_studys_goes_by_step(results):
    study, *runs = runs_of(results)
    assert (study.name, *(run.name for run in runs)) == ROWS
    assert [step for step, _ in study.points] == [0, 10, 20]
    for run in runs:
        ((_, values),) = run.points
        for column in ("form", "form_low", "form_high", "chrf"):
            assert values[f"test/{column}"] == written(results, run.name, column)
    assert study.points[2][1] == runs[2].points[0][1]
    assert [picture.name for picture in study.pictures] == ["form.png"]
    assert study.config["chosen.checkpoint"] == results.selection["checkpoint"]["checkpoint"]
    assert study.config["decoding.top_k"] == "[0, 5]"
    assert not any(isinstance(value, dict | list) for run in (study, *runs) for value in run.config.values())


def test_tensorboard_reads_scalars_by_step_settings_and_pictures(results):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert "6 runs to tensorboard" in log(results, "tensorboard")
    read = {}
    for name in ROWS:
        read[name] = EventAccumulator(str(results.folder / "tensorboard" / name))
        read[name].Reload()
    assert [event.step for event in read[STUDY].Scalars("test/form")] == [0, 10, 20]
    assert read[STUDY].Images("figures/form")[0].encoded_image_string.startswith(b"\x89PNG")
    (event,) = read["checkpoint-20"].Scalars("test/form")
    assert event.value == pytest.approx(written(results, "checkpoint-20", "form"))
    assert "_hparams_/session_start_info" in read["base"].summary_metadata


def test_mlflow_reads_metrics_parameters_and_pictures(results, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    log(results, "mlflow")
    found = {
        run.info.run_name: run
        for run in mlflow.search_runs(search_all_experiments=True, output_format="list")
    }
    assert set(found) == set(ROWS)
    assert found["base"].data.metrics["test/form"] == pytest.approx(written(results, "base", "form"))
    assert found[STUDY].data.params["decoding.top_k"] == "[0, 5]"
    listed = mlflow.MlflowClient().list_artifacts(found[STUDY].info.run_id, "figures")
    assert [each.path for each in listed] == ["figures/form.png"]


def test_wandb_keeps_a_run_for_each_off_line(results, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    log(results, "wandb")
    assert len(list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))) == len(ROWS)


def test_trackio_keeps_a_run_for_each_here(results, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    log(results, "trackio")
    assert set(SQLiteStorage.get_runs("small")) == set(ROWS)
    rows = SQLiteStorage.get_logs("small", "checkpoint-20")
    assert rows[0]["test/form"] == pytest.approx(written(results, "checkpoint-20", "form"))


def test_an_absent_library_is_named_with_its_extra_before_anything_is_decoded(results, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = tangeval(tmp_path, "run", "no-such-study.yaml", "--log", "wandb")
    assert (done.code, done.err.strip()) == (
        2,
        "error: --log wandb needs wandb: pip install 'tangeval[wandb]'",
    )
    with pytest.raises(TangevalError, match="no tracker; there are trackio, wandb, mlflow, tensorboard"):
        log(results, "excel")


def test_a_tracker_that_fails_is_one_message(results, monkeypatch):
    pytest.importorskip("tensorboard")
    (results.folder / "tensorboard").write_text("in the way")
    with pytest.raises(
        TangevalError, match=r"tensorboard did not take them \(.*; the results are whole; `tangeval log"
    ):
        log(results, "tensorboard")
