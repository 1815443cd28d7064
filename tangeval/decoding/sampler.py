"""From logits to tokens: many (cell, sample) streams on each row, with keyed noise.

In: logits of distinct rows and, for each stream, its row, knobs and luck. Out: one token a
stream. Pure tensors, on any device; knows nothing of models, caches or text.

Sampling is Gumbel-max: of the tokens that a cell keeps, the one with the largest
``logit / temperature + noise`` (Gumbel 1954; Maddison et al., *A\\* Sampling*, 2014). The
noise depends on (seed, example, sample, step, token) alone, so two cells that differ in one
knob see the same luck, and what else is in the batch changes nothing.

Temperature does not change the order of logits. So each row is sorted once, the noise is
added in that order, and the winner for any top-k or top-p is the running maximum at its cut.
"""

import hashlib
from dataclasses import dataclass, fields

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # splitmix64's increment, as a signed integer
_MIX_1, _MIX_2 = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
_NOISE_BITS = 23  # (integer + 1/2) / 2**23 is exact in float32 and never 0 or 1
#: How many of a row's largest logits are looked at, one after another, before all of them are.
CANDIDATES = (64, 512)
_PART = 128  # streams whose whole vocabulary is sorted in one go
_CHUNK = 1024  # groups whose whole vocabulary is looked at in one go


@dataclass(frozen=True)
class Streams:
    """What tells streams apart, one entry a stream: every field is ``[S]``.

    ``row`` (int64) says which row of the logits a stream reads; ``temperature`` and
    ``luck`` (int64) index ``temperatures`` and ``keys``, which are short; ``top_k`` (int64,
    0 is off) and ``top_p`` (float64, 1 is off) are the knobs themselves.
    """

    row: Tensor
    temperature: Tensor
    luck: Tensor
    top_k: Tensor
    top_p: Tensor

    def __getitem__(self, chosen: Tensor) -> "Streams":
        return Streams(*(getattr(self, field.name)[chosen] for field in fields(self)))


def luck_key(seed: int, example_id: str, sample: int) -> int:
    """Return the 64-bit key (signed) of one sample's luck; stable across machines and runs."""
    text = f"{seed}\0{example_id}\0{sample}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


def gumbel(keys: Tensor, step: int, tokens: Tensor) -> Tensor:
    """Return standard Gumbel noise for ``keys`` ``[N]`` at ``tokens`` ``[N, M]``: float32 ``[N, M]``.

    A counter-based generator: splitmix64's finaliser (Steele et al., OOPSLA 2014) on key and
    step, then on that and the token. Noise lies between -2.9 and 16.7.
    """
    seeded = _mix(_mix(keys) + torch.full_like(keys, step) * _GOLDEN)
    bits = _mix(seeded[:, None] ^ ((tokens + 1) * _GOLDEN))
    uniform = ((bits >> (64 - _NOISE_BITS)) & (2**_NOISE_BITS - 1)).to(torch.float32)
    uniform = (uniform + 0.5) * 2.0**-_NOISE_BITS
    return -torch.log(-torch.log1p(-uniform))


def ban_repeats(logits: Tensor, history: Tensor, size: int) -> Tensor:
    """Return ``logits`` ``[R, V]`` with -inf where a token would end an n-gram seen before.

    ``history`` ``[R, L]`` holds each row's prompt and output, padded on the left with -1.
    Hugging Face's ``NoRepeatNGramLogitsProcessor``: the prompt counts; 0 is off.
    """
    if size == 0 or history.shape[1] < size:
        return logits
    places = history.shape[1] - size + 1
    same = history[:, :places] >= 0
    for offset in range(size - 1):
        same = same & (history[:, offset : offset + places] == history[:, offset - size + 1, None])
    row, place = same.nonzero(as_tuple=True)
    return logits.index_put((row, history[row, place + size - 1]), logits.new_tensor(-torch.inf))


def choose(logits: Tensor, streams: Streams, temperatures: Tensor, keys: Tensor, step: int) -> Tensor:
    """Return each stream's next token: int64 ``[S]``.

    ``logits`` are float32 ``[R, V]``; ``temperatures`` ``[T]`` and ``keys`` ``[K]`` are what
    the streams index. Temperature 0 takes the largest logit. Else, as Hugging Face's
    warpers: divide by the temperature, keep the top-k (all that tie with the k-th), then the
    fewest most likely whose probability reaches top-p (never none).
    """
    tokens = torch.empty_like(streams.row)
    greedy = temperatures[streams.temperature] == 0
    whole = ~greedy & (streams.top_k == 0) & (streams.top_p >= 1)
    cut = ~greedy & ~whole
    if greedy.any():
        tokens[greedy] = logits.argmax(dim=-1)[streams.row[greedy]]
    if whole.any():
        tokens[whole] = _choose_from_all(logits, streams[whole], temperatures, keys, step)
    if cut.any():
        left = cut.nonzero().flatten()
        for candidates in (*CANDIDATES, logits.shape[1]):
            unsure = [left[:0]]
            # Where all logits are looked at, a few streams at a time: each takes a row of the vocabulary's size.
            for part in left.split(_PART if candidates == logits.shape[1] else len(left)):
                chosen, sure = _choose_from_top(logits, streams[part], temperatures, keys, step, candidates)
                tokens[part[sure]] = chosen[sure]
                unsure.append(part[~sure])
            left = torch.cat(unsure)
            if not len(left):
                break
    return tokens


def _choose_from_all(
    logits: Tensor, streams: Streams, temperatures: Tensor, keys: Tensor, step: int
) -> Tensor:
    """The winner over the whole vocabulary: no order needed."""
    groups, member = _groups(streams, len(temperatures), len(keys))
    # Rows on one prompt share the noise of each sample: it is made once for all of them.
    drawn, place = groups[2].unique(return_inverse=True)
    every = torch.arange(logits.shape[1], device=logits.device).expand(len(drawn), -1)
    noise = gumbel(keys[drawn], step, every)
    winners = []
    parts = (part.split(_CHUNK) for part in (*groups[:2], place))
    for row, temperature, luck in zip(*parts, strict=True):
        winners.append((logits[row] / temperatures[temperature, None] + noise[luck]).argmax(dim=-1))
    return torch.cat(winners)[member]


def _choose_from_top(
    logits: Tensor, streams: Streams, temperatures: Tensor, keys: Tensor, step: int, candidates: int
) -> tuple[Tensor, Tensor]:
    """The winner among each row's largest logits, and whether those were enough to tell.

    They are enough where a stream's cut falls before the last of them, ties included.
    """
    size = logits.shape[1]
    candidates = min(candidates, size)
    rows, row_of = streams.row.unique(return_inverse=True)
    values, ids = _descending(logits[rows], candidates)
    streams = Streams(row_of, streams.temperature, streams.luck, streams.top_k, streams.top_p)

    # One warped, cumulated distribution for each row and temperature.
    warps, warp = (row_of * len(temperatures) + streams.temperature).unique(return_inverse=True)
    warp_row, warp_temperature = warps // len(temperatures), temperatures[warps % len(temperatures)]
    scaled = values[warp_row] / warp_temperature[:, None]
    largest = scaled[:, :1]
    cumulated = (scaled - largest).double().exp().cumsum(dim=-1)
    # The sum over the whole vocabulary is for those that cut it by top-p alone.
    mass = torch.zeros_like(cumulated[:, 0])
    asked = warp[(streams.top_k == 0) & (streams.top_p < 1)].unique()
    for some in asked.split(_CHUNK):
        every = logits[rows[warp_row[some]]] / warp_temperature[some, None] - largest[some]
        mass[some] = every.exp_().sum(dim=-1, dtype=torch.float64)
    keep, sure = _cut(scaled, cumulated, mass, warp, streams, candidates == size)

    # One draw for each row, temperature and luck, whatever the cuts.
    (row, temperature, luck), member = _groups(streams, len(temperatures), len(keys))
    noisy = values[row] / temperatures[temperature, None] + gumbel(keys[luck], step, ids[row])
    leader = noisy.cummax(dim=-1).indices
    return ids[row_of, leader[member, keep - 1]], sure


def _cut(
    scaled: Tensor, cumulated: Tensor, mass: Tensor, warp: Tensor, streams: Streams, complete: bool
) -> tuple[Tensor, Tensor]:
    """How many of the candidates each stream keeps ``[S]``, and whether that is certain ``[S]``.

    ``scaled`` and ``cumulated`` are ``[G, M]``, ``mass`` ``[G]`` is the sum over the whole
    vocabulary on the same scale where a stream wants it, ``warp`` ``[S]`` says which of the G a stream reads.
    """
    candidates = scaled.shape[1]
    scaled, cumulated, mass = scaled[warp], cumulated[warp], mass[warp]
    last = torch.full_like(streams.top_k, candidates)
    ranked = torch.where(streams.top_k > 0, streams.top_k.clamp(max=candidates), last)
    threshold = scaled.gather(1, ranked[:, None] - 1)
    kept = torch.where(
        streams.top_k > 0, torch.searchsorted(-scaled, -threshold, right=True).squeeze(1), last
    )
    total = torch.where(streams.top_k > 0, cumulated.gather(1, kept[:, None] - 1).squeeze(1), mass)
    before = torch.cat([torch.zeros_like(cumulated[:, :1]), cumulated[:, :-1]], dim=1)
    nucleus = torch.searchsorted(before, (streams.top_p * total)[:, None]).squeeze(1).clamp(min=1)
    keep = torch.where(streams.top_p < 1, torch.minimum(nucleus, kept), kept)
    if complete:
        return keep, torch.ones_like(keep, dtype=torch.bool)
    known = (streams.top_k == 0) | (kept < candidates)
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
        return values.flip(1), ids.gather(1, order).flip(1)
    values, ids = logits.sort(dim=-1, stable=True)
    return values.flip(1), ids.flip(1)


def _groups(streams: Streams, temperatures: int, keys: int) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The distinct (row, temperature, luck) ``[G]`` each, and each stream's group ``[S]``."""
    code = (streams.row * temperatures + streams.temperature) * keys + streams.luck
    distinct, member = code.unique(return_inverse=True)
    parts = (distinct // (temperatures * keys), distinct // keys % temperatures, distinct % keys)
    return parts, member


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64, whose products wrap; shifts are made logical."""
    x = (x ^ ((x >> 30) & (2**34 - 1))) * _MIX_1
    x = (x ^ ((x >> 27) & (2**37 - 1))) * _MIX_2
    return x ^ ((x >> 31) & (2**33 - 1))
