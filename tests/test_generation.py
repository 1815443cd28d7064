"""Decoding a study into a folder: what is made, what is reused, and that a killed run ends in the same bytes."""

import json
import random
import shutil
import signal
import subprocess
import sys
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

from tangeval import generation
from tangeval.analysis import scoring as score
from tangeval.analysis import summarize
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.decoding import memory
from tangeval.decoding.decoder import decode
from tangeval.engines.device import Device
from tangeval.engines.local import check_study
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.resolve import resolve
from tangeval.results import plan
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang.prompt import asked
from tangeval.tasks.tang.text import as_verse, han

STUDY = """
name: tiny
base_model: {base}
checkpoints: {run}
data: sample
decoding:
  temperature: [0.0, 0.7, 1.0]
  top_k: [0, 5]
  top_p: [0.6, 1.0]
  max_length: [6, 18]
samples: {samples}
batch_size: 160
select: {{setting: {{by: bleu, require: {{han_only: ">= 0.0"}}}}}}
"""


@pytest.fixture
def study_file(tiny_model, tiny_run, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run, samples="{validation: 1, test: 2}"))
    return file


def evaluate(file: Path, folder: Path, *overrides: str) -> plan.ResolvedStudy:
    """What ``tangeval run`` does, without pictures."""
    resolved = resolve(load_study(file, overrides))
    generation.decode(resolved, folder)
    score.score(resolved.study, resolved.dataset, folder)
    summarize.summarize(RunFolder(folder))
    return resolved


def generations(resolved: plan.ResolvedStudy, folder: Path) -> pd.DataFrame:
    return score.read_generations(resolved.study, folder)


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_run, tmp_path_factory):
    """A finished run that tests may look at, not change."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run, samples="{validation: 1, test: 2}"))
    return evaluate(file, folder / "out"), folder / "out"


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


def test_the_same_run_again_makes_nothing_and_changes_no_byte(study_file, tmp_path, batches_made):
    evaluate(study_file, tmp_path / "out")
    before = snapshot(tmp_path / "out")
    batches_made.clear()
    evaluate(study_file, tmp_path / "out")
    assert batches_made == []
    assert snapshot(tmp_path / "out") == before


def test_an_added_temperature_makes_only_what_is_new(study_file, tmp_path, batches_made):
    evaluate(study_file, tmp_path / "out", "decoding.temperature=[0.0,0.7]")
    batches_made.clear()
    resolved = evaluate(study_file, tmp_path / "out")
    assert batches_made
    assert {setting.temperature for batch in batches_made for setting in batch.settings} == {1.0}
    whole = evaluate(study_file, tmp_path / "whole")
    assert generations(resolved, tmp_path / "out").equals(generations(whole, tmp_path / "whole"))


def test_an_added_sample_makes_only_what_is_new(study_file, tmp_path, batches_made):
    evaluate(study_file, tmp_path / "out", "samples=1")
    batches_made.clear()
    evaluate(study_file, tmp_path / "out", "samples=2")
    assert {batch.samples for batch in batches_made} == {(1,)}


def test_a_removed_temperature_leaves_the_rest_as_it_was(study_file, tmp_path, batches_made):
    evaluate(study_file, tmp_path / "out")
    batches_made.clear()
    resolved = evaluate(study_file, tmp_path / "out", "decoding.temperature=0.7")
    assert batches_made == []
    assert set(generations(resolved, tmp_path / "out")["temperature"]) == {0.7}


@pytest.mark.parametrize(
    ("base", "size", "warned"),
    [("tiny", 3, True), ("tiny", 2, True), ("tiny", 0, False), ("tiny", 9, False), ("tang-mini", 3, False)],
)
def test_a_ban_of_how_every_poem_begins_is_told(study_file, tiny_model, recwarn, base, size, warned):
    """To a tokenizer that spells the markers out, ``T] `` stands in the prompt before it is to follow it."""
    name = str(tiny_model) if base == "tiny" else base
    overrides = [f"decoding.no_repeat_ngram_size={size}", f"base_model={name}", "checkpoints=[]"]
    resolved = resolve(load_study(study_file, overrides))
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
def test_what_a_changed_setting_invalidates_is_made_again(study_file, tmp_path, batches_made, change):
    small = ["checkpoints=[]", "decoding.temperature=0.7"]
    evaluate(study_file, tmp_path / "out", *small)
    first = len(batches_made)
    evaluate(study_file, tmp_path / "out", *small, change)
    assert len(batches_made) == 2 * first
    assert len(list((tmp_path / "out" / "generations").iterdir())) == first


@pytest.mark.parametrize("change", ["seed=7", "decoding.no_repeat_ngram_size=2"])
def test_likelihoods_are_not_made_again_for_what_has_no_part_in_them(
    study_file, tmp_path, monkeypatch, change
):
    small = ["checkpoints=[]", "decoding.temperature=0.7"]
    evaluate(study_file, tmp_path / "out", *small)
    before = RunFolder(tmp_path / "out").likelihood()
    asked, original = [], Device.do
    monkeypatch.setattr(Device, "do", lambda e, job, p: asked.append(job) or original(e, job, p))
    evaluate(study_file, tmp_path / "out", *small, change)
    assert asked
    assert not [job for job in asked if job.examples]
    assert RunFolder(tmp_path / "out").likelihood().equals(before)


def test_changed_weights_are_made_again_and_others_kept(study_file, tiny_run, tmp_path, batches_made):
    run = shutil.copytree(tiny_run, tmp_path / "run")
    evaluate(study_file, tmp_path / "out", f"checkpoints={run}")
    batches_made.clear()
    shutil.copy(
        run / "checkpoint-10" / "adapter_model.safetensors",
        run / "checkpoint-20" / "adapter_model.safetensors",
    )
    evaluate(study_file, tmp_path / "out", f"checkpoints={run}")
    assert {batch.checkpoint for batch in batches_made} == {"checkpoint-20"}


def test_checkpoints_alone_equal_checkpoints_together(study_file, tiny_run, finished, tmp_path):
    resolved, folder = finished
    together = generations(resolved, folder)
    alone = evaluate(
        study_file, tmp_path / "out", f"checkpoints={tiny_run / 'checkpoint-20'}", "include_base=false"
    )
    expected = together[together.checkpoint == "checkpoint-20"].reset_index(drop=True)
    assert generations(alone, tmp_path / "out").equals(expected)


def test_batches_fit_the_batch_size_and_cover_each_output_once(finished):
    _, folder = finished
    batches = plan.read_plan(RunFolder(folder))
    assert all(batch.sequences() <= 160 for batch in batches)
    assert sum(batch.outputs() for batch in batches) == 3 * 24 * (30 + 15 * 2)


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file of a results folder but the times."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != "timings.jsonl"]
    return {str(f.relative_to(folder)): f.read_bytes() for f in files}


def start(file: Path, out: Path) -> subprocess.Popen:
    command = "from tangeval.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", command, "run", str(file), "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def batch_files(out: Path) -> int:
    return len(list(out.glob("generations/*.parquet")))


def test_a_run_killed_again_and_again_ends_in_the_same_bytes(study_file, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(study_file, whole)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    noise = random.Random(0)
    moments = [
        lambda: (cut / "plan.json").is_file(),
        lambda: batch_files(cut) >= 7,
        lambda: (cut / "scores.parquet").is_file(),
    ]
    for moment in moments:
        process = start(study_file, cut)
        while process.poll() is None and not moment():
            time.sleep(0.002)
        time.sleep(noise.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start(study_file, cut)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    expected, found = snapshot(whole), snapshot(cut)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_out_of_memory_halves_the_batch_and_changes_no_text(study_file, finished, tmp_path, monkeypatch):
    """The GPU's error, raised for every batch of more than 30 sequences."""
    sizes = []

    def small(model, prompts, sequences, **options):
        sizes.append(len(sequences))
        if len(sequences) > 30:
            raise torch.OutOfMemoryError("no room")
        return decode(model, prompts, sequences, **options)

    monkeypatch.setattr(memory, "decode", small)
    resolved = evaluate(study_file, tmp_path / "out", "checkpoints=[]")
    # A size that was too large is not tried again, nor a larger one.
    assert len([size for size in sizes if size > 30]) == len({size for size in sizes if size > 30}) > 0
    whole = generations(*finished).query("checkpoint == 'base'").reset_index(drop=True)
    assert generations(resolved, tmp_path / "out")["text"].equals(whole["text"])


def test_one_output_that_does_not_fit_is_a_clear_error(study_file, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(memory, "decode", full)
    with pytest.raises(TangevalError, match="max_length"):
        evaluate(study_file, tmp_path / "out", "checkpoints=[]")


def test_a_missing_shard_is_an_error_and_is_made_again(study_file, tmp_path, batches_made):
    resolved = evaluate(study_file, tmp_path / "out", "checkpoints=[]")
    batches_made.clear()
    lost = next((tmp_path / "out" / "generations").iterdir())
    lost.unlink()
    with pytest.raises(TangevalError, match=lost.name):
        generations(resolved, tmp_path / "out")
    evaluate(study_file, tmp_path / "out", "checkpoints=[]")
    assert [RunFolder(tmp_path / "out").batch_file(batch.id) for batch in batches_made] == [lost]


def test_manifest_signs_what_was_run(finished):
    resolved, folder = finished
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"]["digest"] == resolved.dataset.digest
    assert {c["name"]: c["seen"] for c in manifest["checkpoints"]}["base"] == {"validation": 0, "test": 0}
    assert manifest["versions"]["torch"].startswith("2.")


def test_what_memory_held_is_remembered_and_planned_by(study_file, tmp_path, monkeypatch):
    """The GPU's error, raised for every batch of more than 30 sequences: the next plan has none as large."""

    def small(model, prompts, sequences, **options):
        if len(sequences) > 30:
            raise torch.OutOfMemoryError("no room")
        return decode(model, prompts, sequences, **options)

    monkeypatch.setattr(memory, "decode", small)
    evaluate(study_file, tmp_path / "out", "checkpoints=[]")
    assert max(batch.sequences() for batch in plan.read_plan(RunFolder(tmp_path / "out"))) > 30
    evaluate(study_file, tmp_path / "out", "checkpoints=[]", "decoding.temperature=[0.0,0.7,1.0,1.3]")
    added = [
        b for b in plan.read_plan(RunFolder(tmp_path / "out")) if {c.temperature for c in b.settings} == {1.3}
    ]
    assert added
    assert all(batch.sequences() <= 30 for batch in added)
