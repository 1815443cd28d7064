"""What a notebook gets: the command line's own numbers, and pictures that show themselves."""

import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

import tangeval
from tangeval import differences, load_study, run
from tangeval import load_results as results
from tangeval.cli.app import app
from tangeval.core.errors import TangevalError
from tests.support.tiny import SMALL_STUDY


@pytest.fixture(scope="module")
def study(tiny_model, tiny_run, tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "tiny.yaml"
    file.write_text(SMALL_STUDY.format(base=tiny_model, run=tiny_run))
    return file


@pytest.fixture(scope="module")
def ours(study):
    return run(study, out=study.parent / "ours")


def test_a_notebook_makes_the_command_lines_files(study, ours):
    theirs = study.parent / "theirs"
    assert CliRunner().invoke(app, ["run", str(study), "--out", str(theirs)]).exit_code == 0
    for name in ("summary.csv", "effects.csv", "checkpoints.csv", "scores.parquet", "best/selection.json"):
        assert (ours.folder / name).read_bytes() == (theirs / name).read_bytes()
    assert ours.page.is_file()


def test_tables_are_those_of_the_folder(ours):
    assert ours.summary.equals(pd.read_csv(ours.folder / "summary.csv"))
    assert set(ours.checkpoints["checkpoint"]) == {
        "base",
        "checkpoint-10",
        "checkpoint-20",
        "random",
        "reference",
    }
    assert len(ours.generations) == 3 * 2 * 15 * 2
    assert ours.selection["checkpoint"]["checkpoint"] in set(ours.checkpoints["checkpoint"])
    assert "<table" in ours._repr_html_()
    assert results(ours.folder).effects.equals(ours.effects)


def test_a_picture_shows_itself(ours):
    picture = ours.picture(ours.pictures[0])
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert picture.svg.startswith("<?xml")
    with pytest.raises(TangevalError, match=f"there are .*{ours.pictures[0]}"):
        ours.picture("nothing")


def test_poems_are_the_chosen_settings_or_those_asked_for(ours):
    chosen = ours.poems()
    assert len(chosen) == 15 * 2
    assert set(chosen["checkpoint"]) == {ours.selection["checkpoint"]["checkpoint"]}
    warm = ours.poems(checkpoint="base", temperature=1.0)
    assert len(warm) == 15 * 2
    assert set(warm["temperature"]) == {1.0}
    assert warm["couplet"].str.len().min() >= 12
    with pytest.raises(TangevalError, match="heat is no column"):
        ours.poems(heat=1)


def test_differences_are_paired(ours):
    table = differences(f"{ours.folder}:base", f"{ours.folder}:checkpoint-20", split="test")
    assert {"difference", "low", "high", "p_holm"} <= set(table.columns)


def test_one_setting_and_one_sample_are_a_study_too(study):
    small = run(
        study, "decoding.temperature=0.7", "samples=1", "checkpoints=[]", "select=null",
        out=study.parent / "small",
    )  # fmt: skip
    assert set(small.summary["checkpoint"]) == {"base", "random", "reference"}
    with pytest.raises(TangevalError, match="nothing was chosen"):
        _ = small.selection


def test_overrides_want_a_file(study):
    with pytest.raises(TangevalError, match="model_copy"):
        run(load_study(str(study)), "samples=1")


def test_what_a_folder_lacks_is_named(tmp_path):
    with pytest.raises(TangevalError, match=r"summary\.csv is missing"):
        _ = tangeval.Results(tmp_path).summary


def test_importing_tangeval_is_light():
    code = "import sys, tangeval; tangeval.TangevalError; print([m for m in ('pandas', 'torch') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="nothing"):
        _ = tangeval.nothing
