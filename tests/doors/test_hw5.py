"""What the homework's notebook leaves, evaluated as it lies there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS
from tangeval.doors.hw5 import found_base, homework, texts_in
from tangeval.tasks.tang import data as dataset
from tests.support.command import refusal, succeeds
from tests.support.tiny import make_adapter

FEW = ["splits=test", "samples=1", "decoding.max_length=12", "decoding.temperature=0.1", "select=null"]


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    """A notebook's folder: ``exp1`` with two adapters of tang-mini, ``output`` with a ``results.txt``."""
    folder = tmp_path_factory.mktemp("notebook")
    for step in (65, 130):
        save = make_adapter(ASSETS / "tang-mini", folder / "exp1" / f"checkpoint-{step}", seed=step)
        state = {"global_step": step, "max_steps": 130, "num_train_epochs": 1}
        (save / "trainer_state.json").write_text(json.dumps(state))
    poems = dataset.load("sample").split("test")
    lines = [f"{number}. {poem.input}{poem.reference}\n" for number, poem in enumerate(poems, 1)]
    (folder / "output").mkdir()
    (folder / "output" / "results.txt").write_text("".join(lines), "utf-8")
    return folder


@pytest.fixture
def notebook(left, tmp_path):
    return shutil.copytree(left, tmp_path / "notebook")


def as_pickle(notebook):
    for file in notebook.glob("exp1/*/adapter_model.safetensors"):
        torch.save(load_file(file), file.with_name("adapter_model.bin"))
        file.unlink()


def says(notebook, name):
    for file in notebook.glob("exp1/*/adapter_config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"base_model_name_or_path": name}))


@pytest.mark.parametrize("pickled", [False, True])
def test_the_folder_as_it_lies_there_gives_tables_page_and_its_own_texts_scored(notebook, tmp_path, pickled):
    options = ["--data", "sample"]
    if pickled:
        as_pickle(notebook)
        assert "--allow-pickle" in refusal(tmp_path, "hw5", "notebook", *options)
        options.append("--allow-pickle")
    done = succeeds(tmp_path, "hw5", "notebook", *options, *FEW)
    results = tmp_path / "results" / "hw5-notebook"
    assert (results / "report.html").is_file()
    assert {"base", "checkpoint-65", "checkpoint-130"} <= {row[0].split()[0] for row in done.table()}
    assert "15 outputs for 15 poems: 15 by couplet" in done.out
    assert "records of the training file are taken as seen" in done.out
    study = yaml.safe_load((results / "hw5.yaml").read_text("utf-8"))
    assert study["decoding"]["top_p"] == [0.3, 0.9]
    (results / "hw5.yaml").write_text(yaml.safe_dump(study | {"include_base": False}), "utf-8")
    assert "hw5.yaml has a base model and data" in refusal(tmp_path, "hw5", "notebook", "--data", "sample")
    again = succeeds(tmp_path, "hw5", "notebook", *options[2:], *FEW, "--dry-run")
    assert "is there already" in again.out
    assert "base" not in [row[0] for row in again.table()]


def test_a_folder_finds_the_texts_in_it_and_beside_it_once(notebook, monkeypatch):
    own = notebook / "output" / "results.txt"
    for here, folder in (
        (notebook, "."),
        (notebook, "output"),
        (notebook / "exp1", "."),
        (notebook.parent, "notebook/exp1"),
    ):
        monkeypatch.chdir(here)
        assert [file.resolve() for file in texts_in(Path(folder))] == [own]


def test_the_time_of_a_folder_beside_it_is_told(notebook, tmp_path):
    succeeds(tmp_path, "hw5", "notebook", "--data", "sample", *FEW)
    other = succeeds(tmp_path, "hw5", "notebook/exp1", "--data", "sample", *FEW, "--dry-run")
    assert "sequences a second measured in results/hw5-notebook" in other.out
    assert not (tmp_path / "results" / "hw5-exp1").exists()


def test_what_was_trained_on_is_assumed_by_the_steps_and_said(notebook, tmp_path):
    found = homework(notebook, data="sample")
    assert (found.records, found.assumed) == (630, True)  # the sample has no more
    assert homework(notebook, data="sample", trained_records=600).content["trained_records"] == 600
    told = refusal(tmp_path, "hw5", "notebook", "--data", "sample", "--dry-run")
    assert "every checkpoint was trained on validation examples" in told
    done = succeeds(tmp_path, "hw5", "notebook", "--data", "sample", "--trained-on", 600, "--dry-run")
    assert "are taken as seen" not in done.out


@pytest.mark.hw5
def test_of_the_homeworks_own_data_the_steps_times_sixteen_are_seen(notebook, hw5):
    assert homework(notebook).records == 130 * 16


def test_a_base_is_looked_for_by_name_beside_the_folder_and_in_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "work" / "exp1"
    taide = "/content/TAIDE-LX-7B-Chat"
    with pytest.raises(TangevalError, match="hf download taide/TAIDE-LX-7B-Chat"):
        found_base(taide, folder)
    beside = folder.parent / "TAIDE-LX-7B-Chat"
    for place, expected in [
        (beside, {"base_model": str(beside)}),
        (folder.parent / "cache" / "models--taide--TAIDE-LX-7B-Chat" / "snapshots" / "x",
         {"base_model": "taide/TAIDE-LX-7B-Chat", "cache_dir": str(folder.parent / "cache")}),
        (tmp_path / "hub" / "models--taide--TAIDE-LX-7B-Chat" / "snapshots" / "x",
         {"base_model": "taide/TAIDE-LX-7B-Chat"}),
    ]:  # fmt: skip
        place.mkdir(parents=True)
        (place / "config.json").write_text("{}")
        assert found_base(taide, folder) == expected
    assert found_base("/elsewhere/tangeval/assets/tang-mini", folder) == {"base_model": "tang-mini"}


def test_a_base_that_is_nowhere_is_named_with_what_to_do(notebook, tmp_path):
    says(notebook, "owner/model-7b")
    told = refusal(tmp_path, "hw5", "notebook", "--data", "sample")
    assert "`hf download owner/model-7b`" in told
    assert "--base FOLDER" in told
    assert not (tmp_path / "results").exists()


def test_a_slip_in_an_override_names_the_override(notebook, tmp_path):
    told = refusal(tmp_path, "hw5", "notebook", "--data", "sample", "decoding.temprature=3")
    assert "error: 'decoding.temprature=3': decoding.temprature: unknown key" in told.replace("\n", " ")


def test_a_folder_without_checkpoints_says_which_to_give(tmp_path):
    assert "ckpt_dir" in refusal(tmp_path, "hw5", ".")
