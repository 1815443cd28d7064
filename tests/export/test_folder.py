"""A folder to take home: transformers alone loads it, asks the study's tokens, and writes the study's greedy texts."""

import copy
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from jinja2 import TemplateError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from tangeval import api, steps, tasks
from tangeval.core.errors import TangevalError
from tangeval.core.study import LoadSection
from tangeval.core.types import Example
from tangeval.engines.base import asked, examples_of
from tangeval.export import ollama
from tangeval.export.folder import export
from tangeval.export.framing import frame, tokens
from tangeval.models.adapters import with_checkpoint
from tangeval.models.loading import load_model
from tangeval.models.tokens import encode_prompt
from tangeval.reporting.notebook import Results
from tangeval.resolve import resolve
from tangeval.results.files import read_json, write_json
from tangeval.training import StudyCallback
from tests.models.test_averages import adapter_of
from tests.support.command import refusal, succeeds
from tests.support.study import contents, evaluate, write_study
from tests.support.tiny import bpe_tokenizer, make_tiny_model
from tests.support.training import make_trainer, small_study

GREEDY = {
    "splits": ["validation"], "data": {"path": "sample", "validation": 4}, "samples": 1,
    "decoding": {"temperature": 0.0, "max_length": 18, "no_repeat_ngram_size": 3},
    "select": {"split": "validation", "setting": {"by": "bleu"}},
}  # fmt: skip


def chosen(folder, base, run, **changes):
    evaluate(write_study(folder, base, run, include_base=False, **GREEDY | changes), folder / "out")
    results = Results(folder / "out")
    steps.select(results)
    return Results(folder / "out")


@pytest.fixture(scope="module")
def results(tmp_path_factory, tiny_model, tiny_run):
    return chosen(tmp_path_factory.mktemp("greedy"), tiny_model, tiny_run)


def written_by_transformers(folder, inputs):
    """What the card's own lines print for each input, in a process that cannot import tangeval."""
    (usage,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    lines = ["import sys", "sys.modules['tangeval'] = None", f"for content in {inputs!r}:"]
    lines += [
        f"    {line.replace(repr('…').replace(chr(39), chr(34)), 'content')}" for line in usage.splitlines()
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("merge", [False, True])
def test_transformers_alone_writes_the_studys_greedy_texts(results, tmp_path, merge):
    found = export(results, tmp_path / "home", merge=merge)
    own = results.texts("validation")
    assert len(own) == 4
    written = written_by_transformers(found.folder, own["input"].tolist())
    assert [text.removeprefix(" ") for text in written] == own["text"].tolist()
    assert (found.folder / "adapter_config.json").is_file() is not merge
    assert (found.folder / "model.safetensors").is_file() is merge
    assert "library_name: " + ("transformers" if merge else "peft") in (found.folder / "README.md").read_text(
        "utf-8"
    )


def test_nothing_of_the_base_or_of_a_reader_changes_what_an_adapter_writes(tmp_path):
    """A model fills what a setting leaves open from its own file, and transformers' reader loses DoRA's magnitudes."""
    base = make_tiny_model(tmp_path / "base")
    own = read_json(base / "generation_config.json")
    write_json(base / "generation_config.json", own | {"repetition_penalty": 1.5, "num_beams": 2})
    (tmp_path / "runs").mkdir()
    saved = adapter_of(
        base, tmp_path / "runs" / "a", 1, target_modules=["q_proj", "down_proj"], use_dora=True
    )
    (saved / "train_ids.json").write_text('{"hashes": []}')
    results = chosen(tmp_path, base, saved)
    found = export(results, tmp_path / "home")
    texts = results.texts("validation")
    written = written_by_transformers(found.folder, texts["input"].tolist()[:2])
    assert [text.removeprefix(" ") for text in written] == texts["text"].tolist()[:2]


def test_an_average_goes_home_as_one_adapter_and_writes_its_greedy_texts(tiny_model, tiny_run, tmp_path):
    places = [{"average": [str(tiny_run / "checkpoint-10"), str(tiny_run / "checkpoint-20")]}]
    results = chosen(tmp_path, tiny_model, None, checkpoints=places)
    found = export(results, tmp_path / "home")
    assert found.checkpoint == "average-10-20"
    (text,) = written_by_transformers(found.folder, results.texts("validation")["input"].tolist()[:1])
    assert text.removeprefix(" ") == results.texts("validation")["text"].iloc[0]


def test_weights_are_merged_to_the_bit_as_the_engine_merges_them(results, tmp_path):
    found = export(results, tmp_path / "home", merge=True)
    resolved = resolve(results.study.model_copy(update={"load": LoadSection(merge=True)}))
    (checkpoint,) = [c for c in resolved.checkpoints if c.name == found.checkpoint]
    load = resolved.study.loading()
    with with_checkpoint(load_model(resolved.base, load), checkpoint, load) as adapted:
        own = {
            name.replace(".base_layer.", "."): t for name, t in adapted.base_model.model.state_dict().items()
        }
        written = load_file(found.folder / "model.safetensors")
        assert len(written) > 10
        assert all(torch.equal(tensor, own[name]) for name, tensor in written.items())


def test_a_head_that_was_saved_apart_is_not_said_to_be_tied(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(base)
    (tmp_path / "runs").mkdir()
    saved = adapter_of(
        base, tmp_path / "runs" / "a", 1, target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    found = export(chosen(tmp_path, base, saved), tmp_path / "home", merge=True)
    assert read_json(found.folder / "config.json")["tie_word_embeddings"] is False
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= load_file(
        found.folder / "model.safetensors"
    ).keys()


@pytest.mark.parametrize("merge", [False, True])
def test_a_base_in_few_bits_is_loaded_so_or_written_out_as_the_engine_does(
    tiny_model, tiny_run, tmp_path, merge
):
    results = chosen(
        tmp_path, tiny_model, tiny_run, load={"quantization": "nf4", "merge": merge, "dtype": "float32"}
    )
    found = export(results, tmp_path / "home", merge=merge)
    assert (
        "nf4" in (found.folder / "README.md").read_text("utf-8").partition("## What was measured")[0]
    ) is not merge
    own = results.texts("validation")
    written = written_by_transformers(found.folder, own["input"].tolist())
    assert [text.removeprefix(" ") for text in written] == own["text"].tolist()


def test_a_full_model_is_copied_and_writes_its_greedy_texts(tiny_model, tmp_path):
    own = shutil.copytree(tiny_model, tmp_path / "runs" / "whole")
    (own / "train_ids.json").write_text('{"hashes": []}')
    results = chosen(tmp_path, tiny_model, own)
    found = export(results, tmp_path / "home")
    assert (found.folder / "model.safetensors").read_bytes() == (own / "model.safetensors").read_bytes()
    (text,) = written_by_transformers(found.folder, results.texts("validation")["input"].tolist()[:1])
    assert text.removeprefix(" ") == results.texts("validation")["text"].iloc[0]


@pytest.mark.parametrize("task", ["tang", "haiku", "songci", "couplet"])
@pytest.mark.parametrize(
    "make", [lambda: bpe_tokenizer(prefix=False), lambda: bpe_tokenizer(prefix=True), None]
)
@pytest.mark.parametrize("template", [0, "chat"])
def test_a_chat_template_gives_the_studys_own_token_ids(task, make, template, mini_tokenizer):
    own = make() if make else copy.deepcopy(mini_tokenizer)
    own.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"
    )
    made = tasks.load(task)
    examples = made.load("sample", None).split("test")
    name = made.templates[0] if template == 0 else template
    framed = frame(own, lambda example: made.prompt(example, name), examples)
    for example in examples:
        prompt = made.prompt(example, name)
        assert tokens(own, framed.messages(prompt, example), framed.jinja) == encode_prompt(own, prompt)
    # The tune and the first sentence of a 詞 are two fields, which one message cannot be.
    assert framed.whole is (task == "songci")
    if framed.jinja:
        with pytest.raises(TemplateError, match="one message, of the user"):
            tokens(own, [{"role": "system", "content": "x"}, *framed.messages(prompt, example)], framed.jinja)


def test_a_prompt_that_differs_around_the_input_is_asked_whole(tokenizer):
    examples = [Example(f"test-{n}", f"Write {n} lines.", "山", "水", "test") for n in range(2)]
    framed = frame(tokenizer, lambda e: f'{e.instruction} "{{{{ x }}}}" \\n {e.input}', examples)
    assert framed.whole
    assert framed.go(None) == "{{ .Prompt }}"


def test_braces_and_quotes_of_a_prompt_are_no_template(tokenizer):
    examples = [Example("test-1", "", "山", "水", "test")]
    framed = frame(tokenizer, lambda e: f"{{{{ 1 }}}} {{% x %}} \"'\\n\n{e.input}|{e.input}", examples)
    assert not framed.whole
    # As Go reads it: an action is from the first two braces to the next two that close.
    values = {' "{" ': "{", " .Prompt ": "山"}
    for parts in (framed.parts, ('{"q": {', "}}")):
        text = replace(framed, parts=parts).go(None)
        assert re.sub(r"\{\{(.*?)\}\}", lambda found: values[found[1]], text) == "山".join(parts)


def test_a_knob_that_a_reader_lacks_is_refused_by_name_unless_it_may_be_missing(
    results, tmp_path, tiny_model
):
    def held(**knobs):
        kept = replace(results, folder=shutil.copytree(results.folder, tmp_path / "out", dirs_exist_ok=True))
        selection = read_json(kept.run.selection_file)
        write_json(kept.run.selection_file, selection | {"setting": selection["setting"] | knobs})
        return Results(kept.folder)

    said = r"has presence_penalty=0\.5, constrain=form, which transformers does not have.*--leave-out presence_penalty --leave-out con"
    with pytest.raises(TangevalError, match=said):
        export(held(constrain="form", presence_penalty=0.5), tmp_path / "home")
    with pytest.raises(
        TangevalError, match=r"typical_p=0\.5, no_repeat_ngram_size=3, which Ollama does not have"
    ):
        export(
            held(temperature=0.7, typical_p=0.5, constrain="none", presence_penalty=0.0),
            tmp_path / "home",
            gguf="q8_0",
        )
    with pytest.raises(TangevalError, match="--leave-out top: there is no such knob"):
        export(held(), tmp_path / "home", leave_out=["top"])
    assert not (tmp_path / "home").exists()
    with pytest.warns(UserWarning, match="transformers has no constrain"):
        found = export(held(constrain="form"), tmp_path / "home", leave_out=["constrain"])
    config = GenerationConfig.from_pretrained(found.folder)
    assert (config.do_sample, config.max_new_tokens, config.no_repeat_ngram_size) == (False, 18, 3)
    assert config.eos_token_id == [3]


def test_a_folder_that_is_there_is_never_written_into_and_a_failure_leaves_none(
    results, tmp_path, monkeypatch
):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("mine")
    with pytest.raises(TangevalError, match="theirs is there already"):
        export(results, tmp_path / "theirs")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(TangevalError, match="link is there already"):  # before minutes of merging
        export(results, tmp_path / "link")
    (tmp_path / "link").unlink()
    with pytest.raises(TangevalError, match=r"cannot be written .*give another folder"):
        export(results, tmp_path / "theirs" / "thesis.txt" / "home")
    monkeypatch.setattr("tangeval.export.folder.write_card", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(results, tmp_path / "home")
    assert contents(tmp_path) == {"theirs/thesis.txt": b"mine"}


def test_weights_that_changed_since_are_refused(results, tmp_path, tiny_run):
    kept = Results(shutil.copytree(results.folder, tmp_path / "out"))
    manifest = read_json(kept.run.manifest_file)
    for each in manifest["checkpoints"]:
        each["fingerprint"] = "0"
    write_json(kept.run.manifest_file, manifest)
    with pytest.raises(TangevalError, match="not those that were evaluated"):
        export(kept, tmp_path / "home")
    manifest["base_model"]["fingerprint"] = "0"
    write_json(kept.run.manifest_file, manifest)
    with pytest.raises(TangevalError, match=r"base_model: .* is not the one that was evaluated"):
        export(kept, tmp_path / "home")


def test_what_was_evaluated_while_it_was_trained_goes_home_where_it_is_what_was_saved(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path / "out", max_steps=2)
    study = small_study(
        checkpoints="out", include_base=False, decoding=GREEDY["decoding"], select=GREEDY["select"]
    )
    trainer.add_callback(StudyCallback(study, trainer=trainer))
    with pytest.warns(UserWarning, match=r"nothing is chosen .*checkpoint-2 keep no train_ids\.json"):
        trainer.train()
    api.select(tmp_path / "out" / "study", assume_unseen=True)
    found = export(results := Results(tmp_path / "out" / "study"), tmp_path / "home")
    assert found.checkpoint == "checkpoint-2"
    saved = tmp_path / "out" / "checkpoint-2" / "adapter_model.safetensors"
    weights = load_file(saved)
    weights[min(weights)][0, 0] += 1
    save_file(weights, saved, {"format": "pt"})
    with pytest.raises(TangevalError, match="not, bit for bit, those that were evaluated while"):
        export(results, tmp_path / "again")


def test_the_base_model_is_nothing_to_take_home(tiny_model, tiny_run, tmp_path):
    results = chosen(tmp_path, tiny_model, tiny_run)
    selection = read_json(results.run.selection_file)
    selection["checkpoint"]["checkpoint"] = "base"
    write_json(results.run.selection_file, selection)
    kept = Results(results.folder, None)
    file = results.run.study_file
    file.write_text(file.read_text("utf-8").replace("include_base: false", "include_base: true"), "utf-8")
    said = refusal(tmp_path, "export", kept.folder, "--to", tmp_path / "home")
    command = re.search("the base model was chosen.*`tangeval (.*?)`", said)[1]
    succeeds(tmp_path, *command.split())
    assert export(Results(kept.folder), tmp_path / "home").checkpoint.startswith("checkpoint-")


def test_a_modelfile_has_the_setting_and_the_prompt_and_the_commands_are_printed(results, tmp_path):
    kept = Results(shutil.copytree(results.folder, tmp_path / "results" / "out"))
    selection = read_json(kept.run.selection_file)
    setting = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "max_length": 18, "no_repeat_ngram_size": 0}
    selection["setting"] = setting | {"repetition_penalty": 1.2}
    write_json(kept.run.selection_file, selection)
    done = succeeds(tmp_path, "export", "results/out", "--to", "home", "--gguf", "q8_0")
    assert "python llama.cpp/convert_hf_to_gguf.py home --outtype q8_0 --outfile home/model.gguf" in done.out
    assert "No GGUF file is made here" in done.out
    assert not (tmp_path / "home" / "model.gguf").exists()
    told = (tmp_path / "home" / "Modelfile").read_text("utf-8")
    (template,) = re.findall(r'TEMPLATE """(.*?)"""', told, re.DOTALL)
    example = examples_of(resolve(kept.study))[0]
    assert template.replace("{{ .Prompt }}", example.input) == asked(resolve(kept.study), example)
    assert set(re.findall(r"PARAMETER (.*)", told)) == {
        "temperature 0.7", "top_k 5", "top_p 0.9", "min_p 0", "num_predict 18", "repeat_penalty 1.2", "repeat_last_n -1",
        'stop "</s>"',
    }  # fmt: skip
    assert told.startswith("FROM ./model.gguf\n")
    assert "home is there already" in refusal(tmp_path, "export", "results/out", "--to", "home")
    named = ollama.commands(tmp_path / "home", "q8_0", "唐詩 Checkpoint-2")[-1]
    assert named.startswith("ollama create checkpoint-2 -f ")
    (tmp_path / "empty").mkdir()
    assert ". is there already" in refusal(
        tmp_path / "empty", "export", tmp_path / "results" / "out", "--to", "."
    )
