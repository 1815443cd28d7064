"""Contrast against a plain loop over two models, token for token."""

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch

from tangeval.core.errors import UnusableError
from tangeval.decoding.batch import Way, Workspace
from tangeval.decoding.contrast import Reader, contrasted
from tangeval.decoding.decoder import decode
from tangeval.decoding.memory import decode_in_memory
from tests.decoding.test_beams import generated
from tests.support.architectures import PROMPTS, tiny_config, tiny_model
from tests.support.plain_decoder import plain_decode, sequence_of

LENGTH, EOS = 12, [62, 63]


def pair(kind):
    """A model, and what it was before its training."""
    base = tiny_model(tiny_config(kind))
    model = copy.deepcopy(base)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return model, base


class Mixed:
    """A model of two, without a cache."""

    def __init__(self, model, base, gamma):
        self.model, self.base, self.gamma = model, base, gamma

    def __call__(self, ids, **_):
        own, other = self.model(ids).logits.float(), self.base(ids).logits.float()
        return SimpleNamespace(logits=(1 + self.gamma) * own - self.gamma * other)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma3_text", "qwen2", "mistral", "phi"])
def test_contrast_equals_a_plain_loop_of_two_models(kind):
    model, base = pair(kind)
    every = [
        sequence_of(p, t, k, 0.95, LENGTH, key=p, contrast=gamma, no_repeat_ngram_size=2, repetition_penalty=1.1)
        for p, (t, k), gamma in itertools.product(range(3), ((0, 0), (0.8, 8)), (0, 0.5, 2))
    ]  # fmt: skip
    made = decode(model, PROMPTS, every, eos=EOS, other=Reader(base, Workspace())).tokens
    for sequence, tokens in zip(every, made, strict=True):
        mixed = Mixed(model, base, sequence.setting.contrast)
        assert tokens == plain_decode(mixed, PROMPTS[sequence.prompt], sequence, EOS)
    assert made[::3] != made[2::3]


def test_beams_search_the_contrasted_logits():
    model, base = pair("llama")
    sequence = sequence_of(0, 0, 0, 1.0, LENGTH, num_beams=3, contrast=0.7)
    (tokens,) = decode(model, PROMPTS, [sequence], eos=EOS, other=Reader(base, Workspace())).tokens
    mixed, forward = copy.deepcopy(model), model.forward

    def both(input_ids, **options):
        found = forward(input_ids, use_cache=False)
        found.logits = (1 + 0.7) * found.logits - 0.7 * base(input_ids, use_cache=False).logits
        return found

    mixed.forward, mixed.generation_config.use_cache = both, False
    assert tokens == generated(mixed, sequence, EOS)


@pytest.mark.parametrize("way", [Way(shares=False), Way(pads=False)])
def test_each_model_has_its_own_way(way):
    model, base = pair("llama")
    every = [sequence_of(p, 0.7, 0, 1.0, LENGTH, key=p, contrast=1) for p in range(3)]
    expected = decode(model, PROMPTS, every, eos=EOS, other=Reader(base, Workspace())).tokens
    other = Reader(base, Workspace(way=way))
    assert decode_in_memory(model, PROMPTS, every, eos=EOS, workspace=Workspace(), other=other) == expected


def test_what_a_model_forbids_stays_forbidden():
    own, other = torch.tensor([[1.0, -torch.inf, 2.0]]), torch.tensor([[0.0, -torch.inf, 3.0]])
    assert contrasted(own, other, 1.0).tolist() == [[2.0, -torch.inf, 1.0]]


def test_another_vocabulary_is_refused():
    model, wide = tiny_model(tiny_config("llama")), tiny_config("llama")
    wide.vocab_size = 70
    other = Reader(tiny_model(wide), Workspace())
    with pytest.raises(UnusableError, match="64 tokens, the base model 70"):
        decode(model, PROMPTS, [sequence_of(0, 0, 0, 1.0, 3, contrast=1)], eos=EOS, other=other)
