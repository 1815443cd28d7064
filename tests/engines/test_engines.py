"""What every engine owes its callers, whatever it does inside. docs/extending.md says how to add one."""

import itertools
from functools import partial

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tangeval.decoding.decoder import decode
from tangeval.decoding.noise import noise_key
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.prompt import encode_prompt
from tests.support.pages import module
from tests.support.plain_decoder import plain_decode, sequence_of

ENGINES = {
    "shared": decode,
    "a row each": partial(decode, share=False),
    "the example of docs/extending.md": module("docs/extending.md", "def _one(").decode,
}
EOS = [3, *range(40, 60)]


@pytest.fixture(scope="module", params=ENGINES.values(), ids=ENGINES)
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture(scope="module")
def prompts(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = [encode_prompt(tokenizer, example, "hw5") for example in dataset.load("sample").split("test")[:3]]
    assert len({len(i) for i in ids}) > 1
    return ids


def grid(length=10):
    """Streams on three prompts, no two neighbours on one, and of different lengths."""
    settings = itertools.product((0.0, 0.6, 1.2), (0, 4), (0.5, 1.0), (0, 1), range(3))
    return [
        sequence_of(p, t, k, q, length + p, noise_key(1, f"poem-{p}", sample))
        for t, k, q, sample, p in settings
    ]


@pytest.fixture(scope="module")
def decoded(engine, model, prompts):
    ended = []
    result = engine(model, prompts, grid(), eos=EOS, no_repeat_ngram_size=3, on_step=ended.append)
    return result.tokens, ended


def test_each_sequence_has_the_oracles_tokens_in_the_order_asked(decoded, model, prompts):
    for sequence, tokens in zip(grid(), decoded[0], strict=True):
        assert tokens == plain_decode(model, prompts[sequence.prompt], sequence, EOS, 3)


def test_a_sequence_ends_with_eos_or_at_its_max_length(decoded):
    for sequence, tokens in zip(grid(), decoded[0], strict=True):
        assert len(tokens) == sequence.setting.max_length or tokens[-1] in EOS
        assert 1 <= len(tokens) <= sequence.setting.max_length
        assert not set(tokens[:-1]) & set(EOS)


def test_tokens_are_plain_integers(decoded):
    assert {type(token) for tokens in decoded[0] for token in tokens} == {int}


def test_progress_counts_each_sequence_once(decoded):
    assert sum(decoded[1]) == len(grid())


def test_a_sequence_alone_has_the_tokens_it_has_among_others(engine, decoded, model, prompts):
    for place in (0, 17, 40, 71):
        alone = engine(model, prompts, [grid()[place]], eos=EOS, no_repeat_ngram_size=3)
        assert alone.tokens == [decoded[0][place]]


def test_the_order_of_sequences_changes_no_token(engine, decoded, model, prompts):
    backward = engine(model, prompts, grid()[::-1], eos=EOS, no_repeat_ngram_size=3)
    assert backward.tokens == decoded[0][::-1]


def test_a_shorter_max_length_is_a_prefix(engine, decoded, model, prompts):
    short = engine(model, prompts, grid(4), eos=EOS, no_repeat_ngram_size=3).tokens
    assert short == [t[: s.max_length] for s, t in zip(grid(4), decoded[0], strict=True)]
