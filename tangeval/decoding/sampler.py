"""From logits to tokens: many (setting, sample) sequences on each row, with keyed noise.

In: logits of distinct rows and, for each sequence, its row, knobs and noise. Out: one token a
stream. Pure tensors, on any device; knows nothing of models, caches or text.

Sampling is Gumbel-max: of the tokens that a setting keeps, the one with the largest
``logit / temperature + noise`` (Gumbel 1954; Maddison et al., *A\\* Sampling*, 2014). The
noise depends on (seed, example, sample, step, token) alone, so two settings that differ in one
knob see the same noise, and what else is in the batch changes nothing.

Temperature does not change the order of logits. So each row is sorted once, the noise is
added in that order, and the winner for any top-k or top-p is the running maximum at its cut.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

draw: "Callable[..., None] | None" = None
if torch.cuda.is_available():
    # PyTorch for Windows comes without Triton: tensors do the same there, more slowly.
    with suppress(ImportError):
        from tangeval.decoding.cuda.kernels import draw

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # splitmix64's increment, as a signed integer
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_NOISE_BITS = 23  # (integer + 1/2) / 2**23 is exact in float32 and never 0 or 1
#: How many of a row's largest logits are looked at, one after another, before all of them are.
CANDIDATES = (64, 1024, 8192)
_AT_ONCE = 2**21  # numbers in the largest tensors that are made at a time


@dataclass(frozen=True)
class SequenceBatch:
    """What tells sequences apart, one entry a sequence: every field is ``[S]``.

    ``row`` (int64) says which row of the logits a sequence reads; ``temperature`` and
    ``key`` (int64) index ``temperatures`` and ``keys``, which are short; ``top_k`` (int64,
    0 is off) and ``top_p`` (float64, 1 is off) are the knobs themselves.
    """

    row: Tensor
    temperature: Tensor
    key: Tensor
    top_k: Tensor
    top_p: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> "SequenceBatch":
        return SequenceBatch(*(getattr(self, field.name)[chosen] for field in fields(self)))


def noise_key(seed: int, example_id: str, sample: int) -> int:
    """Return the 64-bit key (signed) of one sample's noise; stable across machines and runs."""
    text = f"{seed}\0{example_id}\0{sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def gumbel(keys: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Return standard Gumbel noise for ``keys`` ``[N]`` at ``tokens`` ``[N, M]``: float32 ``[N, M]``.

    A counter-based generator: splitmix64's finaliser (Steele et al., OOPSLA 2014) on key and
    step, then on that and the token. Noise lies between -2.9 and 16.7.
    """
    bits = _mix(_seeds(keys, step)[:, None] ^ ((tokens + 1) * _GOLDEN))
    uniform = ((bits >> (64 - _NOISE_BITS)) & (2**_NOISE_BITS - 1)).to(torch.float32)
    uniform = (uniform + 0.5) * 2.0**-_NOISE_BITS
    return -torch.log(-torch.log1p(-uniform))


def _seeds(keys: Tensor, step: int) -> Tensor:
    return _mix(_mix(keys) + torch.full_like(keys, step) * _GOLDEN)


def ban_repeats(logits: Tensor, history: Tensor, size: int) -> None:
    """Set ``logits`` ``[R, V]`` to -inf where a token would end an n-gram seen before.

    ``history`` ``[R, L]`` holds each row's prompt and output, padded on the left with -1.
    Hugging Face's ``NoRepeatNGramLogitsProcessor``: the prompt counts; 0 is off. The newest
    n - 1 tokens are compared with every place at once; nothing is kept between steps.
    """
    if size == 0 or history.shape[1] < size:
        return
    places = history.shape[1] - size + 1
    same = history[:, :places] >= 0
    for offset in range(size - 1):
        same = same & (history[:, offset : offset + places] == history[:, offset - size + 1, None])
    bound = torch.full_like(same, torch.inf, dtype=logits.dtype).masked_fill_(same, -torch.inf)
    logits.scatter_reduce_(1, history[:, size - 1 :].clamp(min=0), bound, "amin")


KINDS = 4  #: ways of drawing, as ``kind_of`` counts them


def kind_of(temperature: float, top_k: int, top_p: float) -> int:
    """Say how a sequence is drawn: 0 the largest logit, 1 from all, 2 cut by top-k, 3 by top-p alone."""
    if temperature == 0:
        return 0
    return 2 if top_k else 3 if top_p < 1 else 1


def choose(
    logits: Tensor,
    sequences: SequenceBatch,
    kinds: Sequence[int],
    temperatures: Tensor,
    keys: Tensor,
    step: int,
) -> Tensor:
    """Return each sequence's next token: int64 ``[S]``.

    ``logits`` are ``[R, V]``; ``temperatures`` ``[T]`` and ``keys`` ``[K]`` are what the
    sequences index. Sequences stand in the order of their ``kind_of``, and ``kinds`` says how many
    there are of each. Temperature 0 takes the largest logit. Else, as Hugging Face's warpers:
    divide by the temperature, keep the top-k (all that tie with the k-th), then the fewest
    most likely whose probability reaches top-p (never none).

    On a GPU with Triton nothing here waits for a result.
    """
    greedy, whole, ranked, nucleus = kinds
    token = torch.empty_like(sequences.row)
    if greedy:
        token[:greedy] = logits[sequences.row[:greedy]].argmax(dim=-1)
    if logits.is_cuda and draw and logits.shape[1] >= CANDIDATES[0]:
        values, ids = _descending(logits, CANDIDATES[0])
        rest = slice(greedy, None)
        draw(logits, values, ids, sequences[rest], temperatures, _seeds(keys, step), token[rest])
        return token
    if whole:
        part = slice(greedy, greedy + whole)
        token[part] = _choose_from_all(logits, sequences[part], temperatures, keys, step)
    if ranked + nucleus:
        part = slice(greedy + whole, None)
        token[part] = _choose_from_some(logits, sequences[part], nucleus, temperatures, keys, step)
    return token


def _choose_from_all(
    logits: Tensor, sequences: SequenceBatch, temperatures: Tensor, keys: Tensor, step: int
) -> Tensor:
    """The winner over the whole vocabulary: no order needed."""
    (row, temperature, key), member = _groups(sequences, len(temperatures), len(keys))
    size = logits.shape[1]
    every = torch.arange(size, device=logits.device)
    token = torch.empty_like(row)
    for part in key.argsort(stable=True).split(max(1, _AT_ONCE // size)):
        # Rows on one prompt share the noise of each sample: it is made once for all of them.
        drawn, place = key[part].unique(return_inverse=True)
        noise = gumbel(keys[drawn], step, every.expand(len(drawn), -1))
        scaled = logits[row[part]].float().div_(temperatures[temperature[part], None])
        token[part] = scaled.add_(noise[place]).argmax(dim=-1)
    return token[member]


def _choose_from_some(
    logits: Tensor, sequences: SequenceBatch, nucleus: int, temperatures: Tensor, keys: Tensor, step: int
) -> Tensor:
    """The winner among those that top-k and top-p keep, ever more logits looked at until it is certain."""
    token, mass = torch.empty_like(sequences.row), torch.zeros_like(sequences.top_p)
    if nucleus:
        mass[-nucleus:] = _mass(logits, sequences[slice(-nucleus, None)], temperatures)
    left = torch.arange(len(token), device=token.device)
    for candidates in (*CANDIDATES, logits.shape[1]):
        candidates = min(candidates, logits.shape[1])
        unsure = [left[:0]]
        for part in left.split(max(1, _AT_ONCE // candidates)):
            chosen, sure = _choose_from_top(
                logits, sequences[part], mass[part], temperatures, keys, step, candidates
            )
            token[part] = chosen
            unsure.append(part[~sure])
        left = torch.cat(unsure)
        if not len(left):
            break
    return token


def _mass(logits: Tensor, sequences: SequenceBatch, temperatures: Tensor) -> Tensor:
    """Each sequence's sum over the vocabulary of exp(logit / temperature), the largest being 1: float64 ``[S]``."""
    warps = sequences.row * len(temperatures) + sequences.temperature
    code, member = warps.unique(return_inverse=True)
    sums = []
    for part in code.split(max(1, _AT_ONCE // logits.shape[1])):
        scaled = logits[part // len(temperatures)].float().div_(temperatures[part % len(temperatures), None])
        scaled.sub_(scaled.amax(dim=-1, keepdim=True)).exp_()
        sums.append(scaled.sum(dim=-1, dtype=torch.float64))
    return torch.cat(sums)[member]


def _choose_from_top(
    logits: Tensor,
    sequences: SequenceBatch,
    mass: Tensor,
    temperatures: Tensor,
    keys: Tensor,
    step: int,
    candidates: int,
) -> tuple[Tensor, Tensor]:
    """The winner among each row's largest logits, and whether those were enough to tell.

    They are enough where a sequence's cut falls before the last of them, ties included.
    """
    size = logits.shape[1]
    candidates = min(candidates, size)
    rows, row_of = sequences.row.unique(return_inverse=True)
    values, ids = _descending(logits[rows], candidates)
    sequences = replace(sequences, row=row_of)

    # One warped, cumulated distribution for each row and temperature.
    warps, warp = (row_of * len(temperatures) + sequences.temperature).unique(return_inverse=True)
    scaled = values[warps // len(temperatures)] / temperatures[warps % len(temperatures), None]
    cumulated = (scaled - scaled[:, :1]).double().exp().cumsum(dim=-1)
    keep, sure = _cut(scaled, cumulated, mass, warp, sequences, candidates == size)

    # One draw for each row, temperature and key, whatever the cuts.
    (row, temperature, key), member = _groups(sequences, len(temperatures), len(keys))
    noisy = values[row] / temperatures[temperature, None] + gumbel(keys[key], step, ids[row])
    leader = noisy.cummax(dim=-1).indices
    return ids[row_of, leader[member, keep - 1]], sure


def _cut(
    scaled: Tensor, cumulated: Tensor, mass: Tensor, warp: Tensor, sequences: SequenceBatch, complete: bool
) -> tuple[Tensor, Tensor]:
    """How many of the candidates each sequence keeps ``[S]``, and whether that is certain ``[S]``.

    ``scaled`` and ``cumulated`` are ``[G, M]``, and ``warp`` ``[S]`` says which of the G a sequence reads.
    ``mass`` ``[S]`` is the sum over the whole vocabulary on the same scale, where a sequence wants it.
    """
    candidates = scaled.shape[1]
    scaled, cumulated = scaled[warp], cumulated[warp]
    last = torch.full_like(sequences.top_k, candidates)
    ranked = torch.where(sequences.top_k > 0, sequences.top_k.clamp(max=candidates), last)
    threshold = scaled.gather(1, ranked[:, None] - 1)
    kept = torch.where(
        sequences.top_k > 0, torch.searchsorted(-scaled, -threshold, right=True).squeeze(1), last
    )
    total = torch.where(sequences.top_k > 0, cumulated.gather(1, kept[:, None] - 1).squeeze(1), mass)
    before = torch.cat([torch.zeros_like(cumulated[:, :1]), cumulated[:, :-1]], dim=1)
    nucleus = torch.searchsorted(before, (sequences.top_p * total)[:, None]).squeeze(1).clamp(min=1)
    keep = torch.where(sequences.top_p < 1, torch.minimum(nucleus, kept), kept)
    if complete:
        return keep, torch.ones_like(keep, dtype=torch.bool)
    known = (sequences.top_k == 0) | (kept < candidates)
    edge = scaled.gather(1, keep[:, None] - 1).squeeze(1) > scaled[:, -1]
    return keep, known & edge


def _descending(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of each row and their ids, ties by falling id.

    Hugging Face's top-p sorts ascending and drops from the front, so of tied tokens it
    drops those with the smallest ids first.
    """
    if count < logits.shape[1]:
        ids = logits.topk(count, dim=-1).indices.sort(dim=-1).values
        values, order = logits.gather(1, ids).sort(dim=-1, stable=True)
        return values.flip(1).float(), ids.gather(1, order).flip(1)
    values, ids = logits.sort(dim=-1, stable=True)
    return values.flip(1).float(), ids.flip(1)


def _groups(
    sequences: SequenceBatch, temperatures: int, keys: int
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The distinct (row, temperature, key) ``[G]`` each, and each sequence's group ``[S]``."""
    code = (sequences.row * temperatures + sequences.temperature) * keys + sequences.key
    distinct, member = code.unique(return_inverse=True)
    parts = (distinct // (temperatures * keys), distinct // keys % temperatures, distinct % keys)
    return parts, member


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, whose products wrap; shifts are made logical."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX_2
    return x ^ ((x >> 31) & (2**33 - 1))
