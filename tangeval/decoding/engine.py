"""Every stream of one checkpoint in one shared decode.

In: a model, prompts as token ids, and streams (prompt, knobs, luck). Out: the token ids of
each stream, EOS included. Knows nothing of text, files or cells.

Streams on one prompt whose tokens so far are the same share one row of the batch until they
part: all begin on the prompt's row, and after each step the distinct (row, token) pairs are
the next step's rows. Rows whose streams have all ended leave the batch. Each prompt's keys
and values are kept once for all of its rows, where the model's attention allows it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from tangeval.decoding.prefix import Prefix, fits, shared
from tangeval.decoding.sampler import Streams, ban_repeats, choose
from tangeval.records import TangevalError


@dataclass(frozen=True, slots=True)
class Stream:
    """One output to decode: the prompt's index, the knobs, the key of its luck, the most tokens."""

    prompt: int
    temperature: float
    top_k: int
    top_p: float
    luck: int
    max_length: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """The tokens of each stream, in the order asked, and how many rows the model ran at each step."""

    tokens: list[list[int]]
    rows: list[int]


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    streams: Sequence[Stream],
    *,
    eos: Sequence[int],
    no_repeat_ngram_size: int = 0,
    share: bool = True,
    on_step: Callable[[int], None] = lambda ended: None,
) -> Decoded:
    """Decode every stream until EOS or its max_length.

    ``share=False`` gives each stream a row of its own: the plain way, for comparison.
    ``on_step`` is told after each step how many streams ended with it.
    """
    device = model.device
    live, temperatures, keys, limit = _to_tensors(streams, device)
    stop = torch.tensor(list(eos), device=device)
    index = torch.arange(len(streams), device=device)
    output = torch.full((len(streams), int(limit.max())), -1, device=device)
    logits, rows = prefill(model, prompts, output.shape[1], device)
    ran = [len(prompts)]
    for step in range(output.shape[1]):
        logits = ban_repeats(logits.float(), rows.history, no_repeat_ngram_size)
        token = choose(logits, live, temperatures, keys, step)
        output[index, step] = token
        going = ~torch.isin(token, stop) & (step + 1 < limit[index])
        on_step(int(len(going) - going.sum()))
        live, index, token = live[going], index[going], token[going]
        if not len(index):
            break
        parent, token, row = _part(live.row, token, logits.shape[1], share)
        live = Streams(row, live.temperature, live.luck, live.top_k, live.top_p)
        rows = rows.grown(parent, token)
        logits = advance(model, rows)
        ran.append(len(parent))
    return Decoded([[t for t in line if t >= 0] for line in output.tolist()], ran)


@dataclass
class Rows:
    """The rows of the batch: R token sequences, each a prompt and what was written after it.

    ``history`` ``[R, L]`` are all tokens, -1 where padded on the left; ``position`` ``[R]`` is the
    place of the last one. ``cache`` holds the keys and values of each row's tokens: with a
    ``prefix``, of those after the prompt alone, which its rows then share.
    """

    history: Tensor
    position: Tensor
    prompt: Tensor
    cache_name: str  #: what this model, in this version of transformers, calls its cache
    cache: Any
    prefix: Prefix | None

    def grown(self, parent: Tensor, token: Tensor) -> "Rows":
        """Return the rows ``parent`` ``[R]``, some of them more than once, each with its ``token`` ``[R]``."""
        prompt = self.prompt[parent]
        self.cache.reorder_cache(parent)
        history = torch.cat([self.history[parent], token[:, None]], dim=1)
        prefix = self.prefix and self.prefix.of(prompt)
        return Rows(history, self.position[parent] + 1, prompt, self.cache_name, self.cache, prefix)


def prefill(
    model: Any, prompts: Sequence[Sequence[int]], room: int, device: torch.device
) -> tuple[Tensor, Rows]:
    """Run each prompt once, padded on the left, with ``room`` for as many tokens after it.

    Returns the next token's logits ``[P, V]`` and the prompts as rows.

    Raises:
        TangevalError: the model keeps no keys and values (but a state, as Mamba does).
    """
    longest = max(map(len, prompts))
    history = torch.tensor([[-1] * (longest - len(p)) + list(p) for p in prompts], device=device)
    mask = history >= 0
    position = (mask.cumsum(dim=1) - 1).clamp(min=0)
    result = model(
        input_ids=history.clamp(min=0),
        attention_mask=mask.long(),
        position_ids=position,
        use_cache=True,
        logits_to_keep=1,
    )
    name = next((name for name in ("cache", "past_key_values") if name in result.keys()), "")  # noqa: SIM118
    cache, prefix = result.get(name), None
    if cache is None or all(getattr(layer, "keys", None) is None for layer in cache.layers):
        raise TangevalError(
            f"base_model: {type(model).__name__} keeps no keys and values that tangeval can decode with; take a "
            "model with attention"
        )
    prompt = torch.arange(len(prompts), device=device)
    if fits(model, cache, longest + room):
        layers, cache = cache.layers, DynamicCache()
        prefix = Prefix([x.keys for x in layers], [x.values for x in layers], mask, prompt, 1)
    return result.logits[:, -1], Rows(history, position[:, -1], prompt, name, cache, prefix)


def advance(model: Any, rows: Rows) -> Tensor:
    """Run each row's last token; returns the next one's logits ``[R, V]``."""
    inputs = {
        "input_ids": rows.history[:, -1:],
        "position_ids": rows.position[:, None],
        rows.cache_name: rows.cache,
        "use_cache": True,
    }
    if rows.prefix is None:
        logits = model(**inputs, attention_mask=(rows.history >= 0).long()).logits
    else:
        with shared(model, rows.prefix):
            logits = model(**inputs, attention_mask=None).logits
    return logits[:, -1]  # type: ignore[no-any-return]


def _part(row: Tensor, token: Tensor, vocabulary: int, share: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The next rows: the parent ``[R]`` and token ``[R]`` of each, and each stream's row ``[S]``."""
    if not share:
        return row, token, torch.arange(len(row), device=row.device)
    pairs, member = (row * vocabulary + token).unique(return_inverse=True)
    return pairs // vocabulary, pairs % vocabulary, member


def _to_tensors(streams: Sequence[Stream], device: torch.device) -> tuple[Streams, Tensor, Tensor, Tensor]:
    """The streams as tensors, the distinct temperatures and keys they index, and their limits."""
    temperatures = sorted({s.temperature for s in streams})
    keys = sorted({s.luck for s in streams})
    place, slot = {t: i for i, t in enumerate(temperatures)}, {k: i for i, k in enumerate(keys)}
    return (
        Streams(
            torch.tensor([s.prompt for s in streams], device=device),
            torch.tensor([place[s.temperature] for s in streams], device=device),
            torch.tensor([slot[s.luck] for s in streams], device=device),
            torch.tensor([s.top_k for s in streams], device=device),
            torch.tensor([s.top_p for s in streams], dtype=torch.float64, device=device),
        ),
        torch.tensor(temperatures, device=device),
        torch.tensor(keys, device=device),
        torch.tensor([s.max_length for s in streams], device=device),
    )
