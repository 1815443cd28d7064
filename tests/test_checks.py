"""``tangeval doctor``: what is said of a machine and of studies, each fault of a study a red line with its remedy."""

import json
import shutil

import pytest

from tangeval import api, checks
from tests.support.command import EXTRAS, tangeval, without
from tests.support.stub_server import StubServer
from tests.support.study import write_study


def red(found):
    return [each for each in found if each.ok is False]


def of(found, part):
    return next(each for each in found if each.part == part)


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "exp1")


def doctor(tmp_path, model, run, **changes):
    return api.doctor(write_study(tmp_path, model, run, **changes))[len(api.doctor()) :]


def test_a_study_that_runs_has_no_red_line(tmp_path, tiny_model, run):
    found = doctor(tmp_path, tiny_model, run)
    assert not red(found)
    assert [each.part for each in found][-3:] == ["base", "checkpoint-10", "checkpoint-20"]
    assert of(found, "EOS").said == "config 3, generation_config 3, tokenizer 3"
    assert "LORA r 8" in of(found, "checkpoint-10").said
    assert "of 512" in of(found, "positions").said
    assert "the last ten [" in of(found, "prompt").said


def spoil_config(run, model):
    (run / "checkpoint-20" / "adapter_config.json").write_text("{")


def foreign(run, model):
    """An adapter of a model of other sizes."""
    from tests.support.tiny import make_adapter, make_tiny_model

    make_adapter(make_tiny_model(run.parent / "wide", hidden=128), run / "checkpoint-20")


def no_end(run, model):
    for name, key in (
        ("config.json", "eos_token_id"),
        ("generation_config.json", "eos_token_id"),
        ("tokenizer_config.json", "eos_token"),
    ):
        content = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps({**content, key: None}))


def end_beyond_the_vocabulary(run, model):
    content = json.loads((model / "generation_config.json").read_text())
    (model / "generation_config.json").write_text(json.dumps(content | {"eos_token_id": [3, 99999]}))


FAULTS = {
    "a save cut short": (spoil_config, {}, "left out", "missing or not whole"),
    "an adapter of another model": (foreign, {}, "checkpoint-20", "set base_model to the one it was trained on"),
    "too long": (None, {"decoding": {"max_length": 500}}, "context, n-gram ban, spelling", "set it to"),
    "no end": (no_end, {}, "context, n-gram ban, spelling", "set eos_token"),
    "an end that is none": (end_beyond_the_vocabulary, {}, "EOS", "correct the file"),
    "no data": (None, {"data": "/nowhere"}, "study", "/nowhere"),
    "trained on it, or not": (None, {"select": {"split": "test", "checkpoint": "what"}}, "selection and random baseline", "what"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "changes", "part", "said"), FAULTS.values(), ids=FAULTS)
def test_what_a_run_would_refuse_is_a_red_line_with_its_remedy(
    tmp_path, tiny_model, run, spoil, changes, part, said
):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    if spoil:
        spoil(run, model)
    wrong = of(red(doctor(tmp_path, model, run, **changes)), part)
    assert said in f"{wrong.said}; {wrong.remedy}"


TWO = {"base": "stub", "checkpoint-10": "first"}
DRAWN = {"temperature": [0.0, 0.8], "top_k": [0, 5], "max_length": 6, "no_repeat_ngram_size": 0}


@pytest.mark.parametrize(
    ("stub", "wrong"),
    [
        ({}, None),
        ({"flaws": ["top_k"]}, ("knobs", "decoding.top_k: the server does not honour it")),
        ({"models": ("stub",)}, ("server", "engine.models.checkpoint-10: http://127.0.0.1")),
        ({"trouble": lambda body: 401}, ("knobs", "the key is refused")),
        ({"closed": True}, ("server", "no server can be reached")),
    ],
)
def test_of_a_server_it_says_what_it_serves_and_honours(tmp_path, stub, wrong):
    pytest.importorskip("urllib3", reason="the package urllib3 of the dev extra is not installed")
    stub = {"models": ("stub", "first"), "version": "1.0", "flaws": (), "closed": False} | stub
    closed, flaws = stub.pop("closed"), stub.pop("flaws")
    server = StubServer(*flaws, **stub)
    try:
        if closed:
            server.close()
        study = write_study(
            tmp_path, engine={"server": server.url, "models": TWO}, decoding=DRAWN, select=None
        )
        found = api.doctor(study)[len(api.doctor()) :]
    finally:
        if not closed:
            server.close()
    told = [(each.part, each.said) for each in red(found)]
    if wrong is None:
        assert not told
        assert (
            of(found, "server").said
            == f"server 127.0.0.1:{server.server_port} 1.0; it serves what the study names"
        )
        assert of(found, "knobs").said == "honoured: temperature, max_length, top_k"
    else:
        ((part, said),) = told
        assert part == wrong[0]
        assert wrong[1] in said


def test_an_adapter_that_run_would_leave_out_and_a_selection_that_it_would_refuse_are_red(
    tmp_path, tiny_model, run
):
    config = run / "checkpoint-20" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"peft_type": "PROMPT_TUNING"}))
    (run / "train_ids.json").unlink()
    study = write_study(tmp_path, tiny_model, run)
    assert [each.part for each in red(api.doctor(study))] == [
        "selection and random baseline",
        "checkpoint-20",
    ]
    known = tangeval(tmp_path, "doctor", study, "--assume-unseen", "--json")
    (wrong,) = (each for each in json.loads(known.raw) if each["ok"] is False)
    assert "is no change of the model's layers" in wrong["said"]


def test_an_error_of_its_own_is_a_line_too(tmp_path, tiny_model, run, monkeypatch):
    def broken(*arguments):
        raise KeyError("x")

    monkeypatch.setattr(checks.steps, "check", broken)
    assert "please report it" in of(doctor(tmp_path, tiny_model, run), "selection and random baseline").said


def test_the_command_says_so_with_its_exit_code_and_as_json(tmp_path, tiny_model, run):
    study = write_study(tmp_path, tiny_model, run)
    assert tangeval(tmp_path, "doctor", study).code == 0
    done = tangeval(tmp_path, "doctor", study, "data=/nowhere", "--json")
    assert done.code == 1
    assert [each["part"] for each in json.loads(done.raw) if each["ok"] is False] == ["study"]


def test_without_any_extra_a_line_says_what_installs_it(tmp_path, monkeypatch):
    done = without(EXTRAS, tmp_path, ["doctor"])
    assert "Traceback" not in done.stderr
    assert "data sample: 645 examples" in done.stdout
    versions = checks.metadata.version

    def bare(name):
        if name in EXTRAS:
            raise checks.metadata.PackageNotFoundError(name)
        return versions(name)

    monkeypatch.setattr(checks.metadata, "version", bare)
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    found = list(checks.machine())
    assert not red(found)
    assert of(found, "GPU") == checks.Finding(
        "GPU", "torch is not installed", "pip install 'tangeval[local]'"
    )
    assert "torch" in of(found, "extra local").said
    assert of(found, "extra local").ok is None
