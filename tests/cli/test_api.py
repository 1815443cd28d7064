"""What a notebook gets: the command line's own numbers, and pictures that show themselves."""

import subprocess
import sys

import pandas as pd
import pytest

import tangeval
from tangeval import api
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tests.support import command
from tests.support.study import write_study


@pytest.fixture(scope="module")
def study(tiny_model, tiny_run, tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("study"), tiny_model, tiny_run)


@pytest.fixture(scope="module")
def ours(study):
    return api.run(study, options=api.Options(out=study.parent / "ours"))


def test_a_notebook_makes_the_command_lines_files(study, ours):
    assert command.tangeval(study.parent, "run", study, "--out", "theirs").code == 0
    for name in ("summary.csv", "effects.csv", "checkpoints.csv", "scores.parquet", "best/selection.json"):
        assert (ours.folder / name).read_bytes() == (study.parent / "theirs" / name).read_bytes()
    assert ours.page.is_file()
    assert "all texts" in ours.note


def test_tables_are_those_of_the_folder(ours):
    assert ours.summary.equals(pd.read_csv(ours.folder / "summary.csv"))
    names = {"base", "checkpoint-10", "checkpoint-20", "random", "reference"}
    assert set(ours.checkpoints["checkpoint"]) == names
    assert len(ours.generations) == 3 * 2 * 15 * 2
    assert ours.selection["checkpoint"]["checkpoint"] in names
    assert "<table" in ours._repr_html_()
    assert tangeval.load_results(ours.folder).effects.equals(ours.effects)


def test_a_picture_shows_itself(ours):
    picture = ours.picture(ours.pictures[0])
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert picture.svg.startswith("<?xml")
    with pytest.raises(TangevalError, match=f"there are .*{ours.pictures[0]}"):
        ours.picture("nothing")


def test_texts_are_the_chosen_settings_or_those_asked_for(ours):
    chosen = ours.texts()
    assert len(chosen) == 15 * 2
    assert set(chosen["checkpoint"]) == {ours.selection["checkpoint"]["checkpoint"]}
    warm = ours.texts(checkpoint="base", temperature=1.0)
    assert len(warm) == 15 * 2
    assert set(warm["temperature"]) == {1.0}
    assert warm["input"].str.len().min() >= 12
    with pytest.raises(TangevalError, match="heat is no column"):
        ours.texts(heat=1)


def test_differences_are_paired(ours):
    table = tangeval.compare(f"{ours.folder}:base", f"{ours.folder}:checkpoint-20", split="test")
    assert {"difference", "low", "high", "p_adjusted"} <= set(table.columns)


def test_files_are_scored_as_the_command_scores_them(tmp_path):
    (tmp_path / "poems.txt").write_text("\n".join(["春風吹綠草，明月照高樓。"] * 15), "utf-8")
    scored = api.score_files([tmp_path / "poems.txt"], "sample")
    done = command.tangeval(tmp_path, "score", "poems.txt", "--data", "sample")
    assert f" {scored.table['bleu'].iloc[0]:.2f} [" in done.out
    assert list(scored.table["checkpoint"]) == ["poems.txt", "random", "reference"]
    assert scored.differences.empty


def test_one_setting_and_one_sample_are_a_study_too(study):
    overrides = ["decoding.temperature=0.7", "samples=1", "checkpoints=[]", "select=null"]
    small = api.run(study, *overrides, options=api.Options(out=study.parent / "small"))
    assert set(small.summary["checkpoint"]) == {"base", "random", "reference"}
    with pytest.raises(TangevalError, match="nothing was chosen"):
        _ = small.selection


def test_batch_files_that_fit_no_longer_are_removed_and_said_to_be(study, ours):
    """A notebook was told nothing before."""
    out = study.parent / "changed"
    options = api.Options(out=out)
    api.generate(study, "checkpoints=[]", "select=null", options=options)
    before = set((out / "generations").iterdir())
    with pytest.raises(TangevalError, match="--overwrite"):
        api.generate(study, "checkpoints=[]", "select=null", "seed=7", options=options)
    with pytest.warns(UserWarning, match=f"{len(before)} batch files of an earlier run fit no longer"):
        api.generate(
            study, "checkpoints=[]", "select=null", "seed=7", options=api.Options(out=out, overwrite=True)
        )
    assert not before & set((out / "generations").iterdir())


def test_overrides_want_a_file(study):
    with pytest.raises(TangevalError, match="model_copy"):
        api.run(load_study(study), "samples=1")


def test_what_a_folder_lacks_is_named(tmp_path):
    with pytest.raises(TangevalError, match=r"summary\.csv is missing"):
        _ = tangeval.Results(tmp_path).summary


SLOW = (
    "pandas",
    "numpy",
    "scipy",
    "matplotlib",
    "pydantic",
    "pyarrow",
    "torch",
    "transformers",
    "urllib3",
    "fsspec",
)


@pytest.mark.parametrize(
    "code",
    [
        "import tangeval; tangeval.TangevalError",
        "from tangeval.cli.app import app; app(['--help'], standalone_mode=False)",
    ],
)
def test_neither_the_package_nor_help_imports_what_is_slow(code):
    """`tangeval --help` answers in under half a second."""
    script = f"{code}\nimport sys; print('imported:', *(m for m in {SLOW} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].strip() == "imported:"
    with pytest.raises(AttributeError, match="nothing"):
        _ = tangeval.nothing


def test_score_imports_no_model_and_no_pictures(tmp_path):
    (tmp_path / "poems.txt").write_text("\n".join(["春風吹綠草，明月照高樓。"] * 15), "utf-8")
    done = command.without(("torch", "transformers", "matplotlib", "urllib3"), tmp_path,
                           ["score", "poems.txt", "--data", "sample"])  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("library", "arguments", "message"),
    [
        ("torch", ["run", "tiny.yaml", "checkpoints=[]"], "decoding needs torch: pip install 'tangeval[local]'"),
        ("torch", ["explain", "tiny.yaml", "checkpoints=[]"], "explaining needs torch: pip install 'tangeval[local]'"),
        ("peft", ["run", "tiny.yaml"], "an adapter needs peft: pip install 'tangeval[local]'"),
        ("ray", ["run", "tiny.yaml", "checkpoints=[]", "--on", "ray"], "pip install 'tangeval[ray]'"),
    ],
)  # fmt: skip
def test_a_missing_extra_is_named_with_its_command(study, tmp_path, library, arguments, message):
    (tmp_path / "tiny.yaml").write_text(study.read_text())
    done = command.without([library], tmp_path, arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
