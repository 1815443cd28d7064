"""What stands around a poem is cut alike for ``score``, server and judge, and no verse is."""

import json
import time
import warnings
from types import SimpleNamespace

import pandas as pd
import pytest

from tangeval.core.study import load_study
from tangeval.engines import make
from tangeval.engines.base import Job
from tangeval.engines.client import Reply
from tangeval.engines.openai import _Request
from tangeval.engines.served import Server
from tangeval.judge.grading import _unwrapped
from tangeval.resolve import resolve
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.external_outputs import read
from tangeval.tasks.tang.text import as_verse, clauses
from tangeval.tasks.tang.wrappers import unwrap
from tests.support.study import write_study

SAMPLE = dataset.load("sample")
POEMS = SAMPLE.split("test")
TEXTS = tuple(example.reference for example in POEMS)

NUMBERS = [
    ("{}", None), ("第1首：{}", 1), ("第十二首：{}", 12), ("第 3 首、{}", 3), ("第一題 {}", 1), ("第二題\n{}", 2), ("1. {}", 1),
    ("7、{}", 7), ("２．{}", 2), ("3) {}", 3), ("（1）{}", 1), ("(2) {}", 2), ("【3】{}", 3), ("[4] {}", 4), ("①{}", 1),
    ("⑫ {}", 12), ("一、{}", 1), ("（二十一）{}", 21), ("No. 5: {}", 5), ("#6 {}", 6), ("題目7：{}", 7),
]  # fmt: skip
WRAPPERS = [
    "{}", "<|im_start|>assistant\n{}<|im_end|>", "{}<|im_end|>\n<|im_start|>user\n再寫一首，好嗎？", "<s>[/INST] {} </s>",
    "[INST] {}", "[INST] <<SYS>>\n你是詩人。\n<</SYS>>\n\n請寫一首。\n[/INST] {}</s>", "{}</s> [INST] 下一首", "<bos>{}<eos>",
    "<start_of_turn>model\n{}<end_of_turn>", "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    "<|im_start|>user\n寫詩。<|im_end|>\n<|im_start|>assistant\n{}", "<｜Assistant｜>{}<｜end▁of▁sentence｜>",
    "```\n{}\n```", "```text\n{}\n```", "**{}**", "*{}*", "`{}`", "> {}", "- {}", "## {}", "「{}」", "『{}』", "“{}”", '"{}"',
    "好的，以下是完整的唐詩：\n{}", "當然可以！以下是續寫：\n\n{}", "以下為您續寫的詩：{}", "根據您的詩句，我續寫如下：\n{}", "好的，以下是：「{}」",
    "Assistant: {}", "助手：{}", "答：{}", "答案：**{}**", "### Response:\n{}", "Sure! Here is the poem:\n\n{}\n\nHope you like it!",
    "{}\n希望您喜歡！", "{}\n\n註：此詩寫景。", "{}（註：此詩寫景）", "《山中》\n{}", "《山中》李白\n{}", "<think>春風，秋月。\n好</think>\n\n{}",
]  # fmt: skip


def scored(tmp_path, wrap):
    """What ``score`` reads of records that say nothing of whose they are, in another order."""
    written = [{"predict": wrap(e.input + e.reference)} for e in reversed(POEMS)]
    file = tmp_path / "out.json"
    file.write_text(json.dumps(written), "utf-8")
    found = read(file, "out", POEMS)
    return found.texts, found.notes


def served(tmp_path, wrap):
    """What the engine makes of a server's answers."""
    pytest.importorskip("urllib3", reason="the package urllib3 of the dev extra is not installed")
    section = {"server": "http://h/v1", "models": {"base": "x"}, "dialect": "openai"}
    resolved = resolve(load_study(write_study(tmp_path, engine=section, select=None, samples=1)))
    engine, texts = make(resolved), []
    for example in POEMS:
        choice = {"text": f" {wrap(example.reference)}", "finish_reason": "stop"}
        reply = Reply.model_validate({"choices": [choice], "usage": {"completion_tokens": 5}})
        client = SimpleNamespace(complete=lambda body, reply=reply: reply)
        engine.server = Server(resolved, engine.config, client)
        setting = resolved.study.decoding.settings()[0]
        texts += engine._answer(_Request(Job(resolved.checkpoints[0]), example, setting, (0,)))
    return tuple(made.text for made in texts), [cut for cut in engine.cuts if cut]


def judged(tmp_path, wrap):
    """What a judge is shown."""
    frame = pd.DataFrame({"example_id": [e.id for e in POEMS], "text": [wrap(e.reference) for e in POEMS]})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = _unwrapped(frame, TANG, SAMPLE)
    return tuple(found["text"]), [str(each.message) for each in told]


@pytest.mark.parametrize("reader", [scored, served, judged])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_around_any_numbering_is_cut_and_told(tmp_path, reader, wrapper):
    for number, _ in NUMBERS:
        texts, told = reader(tmp_path, lambda text, n=number: wrapper.format(n.format(text)))
        assert (number, texts) == (number, TEXTS)
        # That the couplet led to the poem is no news; that something else was cut is.
        assert bool(told) == (wrapper != "{}" or number != "{}")


@pytest.mark.parametrize(("number", "value"), NUMBERS)
def test_a_number_is_read_as_one(number, value):
    assert unwrap(number.format(TEXTS[0])).number == value


@pytest.mark.parametrize("reader", [served, judged])
@pytest.mark.parametrize(
    "wrapper",
    [
        "{}{}",
        "1. {}{}",
        "「{}{}」",
        "好的，以下是全詩：\n{}\n{}",
        "**{}**\n{}",
        "{}<|im_start|>assistant\n{}",
    ],
)
def test_a_couplet_before_the_poem_is_cut_and_told(tmp_path, reader, wrapper):
    couplets = {e.reference: e.input for e in POEMS}
    texts, told = reader(tmp_path, lambda text: wrapper.format(couplets.get(text, ""), text))
    assert (texts, "the couplet before the poem" in str(told)) == (TEXTS, True)


def verse(examples):
    """Every ending as it stands, as verse, in lines and apart."""
    for example in examples:
        parts = clauses(example.reference)
        yield from (example.reference, as_verse(example.reference), "\n".join(parts), "\u3000".join(parts))


@pytest.mark.parametrize("data", ["sample", "hw5"])
def test_of_the_poets_own_endings_nothing_is_cut(request, data):
    examples = SAMPLE.examples if data == "sample" else request.getfixturevalue("hw5").examples
    assert [text for text in verse(examples) if unwrap(text).cut or unwrap(text).text != text] == []


@pytest.mark.parametrize(
    "text",
    ["一、二三四五", "第一功名在，題詩滿石樓。", "以上青天去，好的是春風。", "君問：歸期未有期", "春風</s>秋月", "Sure! 春風", "7 春風", "***", "「春風」秋月"],
)  # fmt: skip
def test_what_is_not_in_the_tables_stays(text):
    assert unwrap(text).text == (text if text[1] != "、" else "二三四五")


@pytest.mark.parametrize(
    "piece", ["希望您", "</s>", "1.", "```", "「", "[INST]", "<|im_start|>user", "\n", "**"]
)
def test_what_is_hostile_takes_no_longer(piece):
    began = time.monotonic()
    unwrap(piece * (32_000 // len(piece)) + "x")
    unwrap(piece * 200_000)
    assert time.monotonic() - began < 5
