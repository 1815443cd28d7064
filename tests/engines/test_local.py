"""The weights that the engine has on its model: those that were named, whole, one after another."""

import json
import os
import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.engines import local
from tangeval.engines.base import Job
from tangeval.engines.device import Device
from tangeval.generation import decode
from tangeval.models import adapters
from tangeval.resolve import resolve
from tests.models.test_adapters import write_adapter
from tests.support.study import write_study
from tests.support.tiny import make_adapter, make_tiny_model

GREEDY = {
    "samples": 1,
    "decoding": {"temperature": 0, "max_length": 6, "no_repeat_ngram_size": 0},
    "select": None,
}


def run(tmp_path, base, checkpoints, name="results", *, keep_going=False, **changes):
    """What is written of the checkpoints: texts and likelihoods by checkpoint, and what was left out."""
    study = load_study(
        write_study(tmp_path, base, **GREEDY, checkpoints=[str(c) for c in checkpoints], **changes)
    )
    resolved = resolve(study, allow_pickle=True)
    skipped = decode(resolved, tmp_path / name, keep_going=keep_going)
    texts = pd.concat(map(pd.read_parquet, sorted((tmp_path / name).glob("generations/*.parquet"))))
    nats = pd.read_parquet(tmp_path / name / "likelihood.parquet")
    return {
        c: (
            texts.loc[texts["checkpoint"] == c, "text"].tolist(),
            nats.loc[nats["checkpoint"] == c, "nll_sum"].tolist(),
        )
        for c in texts["checkpoint"].unique()
    }, skipped


@pytest.mark.parametrize(("kind", "merge"), [("pissa", False), ("LOKR", True), ("olora", True)])
def test_what_comes_after_an_adapter_is_as_alone(tmp_path, tiny_model, kind, merge):
    first = write_adapter(tiny_model, tmp_path / "first", kind).path
    second = write_adapter(tiny_model, tmp_path / "second", kind).path
    together, _ = run(tmp_path, tiny_model, [first, second], load={"merge": merge})
    alone, _ = run(tmp_path, tiny_model, [second], "alone", load={"merge": merge})
    assert together["second"] == alone["second"]
    assert together["base"] == alone["base"]


def test_a_base_that_an_adapter_changed_is_loaded_anew(tmp_path, tiny_model):
    """Of a pickle nobody can tell before it is loaded what it brings; here a row of the embedding."""
    adapter = make_adapter(tiny_model, tmp_path / "pickled")
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors["base_model.model.model.embed_tokens.weight"] = torch.zeros_like(
        load_file(tiny_model / "model.safetensors")["model.embed_tokens.weight"]
    )
    torch.save(tensors, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    after = make_adapter(tiny_model, tmp_path / "after", seed=2)
    with pytest.warns(UserWarning, match="pickled left the base model changed; it is loaded anew"):
        together, _ = run(tmp_path, tiny_model, [adapter, after])
    assert together["after"] == run(tmp_path, tiny_model, [after], "alone")[0]["after"]


def test_what_is_no_layer_is_refused_before_anything_is_decoded(tmp_path, tiny_model, tiny_run):
    prompt = tmp_path / "prompt"
    shutil.copytree(tiny_run / "checkpoint-10", prompt)
    (prompt / "adapter_config.json").write_text('{"peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM"}')
    places = [tiny_run / "checkpoint-20", prompt]
    with pytest.raises(TangevalError, match=r"prompt: .*PROMPT_TUNING.*--keep-going leaves it out"):
        run(tmp_path, tiny_model, places)
    assert not list((tmp_path / "results").glob("generations/*.parquet"))
    written, skipped = run(tmp_path, tiny_model, places, keep_going=True)
    assert sorted(written) == ["base", "checkpoint-20"]
    assert "PROMPT_TUNING" in skipped[0].reason


def renamed(tensors):
    return {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}


def without_a_layer(tensors):
    return {name: tensor for name, tensor in tensors.items() if ".layers.1." not in name}


def with_a_layer_more(tensors):
    return tensors | {n.replace(".1.", ".2."): t.clone() for n, t in tensors.items() if ".layers.1." in n}


def all_but_one(tensors):
    return {"model.norm.weight": tensors["model.norm.weight"]}


@pytest.mark.parametrize("changed", [renamed, without_a_layer, with_a_layer_more, all_but_one])
@pytest.mark.parametrize("place", ["base", "checkpoint"])
def test_a_model_whose_tensors_are_not_its_configurations_is_refused(
    tmp_path, tiny_model, tiny_run, changed, place
):
    odd = shutil.copytree(tiny_model, tmp_path / "odd")
    save_file(changed(load_file(odd / "model.safetensors")), odd / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        TangevalError, match=r"odd: its tensors are not those of its config\.json: .*(missing|not known)"
    ):
        run(tmp_path, odd if place == "base" else tiny_model, [] if place == "base" else [odd])
    if place == "checkpoint":
        written, skipped = run(tmp_path, tiny_model, [odd, tiny_run], keep_going=True)
        assert sorted(written) == ["base", "checkpoint-10", "checkpoint-20"]
        assert "its tensors" in skipped[0].reason


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [("generation_config.json", "eos_token_id", "</s>"), ("generation_config.json", "eos_token_id", [[3]]),
     ("config.json", "quantization_config", False)],
)  # fmt: skip
def test_a_model_with_odd_declarations_is_left_out(tmp_path, tiny_model, tiny_run, file, key, value):
    odd = shutil.copytree(tiny_model, tmp_path / "odd")
    (odd / file).write_text(json.dumps(json.loads((odd / file).read_text()) | {key: value}))
    written, skipped = run(tmp_path, tiny_model, [odd, tiny_run], keep_going=True)
    assert sorted(written) == ["base", "checkpoint-10", "checkpoint-20"]
    assert [s.path for s in skipped] == [odd]


@pytest.mark.parametrize("what", ["base", "adapter"])
def test_weights_swapped_after_their_fingerprint_are_refused(tmp_path, tiny_model, what, monkeypatch):
    """The file is as long and, by its date, as old as it was."""
    base, adapter = (
        shutil.copytree(tiny_model, tmp_path / "base"),
        make_adapter(tiny_model, tmp_path / "adapter"),
    )
    folder = base if what == "base" else adapter
    file = next(folder.glob("*model.safetensors"))
    other = (
        make_tiny_model(tmp_path / "other", 9)
        if what == "base"
        else make_adapter(base, tmp_path / "other", 9)
    )
    usual = local.LocalEngine.run

    def swapped(*arguments):
        about = file.stat()
        shutil.copy(other / file.name, file)
        os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
        return usual(*arguments)

    monkeypatch.setattr(local.LocalEngine, "run", swapped)
    with pytest.raises(TangevalError, match=f"{folder}: its files have changed since"):
        run(tmp_path, base, [adapter])


def test_weights_swapped_in_a_file_that_processes_share_are_refused(
    tmp_path, tiny_model, tiny_run, monkeypatch
):
    """They stay in the file, so that it is looked at after each job."""
    base, other = shutil.copytree(tiny_model, tmp_path / "base"), make_tiny_model(tmp_path / "other", 9)
    resolved = resolve(load_study(write_study(tmp_path, base, tiny_run)))
    resolved.base_fingerprint  # noqa: B018  as when the run began
    device = Device(resolved, mapped=True)
    job = Job(resolved.checkpoints[0], examples=resolved.examples("test")[:1])
    assert not isinstance(device.do(job, lambda *progress: None).made, Exception)
    shutil.copy(other / "model.safetensors", base / "model.safetensors")
    with pytest.raises(TangevalError, match=f"{base}: its files have changed since"):
        device.do(job, lambda *progress: None)


def test_a_file_that_is_written_over_does_not_change_the_weights_in_memory(tmp_path, tiny_model):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    loaded = local.loading.load_model(local.Base("base", str(base)), local.Load())
    before = adapters.checksum(loaded)
    with (base / "model.safetensors").open("r+b") as stream:
        stream.seek(-4096, os.SEEK_END)
        stream.write(bytes(4096))
    assert adapters.checksum(loaded) == before
