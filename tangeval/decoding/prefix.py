"""Attention of many rows over a few shared prompts.

In: the keys and values of each prompt, once, and of each row's own tokens. Out: what
``scaled_dot_product_attention`` gives over both, without a copy of the prompt for each row.
Knows nothing of models but transformers' ``AttentionInterface``.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

NAME = "tangeval_shared_prefix"
#: What the layers of the model at hand attend over: not every model hands arguments down to them.
_PREFIX: "ContextVar[Prefix]" = ContextVar("prefix")


@dataclass(frozen=True)
class Prefix:
    """P prompts of at most L tokens, padded, and which of them each of R rows continues.

    ``keys`` and ``values`` hold ``[P, K, L, D]`` for each layer, ``mask`` ``[P, L]`` is False
    where padded. Rows are laid out on a board of P × ``width`` places, ``width`` the most
    that a prompt has, so that each prompt is multiplied with all of its rows at once;
    ``place`` ``[R]`` is where each row lies.
    """

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    mask: Tensor
    place: Tensor
    width: int

    def of(self, prompt: Tensor) -> "Prefix":
        """Return the prefix for rows that continue ``prompt`` ``[R]``."""
        prompts = self.mask.shape[0]
        count = torch.bincount(prompt, minlength=prompts)
        order = prompt.argsort(stable=True)
        rank = torch.empty_like(order)
        first = count.cumsum(0) - count
        rank[order] = torch.arange(len(prompt), device=prompt.device) - first[prompt[order]]
        width = int(count.max())
        return replace(self, place=prompt * width + rank, width=width)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend from one new token a row, over its prompt and its own tokens: ``[R, 1, H, D]``.

    ``query`` is ``[R, H, 1, D]``; ``key`` and ``value`` ``[R, K, S, D]`` are the row's own, the
    new token's included: all of them are seen, for all rows are of one length.
    """
    if softcap is not None or s_aux is not None:
        raise NotImplementedError("attention with soft-capped scores or sinks over a shared prefix")
    prefix = _PREFIX.get()
    rows, heads, _, size = query.shape
    groups = key.shape[1]
    query = query.view(rows, groups, heads // groups, size) * scaling
    keys, values = prefix.keys[module.layer_idx], prefix.values[module.layer_idx]
    before = _off_board(_on_board(query, prefix) @ keys.transpose(-1, -2), prefix, heads // groups)
    length = keys.shape[2]
    unseen = ~prefix.mask[prefix.place // prefix.width]
    before = before.masked_fill(unseen[:, None, None], -torch.inf)
    scores = torch.cat([before, query @ key.transpose(-1, -2)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    seen = _off_board(_on_board(weights[..., :length], prefix) @ values, prefix, heads // groups)
    output = seen + weights[..., length:] @ value
    return output.reshape(rows, 1, heads, size), None


AttentionInterface.register(NAME, attend)


def suits(kind: type | None, config: Any, length: int) -> bool:
    """Say whether models of class ``kind`` attend over ``length`` tokens as ``attend`` does.

    They must hand attention to transformers' interface, and see that far back in every layer.
    """
    window = getattr(config, "sliding_window", None)
    return (
        bool(getattr(kind, "_supports_attention_backend", False))
        and (window is None or length <= window)
        and getattr(config, "attn_logit_softcapping", None) is None
        and not hasattr(config, "kv_lora_rank")  # its cache holds latents (DeepSeek's), not keys and values
    )


def fits(model: Any, cache: Any, length: int) -> bool:
    """Say whether a model ``suits``, without sinks, and its ``cache`` holds keys and values of every layer alone."""
    config, layers = model.config.get_text_config(), getattr(cache, "layers", [])
    return (
        suits(type(_bare(model)), config, length)
        and not any(hasattr(module, "sinks") for module in model.modules())
        and len(layers) == config.num_hidden_layers
        and all(getattr(layer, "keys", None) is not None for layer in layers)
    )


@contextmanager
def shared(model: Any, prefix: Prefix) -> Iterator[None]:
    """Let the model attend by ``attend`` over ``prefix``."""
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = NAME
    token = _PREFIX.set(prefix)
    try:
        yield
    finally:
        _PREFIX.reset(token)
        config._attn_implementation = usual


def _bare(model: Any) -> Any:
    """The transformers model under an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _on_board(x: Tensor, prefix: Prefix) -> Tensor:
    """``[R, K, G, X]`` → ``[P, K, width·G, X]``, zeros where no row lies."""
    _, groups, heads, size = x.shape
    board = x.new_zeros(len(prefix.mask) * prefix.width, groups, heads, size)
    board[prefix.place] = x
    board = board.view(-1, prefix.width, groups, heads, size).transpose(1, 2)
    return board.reshape(len(prefix.mask), groups, prefix.width * heads, size)


def _off_board(x: Tensor, prefix: Prefix, heads: int) -> Tensor:
    """``[P, K, width·G, X]`` → ``[R, K, G, X]``: ``_on_board``'s inverse."""
    prompts, groups, _, size = x.shape
    board = x.view(prompts, groups, prefix.width, heads, size).transpose(1, 2)
    return board.reshape(prompts * prefix.width, groups, heads, size)[prefix.place]
