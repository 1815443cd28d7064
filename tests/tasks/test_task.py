"""A task by its name or in a file of one's own; a metric in one file and a task's list."""

import textwrap
from dataclasses import replace

import pytest

from tangeval import tasks
from tangeval.analysis import scoring
from tangeval.core.errors import TangevalError
from tangeval.metrics.base import Metric
from tangeval.tasks.tang import TANG

TASK = """
from operator import eq
from operator import eq
from pathlib import Path

from tangeval.core.types import Example
from tangeval.metrics import bleu, chrf, copying
from tangeval.metrics.base import Metric
from tangeval.tasks.base import Dataset, Task

LONG = Metric("words", {"en": "words"}, "high", compute=lambda texts: [len(text.split()) for text in texts.compared])
SPLITS = ("train", "train", "validation", "test")


def load(spec, validation):
    examples = [Example(f"{s}-{n}", "Answer.", f"Question {n}?", f"Answer {n}.", s) for n, s in enumerate(SPLITS)]
    return Dataset(spec, Path(), tuple(examples), "d")


CHAT = Task(
    name="chat", templates=("plain",), load=load,
    metrics={metric.name: metric for metric in (bleu.BLEU, chrf.CHRF, copying.TRAIN_OVERLAP, LONG)},
    prompt=lambda example, template: example.input,
    baseline=lambda dataset, example, seed, draws: ["Answer 0."] * draws,
    parts=lambda example: (example.input, example.reference),
)
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv(tasks.own.ALLOW_FILES, "1")
    place = tmp_path / "chat.py"
    place.write_text(textwrap.dedent(TASK))
    return place


def test_tang_is_found_by_its_name():
    assert tasks.load("tang") is TANG
    with pytest.raises(TangevalError, match=r"task: tank is none of tang.*, and no file"):
        tasks.load("tank")


def test_a_task_in_one_file_is_scored(file):
    task = tasks.load(f"{file}:CHAT")
    dataset = task.load("any", None)
    rows = scoring.reference_rows(task, dataset, "test")
    scores = scoring.score_texts(rows, task, dataset).iloc[0]
    assert (scores["chrf"], scores["words"], scores["bleu_match_1"]) == (100, 2, 9)
    assert scores["train_overlap"] == len("Answer ")
    random = scoring.score_texts(scoring.random_rows(task, dataset, "test", 1, 3), task, dataset)
    assert len(random) == 33
    assert set(random["bleu_match_1"]) == {8}
    assert task.identity(dataset.examples[0]) != task.identity(dataset.examples[1])


def test_a_file_that_a_study_names_is_not_run_unasked(file, monkeypatch):
    monkeypatch.delenv(tasks.own.ALLOW_FILES)
    file.write_text("raise SystemExit('this was run')")
    with pytest.raises(TangevalError, match=tasks.own.ALLOW_FILES):
        tasks.load(f"{file}:UNASKED")


@pytest.mark.parametrize("name", ["NOTHING", "CHAT"])
def test_a_file_that_holds_no_such_task_is_refused(file, name):
    if name == "CHAT":
        file.write_text("1 / 0")
    with pytest.raises(TangevalError, match=r"cannot be loaded|has no NOTHING"):
        tasks.load(f"{file}:{name}")


def test_a_metric_in_the_tasks_list_is_a_column():
    doubled = Metric(
        "doubled", {"en": "doubled characters"}, "low", share=True,
        compute=lambda texts: [sum(map(str.__eq__, text, text[1:])) / len(text) for text in texts.compared],
    )  # fmt: skip
    task = replace(TANG, metrics={**TANG.metrics, "doubled": doubled})
    dataset = task.load("sample", None)
    rows = scoring.outputs_frame("x", dataset.split("test")[:1], ["青青河畔草，"])
    assert scoring.score_texts(rows, task, dataset)["doubled"].tolist() == [1 / 5]


def test_every_metric_of_tang_is_labelled_in_both_languages_and_named_as_its_key():
    for name, metric in TANG.metrics.items():
        assert metric.name == name
        assert set(metric.label) == {"en", "zh"}
        assert metric.flaw is None or set(metric.flaw) == {"en", "zh"}
