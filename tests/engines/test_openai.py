"""A server as engine: what is asked of it, what it has to honour, and that nothing is lost or made up when it fails.

Against a stub server that can misbehave, and against ``transformers serve`` with tang-mini, whose greedy
texts must be those of the local engine.
"""

import asyncio
import itertools
import json
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import yaml

import tangeval as package
from tangeval.analysis.scoring import keys_in
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOBS
from tangeval.core.study import load_study
from tangeval.core.types import ASSETS
from tangeval.engines import make
from tangeval.engines.client import Reply
from tangeval.engines.completions import DIALECTS, read_reply
from tangeval.resolve import resolve
from tangeval.results.files import read_json
from tangeval.results.folder import RunFolder
from tangeval.results.plan import read_plan
from tests.support.command import EXTRAS, refusal, start, succeeds, tangeval, wait, without
from tests.support.stub_server import StubServer, transformers_serve
from tests.support.study import write_study

pytest.importorskip("urllib3", reason="the package urllib3 of the dev extra is not installed")

TANG_MINI = ASSETS / "tang-mini"
STUDY = {
    "decoding": {"temperature": [0.0, 0.8], "top_k": [0, 5], "top_p": [0.9, 1.0], "max_length": [6, 30],
                 "no_repeat_ngram_size": 0},
    "samples": 3, "batch_size": 40, "select": {"split": "test", "checkpoint": "bleu", "setting": {"by": "bleu"}},
}  # fmt: skip
MODELS = ("stub", "first", "second")
POEMS, SAMPLES = 15, 3
#: For each poem: two lengths at temperature 0; four settings × two lengths drawn.
GREEDY, DRAWN = POEMS * 2, POEMS * 8
#: Few outputs of one model.
SMALL = (
    "engine.models={base: stub}", "decoding.temperature=0.8", "decoding.top_k=0", "decoding.top_p=1.0",
    "decoding.max_length=6",
)  # fmt: skip
FOLDER = "results/tiny"


@pytest.fixture
def serve():
    """A function that starts a stub; all are closed in the end."""
    started = []

    def start(*flaws, **options):
        started.append(StubServer(*flaws, **{"models": MODELS} | options))
        return started[-1]

    yield start
    for stub in started:
        stub.close()


def study_of(folder: Path, stub: StubServer) -> Path:
    models = {"checkpoint-20": "second", "base": "stub", "checkpoint-10": "first"}
    return write_study(folder, engine={"server": stub.url, "models": models, "concurrency": 6}, **STUDY)


def generate(folder: Path, stub: StubServer, *overrides: str, command: str = "generate"):
    """Run ``tangeval generate`` on the study in ``folder``."""
    options = ["--assume-unseen" if command == "run" else "--quiet"]
    return tangeval(folder, command, study_of(folder, stub).name, *overrides, *options)


def texts(folder: Path) -> pd.DataFrame:
    """All rows of a results folder's batch files, in the plan's order."""
    return rows_of(folder / FOLDER)


def rows_of(results: Path) -> pd.DataFrame:
    run = RunFolder(results)
    return pd.concat([pd.read_parquet(run.batch_file(batch.id)) for batch in read_plan(run)])


# A server that behaves


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the results of a whole ``run``, and the stub that wrote them."""
    folder, stub = tmp_path_factory.mktemp("served"), StubServer(models=MODELS, delay=0.002)
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
    for field, off in {"min_p": 0, "repetition_penalty": 1, "presence_penalty": 0}.items():
        assert (work[field] == off).all()


def test_samples_are_one_request_and_several_are_in_flight(made):
    work = pd.DataFrame(made[1].work)
    drawn = work["temperature"] > 0
    assert set(work.loc[drawn, "n"]) == {SAMPLES}
    assert work.loc[~drawn, "n"].isna().all()
    assert work.loc[drawn, "return_token_ids"].all()
    assert "logprobs" not in work
    assert 3 <= made[1].most <= 6


def test_a_sample_has_one_seed_in_all_settings_and_models_however_many_are_asked_for_at_once(
    made, serve, tmp_path
):
    work = pd.DataFrame(made[1].work)
    assert (work.groupby("prompt")["seed"].nunique() == 1).all()
    assert work["seed"].nunique() == POEMS
    assert work["seed"].max() < 2**31 - SAMPLES
    alone = serve()
    assert generate(tmp_path, alone, *SMALL, "engine.n=1").code == 0
    seeds = {body["prompt"]: body["seed"] for body in made[1].work}
    assert {(b["prompt"], b["seed"]) for b in alone.work} == {
        (p, seed + i) for p, seed in seeds.items() for i in range(SAMPLES)
    }


def test_batch_files_have_the_columns_and_rows_of_any_other_engine(made):
    frame = texts(made[0])
    assert list(frame.columns) == [*keys_in(frame), "text", "n_tokens", "finish_reason"]
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


def test_the_manifest_says_who_wrote_and_that_noise_is_not_shared(made):
    folder, stub, done = made
    manifest = read_json(folder / FOLDER / "manifest.json")
    assert manifest["noise_shared"] is False
    assert "not shared" in manifest["noise"]
    assert manifest["noise_measured"]["same_seed"] < 0.5
    assert manifest["engine"] == f"server 127.0.0.1:{stub.server_port} 1.0"
    assert (manifest["server"]["dialect"], manifest["server"]["models"]["checkpoint-10"]) == ("vllm", "first")
    assert "noise: the server's own" in done.out
    assert "base_model" not in yaml.safe_load((folder / FOLDER / "study.yaml").read_text())
    rows = [(c["name"], c["step"], c["kind"], c["seen"]) for c in manifest["checkpoints"]]
    assert rows == [
        ("base", None, "base", {"test": 0}), ("checkpoint-10", 10, "served", None), ("checkpoint-20", 20, "served", None)
    ]  # fmt: skip
    assert "/weights/" not in (folder / FOLDER / "report.html").read_text("utf-8")


def test_a_server_whose_noise_is_of_the_seed_alone_shares_it(serve, tmp_path):
    stub, several = serve("coupled"), (*SMALL, "decoding.temperature=[0.7, 0.8]", "decoding.max_length=30")
    done = generate(tmp_path, stub, *several, command="run")
    assert "shared between settings and checkpoints" in done.out
    manifest = read_json(tmp_path / FOLDER / "manifest.json")
    assert manifest["noise_shared"] is True
    assert manifest["noise_measured"]["same_seed"] == 1
    assert manifest["noise_measured"]["variance_ratio"] == 0  # the stub's noise alone decides a length
    terms = pd.read_csv(tmp_path / FOLDER / "variance.csv")["term"]
    assert "noise × setting" in set(terms)
    stub.asked.clear()
    assert generate(tmp_path, stub, *several).code == 0
    assert stub.asked == []
    assert read_json(tmp_path / FOLDER / "manifest.json") == manifest


def test_a_bos_that_the_server_adds_itself_is_not_sent_twice(serve, tmp_path):
    assert generate(tmp_path, serve("adds_bos"), *SMALL).code == 0
    told = generate(tmp_path, serve("adds_bos"), *SMALL, "engine.bos=<s>", "--overwrite").err
    assert (
        "puts a token before every prompt itself, so that it would read BOS twice; leave engine.bos out"
        in told
    )


def test_a_server_that_tells_no_ids_is_asked_for_logprobs(serve, tmp_path):
    stub = serve("return_token_ids")
    assert generate(tmp_path, stub, *SMALL).code == 0
    assert {body["logprobs"] for body in stub.work} == {1}
    assert set(texts(tmp_path)["n_tokens"]) == {6}


def test_there_is_no_likelihood_and_everything_after_the_texts_works(made):
    folder, _, _ = made
    run = RunFolder(folder / FOLDER)
    assert len(run.likelihood()) == 0
    assert pd.concat(run.scores())["checkpoint"].nunique() == len(MODELS) + 2
    assert pd.read_csv(folder / FOLDER / "summary.csv")["reference_nll"].isna().all()
    assert read_json(folder / FOLDER / "best/selection.json")["checkpoint"]["checkpoint"] in ("base", "checkpoint-10", "checkpoint-20")  # fmt: skip


def test_what_is_there_is_not_asked_again_and_a_new_setting_alone_is(made, tmp_path):
    folder, old, _ = made
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    stub = StubServer(models=MODELS, port=old.server_port)
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


def test_a_length_that_is_named_twice_is_asked_for_once(serve, tmp_path):
    stub = serve()
    several = [*SMALL, "decoding.max_length=[6, 6]", "samples=1"]
    assert generate(tmp_path, stub, *several, command="run").code == 0
    assert len(stub.work) == POEMS
    summary = pd.read_csv(tmp_path / FOLDER / "summary.csv")
    assert set(summary.loc[summary["checkpoint"] == "base", "samples"]) == {1}


def test_a_dry_run_asks_for_no_text(serve, tmp_path):
    stub = serve()
    study_of(tmp_path, stub)
    done = succeeds(tmp_path, "run", "tiny.yaml", "--dry-run", "--assume-unseen")
    assert stub.asked == []
    assert {row[4] for row in done.table()[-3:]} == {f"{GREEDY + DRAWN * SAMPLES:,}"}
    assert "6 requests in flight to 127.0.0.1" in done.out


def test_a_server_study_needs_no_torch(serve, tmp_path):
    study_of(tmp_path, serve())
    libraries = [name for name in EXTRAS if name != "urllib3"]
    done = without(libraries, tmp_path, ["run", "tiny.yaml", *SMALL])
    assert done.returncode == 0, done.stderr


def test_a_study_runs_from_a_notebook_whose_own_loop_is_running(serve, tmp_path):
    study_of(tmp_path, serve())

    async def cell():
        options = package.Options(out=tmp_path / "out", assume_unseen=True)
        return package.run(tmp_path / "tiny.yaml", *SMALL, options=options)

    assert len(asyncio.run(cell()).generations) == POEMS * SAMPLES


def test_a_chat_prompt_is_sent_as_messages_and_a_bos_where_it_is_given(serve, tmp_path):
    stub = serve()
    assert generate(tmp_path, stub, *SMALL, "prompt=chat").code == 0
    roles = [[m["role"] for m in body["messages"]] for body in stub.asked]
    assert roles == [["system", "user"]] * len(roles)
    assert stub.work[0]["return_token_ids"] is True
    assert len(texts(tmp_path)) == POEMS * SAMPLES
    stub.asked.clear()
    succeeds(tmp_path, "generate", "tiny.yaml", *SMALL, "engine.bos=<s>", "--out", "bos")
    assert {body["prompt"][:9] for body in stub.work} == {"<s>[INST]"}


def test_a_key_is_sent_if_it_is_named_and_written_nowhere(serve, tmp_path, monkeypatch):
    stub = serve()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    assert generate(tmp_path, stub, *SMALL).code == 0
    assert stub.keys == {"Bearer none"}
    monkeypatch.setenv("TANG_KEY", "sk-secret")
    stub.keys.clear()
    assert generate(tmp_path, stub, *SMALL, "engine.api_key_env=TANG_KEY", "seed=7", "--overwrite").code == 0
    assert stub.keys == {"Bearer sk-secret"}
    files = [file for file in (tmp_path / "results").rglob("*") if file.is_file()]
    assert not [file for file in files if b"sk-secret" in file.read_bytes()]
    monkeypatch.delenv("TANG_KEY")
    assert "the variable TANG_KEY is not set" in generate(tmp_path, stub, "engine.api_key_env=TANG_KEY").err


# Dialects, and what a server does not honour


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_dialect_is_told_by_the_list_of_models(serve, tmp_path, dialect):
    assert generate(tmp_path, serve(dialect=dialect), *SMALL).code == 0
    assert read_json(tmp_path / FOLDER / "manifest.json")["server"]["dialect"] == dialect


def test_a_server_whose_dialect_cannot_be_told_wants_it_named(serve, tmp_path):
    stub = serve(dialect="unknown")
    told = generate(tmp_path, stub, *SMALL).err
    assert f"engine.dialect: {stub.url} does not say what kind of server" in told
    assert stub.asked == []
    assert generate(tmp_path, stub, *SMALL, "engine.dialect=openai").code == 0
    assert generate(tmp_path, serve("unlisted"), *SMALL, "engine.dialect=vllm", "--overwrite").code == 0


@pytest.mark.parametrize(
    ("dialect", "flaw", "overrides", "problem", "remedy"),
    [
        ("vllm", "top_k", [], "% of texts differ at temperature 2 alone", "decoding.top_k=0"),
        ("vllm", "top_p", [], "decoding.top_p: the server does not honour it", "decoding.top_p=1 leaves it out"),
        ("transformers", "top_k", [], "decoding.top_k: the server does not honour it", "decoding.top_k=0"),
        ("vllm", "peaked", [], "0% of texts differ at 2", "decoding.temperature=0, or engine.n=1"),
        ("vllm", "copies", [], "0% of texts differ at 2", "engine.n=1"),
        ("vllm", "temperature", [], "% of texts differ at 0, and", "leave 0 out"),
        ("vllm", "temperature", SMALL, "% of texts differ at 0.001, and", "decoding.temperature=0"),
        ("vllm", "max_tokens", [], "it writes on beyond max_tokens", "take a server"),
        ("vllm", "finish", [], "no text is said to be cut", "take a server"),
        ("vllm", "usage", [], "it does not count the tokens", "take a server"),
        ("vllm", "uncounted", ["engine.n=3"], "it does not count the tokens of each text", "engine.n=1"),
        ("llamacpp", "", ["engine.n=3"], "it gave 1 texts where n was 3", "engine.n=1"),
        ("openai", "", [], "decoding.top_k: the openai server engine does not honour it", "set it to 0"),
        ("vllm", "", ["decoding.no_repeat_ngram_size=3"], "no_repeat_ngram_size: the server does not honour it: 1 changes no text", "no_repeat_ngram_size=0"),
        ("vllm", "", ["decoding.presence_penalty=[0,1]"], "presence_penalty: the server does not honour it: -2 changes no text", "presence_penalty=0"),
        ("llamacpp", "", ["decoding.repetition_penalty=1.2"], "repetition_penalty: the llamacpp server engine does not honour it", "set it to 1"),
        ("vllm", "", ["decoding.constrain=form"], "decoding.constrain: the vllm server engine does not honour it", "set it to none"),
        ("vllm", "short", [], "a text was cut at 16 tokens where max_tokens was 30", "a longer context"),
        ("vllm", "no_hot", ["decoding.temperature=[0.5, 2.5]"], "temperature must be at most 2", "change what the study asks"),
    ],
)  # fmt: skip
def test_what_a_server_does_not_honour_is_refused_before_any_text_is_wanted(
    serve, tmp_path, dialect, flaw, overrides, problem, remedy
):
    stub = serve(flaw, dialect=dialect)
    done = generate(tmp_path, stub, *overrides)
    assert done.code == 2
    assert problem in done.err
    assert remedy in done.err
    assert stub.work == []


def test_a_server_is_not_asked_for_temperatures_that_no_setting_has_but_to_learn(serve, tmp_path):
    stub = serve(trouble=lambda body: 400 if not 0.01 < body["temperature"] <= 1.5 else None)
    assert generate(tmp_path, stub, *SMALL).code == 0
    assert 0 not in {body["temperature"] for body in stub.asked}
    stub = serve(dialect="transformers", trouble=lambda body: 400 if body["temperature"] == 0 else None)
    assert generate(tmp_path, stub, *SMALL, "decoding.no_repeat_ngram_size=3", "--overwrite").code == 0


def test_a_study_without_draws_asks_for_none(serve, tmp_path):
    stub = serve(trouble=lambda body: 400 if body["temperature"] else None)
    assert generate(tmp_path, stub, *SMALL, "decoding.temperature=0").code == 0
    told = generate(
        tmp_path, serve("temperature"), *SMALL, "decoding.temperature=0", "seed=3", "--overwrite"
    ).err
    assert "decoding.temperature: the server does not honour it: 100% of texts differ at 0" in told


def test_a_server_that_refuses_the_studys_own_0_is_refused(serve, tmp_path):
    stub = serve(trouble=lambda body: 400 if body["temperature"] == 0 else None)
    assert "it refuses 0; leave 0 out of decoding.temperature" in generate(tmp_path, stub).err


def test_where_draws_too_cold_are_alike_it_is_said_that_knobs_cannot_be_checked(serve, tmp_path):
    stub = serve(trouble=lambda body: 400 if body["temperature"] > 1.5 else None)
    done = generate(tmp_path, stub, *SMALL, "decoding.temperature=0.005")
    assert done.code == 0
    assert "decoding.temperature: cannot be told to be honoured: it refuses temperature 2" in done.err


@pytest.mark.parametrize(
    ("flaws", "trouble"), [(["uncounted"], None), ([], 400), ([], 500)], ids=["uncounted", "refused", "fails"]
)
def test_a_server_that_gives_no_several_texts_is_asked_for_one_at_a_time(serve, tmp_path, flaws, trouble):
    stub = serve(*flaws, trouble=lambda body: trouble if body.get("n", 1) > 1 else None)
    done = generate(tmp_path, stub, *SMALL, "engine.retries=0")
    assert (done.code, "engine.n: one text a request" in done.err) == (0, True)
    assert not any("n" in body for body in stub.work)
    assert len(texts(tmp_path)) == POEMS * SAMPLES


def test_what_stands_around_a_servers_texts_is_cut_and_told(serve, tmp_path):
    stub = serve()
    write = stub.write

    def wrapped(body, index):
        text, tokens, finish = write(body, index)
        return f" 第一首：{text}" if tokens == 6 else text, tokens, finish

    stub.write = wrapped
    done = generate(tmp_path, stub, *SMALL)
    assert f"a number cut from {POEMS * SAMPLES} of {POEMS * SAMPLES} texts" in done.err
    assert not texts(tmp_path)["text"].str.contains("首").any()


@pytest.mark.parametrize("template", ["hw5", "chat"])
def test_a_server_that_gives_the_prompt_back_is_refused(serve, tmp_path, template):
    stub = serve()
    write = stub.write

    def echoed(body, index):
        text, tokens, finish = write(body, index)
        asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
        return f"{asked}\n{text}", tokens, finish

    stub.write = echoed
    done = generate(tmp_path, stub, *SMALL, f"prompt={template}")
    assert "its texts begin with the prompt; turn that off" in done.err


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("eos_token", "stop"), ("end_turn", "stop"), ("max_tokens", "length"), (None, "does not say how a text ended"),
        ("content_filter", "filtered a text"), ("tool_calls", "a call of a tool"), ("abort", "finish_reason abort"),
    ],
)  # fmt: skip
def test_the_end_of_a_text_is_called_what_it_is(reason, found):
    choice = {"text": "春", "finish_reason": reason}
    reply = Reply.model_validate({"choices": [choice], "usage": {"completion_tokens": 1}})
    if found in ("stop", "length"):
        assert read_reply(reply, n=1, max_length=1)[0].finish == found
    else:
        with pytest.raises(TangevalError, match=found):
            read_reply(reply, n=1, max_length=1)


def test_ties_at_the_last_place_are_no_sign_that_a_cut_is_ignored(serve, tmp_path):
    assert generate(tmp_path, serve("ties")).code == 0


def test_what_a_study_does_not_ask_for_may_be_lacking(serve, tmp_path):
    assert generate(tmp_path, serve("top_k", "top_p"), *SMALL).code == 0
    assert generate(tmp_path, serve("peaked"), *SMALL, "decoding.temperature=0", "--overwrite").code == 0


def test_a_ban_of_repeats_is_sent_where_it_is_honoured(serve, tmp_path):
    stub = serve(dialect="transformers")
    assert generate(tmp_path, stub, *SMALL, "decoding.no_repeat_ngram_size=3").code == 0
    assert {json.loads(body["generation_config"])["no_repeat_ngram_size"] for body in stub.work} == {3}
    assert set(texts(tmp_path)["no_repeat_ngram_size"]) == {3}


@pytest.mark.parametrize(("dialect", "overrides"), [("llamacpp", []), ("vllm", ["engine.n=1"])])
def test_without_n_each_sample_is_a_request_of_its_own(serve, tmp_path, dialect, overrides):
    stub = serve(dialect=dialect)
    assert generate(tmp_path, stub, *SMALL, *overrides).code == 0
    assert not any("n" in body for body in stub.asked)
    assert len({body["seed"] for body in stub.work}) == POEMS * SAMPLES == len(stub.work)


def test_n_may_be_smaller_than_the_samples(serve, tmp_path):
    stub = serve()
    assert generate(tmp_path, stub, *SMALL, "engine.n=2").code == 0
    assert sorted(body.get("n", 1) for body in stub.work) == [1] * POEMS + [2] * POEMS
    assert texts(tmp_path)["text"].notna().all()


def test_each_dialect_says_what_is_off():
    off = {knob.name: knob.off for knob in KNOBS if knob.kind != "length"} | {"max_length": 9}
    plain = {"temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty"}
    assert DIALECTS["openai"].body(off, 1, 1).keys() == plain
    assert DIALECTS["vllm"].body(off, 1, 1)["top_k"] == -1
    assert DIALECTS["llamacpp"].body(off, 1, 1)["top_k"] == 0
    assert DIALECTS["transformers"].body(off, 1, 1).keys() == {*plain, "generation_config"}
    on = off | {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    sent = {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": -0.5}
    assert DIALECTS["vllm"].body(on, 1, 1).items() >= sent.items()
    del sent["repetition_penalty"]
    assert DIALECTS["openai"].body(on, 1, 1).items() >= sent.items()
    assert (
        json.loads(DIALECTS["transformers"].body(on, 1, 1)["generation_config"])["repetition_penalty"] == 1.2
    )
    drawn = json.loads(DIALECTS["transformers"].body({**off, "temperature": 0.5}, 1, 1)["generation_config"])
    assert (drawn["do_sample"], drawn["top_k"], drawn["top_p"], drawn["max_new_tokens"]) == (True, 0, 1.0, 9)


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
        (503, "the server fails"),
        (429, "too many requests"),
        (401, "the key is refused"),
        (404, "the request is refused"),
        ("drop", "no server can be reached"),
        ("html", "does not speak OpenAI's API"),
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
    assert "the server filtered a text (finish_reason content_filter)" in done.err


def test_no_server_and_an_unknown_model_are_said_at_once(serve, tmp_path):
    stub = serve(models=("stub", "other"))
    done = generate(tmp_path, stub)
    assert f"engine.models.checkpoint-20: {stub.url} serves no second; it serves stub, other" in done.err
    stub.close()
    began = time.monotonic()
    assert f"{stub.url}: no server can be reached" in generate(tmp_path, stub).err
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_goes_on_and_ends_in_the_bytes_of_a_whole_one(serve, tmp_path, blow):
    several = [*SMALL, "decoding.temperature=[0.7, 0.8, 0.9, 1.0]", "engine.n=1"]
    whole, cut, stub = tmp_path / "whole", tmp_path / "cut", serve()
    whole.mkdir()
    cut.mkdir()
    assert generate(whole, stub, *several).code == 0
    stub.delay, batch_files = 0.05, cut / FOLDER / "generations"
    process = start(cut, "generate", study_of(cut, stub).name, *several)
    wait(process, lambda: list(batch_files.glob("*.parquet")))
    process.send_signal(blow)
    told, _ = process.communicate(timeout=20)
    assert process.returncode == (130 if blow == signal.SIGINT else -signal.SIGKILL), told
    assert blow == signal.SIGKILL or "the same command goes on from here" in told
    kept, stub.delay = {file.name for file in batch_files.glob("*.parquet")}, 0
    assert 0 < len(kept) < len(read_plan(RunFolder(cut / FOLDER)))
    time.sleep(0.2)  # what was in flight
    stub.asked.clear()
    assert generate(cut, stub, *several).code == 0
    lost = [batch for batch in read_plan(RunFolder(cut / FOLDER)) if f"{batch.id}.parquet" not in kept]
    assert len(stub.work) == sum(batch.sequences() for batch in lost)
    for file in (whole / FOLDER / "generations").glob("*.parquet"):
        assert (batch_files / file.name).read_bytes() == file.read_bytes()


# Another server, or another study


def test_another_version_makes_texts_anew_and_another_port_does_not(serve, tmp_path):
    assert generate(tmp_path, serve(), *SMALL).code == 0
    moved = serve()
    assert generate(tmp_path, moved, *SMALL).code == 0
    assert moved.asked == []
    moved.version = "2.0"
    assert "fits this study any longer" in generate(tmp_path, moved, *SMALL).err
    assert generate(tmp_path, moved, *SMALL, "--overwrite").code == 0
    assert len(moved.work) == POEMS


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
        ({"engine": {"kind": "openai", "models": {"base": "x"}}}, "engine.server: Field required"),
        ({"engine": {"server": "localhost:8000", "models": {"base": "x"}}}, "is no URL; give one such as"),
        ({"engine": {"server": "http://me:sk@h/v1", "models": {"base": "x"}}}, "api_key_env"),
        ({"engine": {"server": "http://h/v1", "models": {}}}, "engine.models: "),
        ({"engine": {"server": "http://h/v1", "models": {"random": "x"}}}, "may not be a checkpoint's name"),
        (
            {"engine": {"server": "http://h/v1", "models": {"base": "x"}, "timeut": 3}},
            "did you mean timeout?",
        ),
        ({"engine": {"server": "http://h/v1", "models": {"base": "x"}, "dialect": "vlm"}}, "engine.dialect"),
    ],
)
def test_a_study_that_a_server_cannot_run_is_refused_with_key_and_remedy(tmp_path, change, problem):
    engine = {"server": "http://h/v1", "models": {"base": "x"}}
    with pytest.raises(TangevalError) as error:
        make(resolve(load_study(write_study(tmp_path, **STUDY | {"engine": engine} | change))))
    assert problem in str(error.value)


def test_how_a_server_is_asked_is_no_part_of_the_cache_key(serve, tmp_path):
    stub = serve()
    study_of(tmp_path, stub)

    def key(*overrides):
        resolved = resolve(load_study(tmp_path / "tiny.yaml", overrides))
        with make(resolved) as engine:
            return engine.cache_key(resolved.checkpoints[0])

    how = ("engine.concurrency=3", "engine.timeout=5", "engine.retries=1", f"engine.server={serve().url}")
    assert key(*how) == key()
    changes = ("engine.bos=<s>", "prompt=chat", "seed=1", "engine.dialect=openai")
    assert len({key(), *map(key, changes)}) == 5


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
    good = {"text": "春\ud800", "finish_reason": "stop"}
    reply = Reply.model_validate({"choices": [{**good, "index": None}], "usage": {"completion_tokens": 1}})
    assert read_reply(reply, n=1, max_length=9)[0].text == "春?"
    with pytest.raises(ValueError, match="validation error"):
        Reply.model_validate({"choices": [good | choice], "usage": usage})


# A real server


def test_transformers_serve_writes_greedily_what_the_local_engine_writes(tmp_path):
    for needed in ("fastapi", "openai", "uvicorn"):
        pytest.importorskip(needed, reason=f"the package {needed} of the dev extra is not installed")
    decoding = {
        "temperature": [0.0, 0.9],
        "top_k": [5],
        "top_p": [0.95],
        "max_length": [20],
        "no_repeat_ngram_size": 3,
    }
    study = {"decoding": decoding, "select": STUDY["select"]}
    with transformers_serve(tmp_path, TANG_MINI, "--dtype", "float32") as (url, _):
        engine = {"server": url, "models": {"base": str(TANG_MINI)}, "bos": "<s>", "concurrency": 4}
        succeeds(tmp_path, "run", write_study(tmp_path, engine=engine, **study), "--out", "server")
        succeeds(
            tmp_path, "generate", write_study(tmp_path, load={"dtype": "float32"}, **study), "--out", "here"
        )
        write_study(tmp_path, engine=engine | {"models": {"base": "other"}}, **study)
        assert f"serves no other; it serves {TANG_MINI}" in refusal(tmp_path, "run", "tiny.yaml")
    made = {name: rows_of(tmp_path / name) for name in ("server", "here")}
    keys = ["temperature", "max_length", "example_id", "sample"]
    both = made["server"].merge(made["here"], on=keys, suffixes=("", "_here"))
    greedy, drawn = both[both["temperature"] == 0], both[both["temperature"] > 0]
    assert len(greedy) == len(drawn) == 2 * POEMS
    for column in ("text", "n_tokens", "finish_reason"):
        assert (greedy[column] == greedy[f"{column}_here"]).all()
    assert drawn["text"].nunique() > 20
    assert drawn["n_tokens"].between(1, 20).all()
    assert list(made["server"].dtypes) == list(made["here"].dtypes)
    assert read_json(tmp_path / "server/manifest.json")["server"]["dialect"] == "transformers"
