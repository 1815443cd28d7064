"""Models of a shape are random everywhere: a row of zeros makes a first token whose gradient overflows."""

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.shapes import SHAPES
from tangeval.core.types import ASSETS

SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "head_dim": 8, "vocab_size": 64,
         "layer_types": None, "num_attention_heads": 4, "num_key_value_heads": 1}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_no_token_begins_at_zero(shape):
    config = SHAPES[shape]
    model = AutoModelForCausalLM.from_config(type(config)(**config.to_dict() | SMALL))
    assert AutoTokenizer.from_pretrained(ASSETS / "tang-mini").bos_token_id == 0
    assert model.get_input_embeddings().weight.any(dim=1).all()
