"""One correction of the homework's recipe at a time."""

import os
import signal
import sys
from pathlib import Path

import pytest

from finetune import recipes
from finetune.config import HW5, SHIPPED
from tangeval.core.study import load_study
from tangeval.results.files import read_json, write_json

CONFIG = SHIPPED / "recipes.yaml"


def test_each_run_changes_its_own_keys_alone():
    runs = {name: config.model_dump() for name, config in recipes.variants(CONFIG, []).items()}
    homework = runs["hw5"]
    for name, keys in (recipes.CORRECTIONS | recipes.SLIPS).items():
        differ = {key for key in homework if runs[name][key] != homework[key]}
        assert differ == {*keys, "output_dir"}


def test_default_is_the_homework_with_every_correction():
    runs = {name: config.model_dump() for name, config in recipes.variants(CONFIG, []).items()}
    for keys in recipes.CORRECTIONS.values():
        for key in keys:
            assert runs["default"][key] != runs["hw5"][key]
    assert all(runs["default"][key] == runs["hw5"][key] for key in ("records", "epochs", "batch", "seed"))
    untouched = set(HW5) - {key for keys in recipes.CORRECTIONS.values() for key in keys}
    assert untouched == {"records", "overflow", "prompt"}  # of the prompt only the spelling is another


def test_default_is_the_default_recipe_whatever_the_file_has(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("recipe: hw5\nbase_model: tang-mini\noutput_dir: out\nrecords: null\n", "utf-8")
    default = recipes.variants(own, [])["default"]
    assert (default.recipe, default.loss_on, default.eos, default.records) == (
        "default",
        "completion",
        "once",
        None,
    )


def test_a_run_without_a_validation_loss_is_shown(tmp_path, capsys):
    every = recipes.variants(CONFIG, [f"output_dir={tmp_path}"])
    write_json(tmp_path / "hw5" / "timings.json", {"validation_loss": None, "seconds_a_step": 0.5})
    recipes.show({"hw5": every["hw5"]}, recipes.make_console())
    assert "0.500" in capsys.readouterr().out


def test_the_study_of_the_recipes_has_every_run():
    study = load_study(Path("studies/recipes.yaml"))
    assert {Path(place).parent.name for place in study.checkpoints} == set(recipes.variants(CONFIG, []))


def test_runs_are_trained_and_shown(tiny_model, tmp_path, monkeypatch, capsys):
    settings = [f"base_model={tiny_model}", "data=sample", "records=16", "precision=float32",
                f"output_dir={tmp_path}"]  # fmt: skip
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["recipes", str(CONFIG), *settings, "--only", "hw5", "one-eos"])
    recipes.main()
    told = capsys.readouterr().out
    for name in ("hw5", "one-eos"):
        said = read_json(tmp_path / name / "timings.json")
        assert said["steps"] == 1
        assert f"{said['validation_loss']:.3f}" in told
    assert read_json(tmp_path / "hw5" / "run.json")["settings"]["eos"] == "twice"


def test_an_unknown_run_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["recipes", str(CONFIG), "--only", "nothing"])
    with pytest.raises(SystemExit):
        recipes.main()
    assert "nothing is none of hw5, completion-only" in capsys.readouterr().err


def test_a_stop_and_an_error_end_as_those_of_finetune_do(tmp_path, monkeypatch, capsys):
    """Ctrl-C and SIGTERM with 130 and how to go on; a name that would steer the terminal is made visible."""
    monkeypatch.setattr(sys, "argv", ["recipes", str(CONFIG), f"output_dir={tmp_path}", "--only", "hw5"])
    monkeypatch.setattr(recipes, "finetune", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as stop:
        recipes.main()
    assert stop.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["recipes", "no\x1b[2Jfile.yaml"])
    with pytest.raises(SystemExit) as stop:
        recipes.main()
    assert stop.value.code == 2
    assert "no␛[2Jfile.yaml" in capsys.readouterr().err
