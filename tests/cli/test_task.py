"""``tangeval task check`` and ``task new``."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from tangeval.cli.app import app


@pytest.fixture
def tangeval(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments):
        result = CliRunner().invoke(app, [*map(str, arguments)])
        return result.output if result.exception is None else result.exception

    return run


def write(folder):
    """The records that the written file names: the tenth answer is too long, the last is the first's."""
    rows = [{"question": f"問{n}", "answer": f"答{n}"} for n in range(40)]
    rows[9]["answer"] = "很長的答案" * 4
    rows += [{"question": "問0", "answer": "答0"}]
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_a_written_file_is_a_task_to_be_changed(tangeval, tmp_path, tiny_model):
    tangeval("task", "new", "mine.yaml")
    task = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert task["name"] == "mine"
    task["data"] |= {"test": 4, "validation": 4}
    task["checks"] = [{"max_characters": 10}]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(task))
    write(tmp_path)
    said = tangeval("task", "check", "mine.yaml", "--base-model", tiny_model, "--max-length", 12)
    assert "train 33, validation 4, test 4" in said
    assert "texts that stand there more than once: 1, such as train-1, train-41" in said
    assert r"prompt: '問3" in said
    assert "max_characters: 2.4% of the references fail it, train-10 first" in said
    assert "max_length 12 cuts 1 of 41 references" in said
    assert "bleu: 98% of the references have no run of four, of which BLEU is made; add chrf or exact" in said


def test_data_are_no_task(tangeval, tmp_path):
    write(tmp_path)
    assert "`tangeval task new train.yaml`" in str(tangeval("task", "new", "train.jsonl"))
    assert "and no YAML file; give path/to/task.yaml" in str(tangeval("task", "check", "train.jsonl"))


def test_a_file_is_never_written_over(tangeval, tmp_path):
    (tmp_path / "mine.yaml").write_text("mine")
    assert "is there already" in str(tangeval("task", "new", "mine.yaml"))
    assert (tmp_path / "mine.yaml").read_text() == "mine"
