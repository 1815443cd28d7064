"""What a token costs, against the cache that a model with weights makes."""

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, LlamaConfig, MambaConfig, Phi3Config, RwkvConfig

from tangeval.core.errors import TangevalError
from tangeval.decoding import planning
from tangeval.decoding.planning import rotary_change, token_cost
from tests.support.architectures import tiny_config


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma4_text", "mixtral", "deepseek_v3", "zaya"])
def test_a_token_costs_what_a_cache_holds_of_it(kind):
    config = tiny_config(kind)
    cost = token_cost(config)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode():
        layers = model(torch.tensor([[5]]), use_cache=True).past_key_values.layers
    sizes = [x.keys.numel() + x.values.numel() for x in layers if getattr(x, "keys", None) is not None]
    assert (cost.whole, cost.largest) == (sum(sizes), max(sizes))


def test_heads_that_differ_by_layer_are_reckoned_by_layer():
    config = tiny_config("gemma4_text")
    config.layer_types = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert token_cost(config).whole < 4 * token_cost(config).largest


@pytest.mark.parametrize(
    "config", [MambaConfig(num_hidden_layers=2), RwkvConfig(num_hidden_layers=2), BertConfig()]
)
def test_a_model_without_keys_and_values_is_refused_from_its_configuration(config):
    with pytest.raises(TangevalError, match="keeps no keys and values"):
        token_cost(config)


def test_what_cannot_be_told_is_unknown(monkeypatch):
    monkeypatch.setattr(planning.AutoModelForCausalLM, "from_config", lambda *_, **__: 1 / 0)
    assert token_cost(LlamaConfig(hidden_size=96, num_attention_heads=4)) is None


def test_longrope_changes_at_its_original_length():
    factors = {"long_factor": [1.0] * 48, "short_factor": [1.0] * 48}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 4096, **factors}
    assert rotary_change(Phi3Config(rope_parameters=rope, max_position_embeddings=131072)) == 4096
    assert rotary_change(LlamaConfig()) is None
