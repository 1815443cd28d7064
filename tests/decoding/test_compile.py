"""Layers compiled for decoding, against the same layers as they are."""

import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, MistralForCausalLM

from tangeval.core.errors import TangevalError
from tangeval.core.types import Load
from tangeval.decoding.batch import Workspace
from tangeval.decoding.cuda.compile import Fused
from tangeval.decoding.decoder import decode
from tangeval.models.adapters import with_checkpoint
from tangeval.models.checkpoints import discover
from tests.support.plain_decoder import sequence_of

PROMPTS, EOS = [[5, 6, 7, 8], [9, 8, 7, 6, 5, 4, 3, 2]], 3
SEQUENCES = [
    sequence_of(p, t, k, 0.9, 16, noise, no_repeat_ngram_size=3)
    for p in (0, 1)
    for t in (0.0, 0.8, 1.3)
    for k in (0, 4)
    for noise in (1, 2)
]


@pytest.fixture
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model).eval()


@pytest.mark.skipif(not shutil.which("g++"), reason="compiles, for which it needs g++")
@pytest.mark.parametrize("merge", [False, True])
def test_compiled_layers_write_the_same_texts_on_every_checkpoint(model, tiny_run, merge):
    """The base model and two adapters, one after another, in one workspace; compiled once for all adapters."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    found, _ = discover([str(tiny_run)])
    workspace, load, compiled = Workspace(compile=True), Load(merge=merge), []

    def both(model):
        plain, fused = (
            decode(model, PROMPTS, SEQUENCES, eos=[EOS], workspace=w).tokens for w in (Workspace(), workspace)
        )
        compiled.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert fused == plain
        assert not any("forward" in vars(module) for module in model.modules())
        return plain

    texts = [both(model)]
    for checkpoint in found:
        with with_checkpoint(model, checkpoint, load) as adapted:
            texts.append(both(adapted))
    assert texts[0] != texts[1] != texts[2]
    assert 0 < compiled[0] < compiled[1] == compiled[2]


def test_a_machine_without_a_compiler_says_so(model, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "force_disable_caches", True)
    with pytest.raises(TangevalError, match=r"load\.compile: .* leave compile out"):
        decode(model, PROMPTS, SEQUENCES, eos=[EOS], workspace=Workspace(compile=True))
    assert decode(model, PROMPTS, SEQUENCES, eos=[EOS]).tokens


def test_a_model_with_an_attention_of_its_own_is_refused():
    """A window that ends before the text does."""
    size = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }
    near = MistralForCausalLM(MistralConfig(**size, vocab_size=64, sliding_window=12)).eval()
    with pytest.raises(TangevalError, match=r"load\.compile: MistralForCausalLM has an attention of its own"):
        decode(near, PROMPTS, SEQUENCES, eos=[EOS], workspace=Workspace(compile=True))


def test_a_model_without_layers_is_refused():
    with pytest.raises(TangevalError, match=r"load\.compile: Linear has no layers that repeat"):
        Fused(torch.nn.Linear(2, 2))
