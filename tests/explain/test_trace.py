"""What ``explain.json`` says of a tiny model, against Hugging Face's warpers and against ``generate``."""

import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tangeval import generation as generate
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.core.study import load_study
from tangeval.decoding.batch import Workspace
from tangeval.engines import likelihood
from tangeval.explain import trace as explain
from tangeval.models.tokens import encode_completion, encode_prompt
from tangeval.resolve import resolve
from tangeval.results.files import write_json
from tangeval.tasks.tang.prompt import asked
from tangeval.tasks.tang.text import han

STUDY = """
name: tiny
base_model: {base}
checkpoints: {run}
data: sample
load: {{dtype: float32}}
decoding:
  temperature: [0.0, 0.3, 0.7, 1.0, 1.6]
  top_k: [0, 3, 20]
  top_p: [0.5, 0.9, 1.0]
  max_length: [14, 22]
  no_repeat_ngram_size: 2
samples: 2
select: null
splits: test
"""
KNOBS = ("temperature=0.7", "top_k=20", "top_p=0.9", "max_length=22")


@pytest.fixture(scope="module")
def resolved(tiny_model, tiny_run, tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
    return resolve(load_study(file))


def subject(resolved, folder, prompt="3", **asked):
    return explain.find(resolved, folder, explain.Asked(prompt, knobs=asked.pop("knobs", KNOBS), **asked))


@pytest.fixture(scope="module")
def content(resolved, tmp_path_factory):
    """As it comes back from the file, of the base model."""
    chosen = subject(resolved, tmp_path_factory.mktemp("none"), checkpoint="base", sample=1)
    return json.loads(json.dumps(explain.explain(resolved, chosen)))


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def hugging_face(ids, scores, setting, no_repeat=0):
    """The distribution ``generate`` would draw from, float64 ``[V]``."""
    if no_repeat:
        scores = NoRepeatNGramLogitsProcessor(no_repeat)(ids, scores)
    scores = TemperatureLogitsWarper(setting["temperature"])(ids, scores)
    if setting["top_k"]:
        scores = TopKLogitsWarper(setting["top_k"])(ids, scores)
    if setting["top_p"] < 1:
        scores = TopPLogitsWarper(setting["top_p"])(ids, scores)
    return scores[0].double().softmax(-1)


def entropy(p):
    some = p[p > 0]
    return float(-(some * some.log()).sum())


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, 5000])
@pytest.mark.parametrize("top_p", [0.3, 0.95, 1.0])
def test_stages_are_hugging_faces_warpers(temperature, top_k, top_p):
    torch.manual_seed(1)
    logits = (torch.randn(400) * 2).sort(descending=True).values
    logits[6] = logits[7]  # a tie at the seventh place
    allowed = torch.arange(400) % 50 != 3
    found = explain.stages(
        logits.numpy(),
        allowed.numpy(),
        Setting.of(temperature=temperature, top_k=top_k, top_p=top_p, max_length=8),
    )
    scores = logits.masked_fill(~allowed, -torch.inf)[None]
    settings = [(temperature, 0, 1.0), (temperature, top_k, 1.0), (temperature, top_k, top_p)]
    for stage, setting in zip(found[1:], settings, strict=True):
        p = hugging_face(None, scores, dict(zip(explain.KNOBS, setting, strict=True)))
        assert stage[0] == int((p > 0).sum())
        assert stage[2:] == pytest.approx([entropy(p), float(p.max())], rel=1e-5, abs=1e-6)
    assert found[0] == pytest.approx(
        [400, 1.0, entropy(logits.double().softmax(-1)), float(logits.double().softmax(-1)[0])]
    )
    assert found[1][1] == pytest.approx(float(logits.softmax(-1)[allowed].sum()), rel=1e-5)


def recomputed(content, step, setting):
    """What docs/explain.md tells a page to do: each stored token's probability, the number kept, the entropy.

    None where the cut falls among tokens that are not stored.
    """
    top, rest, temperature = step["top"], step["rest"], setting["temperature"]
    logits, rank = (np.array([entry[place] for entry in top]) for place in (1, 3))
    free, others = rank >= 0, rest["count"]
    x = np.where(free, logits / temperature, -np.inf)
    at = content["temperatures"].index(temperature)
    mass, mean = (math.exp(rest["log_sum"][at]), rest["mean"][at]) if others else (0.0, 0.0)
    weights = np.exp(x)
    count = free.sum() + others
    if setting["top_k"] and setting["top_k"] < count:
        if setting["top_k"] > explain.STORED - (~free).sum():
            return None
        threshold = np.sort(x[free])[::-1][setting["top_k"] - 1]
        weights[x < threshold] = 0
        count, mass = (weights > 0).sum(), 0.0
    if setting["top_p"] < 1:
        before = np.cumsum(weights) - weights
        kept = before < setting["top_p"] * (weights.sum() + mass)
        if mass and kept[free].all():
            return None
        weights = np.where(kept, weights, 0)
        count, mass = (weights > 0).sum(), 0.0
    total = weights.sum() + mass
    some = weights > 0
    return (
        weights / total,
        int(count),
        math.log(total) - ((weights * np.where(some, x, 0)).sum() + mass * mean) / total,
    )


def test_a_page_recomputes_every_setting_from_the_stored_logits(content):
    seen = 0
    for step in content["steps"]:
        for setting, stages in zip(content["settings"], step["stages"], strict=True):
            found = recomputed(content, step, setting) if setting["temperature"] else None
            if found is not None:
                seen += 1
                _, count, nats = found
                assert count == stages[3][0]
                assert nats == pytest.approx(stages[3][2], abs=1e-5)
    assert seen == 8 * len(content["steps"])


def test_the_stored_logits_warp_as_hugging_faces_do(resolved, content, model, tokenizer):
    prompt = encode_prompt(tokenizer, asked(resolved.dataset.by_id["test-3"], "hw5"))
    tokens = [step["token"] for step in content["steps"]]
    for place, step in enumerate(content["steps"]):
        ids = torch.tensor([prompt + tokens[:place]])
        with torch.inference_mode():
            scores = model(ids).logits[:, -1].float()
        stored = [entry[0] for entry in step["top"]]
        for setting in content["settings"]:
            if setting["temperature"] and (found := recomputed(content, step, setting)):
                expected = hugging_face(ids, scores, setting, no_repeat=2)
                assert found[0] == pytest.approx(expected[stored].numpy(), abs=2e-5)
        barred = torch.isinf(NoRepeatNGramLogitsProcessor(2)(ids, scores)[0]).nonzero()[:, 0].tolist()
        assert sorted(entry[0] for entry in step["top"] if entry[3] < 0) == barred
    assert any(entry[3] < 0 for step in content["steps"] for entry in step["top"])


def test_stored_noise_picks_the_tokens_that_were_written(content):
    for step in content["steps"]:
        p, _, _ = recomputed(content, step, content["settings"][0])
        noisy = [
            entry[1] / content["setting"]["temperature"] + entry[2] if some else -math.inf
            for entry, some in zip(step["top"], p, strict=True)
        ]
        assert step["top"][int(np.argmax(noisy))][0] == step["token"]


def test_without_a_cut_the_rest_counts_too(resolved, tmp_path):
    knobs = ("temperature=1.6", "top_k=0", "top_p=1", "max_length=22")
    free = explain.explain(resolved, subject(resolved, tmp_path, checkpoint="base", knobs=knobs))
    at = free["temperatures"].index(1.6)
    for step in free["steps"]:
        _, count, nats = recomputed(free, step, free["settings"][0])
        assert (count, pytest.approx(nats, abs=1e-5)) == (step["stages"][0][3][0], step["stages"][0][3][2])
        best = max((entry[1] / 1.6 + entry[2], entry[0]) for entry in step["top"] if entry[3] >= 0)
        assert max(best, (step["rest"]["score"][at], step["rest"]["pick"][at]))[1] == step["token"]
    # Noise went beyond the largest logits, and what it picked is stored all the same.
    assert any(entry[3] >= explain.STORED for step in free["steps"] for entry in step["top"])


def test_texts_are_those_that_generate_writes(resolved, content, tmp_path):
    generate.generate(resolved, tmp_path)
    batch_files = pd.concat(map(pd.read_parquet, (tmp_path / "generations").glob("*.parquet")))
    rows = batch_files.query(
        "checkpoint == 'base' and example_id == 'test-3' and sample == 1 and max_length == 22"
    )
    texts = {
        (row.temperature, row.top_k, row.top_p): (row.text, row.finish_reason) for row in rows.itertuples()
    }
    found = {tuple(s[k] for k in explain.KNOBS): (s["text"], s["finish_reason"]) for s in content["settings"]}
    assert len(found) == 1 + 4 + 2 + 2
    assert found == {setting: texts[setting] for setting in found}
    assert len({text for text, _ in found.values()}) > 2
    assert content["text"] == content["settings"][0]["text"]


def test_knobs_are_turned_one_at_a_time_and_what_cuts_least_is_last(content):
    values = {
        knob: [content["settings"][place][knob] for place in places]
        for knob, places in content["knobs"].items()
    }
    assert values == {"temperature": [0.0, 0.3, 0.7, 1.0, 1.6], "top_k": [3, 20, 0], "top_p": [0.5, 0.9, 1.0]}
    for knob, places in content["knobs"].items():
        others = [{k: content["settings"][p][k] for k in explain.KNOBS if k != knob} for p in places]
        assert all(other == others[0] for other in others)


def test_of_a_long_grid_a_handful_is_looked_at(resolved):
    grid = resolved.study.decoding.model_copy(update={"temperature": [t / 10 for t in range(1, 30)]})
    found = [
        setting.temperature
        for setting in explain.around(Setting.of(temperature=0.75, top_k=0, top_p=1.0, max_length=9), grid)[
            "temperature"
        ]
    ]
    assert len(found) == 7
    assert {0.1, 0.75, 2.9} <= set(found)


def test_the_reference_is_as_likely_as_likelihood_says(resolved, model, tokenizer, tmp_path):
    chosen = subject(resolved, tmp_path, checkpoint="base", reference=True)
    content = explain.explain(resolved, chosen)
    tokens = [step["token"] for step in content["steps"]]
    assert tokens == encode_completion(tokenizer, asked(chosen.example, "hw5"), content["reference"])
    nats = 0.0
    for step in content["steps"]:
        logits = np.array([entry[1] for entry in step["top"]])
        total = np.logaddexp.reduce([*logits, step["rest"]["log_sum"][0]])
        nats += total - next(entry[1] for entry in step["top"] if entry[0] == step["token"])
    (expected,) = likelihood.reference_nll(model, tokenizer, resolved, [chosen.example], Workspace())
    assert nats == pytest.approx(expected.nats, rel=1e-5)


def test_the_step_drawn_is_the_first_character_unless_one_is_asked_for(resolved, content, tmp_path):
    words = [content["vocabulary"][str(step["token"])] for step in content["steps"]]
    assert content["step"] == next(place for place, word in enumerate(words, 1) if han(word))
    assert explain.explain(resolved, subject(resolved, tmp_path), 4)["step"] == 4
    with pytest.raises(TangevalError, match=r"--step 23: the text has \d+ steps"):
        explain.explain(resolved, subject(resolved, tmp_path), 23)


def test_the_selection_is_the_default_where_there_is_one(resolved, tmp_path):
    assert subject(resolved, tmp_path, knobs=()).checkpoint.name == "checkpoint-20"
    assert subject(resolved, tmp_path, knobs=()).setting == Setting.of(
        temperature=0.0, top_k=0, top_p=0.5, max_length=14
    )
    setting = {"temperature": 0.7, "top_k": 3, "top_p": 0.9, "max_length": 22, "no_repeat_ngram_size": 2}
    write_json(
        tmp_path / "best" / "selection.json",
        {"checkpoint": {"checkpoint": "checkpoint-10"}, "setting": setting},
    )
    chosen = subject(resolved, tmp_path, knobs=("top_k=20",))
    assert (chosen.checkpoint.name, chosen.setting) == (
        "checkpoint-10",
        Setting.of(temperature=0.7, top_k=20, top_p=0.9, max_length=22),
    )
    assert chosen.why == "checkpoint: selected; setting: selected, changed by --setting"
    assert subject(resolved, tmp_path, checkpoint="base").checkpoint.name == "base"
    gone = {"checkpoint": {"checkpoint": "checkpoint-7"}, "setting": setting | {"temperature": 0.5}}
    write_json(tmp_path / "best" / "selection.json", gone)
    chosen = subject(resolved, tmp_path, knobs=())
    assert (chosen.checkpoint.name, chosen.setting) == (
        "checkpoint-20",
        Setting.of(temperature=0.0, top_k=0, top_p=0.5, max_length=14),
    )
    assert chosen.why == "checkpoint: the last; setting: the grid's first"


def test_a_poem_goes_by_its_place_or_its_id(resolved, tmp_path):
    assert subject(resolved, tmp_path, "test-3").example == subject(resolved, tmp_path, "3").example
    assert subject(resolved, tmp_path, "2", split="validation").example.split == "validation"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"prompt": "16"},
            "the test split has 15 poems; give a number from 1 to 15, or an id such as test-1",
        ),
        ({"prompt": "0"}, "from 1 to 15"),
        ({"prompt": "train-3"}, "the test split has 15 poems"),
        ({"checkpoint": "checkpoint-7"}, "there are base, checkpoint-10, checkpoint-20"),
        ({"knobs": ("heat=1",)}, "there are temperature, top_k, top_p, max_length"),
        ({"knobs": ("top_p=0",)}, "--setting: top_p.0: Input should be greater than 0"),
        ({"knobs": ("top_k=2.5",)}, "--setting: top_k.0: Input should be a valid integer"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(resolved, tmp_path, asked, message):
    with pytest.raises(TangevalError, match=message):
        subject(resolved, tmp_path, **asked)


def test_an_adapter_is_named_with_its_fingerprint(resolved, tmp_path):
    content = explain.explain(resolved, subject(resolved, tmp_path, checkpoint="checkpoint-10"))
    assert content["checkpoint"]["name"] == "checkpoint-10"
    assert content["checkpoint"]["fingerprint"]


ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("knobs", [KNOBS, ("temperature=1.6", "top_k=0", "top_p=1", "max_length=22")])
def test_the_documents_javascript_gives_what_was_computed_here(resolved, tmp_path, knobs):
    content = explain.explain(resolved, subject(resolved, tmp_path, checkpoint="base", knobs=knobs, sample=1))
    (code,) = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "explain.md").read_text("utf-8"), re.S)
    write_json(tmp_path / "explain.json", content)
    code += """
    const lesson = JSON.parse(require("fs").readFileSync(process.argv[2], "utf-8"));
    console.log(JSON.stringify(lesson.steps.map(step => lesson.settings.map(
        s => distribution(lesson, step, s.temperature, s.top_k, s.top_p)))));
    """
    (tmp_path / "page.js").write_text(code, "utf-8")
    command = ["node", str(tmp_path / "page.js"), str(tmp_path / "explain.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    unknown = 0
    for step, row in zip(content["steps"], json.loads(done.stdout), strict=True):
        assert row[0]["pick"] == step["token"]
        for (*_, last), found in zip(step["stages"], row, strict=True):
            if found is None:
                unknown += 1
                assert last[0] > explain.STORED / 2
                continue
            assert found["kept"] == last[0]
            assert found["entropy"] == pytest.approx(last[2], abs=1e-5)
            assert found["tokens"][0]["p"] == pytest.approx(last[3], rel=1e-6)
    assert unknown < 2 * len(content["steps"])  # of nine settings a step
