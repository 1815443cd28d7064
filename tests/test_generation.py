"""Decoding a study into a folder: what is made, what is reused, and that a killed run ends in the same bytes."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    NoRepeatNGramLogitsProcessor,
)

from tangeval.analysis import scoring as score
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.decoding import decoder, memory
from tangeval.engines.device import Device
from tangeval.engines.local import check_study
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.resolve import resolve
from tangeval.results import plan
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang.prompt import asked
from tangeval.tasks.tang.text import as_verse, han
from tests.support.command import start, succeeds, wait
from tests.support.study import contents, decode, evaluate, write_study


def generations(resolved: plan.ResolvedStudy, folder: Path) -> pd.DataFrame:
    return score.read_generations(resolved.study, folder)


@pytest.fixture
def batches_made(monkeypatch):
    """The batches that were decoded, in order."""
    made = []
    original = Device.do

    def do(engine, job, on_progress):
        made.extend([job.batch] if job.batch else [])
        return original(engine, job, on_progress)

    monkeypatch.setattr(Device, "do", do)
    return made


def test_every_checkpoint_setting_poem_and_sample_is_there_once(finished):
    resolved, folder = finished
    frame = generations(resolved, folder)
    assert list(frame.columns) == [*score.keys_in(frame), "text", "n_tokens", "finish_reason"]
    assert len(frame) == 3 * 24 * (30 * 1 + 15 * 2)
    assert not frame.duplicated(score.keys_in(frame)).any()
    assert list(frame["checkpoint"].unique()) == ["base", "checkpoint-10", "checkpoint-20"]
    assert frame[frame["checkpoint"] == "base"]["step"].isna().all()


def test_a_shorter_max_length_is_the_longer_one_cut(finished):
    resolved, folder = finished
    frame = generations(resolved, folder)
    keys = [k for k in score.keys_in(frame) if k not in ("max_length", "step")]
    both = frame[frame.max_length == 6].merge(frame[frame.max_length == 18], on=keys, suffixes=("", "_long"))
    assert len(both) == len(frame) / 2
    assert all(long.startswith(short) for short, long in zip(both["text"], both["text_long"], strict=True))
    assert (both["n_tokens"] == np.minimum(both["n_tokens_long"], 6)).all()


def test_greedy_settings_write_one_text_and_it_is_generates(finished, tiny_model):
    resolved, folder = finished
    frame = generations(resolved, folder)
    greedy = frame[(frame.temperature == 0) & (frame.max_length == 18) & (frame.checkpoint == "base")]
    assert (greedy.groupby("example_id")["text"].nunique() == 1).all()
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for example in resolved.examples("test")[:4]:
        prompt = encode_prompt(tokenizer, asked(example, "hw5"))
        output = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=18, no_repeat_ngram_size=3, pad_token_id=0
        )
        text = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
        assert greedy[greedy.example_id == example.id]["text"].iloc[0] == text.removeprefix(" ")


def test_reference_nll_is_the_models_loss_on_the_reference(finished, tiny_model):
    """Hugging Face's own loss, on one unpadded text at a time."""
    resolved, folder = finished
    frame = (
        pd.read_parquet(folder / "likelihood.parquet").query("checkpoint == 'base'").set_index("example_id")
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for example in resolved.examples("test"):
        prompt = encode_prompt(tokenizer, asked(example, "hw5"))
        answer = [*tokenizer.encode(" " + as_verse(example.reference), add_special_tokens=False), 3]
        labels = torch.tensor([[-100] * len(prompt) + answer])
        with torch.inference_mode():
            loss = model(torch.tensor([prompt + answer]), labels=labels).loss.item()
        expected = loss * len(answer) / len(han(example.reference))
        assert frame.loc[example.id, "reference_nll"] == pytest.approx(expected, rel=1e-4)


def test_the_same_run_again_makes_nothing_and_changes_no_byte(grid_study, finished, tmp_path, batches_made):
    out = shutil.copytree(finished[1], tmp_path / "out")
    evaluate(grid_study, out)
    assert batches_made == []
    assert contents(out) == contents(finished[1])


def test_an_added_temperature_makes_only_what_is_new(grid_study, finished, tmp_path, batches_made):
    decode(grid_study, tmp_path / "out", "decoding.temperature=[0.0,0.7]")
    batches_made.clear()
    resolved = decode(grid_study, tmp_path / "out")
    assert batches_made
    assert {setting.temperature for batch in batches_made for setting in batch.settings} == {1.0}
    assert generations(resolved, tmp_path / "out").equals(generations(*finished))


def test_an_added_sample_makes_only_what_is_new(grid_study, tmp_path, batches_made):
    decode(grid_study, tmp_path / "out", "samples=1")
    batches_made.clear()
    decode(grid_study, tmp_path / "out", "samples=2")
    assert {batch.samples for batch in batches_made} == {(1,)}


def test_a_removed_temperature_leaves_the_rest_as_it_was(grid_study, finished, tmp_path, batches_made):
    out = shutil.copytree(finished[1], tmp_path / "out")
    resolved = decode(grid_study, out, "decoding.temperature=0.7")
    assert batches_made == []
    assert set(generations(resolved, out)["temperature"]) == {0.7}


@pytest.mark.parametrize(
    ("base", "size", "warned"),
    [("tiny", 3, True), ("tiny", 2, True), ("tiny", 0, False), ("tiny", 9, False), ("tang-mini", 3, False)],
)
def test_a_ban_of_how_every_poem_begins_is_told(grid_study, tiny_model, recwarn, base, size, warned):
    """To a tokenizer that spells the markers out, ``T] `` stands in the prompt before it is to follow it."""
    name = str(tiny_model) if base == "tiny" else base
    overrides = [f"decoding.no_repeat_ngram_size={size}", f"base_model={name}", "checkpoints=[]"]
    resolved = resolve(load_study(grid_study, overrides))
    tokenizer = AutoTokenizer.from_pretrained(resolved.base.source)
    check_study(resolved, tokenizer)
    told = [str(w.message) for w in recwarn if "no_repeat_ngram_size" in str(w.message)]
    assert bool(told) == warned
    assert all("after 45 of 45 prompts, since 'T] '" in text or size == 2 for text in told)
    # What is told is what Hugging Face's processor forbids.
    example = resolved.examples("test")[0]
    prompt = torch.tensor([encode_prompt(tokenizer, asked(example, "hw5"))])
    first = encode_completion(tokenizer, asked(example, "hw5"), example.reference)[0]
    scores = torch.zeros(1, len(tokenizer))
    if size:
        scores = NoRepeatNGramLogitsProcessor(size)(prompt, scores)
    assert bool(scores[0, first] == -torch.inf) == warned


@pytest.mark.parametrize("change", ["seed=7", "decoding.no_repeat_ngram_size=2", "load.dtype=bfloat16"])
def test_what_a_changed_setting_invalidates_is_made_again(grid_study, tmp_path, batches_made, change):
    small = ["checkpoints=[]", "decoding.temperature=0.7"]
    decode(grid_study, tmp_path / "out", *small)
    first = len(batches_made)
    decode(grid_study, tmp_path / "out", *small, change)
    assert len(batches_made) == 2 * first
    assert len(list((tmp_path / "out" / "generations").iterdir())) == first


@pytest.mark.parametrize("change", ["seed=7", "decoding.no_repeat_ngram_size=2"])
def test_likelihoods_are_not_made_again_for_what_has_no_part_in_them(
    grid_study, tmp_path, monkeypatch, change
):
    small = ["checkpoints=[]", "decoding.temperature=0.7"]
    decode(grid_study, tmp_path / "out", *small)
    before = RunFolder(tmp_path / "out").likelihood()
    asked, original = [], Device.do
    monkeypatch.setattr(Device, "do", lambda e, job, p: asked.append(job) or original(e, job, p))
    decode(grid_study, tmp_path / "out", *small, change)
    assert asked
    assert not [job for job in asked if job.examples]
    assert RunFolder(tmp_path / "out").likelihood().equals(before)


def test_changed_weights_are_made_again_and_others_kept(grid_study, tiny_run, tmp_path, batches_made):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    decode(grid_study, tmp_path / "out", f"checkpoints={run}")
    batches_made.clear()
    shutil.copy(
        run / "checkpoint-10" / "adapter_model.safetensors",
        run / "checkpoint-20" / "adapter_model.safetensors",
    )
    decode(grid_study, tmp_path / "out", f"checkpoints={run}")
    assert {batch.checkpoint for batch in batches_made} == {"checkpoint-20"}


def test_checkpoints_alone_equal_checkpoints_together(grid_study, tiny_run, finished, tmp_path):
    resolved, folder = finished
    together = generations(resolved, folder)
    alone = decode(
        grid_study, tmp_path / "out", f"checkpoints={tiny_run / 'checkpoint-20'}", "include_base=false"
    )
    expected = together[together.checkpoint == "checkpoint-20"].reset_index(drop=True)
    assert generations(alone, tmp_path / "out").equals(expected)


def test_batches_fit_the_batch_size_and_cover_each_output_once(finished):
    _, folder = finished
    batches = plan.read_plan(RunFolder(folder))
    assert all(batch.sequences() <= 160 for batch in batches)
    assert sum(batch.outputs() for batch in batches) == 3 * 24 * (30 + 15 * 2)


def test_a_run_killed_again_and_again_ends_in_the_same_bytes(tiny_model, tiny_run, tmp_path):
    decoding = {"temperature": [0.0, 0.7, 1.0], "top_k": 5, "max_length": [6, 18]}
    study = write_study(tmp_path, tiny_model, tiny_run, decoding=decoding, batch_size=30)
    places = [tmp_path / name for name in ("whole", "cut")]
    for place in places:
        place.mkdir()
    out = places[1] / "out"
    noise = random.Random(0)
    moments = [
        lambda: (out / "plan.json").is_file(),
        lambda: len(list(out.glob("generations/*.parquet"))) >= 7,
        lambda: (out / "scores.parquet").is_file(),
    ]
    for moment in moments:
        process = start(places[1], "run", study, "--out", "out")
        wait(process, moment)
        time.sleep(noise.uniform(0, 0.2))
        process.kill()
        output, _ = process.communicate()
        assert process.returncode == -signal.SIGKILL, output
    for place in places:
        succeeds(place, "run", study, "--out", "out")
    expected, found = (contents(place / "out") for place in places)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_out_of_memory_halves_the_batch_and_changes_no_text(grid_study, finished, tmp_path, monkeypatch):
    """The GPU's error, raised for every batch of more than 30 sequences."""
    sizes = []

    def small(model, prompts, sequences, **options):
        sizes.append(len(sequences))
        if len(sequences) > 30:
            raise torch.OutOfMemoryError("no room")
        return decoder.decode(model, prompts, sequences, **options)

    monkeypatch.setattr(memory, "decode", small)
    resolved = decode(grid_study, tmp_path / "out", "checkpoints=[]")
    # A size that was too large is not tried again, nor a larger one.
    assert len([size for size in sizes if size > 30]) == len({size for size in sizes if size > 30}) > 0
    whole = generations(*finished).query("checkpoint == 'base'").reset_index(drop=True)
    assert generations(resolved, tmp_path / "out")["text"].equals(whole["text"])


def test_one_output_that_does_not_fit_is_a_clear_error(grid_study, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(memory, "decode", full)
    with pytest.raises(TangevalError, match="max_length"):
        decode(grid_study, tmp_path / "out", "checkpoints=[]")


def test_a_missing_shard_is_an_error_and_is_made_again(grid_study, tmp_path, batches_made):
    resolved = decode(grid_study, tmp_path / "out", "checkpoints=[]")
    batches_made.clear()
    lost = next((tmp_path / "out" / "generations").iterdir())
    lost.unlink()
    with pytest.raises(TangevalError, match=lost.name):
        generations(resolved, tmp_path / "out")
    decode(grid_study, tmp_path / "out", "checkpoints=[]")
    assert [RunFolder(tmp_path / "out").batch_file(batch.id) for batch in batches_made] == [lost]


def test_manifest_signs_what_was_run(finished):
    resolved, folder = finished
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["digest"] == resolved.dataset.digest
    assert {c["name"]: c["seen"] for c in manifest["checkpoints"]}["base"] == {"validation": 0, "test": 0}
    assert manifest["versions"]["torch"].startswith("2.")


def test_what_memory_held_is_remembered_and_planned_by(grid_study, tmp_path, monkeypatch):
    """The GPU's error, raised for every batch of more than 30 sequences: the next plan has none as large."""

    def small(model, prompts, sequences, **options):
        if len(sequences) > 30:
            raise torch.OutOfMemoryError("no room")
        return decoder.decode(model, prompts, sequences, **options)

    monkeypatch.setattr(memory, "decode", small)
    decode(grid_study, tmp_path / "out", "checkpoints=[]")
    assert max(batch.sequences() for batch in plan.read_plan(RunFolder(tmp_path / "out"))) > 30
    decode(grid_study, tmp_path / "out", "checkpoints=[]", "decoding.temperature=[0.0,0.7,1.0,1.3]")
    added = [
        b for b in plan.read_plan(RunFolder(tmp_path / "out")) if {c.temperature for c in b.settings} == {1.3}
    ]
    assert added
    assert all(batch.sequences() <= 30 for batch in added)
