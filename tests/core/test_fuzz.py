"""Hostile and broken input: whatever the bytes, a reader gives its result or our own error.

A few hundred cases each; ``TANGEVAL_FUZZ=10000`` tries as many as docs/reliability.md reports.
"""

import json
import os
import shutil
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as some

from finetune.log import Log
from tangeval import generation, tasks
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.judge import asking
from tangeval.judge.agreement import read_votes
from tangeval.models import checkpoints
from tangeval.reporting.page import build
from tangeval.reporting.page.texts import Corpus
from tangeval.results import files, plan, records
from tangeval.results.explained import read_explained
from tangeval.results.folder import RunFolder
from tangeval.tasks.declared import readers
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang import external_outputs as outputs
from tangeval.tasks.tang import text as poem
from tangeval.tasks.tang.data import SAMPLE, TESTING, TRAINING, TRUTH
from tests.support.explained import make_explained
from tests.support.folders import make_results

CASES = int(os.environ.get("TANGEVAL_FUZZ", "200"))
fuzzed = hypothesis_settings(
    max_examples=CASES,
    derandomize="TANGEVAL_FUZZ"
    not in os.environ,  # the suite's cases are the same each time; others are asked for
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
@given(
    suffix=some.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet"]),
    content=some.one_of(
        some.binary(max_size=200),
        ANY,
        JSON.map(json.dumps),
        some.lists(JSON.map(json.dumps), max_size=6).map("\n".join),
    ),
)
def test_the_readers_of_records(tmp_path, suffix, content):
    survives(lambda: list(readers.read(written(tmp_path, f"records{suffix}", content).name, tmp_path)))


PARTS = some.sampled_from(
    [
        "name",
        "data",
        "train",
        "test",
        "fields",
        "prompt",
        "reference",
        "chat",
        "text",
        "checks",
        "metrics",
        "baseline",
    ]
)


@fuzzed
@given(
    content=some.dictionaries(
        PARTS, some.one_of(JSON, some.dictionaries(PARTS, JSON, max_size=4)), max_size=6
    )
)
def test_the_task_parser(tmp_path, content):
    survives(tasks.load, str(written(tmp_path, "task.yaml", yaml.safe_dump(content))))


# Files that tangeval, a trainer or a person wrote, of which something is not as it was


@pytest.fixture(scope="module")
def handed(tmp_path_factory, tiny_run, tiny_model):
    """A folder with one of each, and its results as the page takes them."""
    folder = tmp_path_factory.mktemp("handed")
    study, data = make_results(folder / "out", ("base",), samples=1)
    content = make_explained(study, data, RunFolder(folder / "out")).popitem()[1]
    files.write_text(folder / "out" / "explain.json", content.as_json())
    shutil.copytree(tiny_run, folder / "run")
    shutil.copytree(tiny_model, folder / "model")
    written(folder, "judge.jsonl", '{"key": "a", "raw": "x", "finish": null, "usage": {"total_tokens": 3}}\n')
    written(folder, "votes.csv", "example_id,a,b,preferred\ntest-1,x,y,tie\n")
    written(folder, "run.json", '{"settings": {"seed": 1}, "finished": 20}')
    written(
        folder,
        "training_log.csv",
        "step,epoch,loss,learning_rate,validation_loss,seconds\n1,0.1,3.2,1e-4,,2\n",
    )
    files.append_line(folder / "out" / "timings.jsonl", '{"kind": "batches", "name": "w0", "value": 1.5}')
    return folder, Corpus(study, data, tasks.load("tang"), RunFolder(folder / "out"))


def page(folder, corpus):
    build.facts_of(corpus)
    build._explained(corpus)


def run_of(folder, corpus):
    run = RunFolder(folder / "out")
    plan.check_data(corpus.data, run)
    generation.estimate_duration(run, plan.read_plan(run))
    plan.stale_files(run, [])
    return run.trained, run.noise_shared


def checkpoints_of(folder, corpus):
    for each in checkpoints.discover([str(folder / "run")])[0]:
        checkpoints.trained_on(each)
        checkpoints.check_tokenizer(checkpoints.resolve_base(str(folder / "model")), each)


READ = {
    "out/manifest.json": page, "out/best/selection.json": page, "out/signatures.json": page, "out/plan.json": run_of,
    "out/timings.jsonl": run_of, "run/checkpoint-10/adapter_config.json": checkpoints_of,
    "run/checkpoint-10/trainer_state.json": checkpoints_of, "run/train_ids.json": checkpoints_of,
    "model/config.json": checkpoints_of, "model/tokenizer.json": checkpoints_of,
    "out/explain.json": lambda folder, corpus: read_explained(folder / "out" / "explain.json"),
    "out/summary.csv": lambda folder, corpus: corpus.run.read_table("summary"),
    "judge.jsonl": lambda folder, corpus: asking.read_answers(folder / "judge.jsonl"),
    "votes.csv": lambda folder, corpus: read_votes(folder / "votes.csv", corpus.data),
    "run.json": lambda folder, corpus: records.read_record(folder / "run.json"),
    "training_log.csv": lambda folder, corpus: Log.resume(Namespace(file=folder / "training_log.csv"), 9),
}  # fmt: skip
ODD = some.one_of(
    some.sampled_from(
        [None, True, -1, 2**70, 1e300, float("nan"), "", "\ud800", "\0", "../x", "x" * 300, [], {}]
    ),
    JSON,
)


@some.composite
def spoilt(draw, content: bytes) -> bytes:
    """A file with some bytes otherwise, or a value of its JSON, or one less."""
    try:
        tree = json.loads(content)
    except ValueError:
        tree = None
    if tree is None or draw(some.integers(0, 9)) == 0:
        at = draw(some.integers(0, len(content)))
        return content[:at] + draw(some.binary(max_size=9)) + content[at + draw(some.integers(0, 9)) :]
    node, above, key = tree, None, None
    while isinstance(node, (dict, list)) and node and draw(some.integers(0, 4)):
        key = draw(some.sampled_from(sorted(node) if isinstance(node, dict) else range(min(len(node), 3))))
        above, node = node, node[key]
    if above is None:
        tree = draw(ODD)
    elif draw(some.booleans()):
        above[key] = draw(ODD)
    else:
        del above[key]
    return json.dumps(tree).encode()


@pytest.mark.parametrize("name", READ)
@fuzzed
@given(data=some.data())
def test_what_is_handed_over_and_not_as_it_should_be(handed, name, data):
    folder, corpus = handed
    whole = (folder / name).read_bytes()
    try:
        (folder / name).write_bytes(data.draw(spoilt(whole)))
        corpus.run.__dict__.clear()  # what was read before
        corpus.run.__dict__["path"] = folder / "out"
        survives(READ[name], folder, corpus)
    finally:
        (folder / name).write_bytes(whole)


@fuzzed
@given(text=ANY)
def test_the_poem_parser(text):
    parts = poem.clauses(text)
    assert all(part == poem.han(part) for part in parts)
    assert sum(map(len, parts)) <= len(text)
    assert poem.fold(poem.fold(text)) == poem.fold(text)
    poem.line_length(text)
