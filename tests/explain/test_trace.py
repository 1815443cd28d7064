"""What ``explain.json`` says of a tiny model, against transformers' warpers and against ``generate``."""

import copy
import json
import math

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import (
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tangeval import generation
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.core.study import load_study
from tangeval.decoding.batch import Workspace
from tangeval.decoding.noise import gumbel, noise_key
from tangeval.engines.base import asked as prompt_of
from tangeval.engines.constraints import constraints_of
from tangeval.engines.likelihood import Reference, reference_nll
from tangeval.explain import trace
from tangeval.explain.subject import Asked, find
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.resolve import resolve
from tangeval.results.explained import FILE, LIKELIEST, Explained, read_explained
from tangeval.results.files import write_json, write_text
from tangeval.tasks.tang.text import han
from tests.support.plain_decoder import held, penalised
from tests.support.study import write_study

STUDY = {
    "load": {"dtype": "float32"}, "samples": 2, "select": None,
    "decoding": {"temperature": [0.0, 0.3, 0.7, 1.0, 1.6], "top_k": [0, 3, 20], "top_p": [0.5, 0.9, 1.0],
                 "max_length": [14, 22], "no_repeat_ngram_size": 2},
}  # fmt: skip
KNOBS = ("temperature=0.7", "top_k=20", "top_p=0.9", "max_length=22")


@pytest.fixture(scope="module")
def resolved(tiny_model, tiny_run, tmp_path_factory):
    return resolve(load_study(write_study(tmp_path_factory.mktemp("study"), tiny_model, tiny_run, **STUDY)))


def subject(resolved, folder, prompt="3", **asked):
    return find(resolved, folder, Asked(prompt, knobs=asked.pop("knobs", KNOBS), **asked))


def explained(resolved, folder, **asked) -> Explained:
    """As it comes back from the file."""
    content = trace.explain(resolved, subject(resolved, folder, **asked))
    write_text(folder / FILE, content.as_json())
    assert read_explained(folder / FILE) == content
    return content


#: A narrow setting, and one without a cut, whose noise goes beyond the likeliest tokens.
SUBJECTS = {
    "narrow": {"knobs": KNOBS, "sample": 1},
    "wide": {"knobs": ("temperature=1.6", "top_k=0", "top_p=1", "max_length=22")},
    "greedy": {"knobs": ("temperature=0", "top_k=3", "top_p=0.5", "max_length=22"), "reference": True},
}


@pytest.fixture(scope="module", params=SUBJECTS.values(), ids=SUBJECTS)
def content(request, resolved, tmp_path_factory) -> Explained:
    return explained(resolved, tmp_path_factory.mktemp("one"), checkpoint="base", **request.param)


@pytest.fixture(scope="module")
def narrow(resolved, tmp_path_factory) -> Explained:
    return explained(resolved, tmp_path_factory.mktemp("narrow"), checkpoint="base", **SUBJECTS["narrow"])


def distributions(ids, scores, knobs):
    """Those that ``generate`` goes through, float64 ``[V]`` each; one token at temperature 0."""
    found = [scores[0].double().softmax(-1)]
    scores = NoRepeatNGramLogitsProcessor(2)(ids, scores)
    if knobs["temperature"] == 0:
        chosen = torch.nn.functional.one_hot(scores[0].argmax(), scores.shape[1]).double()
        return [*found, *[chosen] * 3], scores[0]
    warpers = [
        TemperatureLogitsWarper(knobs["temperature"]),
        TopKLogitsWarper(int(knobs["top_k"]) or scores.shape[1]),
        TopPLogitsWarper(knobs["top_p"]),
    ]
    for warper in warpers:
        scores = warper(ids, scores)
        found.append(scores[0].double().softmax(-1))
    return found, scores[0]


def walked(content, resolved, model, tokenizer):
    """Yield each step with the text before it and the model's logits after that."""
    text = encode_prompt(tokenizer, prompt_of(resolved, resolved.dataset.by_id["test-3"]))
    for step in content.steps:
        ids = torch.tensor([text])
        with torch.inference_mode():
            yield step, ids, model(ids).logits[:, -1].float()
        text = [*text, step.token]


def test_every_stage_of_every_setting_is_that_of_transformers(content, resolved, model, tokenizer):
    """Of all tokens: how many stay, their entropy, each candidate's probability, and the token that noise picks."""
    key = torch.tensor([noise_key(resolved.study.seed, "test-3", content.sample)])
    for place, (step, ids, logits) in enumerate(walked(content, resolved, model, tokenizer)):
        noise = gumbel(key, place, torch.arange(logits.shape[1])[None])[0]
        shown = [candidate.id for candidate in step.candidates]
        for setting, pick in zip(content.settings, step.picks, strict=True):
            expected, scores = distributions(ids, logits.clone(), setting.knobs)
            before = None
            for stage, p in zip((step.stages[n] for n in setting.stages), expected, strict=True):
                some = p[p > 0]
                assert stage.kept == len(some)
                assert stage.entropy == pytest.approx(float(-(some * some.log()).sum()), abs=1e-4)
                assert stage.choices == pytest.approx(math.exp(stage.entropy), rel=1e-4)
                assert stage.p == pytest.approx(p[shown].tolist(), abs=2e-5)
                held = 1.0 if before is None else float(before[p > 0].sum())
                assert stage.mass == pytest.approx(held, abs=1e-4)
                before = p
            greedy = setting.knobs["temperature"] == 0
            assert pick.id == (scores if greedy else scores + noise).argmax()
            assert pick.score == (
                None if greedy else pytest.approx(float((scores + noise)[pick.id]), abs=1e-4)
            )
    if content.follows == "setting":
        assert [step.picks[0].id for step in content.steps] == [step.token for step in content.steps]


def test_candidates_are_the_likeliest_the_edges_of_the_cuts_and_what_is_picked(
    content, resolved, model, tokenizer
):
    barred = 0
    for step, ids, logits in walked(content, resolved, model, tokenizer):
        shown = [candidate.id for candidate in step.candidates]
        assert shown[:LIKELIEST] == logits[0].topk(LIKELIEST).indices.tolist()
        assert {step.token, *(pick.id for pick in step.picks)} <= set(shown)
        assert [each.logit for each in step.candidates] == pytest.approx(logits[0, shown].tolist(), abs=1e-4)
        forbidden = torch.isinf(NoRepeatNGramLogitsProcessor(2)(ids, logits)[0])
        assert [each.rank < 0 for each in step.candidates] == forbidden[shown].tolist()
        barred += int(forbidden[shown].sum())
        ranks = {candidate.rank for candidate in step.candidates}
        allowed = int((~forbidden).sum())
        for stage in step.stages[1:]:
            assert stage.kept == allowed or {stage.kept - 1, stage.kept} <= ranks
        for setting in content.settings:
            first = step.stages[setting.stages[1]]
            if temperature := setting.knobs["temperature"]:
                expected = [each.logit / temperature + each.noise for each in step.candidates]
                assert first.score == pytest.approx(expected, rel=1e-5, abs=1e-5)
            else:
                assert first.score == []
    assert barred or content.follows == "setting"  # the reference repeats what the prompt says


def test_noise_beyond_the_likeliest_is_shown_all_the_same(resolved, tmp_path):
    wide = explained(resolved, tmp_path, checkpoint="base", **SUBJECTS["wide"])
    ranks = [each.rank for step in wide.steps for each in step.candidates if each.id == step.token]
    assert max(ranks) > 2 * LIKELIEST


def test_settings_share_the_stages_before_the_knob_that_is_turned(narrow):
    """Five temperatures with both cuts; one temperature with two more top-k and two more top-p; the model."""
    assert {len(step.stages) for step in narrow.steps} == {1 + 5 * 3 + 2 * 2 + 2}
    own, stages = narrow.settings[0].stages, {turn.name: turn.settings for turn in narrow.knobs}
    for name, shared in (("temperature", 1), ("top_k", 2), ("top_p", 3)):
        for place in stages[name]:
            assert narrow.settings[place].stages[:shared] == own[:shared]


def test_texts_are_those_that_generate_writes(resolved, narrow, tmp_path):
    generation.decode(resolved, tmp_path)
    batch_files = pd.concat(map(pd.read_parquet, (tmp_path / "generations").glob("*.parquet")))
    rows = batch_files.query(
        "checkpoint == 'base' and example_id == 'test-3' and sample == 1 and max_length == 22"
    )
    texts = {
        (row.temperature, row.top_k, row.top_p): (row.text, row.finish_reason) for row in rows.itertuples()
    }
    found = {
        tuple(each.knobs[name] for name in ("temperature", "top_k", "top_p")): (each.text, each.finish_reason)
        for each in narrow.settings
    }
    assert len(found) == 1 + 4 + 2 + 2
    assert found == {setting: texts[setting] for setting in found}
    assert len({text for text, _ in found.values()}) > 2
    assert narrow.text == narrow.settings[0].text


def test_knobs_are_turned_one_at_a_time_and_a_cut_that_is_off_is_last(narrow):
    values = {
        turn.name: [narrow.settings[place].knobs[turn.name] for place in turn.settings]
        for turn in narrow.knobs
    }
    assert values == {"temperature": [0.0, 0.3, 0.7, 1.0, 1.6], "top_k": [3, 20, 0], "top_p": [0.5, 0.9, 1.0]}
    for turn in narrow.knobs:
        others = [
            {name: value for name, value in narrow.settings[place].knobs.items() if name != turn.name}
            for place in turn.settings
        ]
        assert all(other == others[0] for other in others)
    assert narrow.setting == narrow.settings[0].knobs | {"no_repeat_ngram_size": 2}


def test_of_a_long_grid_a_handful_is_looked_at(resolved):
    grid = resolved.study.decoding.model_copy(update={"temperature": [t / 10 for t in range(1, 30)]})
    own = Setting.of(temperature=0.75, top_k=0, top_p=1.0, max_length=9, no_repeat_ngram_size=2)
    found = [setting.temperature for setting in trace.around(own, grid)["temperature"]]
    assert len(found) == 7
    assert {0.1, 0.75, 2.9} <= set(found)


def test_the_reference_is_as_likely_as_likelihood_says(resolved, model, tokenizer, tmp_path):
    chosen = subject(resolved, tmp_path, checkpoint="base", reference=True)
    content = trace.explain(resolved, chosen)
    tokens = [step.token for step in content.steps]
    assert tokens == encode_completion(tokenizer, prompt_of(resolved, chosen.example), content.reference)
    nats = 0.0
    for step in content.steps:
        place = [candidate.id for candidate in step.candidates].index(step.token)
        nats -= math.log(step.stages[0].p[place])
    asked = Reference("test-3", prompt_of(resolved, chosen.example), content.reference)
    (expected,) = reference_nll(model, tokenizer, [asked], resolved.task.characters, Workspace())
    assert nats == pytest.approx(expected.nats, rel=1e-5)


def test_the_step_shown_is_the_first_character_unless_one_is_asked_for(resolved, narrow, tmp_path):
    words = [narrow.vocabulary[step.token] for step in narrow.steps]
    assert narrow.step == next(place for place, word in enumerate(words, 1) if han(word))
    assert trace.explain(resolved, subject(resolved, tmp_path), 4).step == 4
    with pytest.raises(TangevalError, match=r"--step 23: the text has \d+ steps"):
        trace.explain(resolved, subject(resolved, tmp_path), 23)


def test_the_selection_is_the_default_where_there_is_one(resolved, tmp_path):
    first = Setting.of(temperature=0.0, top_k=0, top_p=0.5, max_length=14, no_repeat_ngram_size=2)
    setting = {"temperature": 0.7, "top_k": 3, "top_p": 0.9, "max_length": 22, "no_repeat_ngram_size": 2}

    def chosen(*knobs, **asked):
        found = subject(resolved, tmp_path, knobs=knobs, **asked)
        return found.checkpoint.name, found.setting, found.why

    def select(name, setting):
        content = {"checkpoint": {"checkpoint": name}, "setting": setting}
        write_json(tmp_path / "best" / "selection.json", content)

    assert chosen()[:2] == ("checkpoint-20", first)
    select("checkpoint-10", setting)
    own = Setting.of(temperature=0.7, top_k=20, top_p=0.9, max_length=22, no_repeat_ngram_size=2)
    why = "checkpoint: selected; setting: selected, changed by --setting"
    assert chosen("top_k=20") == ("checkpoint-10", own, why)
    assert chosen(checkpoint="base")[0] == "base"
    select("checkpoint-7", setting | {"temperature": 0.5})
    assert chosen() == ("checkpoint-20", first, "checkpoint: the last; setting: the grid's first")


def test_a_poem_goes_by_its_place_or_its_id(resolved, tmp_path):
    assert subject(resolved, tmp_path, "test-3").example == subject(resolved, tmp_path, "3").example
    assert subject(resolved, tmp_path, "2", split="validation").example.split == "validation"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"prompt": "16"},
            "the test split has 15 examples; give a number from 1 to 15, or an id such as test-1",
        ),
        ({"prompt": "train-3"}, "the test split has 15 examples"),
        ({"checkpoint": "checkpoint-7"}, "there are base, checkpoint-10, checkpoint-20"),
        ({"knobs": ("heat=1",)}, "there are temperature, top_n_sigma"),
        ({"knobs": ("top_p=0",)}, "--setting: top_p.0: 0 is out of range"),
        (
            {"knobs": ("temperature=0", "num_beams=2")},
            "a search of beams draws none, it compares whole texts; give --setting num_beams=1",
        ),
        ({"knobs": ("top_k=2.5",)}, "--setting: top_k.0: Input should be a valid integer"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(resolved, tmp_path, asked, message):
    with pytest.raises(TangevalError, match=message):
        subject(resolved, tmp_path, **asked)


def test_an_adapter_is_named_with_its_fingerprint(resolved, tmp_path):
    content = explained(resolved, tmp_path, checkpoint="checkpoint-10")
    assert content.checkpoint.name == "checkpoint-10"
    assert content.checkpoint.fingerprint == resolved.fingerprints["checkpoint-10"]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"steps": []},
        {"vocabulary": {}},
        {"knobs": [{"name": "top_k", "settings": [99]}]},
        {"text": None},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_damaged_file_is_refused_with_the_command_that_makes_one(narrow, tmp_path, change):
    write_json(tmp_path / FILE, json.loads(narrow.as_json()) | change)
    with pytest.raises(
        TangevalError, match=r"explain\.json: not an explain\.json of this version .*tangeval explain"
    ):
        read_explained(tmp_path / FILE)


@pytest.fixture(scope="module")
def shaped(tiny_model, tiny_run, tmp_path_factory):
    """A study whose knobs change the logits before the temperature."""
    decoding = {
        "temperature": [0.7, 1.0], "contrast": [0, 0.5], "repetition_penalty": [1.0, 1.5], "presence_penalty": [0.0, 0.7],
        "constrain": ["none", "form"], "no_repeat_ngram_size": [0, 2], "min_p": [0, 0.02], "max_length": 20,
    }  # fmt: skip
    file = write_study(
        tmp_path_factory.mktemp("shaped"),
        tiny_model,
        tiny_run,
        **STUDY | {"decoding": decoding, "samples": 1},
    )
    return resolve(load_study(file))


ALL = {
    "contrast": 0.5, "repetition_penalty": 1.5, "presence_penalty": 0.7, "constrain": "form",
    "no_repeat_ngram_size": 2, "temperature": 0.7, "min_p": 0.02,
}  # fmt: skip


def shape(logits, ids, written, knobs, constraint):
    """By transformers' and vLLM's definitions, stage by stage; ``logits`` are those of the two models."""
    own, base = logits
    scores = (1 + knobs["contrast"]) * own - knobs["contrast"] * base
    yield scores
    scores = RepetitionPenaltyLogitsProcessor(knobs["repetition_penalty"])(ids, scores)
    yield scores
    scores = penalised(scores, written, knobs["presence_penalty"], 0.0)
    yield scores
    if constraint and knobs["constrain"] == "form":
        scores = held(scores, constraint, written, [3])
    yield scores
    if knobs["no_repeat_ngram_size"]:
        banned = NoRepeatNGramLogitsProcessor(int(knobs["no_repeat_ngram_size"]))(ids, scores)
        scores = banned if banned.isfinite().any() or not constraint else scores
    yield scores
    yield scores / knobs["temperature"]
    yield MinPLogitsWarper(knobs["min_p"])(None, scores / knobs["temperature"])


def test_contrast_penalties_and_constraint_have_stages_and_are_turned(
    shaped, tiny_run, model, tokenizer, tmp_path
):
    """Each as the plain definitions have it; texts are those that ``generate`` writes."""
    knobs = tuple(f"{name}={value}" for name, value in ALL.items())
    content = explained(shaped, tmp_path, checkpoint="checkpoint-10", knobs=knobs)
    order = [
        "contrast",
        "repetition_penalty",
        "presence_penalty",
        "constrain",
        "no_repeat_ngram_size",
        "temperature",
    ]
    turns = {turn.name: turn.settings for turn in content.knobs}
    assert list(turns) == [*order, "top_k", "top_p", "min_p"]
    assert all(len(settings) == 2 for name, settings in turns.items() if name not in ("top_k", "top_p"))
    example = shaped.dataset.by_id["test-3"]
    constraint = constraints_of(shaped, tokenizer)("form", example)
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), tiny_run / "checkpoint-10").eval()
    prompt, written = encode_prompt(tokenizer, prompt_of(shaped, example)), []
    for step in content.steps:
        ids = torch.tensor([prompt + written])
        with torch.inference_mode():
            logits = [each(ids).logits[:, -1].float() for each in (adapted, model)]
        shown = [candidate.id for candidate in step.candidates]
        for setting in content.settings:
            stages = [step.stages[place] for place in setting.stages]
            del stages[7:9]  # top_k and top_p, which are off
            expected = [logits[0], *shape(logits, ids, written, setting.knobs, constraint)]
            before = torch.full_like(expected[0].double(), 1.0 / logits[0].shape[1])
            for stage, scores in zip(stages, expected, strict=True):
                p = scores.double().softmax(-1)
                assert stage.kept == int(scores.isfinite().sum())
                assert stage.p == pytest.approx(p[0, shown].tolist(), abs=2e-5)
                assert stage.mass == pytest.approx(float(before[scores.isfinite()].sum()), abs=1e-4)
                before = p
        assert step.picks[0].id == step.token
        written.append(step.token)
    generation.decode(shaped, tmp_path / "made")
    rows = pd.concat(map(pd.read_parquet, (tmp_path / "made" / "generations").glob("*.parquet")))
    rows = rows.query("checkpoint == 'checkpoint-10' and example_id == 'test-3'")
    names = list(ALL)
    texts = {tuple(row[name] for name in names): row["text"] for _, row in rows.iterrows()}
    for setting in content.settings:
        assert setting.text == texts[tuple(setting.knobs[name] for name in names)]
