"""What a token adds to a model's cache, told from its configuration.

In: a configuration of transformers. Out: a ``TokenCost``, or a refusal. No weights are loaded: the model
is built on PyTorch's ``meta`` device and reads one token, so that its layers may differ. Knows nothing
of studies, batches and memory.
"""

from copy import deepcopy
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from tangeval.core.errors import TangevalError


class TokenCost(NamedTuple):
    """The numbers that a token adds to the cache, in all layers and in the largest; the model's class and size."""

    whole: int
    largest: int
    kind: type
    parameters: int


_KNOWN: dict[str, TokenCost | None] = {}  # building a model takes a second


def token_cost(config: Any) -> TokenCost | None:
    """Return what a token costs; None where a model reads nothing without its weights.

    Raises:
        TangevalError: the model keeps no keys and values, so tangeval cannot decode with it.
    """
    key = f"{type(config).__name__} {config.to_json_string()}"
    if key not in _KNOWN:
        _KNOWN[key] = _token_cost(deepcopy(config))
    return _KNOWN[key]


@torch.inference_mode()
def _token_cost(config: Any) -> TokenCost | None:
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
            cache = cache_of(model(input_ids=torch.zeros(1, 1, dtype=torch.int64), use_cache=True))[1]
    except Exception:  # whatever a model that looks at its numbers makes of there being none
        return None
    sizes = [keys.numel() + values.numel() for keys, values in keys_and_values(model, cache)]
    return TokenCost(sum(sizes), max(sizes), type(model), sum(p.numel() for p in model.parameters()))


def rotary_change(config: Any) -> int | None:
    """Return the length beyond which a text has other rotary frequencies from its first token on (longrope), if any.

    What ``generate`` does there, beginning anew, no row of a batch can.
    """
    text = config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return None
    return rope.get("original_max_position_embeddings") or getattr(
        text, "original_max_position_embeddings", None
    )


def cache_of(result: Any) -> tuple[str, Any]:
    """Return what a model's output calls its cache, which differs between versions of transformers, and the cache."""
    name = next((name for name in ("cache", "past_key_values") if name in result.keys()), "")  # noqa: SIM118
    return name, result.get(name)


def keys_and_values(model: Any, cache: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return the keys and values of each layer that has any.

    Raises:
        TangevalError: no layer has, but a state, as Mamba's, or nothing.
    """
    cache = getattr(cache, "self_attention_cache", cache)  # of a model that could read an encoder too
    found = [(x.keys, x.values) for x in getattr(cache, "layers", ()) if getattr(x, "keys", None) is not None]
    if not found:
        raise TangevalError(
            f"base_model: {type(model).__name__} keeps no keys and values that tangeval can decode with; take a "
            "model with attention"
        )
    return found
