"""Metrics and checks of one's own, in a file that a task names."""

import json

import pytest
import yaml

from tangeval import tasks
from tangeval.core.errors import TangevalError
from tangeval.metrics.base import Texts

CODE = """
from tangeval import check, metric

@metric(better="high", share=True)
def rhymes(text, reference, fields):
    return float(text[-1:] == fields["rhyme"])

@metric(better="low", level="samples")
def longest(texts):
    return max(map(len, texts))

@check
def short(text, fields):
    return len(text) < 3 + len(fields["rhyme"])
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    """Return the task of a file whose metrics and checks are those of ``code``, and its examples."""

    def make(code=CODE, metrics=("my.py:rhymes", "my.py:longest"), checks=("my.py:short",)):
        (tmp_path / "my.py").write_text(code)
        (tmp_path / "d.jsonl").write_text(
            "".join(json.dumps({"rhyme": "x", "a": "abcx"}) + "\n" for _ in range(2))
        )
        content = {
            "name": "mine", "data": {"train": "d.jsonl", "test": 0}, "fields": {"prompt": "rhyme", "reference": "a"},
            "prompt": "{{ rhyme }}", "metrics": list(metrics), "checks": list(checks),
        }  # fmt: skip
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(content))
        return tasks.load(str(tmp_path / "task.yaml"))

    monkeypatch.setenv(tasks.own.ALLOW_FILES, "1")
    return make


def of(task, name, *written):
    examples = task.load("sample", None).examples
    return list(
        map(float, task.metrics[name].compute(Texts(written, examples, ["stop"] * 2, task.normalise)))
    )


def test_functions_are_metrics_and_checks(task):
    made = task()
    assert list(made.metrics) == ["rhymes", "longest", "form", "complete", "short"]
    assert of(made, "rhymes", "fox", "dog") == [1, 0]
    assert of(made, "form", "fox", "abcx") == [1, 0]
    assert made.metrics["longest"].compute([["a", "bc"], ["abc"]]) == [2, 3]
    assert made.metrics["longest"].better == "low"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("'1'", r"returned '1' for 'fox'; return a number from 0 to 1"),
        ("float('nan')", r"returned nan for 'fox'"),
        ("7", r"returned 7 for 'fox'; return a number from 0 to 1"),
        ("None", r"my.py: rhymes: TypeError"),
        ("__import__('sys').exit(3)", r"my.py: rhymes: SystemExit: 3, for 'fox'"),
        ("fields['none']", r"my.py: rhymes: KeyError: 'none', for 'fox'"),
    ],
)
def test_what_a_metric_may_not_return_is_named_with_its_text(task, returned, said):
    made = task(CODE.replace('float(text[-1:] == fields["rhyme"])', returned))
    with pytest.raises(TangevalError, match=said):
        of(made, "rhymes", "fox", "dog")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["my.py:none"], r"metrics: .*my.py has no none"),
        (["my.py:check"], r"my.py:check is none; put @metric"),
        (["../my.py:rhymes"], r"\.\./my.py: outside"),
    ],
)
def test_what_is_no_metric_is_refused(task, metrics, said):
    with pytest.raises(TangevalError, match=said):
        task(metrics=metrics)


@pytest.mark.parametrize(
    ("found", "put", "said"),
    [
        (
            'better="low", level="samples"',
            'better="up"',
            r"loaded: @metric: better is high or low, .*; not 'up', 'text'",
        ),
        ('level="samples"', 'level="corpus"', r"level is text or samples; not 'low', 'corpus'"),
        ("@check", "raise SystemExit(3)", r"my.py:rhymes cannot be loaded: SystemExit\(3\)"),
    ],
)
def test_a_file_that_is_none_is_named(task, found, put, said):
    with pytest.raises(TangevalError, match=said):
        task(CODE.replace(found, put))


def test_code_is_not_run_unasked(task, monkeypatch, tmp_path):
    monkeypatch.delenv(tasks.own.ALLOW_FILES)
    with pytest.raises(TangevalError, match=r"metrics: .*my.py is Python code and would be run"):
        task("raise SystemExit")


def test_other_code_is_another_task(task):
    assert task().digest != task(CODE + "\n").digest
