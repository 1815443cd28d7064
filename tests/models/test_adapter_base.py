"""Whose an adapter is, from its files alone."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tangeval import api
from tangeval.core.errors import TangevalError
from tangeval.core.types import Base
from tangeval.models.adapter_base import base_shapes
from tangeval.models.loading import load_config, shapes
from tests.support.command import ROOT, refusal, succeeds
from tests.support.study import write_study
from tests.support.tiny import make_adapter, make_tiny_model

BREEZE = "MediaTek-Research/Breeze-7B-Instruct-v0_1"


def says(adapter, name):
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": name}))


@pytest.fixture
def foreign(tmp_path):
    """A Trainer's folder of an adapter that was trained on a wider model."""
    adapter = make_adapter(
        make_tiny_model(tmp_path / "wide", hidden=128), tmp_path / "exp1" / "checkpoint-65"
    )
    says(adapter, BREEZE)
    return adapter.parent


def test_a_bases_shapes_are_read_from_its_header(tiny_model):
    base = Base("tiny", str(tiny_model))
    read = {name: tuple(shape) for name, shape in base_shapes(base).items()}
    assert read.items() <= shapes(base, load_config(base)).items()


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["run"], ["generate"]])
def test_an_adapter_of_another_base_is_one_line_before_anything_is_decoded(
    tmp_path, tiny_model, foreign, command
):
    study = write_study(tmp_path, tiny_model, foreign, select=None)
    told = refusal(tmp_path, command[0], study, *command[1:])
    assert told.startswith(
        f"error: checkpoints: checkpoint-65 was trained on {BREEZE}; this study's base_model is tiny ("
    )
    assert told.endswith(f"): add base_model={BREEZE}\n")
    assert told.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_study_without_a_base_model_is_offered_the_adapters(tmp_path, foreign):
    study = write_study(tmp_path, None, foreign, select=None)
    told = refusal(tmp_path, "run", study, "--dry-run")
    assert "this study's base_model is tang-mini, as it names none (" in told
    assert f"add base_model={BREEZE}" in told


@pytest.mark.parametrize("layers", [1, 3])
def test_a_layer_too_many_is_noticed(tmp_path, tiny_model, layers):
    adapter = make_adapter(make_tiny_model(tmp_path / "deep", layers=layers), tmp_path / "exp1")
    study = write_study(tmp_path, tiny_model, adapter, select=None)
    if layers == 1:  # fits as far as it goes; what it lacks shows when it is loaded
        api.dry_run(study)
        return
    with pytest.raises(TangevalError, match=r"it has no model\.layers\.2\."):
        api.dry_run(study)


def test_it_is_left_out_where_others_go_on(tmp_path, tiny_model, tiny_run, foreign):
    study = write_study(tmp_path, tiny_model, None, checkpoints=[str(tiny_run), str(foreign)], select=None)
    done = succeeds(tmp_path, "run", study, "--dry-run", "--keep-going")
    assert [row[0] for row in done.table()] == ["base", "checkpoint-10", "checkpoint-20"]
    assert f"trained on {BREEZE}" in done.err


def test_another_model_of_the_same_shapes_is_a_warning(tmp_path, tiny_model, tiny_run):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    says(run / "checkpoint-10", BREEZE)
    says(run / "checkpoint-20", "owner/Tiny")
    done = succeeds(tmp_path, "run", write_study(tmp_path, tiny_model, run), "--dry-run")
    assert done.err.count("says that it was trained on") == 1
    assert f"checkpoint-10 says that it was trained on {BREEZE}" in done.err
    assert f"the adapters were trained on {BREEZE}, owner/Tiny" in done.out


def test_the_base_model_is_listed(foreign, tmp_path):
    assert f"the adapters were trained on {BREEZE}" in succeeds(tmp_path, "checkpoints", foreign).out


def test_where_peft_names_every_tensor_one_is_told(tmp_path, tiny_model, foreign):
    """A pickle has no header: there peft finds it, with a line for each tensor."""
    import torch
    from safetensors.torch import load_file

    save = foreign / "checkpoint-65"
    torch.save(load_file(save / "adapter_model.safetensors"), save / "adapter_model.bin")
    (save / "adapter_model.safetensors").unlink()
    study = write_study(tmp_path, tiny_model, foreign, select=None)
    told = refusal(tmp_path, "run", study, "--allow-pickle")
    assert told.count("size mismatch") == 1
    assert f"trained on {BREEZE}" in told
    assert "(and 11 more)" in told


# What the first records of the training file are worth


@pytest.fixture
def bare(tiny_run, tmp_path):
    """A Trainer's folder that keeps no record."""
    run = shutil.copytree(tiny_run, tmp_path / "bare")
    (run / "train_ids.json").unlink()
    return run


@pytest.mark.parametrize(("records", "seen"), [(600, 0), (630, None)])
def test_the_first_records_say_exactly_what_was_seen(tmp_path, tiny_model, bare, records, seen):
    """The sample's training file has 630 records; the last 30 are for validation."""
    choose = {"splits": ["validation", "test"], "select": {"setting": {"by": "bleu"}}}
    study = write_study(tmp_path, tiny_model, bare, **choose)
    assert "say --trained-on N" in refusal(tmp_path, "run", study, "--dry-run")
    if seen is None:
        assert "every checkpoint was trained on validation examples" in refusal(
            tmp_path, "run", study, "--dry-run", "--trained-on", records
        )
        return
    resolved, _, _ = api.dry_run(study, f"trained_records={records}")
    assert {c.name: resolved.seen(c)["validation"] for c in resolved.checkpoints} == {
        "base": 0, "checkpoint-10": seen, "checkpoint-20": seen,
    }  # fmt: skip


def test_more_records_than_there_are_are_refused(tmp_path, tiny_model, bare):
    study = write_study(tmp_path, tiny_model, bare, select={"split": "test", "setting": {"by": "bleu"}})
    assert "trained_records: 9999" in refusal(tmp_path, "run", study, "--dry-run", "--trained-on", "9999")


@pytest.mark.parametrize("named", [
    {}, {"XDG_CACHE_HOME": "/x"}, {"HF_HOME": "~/hf"}, {"HF_HUB_CACHE": "$PLACE/hub", "PLACE": "/y"},
])  # fmt: skip
def test_the_hubs_cache_is_where_its_library_has_it(named):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    script = (
        "from tangeval.models.adapter_base import hub_cache\nfrom huggingface_hub.constants import HF_HUB_CACHE\n"
        "assert str(hub_cache()) == HF_HUB_CACHE, (hub_cache(), HF_HUB_CACHE)"
    )
    subprocess.run([sys.executable, "-c", script], env=clean | {"PYTHONPATH": str(ROOT)} | named, check=True)
