"""The JSON Schemas that editors read: they are the models', and every shipped file is valid by the one that it names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from scripts import schemas
from tangeval import __version__
from tangeval.core.schemas import KINDS, file_of
from tests.support.command import succeeds

ROOT = Path(__file__).parents[2]
FILES = [
    *ROOT.glob("studies/*.yaml"),
    *ROOT.glob("finetune/configs/*.yaml"),
    *ROOT.glob("tangeval/assets/tasks/*.yaml"),
    ROOT / "tangeval/assets/task.yaml",
]


def problems(kind, text):
    schema = json.loads(file_of(kind).read_text("utf-8"))
    return [error.json_path for error in Draft202012Validator(schema).iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_the_models_own(kind):
    assert file_of(kind).read_text("utf-8") == schemas.text(kind)
    Draft202012Validator.check_schema(json.loads(schemas.text(kind)))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_shipped_file_is_valid_by_the_schema_that_its_first_line_names(file):
    text = file.read_text("utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named
    schema = (file.parent / named[1]).resolve()
    assert schema == file_of(schema.stem)
    assert problems(schema.stem, text) == []


@pytest.mark.parametrize(
    ("kind", "text", "wrong"),
    [
        ("study", "name: x\ndecoding: {temperature: 0.7, top_k: [0, 5], constrain: {regex: 'a+'}}", []),
        ("study", "name: x\ncheckpoints: {good: runs/a, bad: [runs/b]}\nengine: {kind: openai, url: u}", []),
        ("study", "name: x\nsplits: test\nsamples: {test: 4}", []),
        ("study", "name: x\ntemperature: 0.7", ["$"]),
        ("study", "name: x\ndecoding: {temperature: hot}", ["$.decoding.temperature"]),
        ("study", "name: x\nsplits: [train]", ["$.splits"]),
        ("finetune", "output_dir: x\nseeds: 1..5", []),
        ("finetune", "output_dir: x\nlearning_rate: 0", ["$.learning_rate"]),
        ("task", "name: x\ndata: {train: a, test: b}\nfields: {prompt: p}\nmetrics: [bleu, {rouge: 2}]", ["$.fields"]),
    ],
)  # fmt: skip
def test_what_a_file_may_say_is_valid_and_what_it_may_not_is_marked(kind, text, wrong):
    assert problems(kind, text) == wrong


def test_the_command_prints_a_schema_and_a_new_task_names_its_own(tmp_path):
    assert json.loads(succeeds(tmp_path, "schema", "task").out) == json.loads(schemas.text("task"))
    succeeds(tmp_path, "task", "new", "mine.yaml")
    first = (tmp_path / "mine.yaml").read_text("utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={file_of('task')}"


def test_the_version_is_said_and_commands_are_completed(tmp_path):
    assert succeeds(tmp_path, "--version").out == f"tangeval {__version__}"
    asked = {
        "_PYTHON _M TANGEVAL_COMPLETE": "complete_bash",
        "COMP_WORDS": "tangeval schema ",
        "COMP_CWORD": "2",
    }
    command = [sys.executable, "-m", "tangeval"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(KINDS)
