"""Generate, score, summarise and select on a tiny model: what is made, reused, and finished."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    NoRepeatNGramLogitsProcessor,
)

from tangeval import generation as generate
from tangeval.analysis import aggregate, select, summarize
from tangeval.analysis import scoring as score
from tangeval.analysis.aggregate import Part
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.decoding import memory
from tangeval.decoding.decoder import decode
from tangeval.decoding.memory import RowCost
from tangeval.resolve import resolve
from tangeval.results import plan
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang.prompt import encode_completion, encode_prompt
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
    generate.generate(resolved, folder)
    score.score(resolved.study, resolved.dataset, folder)
    summarize.summarize(RunFolder(folder), resolved.study.seed)
    return resolved


def generations(resolved: plan.ResolvedStudy, folder: Path) -> pd.DataFrame:
    return score.read_generations(resolved.study, folder)


@pytest.fixture
def batches_made(monkeypatch):
    """The batches that were decoded, in order."""
    made = []
    original = generate.run_batch
    monkeypatch.setattr(generate, "run_batch", lambda s, w, *rest: made.append(w) or original(s, w, *rest))
    return made


@pytest.fixture(scope="module")
def finished(tiny_model, tiny_run, tmp_path_factory):
    """A finished run that tests may look at, not change."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run, samples="{validation: 1, test: 2}"))
    return evaluate(file, folder / "out"), folder / "out"


def test_every_checkpoint_setting_poem_and_sample_is_there_once(finished):
    resolved, folder = finished
    frame = generations(resolved, folder)
    assert list(frame.columns) == list(generate.GENERATIONS)
    assert len(frame) == 3 * 24 * (30 * 1 + 15 * 2)
    assert not frame.duplicated(list(score.KEYS)).any()
    assert list(frame["checkpoint"].unique()) == ["base", "checkpoint-10", "checkpoint-20"]
    assert frame[frame["checkpoint"] == "base"]["step"].isna().all()


def test_a_shorter_max_length_is_the_longer_one_cut(finished):
    resolved, folder = finished
    frame = generations(resolved, folder)
    keys = [k for k in score.KEYS if k not in ("max_length", "step")]
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
        prompt = encode_prompt(tokenizer, example, "hw5")
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
        prompt = encode_prompt(tokenizer, example, "hw5")
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
    generate.check_openings(resolved, tokenizer)
    told = [str(w.message) for w in recwarn if "no_repeat_ngram_size" in str(w.message)]
    assert bool(told) == warned
    assert all("after 45 of 45 prompts, since 'T] '" in text or size == 2 for text in told)
    # What is told is what Hugging Face's processor forbids.
    example = resolved.examples("test")[0]
    prompt = torch.tensor([encode_prompt(tokenizer, example, "hw5")])
    first = encode_completion(tokenizer, example, "hw5", example.reference)[0]
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


def test_summary_has_a_row_for_each_checkpoint_setting_and_split(finished):
    _, folder = finished
    frame = pd.read_csv(folder / "summary.csv")
    assert len(frame) == 3 * 24 * 2 + 2 * 2
    inside = frame[frame.checkpoint == "random"].iloc[0]
    assert inside.form_low <= inside.form <= inside.form_high
    assert frame[frame.checkpoint == "reference"]["bleu"].round(6).eq(100).all()
    assert frame[frame.checkpoint == "random"][["temperature", "top_k"]].isna().all(axis=None)


def test_summary_bleu_is_sacrebleus_mean_over_samples(finished):
    from sacrebleu.metrics import BLEU

    from tangeval.tasks.tang.text import fold

    resolved, folder = finished
    frame = generations(resolved, folder).query("checkpoint == 'checkpoint-10' and split == 'test'")
    setting = frame.query("temperature == 1.0 and top_k == 5 and top_p == 0.6 and max_length == 18")
    scores = []
    for _, part in setting.groupby("sample"):
        references = [fold(han(resolved.dataset.by_id[e].reference)) for e in part["example_id"]]
        scores.append(
            BLEU(tokenize="char").corpus_score([fold(han(t)) for t in part["text"]], [references]).score
        )
    assert len(scores) == 2
    summary = pd.read_csv(folder / "summary.csv").query(
        "checkpoint == 'checkpoint-10' and split == 'test' and temperature == 1.0 and top_k == 5"
        " and top_p == 0.6 and max_length == 18"
    )
    assert summary["bleu"].item() == pytest.approx(np.mean(scores))


def test_a_corrected_value_lies_in_its_interval(finished, tmp_path, monkeypatch):
    """BLEU near its random baseline: the winner's own interval is all above what the settings are worth."""
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(Part, "interval", lambda part, metric, level=0.95: (98.0, 99.0))
    corrected = select.select(resolved.study, RunFolder(out))["corrected"]
    assert corrected["low"] == corrected["value"] < 98
    assert corrected["high"] == 99


def test_selection_is_the_best_by_the_rule(finished, tmp_path):
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    selection = select.select(resolved.study, RunFolder(out))
    summary = pd.read_csv(out / "summary.csv")
    validation = summary[(summary.split == "validation") & summary.temperature.notna()]
    best = validation.groupby("checkpoint")["reference_nll"].mean().idxmin()
    assert selection["checkpoint"]["checkpoint"] == best
    own = validation[validation.checkpoint == best]
    assert selection["validation"]["bleu"]["value"] == pytest.approx(own["bleu"].max())
    runners = selection["runners_up"]["settings"]
    assert [r["bleu"] for r in runners] == sorted((r["bleu"] for r in runners), reverse=True)
    assert 0 < selection["corrected"]["value"] < selection["validation"]["bleu"]["value"]  # noise had helped
    assert selection["corrected"]["low"] <= selection["validation"]["bleu"]["low"]
    assert all(r["p"] <= r["p_holm"] for r in runners)
    chosen = select.chosen_outputs(generations(resolved, out), selection)
    examples = [resolved.dataset.by_id[name] for name in chosen["example_id"]]
    lines = resolved.task.outputs_file(examples, chosen["text"].tolist()).splitlines()
    assert [line.split(". ", 1)[0] for line in lines] == [str(n) for n in range(1, 16)]
    assert lines[0].startswith("1. " + resolved.examples("test")[0].input)


def test_settings_of_the_same_texts_cannot_be_told_apart(finished):
    """At temperature 0 every top-k is the same text."""
    resolved, folder = finished
    group = next(
        aggregate.groups(RunFolder(folder).scores(), RunFolder(folder).likelihood(), resolved.study.seed)
    )
    knobs = group.measured.knobs
    twins = knobs.index[(knobs["temperature"] == 0) & (knobs["max_length"] == 18)]
    best, *others = [select.Candidate({}, aggregate.Part(group.measured, [place])) for place in twins]
    assert len(others) == 3
    for row in select.compared(best, others, "bleu"):
        assert (row["difference"], row["p"], row["distinguishable"]) == (0, 1, False)


def test_transformers_loads_the_chosen_settings_generation_config(finished, tmp_path):
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    setting = select.select(resolved.study, RunFolder(out))["setting"]
    config = GenerationConfig.from_pretrained(out / "best")
    assert config.max_new_tokens == setting["max_length"]
    assert config.no_repeat_ngram_size == 3
    if setting["temperature"]:
        assert (config.do_sample, config.top_k, config.top_p) == (True, setting["top_k"], setting["top_p"])
    else:
        assert config.do_sample is False


def test_where_no_setting_meets_what_is_required_the_nearest_are_shown(finished, tmp_path):
    resolved, folder = finished
    out = shutil.copytree(folder, tmp_path / "out")
    select.select(resolved.study, RunFolder(out))
    assert (out / "best" / "generation_config.json").exists()
    study = resolved.study.model_copy(
        update={"select": resolved.study.select.model_copy(
            update={"setting": resolved.study.select.setting.model_copy(update={"require": {"form": ">= 1.0"}})}
        )}
    )  # fmt: skip
    selection = select.select(study, RunFolder(out))
    assert selection["setting"] is None
    assert len(selection["nearest"]) == 3
    assert not (out / "best" / "generation_config.json").exists()


def test_selection_refuses_checkpoints_that_saw_the_split_or_keep_no_record(finished):
    resolved, _ = finished
    rule = resolved.study.select
    saw, unseen = {"validation": 3, "test": 0}, {"validation": 0, "test": 0}
    select.check_selection(rule, {"base": unseen, "a": saw, "b": unseen}, assume_unseen=False)
    with pytest.raises(TangevalError, match="every checkpoint was trained on validation poems"):
        select.check_selection(rule, {"base": unseen, "a": saw}, assume_unseen=False)
    with pytest.raises(TangevalError, match="--assume-unseen"):
        select.check_selection(rule, {"base": unseen, "a": None}, assume_unseen=False)
    select.check_selection(rule, {"base": unseen, "a": None}, assume_unseen=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [("checkpoint", "blue"), ("setting", {"by": "reference_nll"}), ("setting", {"require": {"x": "> 1"}})],
)
def test_a_rule_by_what_is_no_metric_is_refused(finished, key, value):
    resolved, _ = finished
    rule = type(resolved.study.select).model_validate({key: value})
    with pytest.raises(TangevalError, match=r"select\."):
        select.check_selection(rule, {}, assume_unseen=True)


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


def test_results_are_not_scored_against_other_data(finished):
    resolved, folder = finished
    with pytest.raises(TangevalError, match="other data"):
        score.score(resolved.study, replace(resolved.dataset, digest="other"), folder)


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


def test_batches_are_planned_by_what_a_row_was_measured_to_cost(study_file, tmp_path):
    """What a trial on a GPU leaves in timings.jsonl decides the next plan, for the same model and machine alone."""
    resolved = resolve(load_study(study_file, ["batch_size=auto"]))
    whole, _ = generate.plan(resolved, tmp_path)
    engine = generate.engine_name(resolved.study.loading())
    longest = max(resolved.study.decoding.max_length)
    cost = asdict(RowCost(fixed=1000.0, token=100.0)) | {"free": 20 * (1000 + 100 * longest) / 0.85 + 1}
    RunFolder(tmp_path).record("rows", generate._trial_key(resolved, engine), cost)
    batches, _ = generate.plan(resolved, tmp_path)
    assert max(w.sequences() for w in whole) > 20 >= max(w.sequences() for w in batches)
    RunFolder(tmp_path).timings_file.unlink()
    RunFolder(tmp_path).record("rows", "another model", cost)
    assert generate.plan(resolved, tmp_path)[0] == whole
