"""What every engine owes its callers, whatever it does inside. docs/extending.md says how to add one."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, MambaConfig

from tangeval import generation
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.knobs import COMMON, KNOB, Setting
from tangeval.core.study import Study, load_study
from tangeval.core.words import speaking
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.noise import noise_key
from tangeval.engines import ENGINES, device, engine_class, local, make
from tangeval.engines.base import ALL_KNOBS, Job, check_knobs
from tangeval.engines.completions import DIALECTS
from tangeval.models import loading
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch
from tests.results.test_faults import spoil
from tests.support.architectures import tiny_config
from tests.support.pages import module
from tests.support.plain_decoder import plain_decode
from tests.support.tiny import make_tiny_model

#: The engines that need nothing but this process.
HERE = {
    "local": lambda: engine_class("local"),
    "the example of docs/extending.md": lambda: (
        module("docs/extending.md", "class SimpleEngine").SimpleEngine
    ),
}
STUDY = """
name: contract
base_model: {base}
checkpoints: {run}
splits: [test]
decoding: {{temperature: [0, 0.8], top_k: [0, 4], top_p: [0.6, 1.0], max_length: [4, 9], no_repeat_ngram_size: 3}}
samples: 2
batch_size: 400
select: null
"""


@pytest.fixture(scope="module")
def resolved(tiny_model, tiny_run, tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "contract.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
    return resolve(load_study(file))


@pytest.fixture(scope="module", params=HERE.values(), ids=HERE)
def engine(request, resolved):
    kind = request.param()
    with kind(resolved, kind.Config()) as opened:
        opened.check()
        yield opened


def job_of(resolved, checkpoint, examples=3, settings=None):
    names = tuple(e.id for e in resolved.examples("test")[:examples])
    settings = settings or resolved.study.decoding.settings()
    return Job(checkpoint, Batch("batch", checkpoint.name, "key", names, (0, 1), tuple(settings)))


def silent(name, ended, text):
    """Take no notice of progress."""


@pytest.fixture(scope="module")
def rows(engine, resolved):
    """The rows of three poems by an adapter, and the counts that progress told."""
    ended = []
    job = job_of(resolved, resolved.checkpoints[1])
    (done,) = engine.run([job], lambda name, more, text: ended.append(more))
    return job.batch, done.made, ended


def oracle(resolved, checkpoint):
    """The model as transformers and peft load it."""
    model = AutoModelForCausalLM.from_pretrained(resolved.base.source)
    return (PeftModel.from_pretrained(model, checkpoint.path) if checkpoint.path else model).eval()


def test_each_text_is_the_plain_decoders_under_common_noise(engine, rows, resolved):
    """The noise is of seed, example and sample alone, so settings and checkpoints share it."""
    batch, frame, _ = rows
    model = oracle(resolved, resolved.checkpoints[1])
    tokenizer = AutoTokenizer.from_pretrained(resolved.base.source)
    assert engine.describe().noise_shared
    assert len(frame) == batch.outputs()
    for row in frame.sample(40, random_state=0).to_dict("records"):
        setting = Setting.from_row(row)
        assert setting in batch.settings
        prompt = resolved.task.prompt(resolved.dataset.by_id[row["example_id"]], "hw5")
        key = noise_key(resolved.study.seed, row["example_id"], row["sample"])
        ids = plain_decode(model, encode_prompt(tokenizer, prompt), TokenSequence(0, setting, key), [3])
        stopped = ids[-1] == 3
        text = tokenizer.decode(ids, skip_special_tokens=True).removeprefix(" ")
        expected = (text, len(ids), "stop" if stopped else "length")
        assert (row["text"], row["n_tokens"], row["finish_reason"]) == expected


def test_where_batches_go_is_said_in_the_readers_language(resolved, monkeypatch, tmp_path):
    batch = job_of(resolved, resolved.checkpoints[1]).batch
    monkeypatch.setattr(local.LocalEngine, "_places", lambda own, jobs: ["cpu"] * 2)
    with make(resolved) as engine:
        assert ", 2 processes side by side; " in generation.estimate(tmp_path / "x", engine, [batch], "")
        with speaking("zh-TW"):
            assert "條序列，2 個行程同時解碼；" in generation.estimate(tmp_path / "x", engine, [batch], "")


def test_rows_are_in_the_plans_order(rows):
    batch, frame, _ = rows
    expected = [
        (example, *setting.at(COMMON), sample)
        for example in batch.examples
        for setting in batch.settings
        for sample in batch.samples
    ]
    names = ["example_id", *COMMON, "sample"]
    assert list(frame[names].itertuples(index=False, name=None)) == expected


def test_progress_counts_each_sequence_once(rows):
    batch, _, ended = rows
    assert sum(ended) == batch.sequences()


def test_a_text_does_not_depend_on_what_is_decoded_beside_it(engine, rows, resolved):
    batch, frame, _ = rows
    for setting in (batch.settings[0], batch.settings[-1]):
        (alone,) = engine.run([job_of(resolved, resolved.checkpoints[1], 1, [setting])], silent)
        own = frame[frame["example_id"] == batch.examples[0]]
        own = own[(own[list(COMMON)] == list(setting.at(COMMON))).all(axis=1)]
        assert alone.made.reset_index(drop=True).equals(own.reset_index(drop=True))


def test_likelihood_is_hugging_faces_loss(engine, resolved):
    if not engine.gives_likelihood:
        pytest.skip("this engine gives no likelihood")
    checkpoint, examples = resolved.checkpoints[1], resolved.examples("test")[:4]
    (done,) = engine.run([Job(checkpoint, examples=examples)], silent)
    model, tokenizer = oracle(resolved, checkpoint), AutoTokenizer.from_pretrained(resolved.base.source)
    for example, found in zip(examples, done.made, strict=True):
        prompt = resolved.task.prompt(example, "hw5")
        head = encode_prompt(tokenizer, prompt)
        answer = encode_completion(tokenizer, prompt, resolved.task.target(example))
        labels = torch.tensor([[-100] * len(head) + answer])
        with torch.inference_mode():
            loss = model(torch.tensor([head + answer]), labels=labels).loss.item()
        assert found.tokens == len(answer)
        assert found.nats == pytest.approx(loss * len(answer), rel=1e-4)


def test_what_is_left_of_a_checkpoint_that_cannot_be_used_is_dropped(engine, resolved, tmp_path):
    lost = resolved.checkpoints[1]
    folder = shutil.copytree(lost.path, tmp_path / "lost")
    spoil(folder)
    broken = type(lost)(lost.name, lost.step, folder, lost.kind)
    jobs = [
        job_of(resolved, broken, 1),
        job_of(resolved, broken, 2),
        job_of(resolved, resolved.checkpoints[0], 1),
    ]
    done = list(engine.run(jobs, silent))
    assert [isinstance(each.made, UnusableError) for each in done] == [True, False]


@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_declares_what_it_honours_and_how_it_is_set_up(kind):
    found = engine_class(kind)
    assert found.honours <= ALL_KNOBS
    assert found.Config.model_fields["kind"].default == kind


def test_a_knob_that_an_engine_does_not_honour_is_refused_where_it_changes_something(resolved):
    with pytest.raises(
        TangevalError, match=r"decoding\.top_k: the plain engine does not honour it; set it to 0"
    ):
        check_knobs(resolved, ALL_KNOBS - {"top_k"}, "plain")
    decoding = resolved.study.decoding.model_copy(update={"top_k": [KNOB["top_k"].off]})
    changed = type(resolved)(
        resolved.study.model_copy(update={"decoding": decoding}), resolved.base, resolved.checkpoints, (), resolved.dataset
    )  # fmt: skip
    check_knobs(changed, ALL_KNOBS - {"top_k"}, "plain")


@pytest.mark.parametrize(
    ("knob", "value", "why"), [("num_beams", 4, "rules of its own"), ("contrast", 0.5, "no logits")]
)
def test_no_server_takes_beams_or_contrast_and_it_is_said_why(resolved, knob, value, why):
    decoding = resolved.study.decoding.model_copy(update={knob: [value], "no_repeat_ngram_size": [0]})
    changed = replace(resolved, study=resolved.study.model_copy(update={"decoding": decoding}))
    for dialect in DIALECTS.values():
        with pytest.raises(
            TangevalError, match=rf"decoding\.{knob}: .* does not honour it \(.*{why}.*\); set it to"
        ):
            check_knobs(changed, dialect.takes, "server")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            "{kind: ray, cpu_per_job: 1}",
            r"study\.yaml: engine\.cpu_per_job: unknown key; did you mean cpus_per_job",
        ),
        ("{kind: ray, gpus_per_job: 2}", r"study\.yaml: engine\.gpus_per_job: "),
        ("{kind: lokal}", "engine.kind: 'lokal' is no engine; give local, ray, openai"),
    ],
)
def test_what_is_wrong_in_an_engine_section_is_named_with_file_and_key(
    tmp_path, tiny_model, section, message
):
    file = tmp_path / "study.yaml"
    file.write_text(f"name: x\nbase_model: {tiny_model}\nengine: {section}\n")
    with pytest.raises(TangevalError, match=message):
        make(resolve(load_study(file)))


def keys(tmp_path, tiny_model, tiny_run, *overrides):
    """The cache key and the likelihood's key of the first adapter."""
    file = tmp_path / "keys.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
    engine = make(resolve(load_study(file, overrides)))
    checkpoint = engine.resolved.checkpoints[1]
    return engine.cache_key(checkpoint), engine.likelihood_key(checkpoint)


@pytest.mark.parametrize(
    ("change", "texts", "likelihood"),
    [
        ("load.merge=true", True, True),
        ("load.quantization=nf4", True, True),
        ("load.compile=true", True, True),
        ("load.dtype=bfloat16", True, True),
        ("prompt=chat", True, True),
        ("seed=7", True, False),
        ("decoding.no_repeat_ngram_size=2", True, False),
        ("decoding.temperature=0.5", False, False),
        ("samples=5", False, False),
    ],
)
def test_a_key_changes_with_what_decides_a_text_and_nothing_else(
    tmp_path, tiny_model, tiny_run, change, texts, likelihood
):
    before, after = keys(tmp_path, tiny_model, tiny_run), keys(tmp_path, tiny_model, tiny_run, change)
    assert (before[0] != after[0], before[1] != after[1]) == (texts, likelihood)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_key_changes_with_a_librarys_version(tmp_path, tiny_model, tiny_run, monkeypatch, package):
    before, version = keys(tmp_path, tiny_model, tiny_run), local.version
    monkeypatch.setattr(local, "version", lambda name: "0" if name == package else version(name))
    after = keys(tmp_path, tiny_model, tiny_run)
    assert before[0] != after[0]
    assert before[1] != after[1]


def gpt2(folder, positions):
    """A random GPT-2, whose positions are learned, with the tiny model's tokenizer."""
    make_tiny_model(folder)
    size = len(AutoTokenizer.from_pretrained(folder)) + 64
    config = GPT2Config(
        vocab_size=size, n_positions=positions, n_embd=32, n_layer=1, n_head=2, eos_token_id=3
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["learned", "rotary"])
def test_texts_beyond_a_models_context_are_refused_before_decoding(tmp_path, tiny_model, kind):
    base = gpt2(tmp_path / "gpt2", 256) if kind == "learned" else tiny_model
    file = tmp_path / "long.yaml"
    file.write_text(
        f"name: x\nbase_model: {base}\nsplits: [test]\nselect: null\n"
        "decoding: {temperature: 0.7, max_length: 500, no_repeat_ngram_size: 0}\n"
    )
    with pytest.raises(
        TangevalError, match=r"decoding\.max_length: 500 tokens after a prompt of \d+ .* set it to"
    ):
        generation.decode(resolve(load_study(file)), tmp_path / "out")
    assert not (tmp_path / "out" / "plan.json").exists()
    if kind == "learned":  # no max_length is short enough for a prompt that is too long itself
        gpt2(tmp_path / "gpt2", 32)
        with pytest.raises(
            TangevalError, match=r"data: a prompt and its reference have \d+ tokens, more than"
        ):
            generation.decode(resolve(load_study(file)), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 512),
        ({"sliding_window": 64}, 512),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 128}}, 512),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, 1024),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 1e4, "low_freq_factor": 1.0,
                              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}, 512),
    ],
)  # fmt: skip
def test_a_context_is_as_long_as_a_models_scaled_positions(tiny_model, changes, limit):
    config = loading.load_config(resolve(Study(name="x", base_model=str(tiny_model))).base)
    for name, value in changes.items():
        setattr(config, name, value)
    assert loading.context_length(config) == limit


def test_references_beyond_a_models_context_are_refused_before_decoding(tmp_path):
    """A prompt and four tokens are within the positions; a prompt and the poet's own ending are not."""
    prompts = [len(prompt) for prompt, _ in texts_of(gpt2(tmp_path / "gpt2", 256), tmp_path)]
    file = study_of(gpt2(tmp_path / "gpt2", max(prompts) + 8), tmp_path, max_length=4)
    with pytest.raises(TangevalError, match=r"data: a prompt and its reference have \d+ tokens"):
        make(resolve(load_study(file))).check()


def test_texts_across_longropes_change_are_refused_before_decoding(tmp_path):
    base = make_tiny_model(tmp_path / "base")
    longest = max(len(prompt) for prompt, _ in texts_of(base, tmp_path))
    config, width = json.loads((base / "config.json").read_text()), 16
    config["rope_parameters"] = {
        "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": longest + 5, "factor": 2.0,
        "long_factor": [2.0] * width, "short_factor": [1.0] * width,
    }  # fmt: skip
    (base / "config.json").write_text(json.dumps(config))
    make(resolve(load_study(study_of(base, tmp_path, max_length=5)))).check()
    with pytest.raises(TangevalError, match=r"decoding\.max_length: .*longrope.* set it to 5 or less"):
        make(resolve(load_study(study_of(base, tmp_path, max_length=6)))).check()


def test_a_model_without_keys_and_values_is_refused_before_anything_is_loaded(tmp_path, monkeypatch):
    base = make_tiny_model(tmp_path / "base")
    MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2).save_pretrained(base)
    monkeypatch.setattr(loading, "load_model", None)
    engine = make(resolve(load_study(study_of(base, tmp_path))))
    with pytest.raises(TangevalError, match="MambaForCausalLM keeps no keys and values"):
        engine.check()


def test_a_model_whose_layers_differ_in_width_is_planned_and_decoded(tmp_path):
    """Gemma 4: the last of its layers has heads of twice the width; its buffers of one number have a checksum too."""
    base = make_tiny_model(tmp_path / "base")
    size = len(AutoTokenizer.from_pretrained(base)) + 64
    config = tiny_config("gemma4_text")
    config.vocab_size, config.vocab_size_per_layer_input, config.max_position_embeddings = size, size, 512
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    cost = local.token_cost(config)
    assert cost.largest < cost.whole < config.num_hidden_layers * cost.largest
    generation.decode(resolve(load_study(study_of(base, tmp_path))), tmp_path / "out")
    assert (
        RunFolder(tmp_path / "out").manifest["self_check"]["base"]["way"] == "rows copied, prompts together"
    )


def test_a_batch_is_small_where_a_model_does_not_tell_what_it_costs(tiny_model, tmp_path, monkeypatch):
    engine = make(resolve(load_study(study_of(tiny_model, tmp_path))))
    assert engine.sequences_per_batch() > 16
    monkeypatch.setattr(local, "token_cost", lambda config: None)
    assert engine.sequences_per_batch() == 16


def test_the_manifest_keeps_how_each_checkpoints_rows_are_kept(tiny_model, tiny_run, tmp_path):
    def checked(*overrides):
        file = tmp_path / "keys.yaml"
        file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
        generation.decode(resolve(load_study(file, overrides)), tmp_path / "out")
        return RunFolder(tmp_path / "out").manifest["self_check"]

    first = checked("checkpoints=[]")
    assert {name: each["way"] for name, each in first.items()} == {"base": "rows shared, prompts together"}
    assert checked("checkpoints=[]") == first
    more = checked()
    assert more["base"] == first["base"]
    assert len(more) > 1


def study_of(base, folder, max_length=4):
    file = folder / "study.yaml"
    file.write_text(
        f"name: x\nbase_model: {base}\nsplits: [test]\nselect: null\n"
        f"decoding: {{temperature: 0.7, max_length: {max_length}, no_repeat_ngram_size: 0}}\n"
    )
    return file


def texts_of(base, folder):
    """Prompts and references as tokens."""
    resolved = resolve(load_study(study_of(base, folder)))
    return device.texts_of(resolved, loading.load_tokenizer(resolved.base))


def test_one_engine_decodes_several_plans_and_loads_the_base_once(resolved, tmp_path):
    def narrower(samples, settings):
        points = [setting.as_dict() for setting in settings]
        decoding = resolved.study.decoding.model_copy(update={"only": points})
        changes = {"samples": samples, "decoding": decoding}
        study = resolved.study.model_copy(update=changes)
        return type(resolved)(study, resolved.base, resolved.checkpoints[1:2], (), resolved.dataset)

    settings = resolved.study.decoding.settings()
    with make(resolved) as engine:
        generation.decode(narrower(1, settings[-8:]), tmp_path / "halving", engine=engine)
        generation.decode(narrower(2, settings[-2:]), tmp_path / "halving", engine=engine)
        generation.decode(narrower(2, settings[:1]), tmp_path / "other", engine=engine)
    generation.decode(narrower(2, settings[:1]), tmp_path / "alone")
    assert len(RunFolder(tmp_path / "halving").timings("load")) == 1
    assert RunFolder(tmp_path / "other").timings("load") == {}
    other, alone = (
        {f.name: f.read_bytes() for f in (tmp_path / n / "generations").iterdir()} for n in ("other", "alone")
    )
    assert other == alone
