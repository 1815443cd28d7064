"""Hostile and broken input: whatever the bytes, a reader gives its result or our own error.

A few hundred cases each; ``TANGEVAL_FUZZ=10000`` tries as many as docs/reliability.md reports.
"""

import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang import external_outputs as outputs
from tangeval.tasks.tang import text as poem
from tangeval.tasks.tang.data import SAMPLE, TESTING, TRAINING, TRUTH

CASES = int(os.environ.get("TANGEVAL_FUZZ", "200"))
fuzzed = hypothesis_settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VERSE = some.text(
    some.sampled_from("春眠不覺曉處聞啼鳥，。？！、；\n\t 12.ab<>\u202e\u200b\ud7ff\x00「\U00020000"),
    max_size=60,
)
ANY = some.one_of(some.text(max_size=60), VERSE)
JSON = some.recursive(
    some.one_of(some.none(), some.booleans(), some.integers(), some.floats(), ANY),
    lambda inner: some.one_of(some.lists(inner, max_size=4), some.dictionaries(ANY, inner, max_size=4)),
    max_leaves=12,
)
KEYS = some.sampled_from(
    ["name", "base_model", "checkpoints", "load", "data", "splits", "decoding", "temperature", "top_k", "samples",
     "select", "setting", "require", "only", "seed", "batch_size", "prompt", "cache_dir"]
)  # fmt: skip
STUDY = some.dictionaries(KEYS, some.one_of(JSON, some.dictionaries(KEYS, JSON, max_size=4)), max_size=6)


def survives(read, *arguments) -> None:
    """Our own error is an answer; any other is a fault of ours."""
    with suppress(TangevalError):
        read(*arguments)


def written(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return file


@fuzzed
@given(content=some.one_of(some.binary(max_size=80), some.text(max_size=80), STUDY.map(yaml.safe_dump)))
def test_the_study_parser(tmp_path, content):
    survives(load_study, written(tmp_path, "study.yaml", content))


@fuzzed
@given(
    override=some.one_of(
        some.text(max_size=30), some.tuples(KEYS, KEYS, ANY).map(lambda t: f"{t[0]}.{t[1]}={t[2]}")
    )
)
def test_overrides(tmp_path, override):
    survives(load_study, written(tmp_path, "study.yaml", "name: x\n"), [override])


RECORD = some.fixed_dictionaries(
    {"instruction": ANY, "input": VERSE}, optional={"output": VERSE, "other": JSON}
)


@fuzzed
@given(
    name=some.sampled_from([TRAINING, TESTING, TRUTH]),
    content=some.one_of(
        some.binary(max_size=200), ANY, JSON.map(json.dumps), some.lists(RECORD, max_size=6).map(json.dumps),
        some.lists(VERSE, max_size=20).map("\n".join),
    ),
)  # fmt: skip
def test_the_data_readers(tmp_path, name, content):
    for file in (TRAINING, TESTING, TRUTH):
        written(tmp_path, file, (SAMPLE / file).read_bytes())
    written(tmp_path, name, content)
    survives(dataset.load, str(tmp_path), 5)


@pytest.fixture(scope="module")
def examples():
    return dataset.load("sample").split("test")


@fuzzed
@given(
    suffix=some.sampled_from([".txt", ".json", ".jsonl", ""]),
    content=some.one_of(
        some.binary(max_size=200), ANY, JSON.map(json.dumps), some.lists(VERSE, max_size=20).map("\n".join),
        some.lists(some.fixed_dictionaries({"predict": ANY}, optional={"input": JSON}), max_size=20).map(json.dumps),
        some.lists(VERSE, min_size=15, max_size=15).map(lambda x: "\n".join(f"{n}. {t}" for n, t in enumerate(x, 1))),
    ),
)  # fmt: skip
def test_the_readers_of_outputs(tmp_path, examples, suffix, content):
    survives(outputs.read, written(tmp_path, f"results{suffix}", content), "results", examples, [])


@fuzzed
@given(text=ANY)
def test_the_poem_parser(text):
    parts = poem.clauses(text)
    assert all(part == poem.han(part) for part in parts)
    assert sum(map(len, parts)) <= len(text)
    assert poem.fold(poem.fold(text)) == poem.fold(text)
    poem.line_length(text)
