"""Attention of many rows over a few shared prompts and over what each row wrote itself.

In: the keys and values of P prompts, once each, and of every new token. Out: what
``scaled_dot_product_attention`` gives over both, without a copy of the prompt for each row.
Knows nothing of models but transformers' ``AttentionInterface``, and nothing of sequences.

A row lives at a *place* of the batch. All rows are equally old: at step t each has written t
tokens. So attention over a row's own tokens needs no mask, and only rows that change their
place are copied.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

from tangeval.core.errors import TangevalError
from tangeval.decoding.cuda import has_kernels

attend_own: "Callable[..., Tensor] | None" = None
if torch.cuda.is_available():
    # PyTorch for Windows comes without Triton: matrix products do the same there, more slowly.
    with suppress(ImportError):
        from tangeval.decoding.cuda.attention import attend_own

NAME = "tangeval_shared_prompts"
#: What the layers of the model at hand attend over: not every model hands arguments down to them.
_STORE: "ContextVar[Store]" = ContextVar("store")
#: Models that add a learned bias to the scores, or attend twice in a layer.
_OF_THEIR_OWN = ("doge", "diffllama")
_COPIED = 2**28  # bytes that are copied in one go when rows change places


class UnlikeError(TangevalError):
    """A model attends otherwise than once a layer over keys and values as its cache has them."""


class Shape(NamedTuple):
    """What a store has room for."""

    prompts: int
    tokens: int  #: of all prompts together
    longest: int  #: tokens of one prompt
    places: int
    room: int  #: tokens of a place's own
    most: int  #: rows on one prompt


class Store(ABC):
    """Keys and values of P prompts of at most L tokens and of N places with ``room`` tokens each.

    ``own`` is ``[layers, 2, N, K, room, D]``, keys then values, of which the first ``written``
    tokens of a place count. ``prompt`` ``[N]`` is the prompt that each place continues.
    """

    records = False  #: whether nothing in a step waits for the device, so that it can be a CUDA graph

    def __init__(self, own: Tensor) -> None:
        self.own = own
        self.prompt = torch.zeros(own.shape[2], dtype=torch.int64, device=own.device)
        self.written = 0
        self.attended: list[int] = []  #: the layers of a step so far
        self.position = torch.zeros(
            1, dtype=torch.int64, device=own.device
        )  #: ``written``, where the device sees it

    @abstractmethod
    def hold(self, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor) -> None:
        """Take the prompts' keys and values, ``[P, K, L, D]`` a layer; ``mask`` ``[P, L]`` is False where padded."""

    @abstractmethod
    def lay_out(self, rows: int) -> None:
        """Make ready for a step of the first ``rows`` places."""

    def expect(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Raise ``UnlikeError`` for a call of the attention that ``attend`` would not serve."""
        _, _, _, groups, _, size = self.own.shape
        if not key.shape[1:] == value.shape[1:] == (groups, 1, size) or query.shape[1] % groups:
            raise UnlikeError(
                f"layer {layer} attends over {list(key.shape[1:])}, its cache has {[groups, 1, size]}"
            )
        self.attended.append(layer)

    @abstractmethod
    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Keep and see one new token a row: ``[R, H, 1, D]`` and ``[R, K, 1, D]`` → ``[R, 1, H, D]``."""

    def wrote(self, tokens: int) -> None:
        """Say that every place has written ``tokens`` tokens."""
        self.written = tokens
        self.position.fill_(tokens)

    def move(self, source: Tensor, target: Tensor) -> None:
        """Copy what the places ``source`` hold to the places ``target``; no place is in both."""
        self.prompt[target] = self.prompt[source]
        if not self.written:
            return
        written = self.own[..., : self.written, :]
        part = max(1, _COPIED // (written[:, :, 0].numel() * written.element_size()))
        for some, others in zip(source.split(part), target.split(part), strict=True):
            written[:, :, others] = written[:, :, some]


class PaddedStore(Store):
    """By matrix products, and on a CPU PyTorch's flash attention over the prompts; any device and dtype.

    Rows are laid out on a board of P × ``width`` places, ``width`` the most that a prompt
    has, so that each prompt is multiplied with all of its rows at once.
    """

    def hold(self, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor) -> None:
        self.keys, self.values, self.mask = keys, values, mask
        self.unseen = keys[0].new_zeros(mask.shape).masked_fill(~mask, -torch.inf)[:, None, None]

    def lay_out(self, rows: int) -> None:
        prompt = self.prompt[:rows]
        count = torch.bincount(prompt, minlength=len(self.mask))
        order = prompt.argsort(stable=True)
        rank = torch.empty_like(order)
        every = torch.arange(rows, device=prompt.device)
        rank[order] = every - (count.cumsum(0) - count)[prompt[order]]
        self.width = int(count.max())
        self.place = prompt * self.width + rank
        #: the row at each place of the board; where none lies row 0, for nothing
        self.row = self.place.new_zeros(len(count) * self.width).index_copy_(0, self.place, every)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        rows, heads, _, size = query.shape
        groups, prompts = key.shape[1], len(self.unseen)
        own_keys, own_values = self.own[layer, :, :rows, :, : self.written + 1]
        own_keys[:, :, self.written :], own_values[:, :, self.written :] = key, value
        query = query.view(rows, groups, heads // groups, size)
        board = query[self.row].view(prompts, self.width, groups, -1, size).transpose(1, 2)
        board = board.reshape(prompts, groups, -1, size)
        found = over_prompts(board, self.keys[layer], self.values[layer], self.unseen, scaling)
        seen, mass = (
            x.view(prompts, groups, self.width, heads // groups, -1).transpose(1, 2).flatten(0, 1)[self.place]
            for x in found
        )
        # What a row saw of its prompt is as one more token of its own: its value, and the logarithm of its weight.
        scores = torch.cat([mass, query * scaling @ own_keys.transpose(-1, -2)], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
        output: Tensor = torch.addcmul(weights[..., 1:] @ own_values, weights[..., :1], seen)
        return output.reshape(rows, 1, heads, size)


def over_prompts(
    query: Tensor, keys: Tensor, values: Tensor, unseen: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """Attention ``[P, K, N, D]`` over ``[P, K, L, D]``, and the logarithm of what its weights were divided by, ``[P, K, N, 1]``.

    ``unseen`` ``[P, 1, 1, L]`` is -inf where padded, else 0.
    """
    if query.device.type == "cpu":
        seen, mass = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, keys, values, attn_mask=unseen, scale=scaling
        )
        return seen, mass[..., None]
    return by_products(query, keys, values, unseen, scaling)


def by_products(
    query: Tensor, keys: Tensor, values: Tensor, unseen: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """The same as ``over_prompts``, on any device."""
    scores = (query * scaling @ keys.transpose(-1, -2) + unseen).float()
    mass = scores.logsumexp(dim=-1, keepdim=True)
    return (scores - mass).exp().to(values.dtype) @ values, mass


class FlashStore(Store):
    """By FlashAttention's kernel for sequences of varying length (Dao, 2023): GPUs that have it, 16 bits.

    It attends over the prompts, all rows on a prompt together; ``attention.attend_own`` goes on from there
    over each row's own tokens. Every tensor stays where it is and nothing waits for the GPU, so
    that a step can be recorded as a CUDA graph.
    """

    records = True

    def __init__(self, own: Tensor, shape: Shape) -> None:
        super().__init__(own)
        layers, _, _, groups, _, size = own.shape
        self.held = own.new_empty(layers, 2, shape.tokens, groups, size)
        self.prompts, self.longest, self.most = shape.prompts, shape.longest, shape.most
        #: where each prompt begins in ``held``
        self.begins = torch.zeros(shape.prompts + 1, dtype=torch.int32, device=own.device)

    def hold(self, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor) -> None:
        count = int(mask.sum())
        for held, *pair in zip(self.held, keys, values, strict=True):
            for kind, some in zip(held, pair, strict=True):
                kind[:count] = some.transpose(1, 2)[mask]
        self.begins.fill_(count)[0] = 0
        self.begins[1 : len(mask) + 1] = mask.sum(dim=1).cumsum(0)

    def lay_out(self, rows: int) -> None:
        prompt, self.order = self.prompt[:rows].sort(stable=True)
        self.back = torch.empty_like(self.order)
        self.back[self.order] = torch.arange(rows, device=prompt.device)
        every = torch.arange(self.prompts + 1, device=prompt.device)
        self.of_prompt = torch.searchsorted(prompt, every, out_int32=True)

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        assert attend_own is not None
        rows, heads, _, size = query.shape
        own = self.own[layer]
        own[0, :rows].index_copy_(2, self.position, key)
        own[1, :rows].index_copy_(2, self.position, value)
        whole = query.reshape(rows, heads, size)
        keys, values = self.held[layer]
        # Never 1 for the most queries of a prompt: PyTorch then takes query n for sequence n.
        prompt, mass = torch.ops.aten._flash_attention_forward(
            whole[self.order], keys, values, self.of_prompt, self.begins, max(2, min(rows, self.most)),
            self.longest, 0.0, False, False, scale=scaling,
        )[:2]  # fmt: skip
        return attend_own(whole, own, self.position, prompt, mass, self.back, scaling)[:, None]


def make_store(keys: Sequence[Tensor], shape: Shape) -> Store:
    """Return an empty store; ``keys``, ``[P, K, L, D]`` a layer, say of what kind it will be."""
    _, groups, _, size = keys[0].shape
    buffer = keys[0].new_empty(len(keys), 2, shape.places, groups, shape.room, size)
    return FlashStore(buffer, shape) if has_flash(buffer.device, buffer.dtype, size) else PaddedStore(buffer)


def has_flash(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Say whether PyTorch's FlashAttention and Triton run there: Ampere or newer, 16 bits, heads of 8 to 256."""
    return (
        device.type == "cuda"
        and attend_own is not None
        and torch.backends.cuda.is_flash_attention_available()
        and has_kernels(device)
        and dtype in (torch.float16, torch.bfloat16)
        and size % 8 == 0
        and size <= 256
    )


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    **more: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in each layer, with one new token a row."""
    if attention_mask is not None or more.get("softcap") is not None or more.get("s_aux") is not None:
        raise UnlikeError("attention with soft-capped scores, sinks or a bias")
    store = _STORE.get()
    store.expect(module.layer_idx, query, key, value)
    return store.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(NAME, attend)


@contextmanager
def attending(model: Any, store: Store) -> Iterator[None]:
    """Let the model attend by ``attend`` over ``store``, for one step.

    Raises:
        UnlikeError: not every layer attended exactly once.
    """
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = NAME
    token = _STORE.set(store)
    store.attended.clear()
    try:
        yield
        if sorted(store.attended) != list(range(len(store.own))):
            raise UnlikeError(f"layers {store.attended} attended, of {len(store.own)}")
    finally:
        _STORE.reset(token)
        config._attn_implementation = usual


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
        and getattr(config, "model_type", None) not in _OF_THEIR_OWN
    )


def fits(model: Any, cache: Any, length: int) -> bool:
    """Say whether a model ``suits``, without sinks, and its ``cache`` holds keys and values of every layer alone."""
    config, layers = model.config.get_text_config(), getattr(cache, "layers", [])
    return (
        suits(type(bare(model)), config, length)
        and not any(hasattr(module, "sinks") for module in model.modules())
        and len(layers) == config.num_hidden_layers
        and all(getattr(layer, "keys", None) is not None for layer in layers)
        and len({layer.keys.shape[1:] for layer in layers}) == 1
        and all(layer.keys.shape == layer.values.shape for layer in layers)
    )


def bare(model: Any) -> Any:
    """The transformers model under an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
