"""A server as engine: what is asked of it, what it has to honour, and that nothing is lost or made up when it fails.

Against a small server that can misbehave (``tests/served.py``), and against ``transformers serve``
with tang-mini, whose greedy texts must be those that the engine here decodes.
"""

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml

import tangeval as package
from tangeval.analysis.compare import compare, read_item
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.core.types import ASSETS
from tangeval.engines import client, completions
from tangeval.engines import openai as server
from tangeval.engines.completions import FORMS, Knobs
from tangeval.resolve import resolve
from tangeval.results.files import read_json
from tangeval.results.folder import RunFolder
from tangeval.results.plan import GENERATIONS, build_manifest, read_plan
from tests.cli.test_cli import tangeval, without_torch
from tests.support.served import Stub, transformers_serve

pytest.importorskip("openai", reason="the package openai of the dev extra is not installed")

TANG_MINI = ASSETS / "tang-mini"
STUDY = """
name: served
data: sample
engine: {{server: "{url}", models: {{checkpoint-20: second, base: stub, checkpoint-10: first}}, concurrency: 6}}
splits: [test]
decoding: {{temperature: [0.0, 0.8], top_k: [0, 5], top_p: [0.9, 1.0], max_length: [6, 30], no_repeat_ngram_size: 0}}
samples: 3
batch_size: 40
select: {{split: test, checkpoint: bleu, setting: {{by: bleu}}}}
"""
MODELS = ("stub", "first", "second")
POEMS, SAMPLES = 15, 3
#: For each poem: two lengths at temperature 0; four settings × two lengths drawn.
GREEDY, DRAWN = POEMS * 2, POEMS * 8
#: Few outputs of one model.
SMALL = (
    "engine.models={base: stub}", "decoding.temperature=0.8", "decoding.top_k=0", "decoding.top_p=1.0",
    "decoding.max_length=6",
)  # fmt: skip
FOLDER = "results/served"


@pytest.fixture
def serve():
    """A function that starts a stub; all are closed in the end."""
    started = []

    def start(*flaws, **options):
        started.append(Stub(*flaws, **{"models": MODELS} | options))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


def generate(folder: Path, stub: Stub | str, *overrides: str, command: str = "generate"):
    """Run ``tangeval generate`` on the study in ``folder``."""
    url = stub if isinstance(stub, str) else stub.url
    (folder / "served.yaml").write_text(STUDY.format(url=url))
    return tangeval(folder, command, "served.yaml", *overrides, "--assume-unseen" if command == "run" else "--quiet")  # fmt: skip


def texts(folder: Path) -> pd.DataFrame:
    """All rows of a results folder's batch files, in the plan's order."""
    run = RunFolder(folder / FOLDER)
    return pd.concat([pd.read_parquet(run.batch_file(w.id)) for w in read_plan(run)])


# A server that behaves


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the results of a whole ``run``, and the stub that wrote them."""
    folder, stub = tmp_path_factory.mktemp("served"), Stub(models=MODELS, delay=0.002)
    done = generate(folder, stub, command="run")
    stub.close()
    assert done.code == 0, done.err
    return folder, stub, done


def test_every_setting_is_asked_with_its_knobs_and_what_is_off_is_said_to_be_off(made):
    _, stub, _ = made
    work = pd.DataFrame(stub.work)
    assert set(work["model"]) == set(MODELS)
    knobs = work[["temperature", "top_k", "top_p", "max_tokens"]].drop_duplicates()
    drawn = {(0.8, k, p, length) for k in (-1, 5) for p in (0.9, 1.0) for length in (6, 30)}
    greedy = {(0.0, -1, 1.0, length) for length in (6, 30)}
    assert set(knobs.itertuples(index=False, name=None)) == drawn | greedy
    assert len(work) == len(MODELS) * (GREEDY + DRAWN)
    assert (work["min_p"] == 0).all()
    assert (work["repetition_penalty"] == 1).all()


def test_all_samples_of_a_setting_are_one_request_and_greedy_ones_one_text(made):
    _, stub, _ = made
    work = pd.DataFrame(stub.work)
    assert set(work.loc[work["temperature"] > 0, "n"]) == {SAMPLES}
    assert work.loc[work["temperature"] == 0, "n"].isna().all()


def test_no_two_requests_have_one_seed(made):
    _, stub, _ = made
    seeds = [body["seed"] for body in stub.work]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**31


def test_many_requests_are_in_flight_and_never_more_than_asked_for(made):
    assert 3 <= made[1].most <= 6


def test_shards_have_the_columns_and_rows_of_any_other_engine(made):
    folder, _, _ = made
    frame = texts(folder)
    assert list(frame.columns) == list(GENERATIONS)
    assert len(frame) == len(MODELS) * 16 * POEMS * SAMPLES
    assert not frame.duplicated(["checkpoint", "temperature", "top_k", "top_p", "max_length", "example_id", "sample"]).any()  # fmt: skip
    cut = frame["finish_reason"] == "length"
    assert (frame.loc[cut, "n_tokens"] == frame.loc[cut, "max_length"]).all()
    whole = frame[~cut]  # the stub's tokens are characters, a first space and EOS
    assert (whole["n_tokens"] == whole["text"].str.len() + 2).all()
    assert not frame["text"].str.startswith(" ").any()


def test_each_text_is_the_servers_own(made):
    folder, stub, _ = made
    body = next(b for b in stub.work if b["temperature"] > 0 and b["max_tokens"] == 30)
    wrote = {stub.write(body, index)[0].removeprefix(" ") for index in range(SAMPLES)}
    frame = texts(folder)
    own = frame[(frame["temperature"] == 0.8) & (frame["max_length"] == 30)]
    found = own.groupby(["checkpoint", "top_k", "top_p", "example_id"])["text"].agg(set)
    assert wrote in list(found)


def test_the_base_model_stands_first_and_steps_come_of_names(made):
    folder, _, _ = made
    manifest = read_json(folder / FOLDER / "manifest.json")
    rows = [(c["name"], c["step"], c["kind"], c["seen"]) for c in manifest["checkpoints"]]
    assert rows == [
        ("base", None, "base", {"test": 0}), ("checkpoint-10", 10, "served", None), ("checkpoint-20", 20, "served", None)
    ]  # fmt: skip
    assert set(pd.read_csv(folder / FOLDER / "checkpoints.csv")["step"].dropna()) == {10, 20}


def test_the_manifest_says_who_wrote_what_was_found_and_that_noise_is_not_shared(made):
    folder, stub, done = made
    manifest = read_json(folder / FOLDER / "manifest.json")
    assert manifest["noise_shared"] is False
    assert "not shared" in manifest["noise"]
    assert manifest["engine"] == f"server 127.0.0.1:{stub.server_port} 1.0"
    found = manifest["server"]["probes"]["checkpoint-10"]
    assert found["served_as"] == "first"
    assert (found["form"], found["n"], found["top_k"], found["seed"]) == ("extended", True, True, True)
    assert found["no_repeat_ngram_size"] is False
    assert "noise: the server's own" in done.out
    assert "checkpoint-10 (first): honours" in done.out
    assert "base_model" not in yaml.safe_load((folder / FOLDER / "study.yaml").read_text())


def test_what_needs_shared_noise_is_not_build_manifest_a_servers_results(made):
    folder, _, _ = made
    results = folder / FOLDER
    assert len(pd.read_csv(results / "coupling.csv")) == 0
    shares = pd.read_csv(results / "variance.csv")
    assert set(shares["term"]) & {"noise", "noise × setting"} == {"noise"}
    assert shares.groupby("metric")["share"].sum().round(6).eq(1).all()
    setting = "temperature=0.8,top_k=5,top_p=1,max_length=30"
    two = [f"{results}:{name}:{setting}" for name in ("base", "checkpoint-10")]
    frame = compare([read_item(item, "test") for item in two], ["bleu"])
    assert not frame["shared_noise"].any()
    assert (
        "Noise is not shared" in tangeval(folder, "compare", *two, "--metric", "bleu", "--split", "test").out
    )
    page = (results / "report.html").read_text("utf-8")
    assert '"noise_shared":false' in page
    assert "/weights/" not in page


def test_there_is_no_likelihood_and_everything_after_the_texts_works(made):
    folder, _, _ = made
    run = RunFolder(folder / FOLDER)
    parts, likelihood = run.scores(), run.likelihood()
    scores = pd.concat(parts)
    assert len(likelihood) == 0
    assert scores["checkpoint"].nunique() == len(MODELS) + 2
    assert pd.read_csv(folder / FOLDER / "summary.csv")["reference_nll"].isna().all()
    assert read_json(folder / FOLDER / "best/selection.json")["checkpoint"]["checkpoint"] in ("base", "checkpoint-10", "checkpoint-20")  # fmt: skip


def test_what_is_there_is_not_asked_again_and_a_new_setting_alone_is(made, tmp_path):
    folder, old, _ = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    stub = Stub(models=MODELS, port=old.server_port)
    try:
        before = read_json(tmp_path / FOLDER / "manifest.json")
        assert generate(tmp_path, stub).code == 0
        assert stub.asked == []
        assert read_json(tmp_path / FOLDER / "manifest.json") == before
        assert generate(tmp_path, stub, "decoding.temperature=[0.0, 0.8, 1.2]").code == 0
        assert {body["temperature"] for body in stub.work} == {1.2}
        assert len(stub.work) == len(MODELS) * DRAWN
    finally:
        stub.close()


def test_a_dry_run_asks_for_no_text(serve, tmp_path):
    stub = serve()
    (tmp_path / "served.yaml").write_text(STUDY.format(url=stub.url))
    done = tangeval(tmp_path, "run", "served.yaml", "--dry-run", "--assume-unseen")
    assert done.code == 0, done.err
    assert stub.asked == []
    streams = GREEDY + DRAWN * SAMPLES
    assert next(r for r in done.table() if r[0] == "checkpoint-10")[:3] == ["checkpoint-10", "10", "served"]
    assert {row[4] for row in done.table()[-3:]} == {f"{streams:,}"}
    assert "6 requests in flight to 127.0.0.1" in done.out


def test_a_server_study_needs_no_torch(serve, tmp_path):
    (tmp_path / "served.yaml").write_text(STUDY.format(url=serve().url))
    done = without_torch(tmp_path, ["run", "served.yaml", *SMALL])
    assert done.returncode == 0, done.stderr


def test_a_study_runs_from_a_notebook_whose_own_loop_is_running(serve, tmp_path):
    (tmp_path / "served.yaml").write_text(STUDY.format(url=serve().url))

    async def setting():
        return package.run(tmp_path / "served.yaml", *SMALL, out=tmp_path / "out", assume_unseen=True)

    assert len(asyncio.run(setting()).generations) == POEMS * SAMPLES


def test_a_chat_prompt_is_sent_as_messages_and_a_bos_where_it_is_given(serve, tmp_path):
    stub = serve()
    assert generate(tmp_path, stub, *SMALL, "prompt=chat").code == 0
    roles = [[m["role"] for m in body["messages"]] for body in stub.asked]
    assert roles == [["system", "user"]] * len(roles)
    assert stub.work[0]["logprobs"] is True
    assert len(texts(tmp_path)) == POEMS * SAMPLES
    stub.asked.clear()
    done = tangeval(tmp_path, "generate", "served.yaml", *SMALL, "engine.bos=<s>", "--out", "bos")
    assert done.code == 0, done.err
    assert {body["prompt"][:9] for body in stub.asked} == {"<s>[INST]"}


def test_a_key_is_sent_if_it_is_named_and_written_nowhere(serve, tmp_path, monkeypatch):
    stub = serve()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert generate(tmp_path, stub, *SMALL).code == 0
    assert stub.keys == {"Bearer none"}
    monkeypatch.setenv("TANG_KEY", "sk-secret")
    stub.keys.clear()
    assert generate(tmp_path, stub, *SMALL, "engine.api_key_env=TANG_KEY", "seed=7", "--overwrite").code == 0
    assert stub.keys == {"Bearer sk-secret"}
    assert not [
        f for f in (tmp_path / "results").rglob("*") if f.is_file() and b"sk-secret" in f.read_bytes()
    ]
    monkeypatch.delenv("TANG_KEY")
    assert "the variable TANG_KEY is not set" in generate(tmp_path, stub, "engine.api_key_env=TANG_KEY").err


# What a server does not honour


@pytest.mark.parametrize(
    ("flaw", "overrides", "problem", "remedy"),
    [
        ("top_k", [], "top_k: two draws at top_k 1 differ", "decoding.top_k=0"),
        ("top_p", [], "top_p: two draws at top_p 1e-6 differ", "decoding.top_p=1.0"),
        ("temperature", [], "temperature: three draws at temperature 2 are one text", "decoding.temperature=0"),
        ("cold", [], "greedy: two texts at temperature 0 differ", "leave 0 out of decoding.temperature"),
        ("max_tokens", [], "max_length: it writes on beyond max_tokens", "take a server"),
        ("finish", [], "finish_reason: it does not say when a text was cut", "take a server"),
        ("usage", [], "usage: it does not count a text's tokens", "take a server"),
        ("n", ["engine.n=3"], "n: n 3 does not give three draws", "engine.n=auto"),
        ("copies", ["engine.n=3"], "n: n 3 does not give three draws", "engine.n=auto"),
        ("strict", [], "top_k: two draws at top_k 1 differ, so it is ignored, or it is refused", "top_k=0"),
        ("", ["decoding.no_repeat_ngram_size=3"], "no_repeat_ngram_size: forbidding every token", "no_repeat_ngram_size=0"),
    ],
)  # fmt: skip
def test_what_a_server_ignores_is_refused_before_any_text_is_wanted(
    serve, tmp_path, flaw, overrides, problem, remedy
):
    stub = serve(flaw)
    done = generate(tmp_path, stub, *overrides)
    assert done.code == 2
    assert f"{stub.url}: base, served as stub, does not do what the study asks for" in done.err
    assert problem in done.err
    assert remedy in done.err
    assert stub.work == []
    assert not (tmp_path / FOLDER / "plan.json").exists()


def test_what_a_study_does_not_ask_for_may_be_lacking(serve, tmp_path):
    stub = serve("top_k", "top_p", "cold", "seed")
    assert generate(tmp_path, stub, *SMALL).code == 0
    found = read_json(tmp_path / FOLDER / "manifest.json")["server"]["probes"]["base"]
    assert [found[name] for name in ("top_k", "top_p", "greedy", "seed", "temperature")] == [False] * 4 + [True]  # fmt: skip


def test_a_ban_of_repeats_is_sent_where_it_is_honoured(serve, tmp_path):
    stub = serve("banning")
    assert generate(tmp_path, stub, *SMALL, "decoding.no_repeat_ngram_size=3").code == 0
    assert {body["no_repeat_ngram_size"] for body in stub.work} == {3}
    assert set(texts(tmp_path)["no_repeat_ngram_size"]) == {3}


def test_a_server_that_takes_openais_fields_alone_is_asked_with_those(serve, tmp_path):
    stub = serve("strict")
    assert generate(tmp_path, stub, *SMALL).code == 0
    assert read_json(tmp_path / FOLDER / "manifest.json")["server"]["probes"]["base"]["form"] == "openai"
    assert not {"top_k", "generation_config"} & set().union(*stub.work)


@pytest.mark.parametrize("flaw", ["n", "copies", "uncounted"])
def test_without_n_each_sample_is_a_request_of_its_own(serve, tmp_path, flaw):
    stub = serve(flaw)
    assert generate(tmp_path, stub, *SMALL).code == 0
    assert len(stub.work) == POEMS * SAMPLES
    assert not any("n" in body for body in stub.work)
    assert len({body["seed"] for body in stub.work}) == POEMS * SAMPLES
    assert read_json(tmp_path / FOLDER / "manifest.json")["server"]["probes"]["base"]["n"] is False


def test_n_may_be_smaller_than_the_samples(serve, tmp_path):
    stub = serve()
    assert generate(tmp_path, stub, *SMALL, "engine.n=2").code == 0
    assert sorted(body.get("n", 1) for body in stub.work) == [1] * POEMS + [2] * POEMS
    assert texts(tmp_path)["text"].notna().all()


def test_a_context_too_short_is_found_before_the_work(serve, tmp_path):
    stub = serve("short")
    done = generate(tmp_path, stub, *SMALL)
    assert "a text was cut at 16 tokens where max_tokens was 24; give the server a longer context" in done.err
    assert stub.work == []


def test_the_hottest_and_longest_that_is_asked_for_is_tried_first(serve, tmp_path):
    stub = serve("no_hot")
    done = generate(tmp_path, stub, *SMALL, "decoding.temperature=[0.5, 2.5]")
    assert done.code == 2
    assert "temperature must be at most 2" in done.err
    assert stub.work == []


# A server in trouble


def test_a_busy_failing_dropping_server_is_asked_again_and_the_bytes_are_the_same(serve, tmp_path):
    troubles, tries = itertools.cycle([429, 500, "drop", 503]), Counter()

    def trouble(body):
        tries[str(body)] += 1
        return next(troubles) if tries[str(body)] <= 2 else None

    calm, rough = serve(), serve(trouble=trouble)
    for folder, stub in (("calm", calm), ("rough", rough)):
        (tmp_path / folder).mkdir()
        done = generate(tmp_path / folder, stub, *SMALL)
        assert done.code == 0, done.err
    assert len(rough.work) == 3 * len(calm.work)
    batch_files = [sorted((tmp_path / f / FOLDER / "generations").glob("*")) for f in ("calm", "rough")]
    assert [f.read_bytes() for f in batch_files[0]] == [f.read_bytes() for f in batch_files[1]]


@pytest.mark.parametrize(
    ("trouble", "problem"),
    [
        (503, "the server fails at stub"),
        (429, "too many requests"),
        (401, "the key is refused"),
        (404, "a request for stub is refused"),
        ("drop", "no server can be reached"),
        ("html", "does not speak OpenAI's completions"),
    ],
)
def test_a_server_that_fails_for_good_ends_the_run_which_goes_on_later(serve, tmp_path, trouble, problem):
    stub = serve(trouble=lambda body: trouble if len(stub.work) > 60 else None)
    several = (*SMALL, "engine.retries=1", "decoding.temperature=[0.7, 0.8, 0.9, 1.0]", "engine.n=1")
    done = generate(tmp_path, stub, *several)
    assert done.code == 2
    assert f"engine.server: {stub.url}: " in done.err
    assert problem in done.err
    batch_files = len(list((tmp_path / FOLDER / "generations").glob("*.parquet")))
    assert 0 < batch_files < len(read_plan(RunFolder(tmp_path / FOLDER)))
    stub.trouble = lambda body: None
    before = len(stub.work)
    assert generate(tmp_path, stub, *several).code == 0
    assert len(stub.work) - before < 4 * POEMS * SAMPLES
    assert len(texts(tmp_path)) == 4 * POEMS * SAMPLES


def test_a_text_that_was_filtered_is_no_text(serve, tmp_path):
    done = generate(tmp_path, serve("filter"), *SMALL)
    assert "a text ended for another reason than its own end or max_tokens: content_filter" in done.err


def test_no_server_and_an_unknown_model_are_said_at_once(serve, tmp_path):
    stub = serve(models=("stub", "other"))
    done = generate(tmp_path, stub)
    assert f"engine.models.checkpoint-20: {stub.url} serves no second; it serves stub, other" in done.err
    stub.close()
    began = time.monotonic()
    assert f"{stub.url}: no server can be reached" in generate(tmp_path, stub).err
    assert time.monotonic() - began < 15


def test_a_server_without_a_list_of_models_or_a_version_is_asked_all_the_same(serve, tmp_path):
    assert generate(tmp_path, serve("unlisted", version=None), *SMALL).code == 0
    assert read_json(tmp_path / FOLDER / "manifest.json")["server"]["listed"] == {}


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_and_ends_in_the_bytes_of_a_whole_one(serve, tmp_path, blow):
    several = [*SMALL, "decoding.temperature=[0.7, 0.8, 0.9, 1.0]", "engine.n=1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()
    cut.mkdir()
    stub = serve()
    assert generate(whole, stub, *several).code == 0
    stub.asked.clear()
    stub.delay = 0.05
    (cut / "served.yaml").write_text(STUDY.format(url=stub.url))
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tangeval.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", script, "generate", "served.yaml", *several]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    batch_files = cut / FOLDER / "generations"
    with subprocess.Popen(command, cwd=cut, env=environment, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 60
        while (
            len(list(batch_files.glob("*.parquet"))) < 1
            and process.poll() is None
            and time.monotonic() < until
        ):
            time.sleep(0.02)
        process.send_signal(blow)
        _, err = process.communicate(timeout=20)
    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL), err.decode()
    assert blow == signal.SIGKILL or "the same command goes on from here" in err.decode()
    kept, stub.delay = {file.name for file in batch_files.glob("*.parquet")}, 0
    assert 0 < len(kept) < len(read_plan(RunFolder(cut / FOLDER)))
    stub.asked.clear()
    assert generate(cut, stub, *several).code == 0
    lost = [w for w in read_plan(RunFolder(cut / FOLDER)) if f"{w.id}.parquet" not in kept]
    assert len(stub.work) == sum(batch.streams() for batch in lost)
    for file in (whole / FOLDER / "generations").glob("*.parquet"):
        assert (batch_files / file.name).read_bytes() == file.read_bytes()


# Another server, or another study


def test_another_version_or_root_makes_texts_anew_and_another_port_does_not(serve, tmp_path):
    stub = serve()
    assert generate(tmp_path, stub, *SMALL).code == 0
    moved = serve()
    assert generate(tmp_path, moved, *SMALL).code == 0
    assert moved.asked == []
    moved.version = "2.0"
    assert "fits this study any longer" in generate(tmp_path, moved, *SMALL).err
    assert generate(tmp_path, moved, *SMALL, "--overwrite").code == 0
    assert len(moved.work) == POEMS


def test_other_weights_under_one_name_are_noticed_by_what_they_write(serve, tmp_path):
    stub = serve()
    assert generate(tmp_path, stub, *SMALL).code == 0
    stub.weights = "second"
    done = generate(tmp_path, stub, *SMALL, "samples=4")
    assert done.code == 0
    assert (
        "engine.models.base: stub writes otherwise at temperature 0 than when this folder was begun"
        in done.err
    )


def test_the_likelihood_of_an_engine_with_weights_does_not_stay(serve, tmp_path):
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "likelihood.parquet").write_bytes(b"old")
    assert generate(tmp_path, serve(), *SMALL).code == 0
    assert not (tmp_path / FOLDER / "likelihood.parquet").exists()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"base_model": "tang-mini"}, "base_model: with engine the weights are the server's"),
        ({"checkpoints": ["a"], "load": {}}, "checkpoints, load: with engine"),
        ({"select": {"split": "test"}}, "select.checkpoint: a server gives no reference_nll"),
        ({"engine": {"models": {"base": "x"}}}, "engine.server: Field required"),
        ({"engine": {"server": "localhost:8000", "models": {"base": "x"}}}, "is no URL; give one such as"),
        ({"engine": {"server": "http://me:sk@h/v1", "models": {"base": "x"}}}, "api_key_env"),
        ({"engine": {"server": "http://h/v1", "models": {}}}, "engine.models: "),
        ({"engine": {"server": "http://h/v1", "models": {"random": "x"}}}, "may not be a checkpoint's name"),
        (
            {"engine": {"server": "http://h/v1", "models": {"base": "x"}, "timeut": 3}},
            "did you mean timeout?",
        ),
    ],
)
def test_a_study_that_a_server_cannot_run_is_refused_with_key_and_remedy(tmp_path, change, problem):
    content = yaml.safe_load(STUDY.format(url="http://localhost:1/v1")) | change
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(TangevalError) as error:
        load_study(file)
    assert problem in str(error.value)


def test_a_study_as_it_ran_is_a_study_again(tmp_path):
    (tmp_path / "a.yaml").write_text(STUDY.format(url="http://localhost:1/v1"))
    study = load_study(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_text(study.to_yaml())
    assert load_study(tmp_path / "b.yaml") == study


@pytest.mark.parametrize("command", ["race", "explain"])
def test_commands_that_want_logits_say_so(tmp_path, command):
    (tmp_path / "served.yaml").write_text(STUDY.format(url="http://localhost:1/v1"))
    options = ["--assume-unseen"] if command == "race" else []
    done = tangeval(tmp_path, command, "served.yaml", *options)
    assert f"engine: `tangeval {command}` wants logits" in done.err


def test_nothing_is_left_out_of_a_servers_study(tmp_path):
    (tmp_path / "a.yaml").write_text(STUDY.format(url="http://localhost:1/v1"))
    with pytest.raises(TangevalError, match=r"leave a model out of engine\.models"):
        server.generate(resolve(load_study(tmp_path / "a.yaml")), tmp_path, keep_going=True)


def test_weights_that_are_read_elsewhere_cannot_be_allowed_to_be_pickles(tmp_path):
    (tmp_path / "served.yaml").write_text(STUDY.format(url="http://localhost:1/v1"))
    with pytest.raises(TangevalError, match="--allow-pickle: with a server"):
        resolve(load_study(tmp_path / "served.yaml"), allow_pickle=True)


def test_selection_asks_whether_served_checkpoints_saw_the_poems(serve, tmp_path):
    (tmp_path / "served.yaml").write_text(STUDY.format(url=serve().url))
    done = tangeval(tmp_path, "run", "served.yaml")
    assert "checkpoint-10, checkpoint-20 keep no train_ids.json" in done.err


@pytest.mark.parametrize(
    ("choice", "usage"),
    [
        ({"text": "a"}, {"completion_tokens": "12"}),
        ({"text": "a"}, {"completion_tokens": -5}),
        ({"text": "a"}, {"completion_tokens": True}),
        ({"text": ["a"]}, {"completion_tokens": 1}),
        ({"text": 5}, {"completion_tokens": 1}),
        ({"text": "a" * (2**20 + 1)}, {"completion_tokens": 1}),
    ],
)
def test_what_is_no_text_and_no_count_is_no_answer(choice, usage):
    good = {"choices": [{"text": "春\ud800", "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    assert completions._texts(good, False)[0].text == "春?"
    assert (
        completions._texts({"choices": [{"finish_reason": "stop", **choice}], "usage": usage}, False) is None
    )


def test_a_notebook_that_is_interrupted_waits_for_nothing():
    ended = []

    async def work():
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(time.monotonic())

    async def setting():
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        client.run(work())

    began, before = time.monotonic(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.new_event_loop().run_until_complete(setting())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended
    assert time.monotonic() - began < 10


def test_how_a_server_is_asked_is_no_part_of_the_signature(made, serve):
    folder, _, _ = made
    study = load_study(folder / FOLDER / "study.yaml")
    resolved = resolve(study)
    cache_keys = dict.fromkeys(resolved.names, "")

    def signature(**changes):
        asked = replace(
            resolved, study=study.model_copy(update={"engine": study.engine.model_copy(update=changes)})
        )
        return build_manifest(
            asked, cache_keys, engine="", noise="", noise_shared=False, versions={}, hardware={}
        )["signature"]  # fmt: skip

    assert signature(concurrency=3, timeout=5.0, retries=1, server="http://else:1/v1") == signature()
    assert signature(bos="<s>") != signature()


def test_each_form_says_what_is_off():
    assert FORMS["openai"](Knobs()).keys() == {"temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty"}  # fmt: skip
    drawn = json.loads(FORMS["transformers"](Knobs(temperature=0.5, seed=3))["generation_config"])
    assert (drawn["do_sample"], drawn["top_k"], drawn["top_p"]) == (True, 0, 1.0)
    assert FORMS["extended"](Knobs(top_k=0))["top_k"] == -1


# A real server


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """``transformers serve`` with tang-mini in float32: its address."""
    for needed in ("fastapi", "uvicorn"):
        pytest.importorskip(needed, reason=f"the package {needed} of the dev extra is not installed")
    with transformers_serve(tmp_path_factory.mktemp("real"), TANG_MINI, "--dtype", "float32") as (url, _):
        yield url


REAL = """
name: real
data: sample
{engine}
splits: [test]
decoding: {{temperature: [0.0, 0.9], top_k: [5], top_p: [0.95], max_length: [20], no_repeat_ngram_size: 3}}
samples: {{test: 2}}
select: {{split: test, checkpoint: bleu, setting: {{by: bleu}}}}
"""


def test_transformers_serve_writes_greedily_what_the_engine_here_writes(real, tmp_path):
    engine = f"engine: {{server: '{real}', models: {{base: '{TANG_MINI}'}}, bos: <s>, concurrency: 4}}"
    made = {}
    for name, how in (("server", engine), ("here", "load: {dtype: float32}")):
        (tmp_path / f"{name}.yaml").write_text(REAL.format(engine=how))
        command = "run" if name == "server" else "generate"
        done = tangeval(tmp_path, command, f"{name}.yaml", "--out", name)
        assert done.code == 0, done.err
        batch_files = [
            pd.read_parquet(RunFolder(tmp_path / name).batch_file(w.id))
            for w in read_plan(RunFolder(tmp_path / name))
        ]
        made[name] = pd.concat(batch_files)
    keys = ["temperature", "max_length", "example_id", "sample"]
    both = made["server"].merge(made["here"], on=keys, suffixes=("", "_here"))
    greedy, drawn = both[both["temperature"] == 0], both[both["temperature"] > 0]
    assert len(greedy) == len(drawn) == 2 * POEMS
    for column in ("text", "n_tokens", "finish_reason"):
        assert (greedy[column] == greedy[f"{column}_here"]).all()
    assert drawn["text"].nunique() > 20
    assert drawn["n_tokens"].between(1, 20).all()
    assert list(made["server"].dtypes) == list(made["here"].dtypes)
    found = read_json(tmp_path / "server/manifest.json")["server"]["probes"]["base"]
    assert (found["form"], found["top_k"], found["no_repeat_ngram_size"], found["n"]) == ("transformers", True, True, False)  # fmt: skip
    assert read_json(tmp_path / "server/best/selection.json")["setting"]["top_k"] == 5


def test_transformers_serve_is_refused_what_it_does_not_serve(real, tmp_path):
    engine = f"engine: {{server: '{real}', models: {{base: other}}}}"
    (tmp_path / "real.yaml").write_text(REAL.format(engine=engine))
    assert f"serves no other; it serves {TANG_MINI}" in tangeval(tmp_path, "run", "real.yaml").err
    engine = f"engine: {{server: '{real}', models: {{base: '{TANG_MINI}'}}, n: 2}}"
    (tmp_path / "real.yaml").write_text(REAL.format(engine=engine))
    assert "n: n 3 does not give three draws" in tangeval(tmp_path, "run", "real.yaml").err
