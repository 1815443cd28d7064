"""The constraint of verse: by brute force over all texts of few characters, and by the task's own metrics."""

import itertools
import random

import numpy as np
import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.models.tokens import decode_completion
from tangeval.models.vocabulary import token_texts
from tangeval.tasks.tang import TANG, data, form, prosody, regulated
from tangeval.tasks.tang.poems import read
from tests.support.tiny import bpe_tokenizer

LEVELS = tuple(TANG.constraints)
#: Nine characters that rhyme with one another alone, and two that rhyme with none of them.
RHYMING, OTHERS = "東同铜桐筒童僮瞳公", "山日"


def example(couplet: str) -> Example:
    return Example("test-1", "", couplet, "", "test")


def good(level: str, couplet: str, texts: list[str]) -> np.ndarray:
    """Which texts are as a level asks, by the metrics."""
    poems = read([couplet] * len(texts), texts)
    held = form.check(poems, ["stop"] * len(texts))["form"]
    return (held * (1 if level == "form" else prosody.prosody(poems)["rhyme"])) > 0


def write(constraint, texts, noise) -> tuple[list[int], str]:
    """A random text, and its tokens; each token that is allowed is as likely."""
    state, tokens = constraint.start, []
    while True:
        allowed = constraint.allowed(state)
        choices = sorted(set(np.flatnonzero(allowed.tokens)) - set(allowed.without))
        assert choices or allowed.end
        if allowed.end and (not choices or noise.random() < 0.5):
            return tokens, "".join(texts[token] for token in tokens)
        tokens.append(int(noise.choice(choices)))
        state = constraint.advance(state, tokens[-1])


def test_the_characters_are_what_the_test_takes_them_for():
    groups = [prosody.rhyme_groups(character) for character in RHYMING]
    assert len(set(groups)) == 1 == len(groups[0])
    assert not groups[0].intersection(*map(prosody.rhyme_groups, OTHERS))


@pytest.mark.parametrize("level", ["form", "form+rhyme"])
def test_what_is_allowed_is_what_some_poem_goes_on_with(level):
    """After six clauses of two characters: all texts of two clauses, and every token at every place."""
    couplet = "日東，山公。東日，日同。公山，東桐。"
    characters = RHYMING + OTHERS
    every = [
        "".join((*a, "，", *b, "。"))
        for a, b in itertools.product(itertools.product(characters, repeat=2), repeat=2)
    ]
    whole = {text for text, fine in zip(every, good(level, couplet, every), strict=True) if fine}
    assert 0 < len(whole) < len(every)
    starts = {text[:end] for text in whole for end in range(len(text) + 1)}
    tokens = (
        "",
        *characters,
        "，",
        "。",
        " ",
        "山童",
        "童，",
        "，日",
        "公。",
        "山童，日",
        " 日",
        "A",
        "，。",
        "日山東",
        "，山童",
    )
    constraint = TANG.constraints[level](tokens)(example(couplet))
    left, seen = [("", constraint.start)], set()
    while left:
        text, state = left.pop()
        if text in seen:
            continue
        seen.add(text)
        allowed = constraint.allowed(state)
        found = set(np.flatnonzero(allowed.tokens)) - set(allowed.without)
        written = text.removeprefix(" ")
        space = {number for number, token in enumerate(tokens) if token.startswith(" ") and not text}
        expected = {n for n, t in enumerate(tokens) if t and n not in space and written + t in starts}
        expected |= {n for n in space if tokens[n].removeprefix(" ") in starts}
        assert found == expected - {tokens.index("，山童")}, (
            text
        )  # a whole clause after another's mark is no token's
        assert allowed.end == (written in whole)
        left += [(text + tokens[n], constraint.advance(state, int(n))) for n in found]
    assert {text.removeprefix(" ") for text in seen} == starts


@pytest.mark.parametrize("kind", ["tang-mini", "Gemma's", "Breeze's"])
def test_every_text_has_form_rhyme_and_tones_by_the_metrics(kind, mini_tokenizer):
    """Random ones, by tokens of several characters and a first space in the token too."""
    tokenizer = mini_tokenizer if kind == "tang-mini" else bpe_tokenizer(prefix=kind == "Breeze's")
    texts = token_texts(tokenizer)
    examples = [*data.load("sample").split("validation"), *data.load("sample").split("test")]
    noise = random.Random(1)
    for level in LEVELS:
        constraints = list(map(TANG.constraints[level](texts), examples))
        written = [write(constraint, texts, noise) for constraint in constraints]
        outputs = [decode_completion(tokenizer, tokens, cut=False) for tokens, _ in written]
        assert outputs == [text.removeprefix(" ") for _, text in written]
        for constraint, (tokens, _) in zip(constraints, written, strict=True):
            assert constraint.length[0] <= len(tokens) + 1 <= constraint.length[1]
        poems = read([e.input for e in examples], outputs)
        assert form.check(poems, ["stop"] * len(outputs))["form"].all()
        if level != "form":
            assert prosody.prosody(poems)["rhyme"].all()
        if level == "form+rhyme+tones":
            fits = np.array([constraint.table.rules.start > 0 for constraint in constraints])
            assert 0.5 < fits.mean() < 1
            assert regulated.rules(poems)["regulated"][fits].all()


@pytest.mark.parametrize(
    ("couplet", "level", "tokens", "said"),
    [
        ("春水生。", "form", None, r"test-1 \(春水生。\) has 1 clauses"),
        ("一二，東公。", "form+rhyme", "東公山水日月風花雨雪，。", r"ends in 公, which fewer than 4 characters"),
        ("一二，三東。東三，二東。", "form+rhyme", None, "which fewer than"),
        ("一二，三四。", "form", "山水日月風花雨雪", "no token for"),
    ],
)  # fmt: skip
def test_a_couplet_that_nothing_can_follow_is_named(couplet, level, tokens, said, mini_tokenizer):
    with pytest.raises(TangevalError, match=said):
        TANG.constraints[level](tuple(tokens) if tokens else token_texts(mini_tokenizer))(example(couplet))


def test_after_an_unknown_rhyme_there_are_eight_clauses(mini_tokenizer):
    """One rhyme of the text's own would rhyme with nothing that is known."""
    texts = token_texts(mini_tokenizer)
    unknown = next(c for c in map(chr, range(0x4E00, 0x9FFF)) if not prosody.rhyme_groups(c))
    constraint = TANG.constraints["form+rhyme"](texts)(example(f"春眠不覺曉，處處聞啼{unknown}。"))
    _, text = write(constraint, texts, random.Random(2))
    assert text.count("。") == 3
    assert good("form+rhyme", f"春眠不覺曉，處處聞啼{unknown}。", [text.removeprefix(" ")]).all()
