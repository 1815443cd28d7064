"""What is one GPU kernel where PyTorch would need many: the sampler's draw, and a row's attention.

Written in Triton, which PyTorch brings along where it drives a GPU.

The draw is what ``sampler`` does in a hundred kernels, and without a wait. In: logits, each
row's largest in order, and the sequences. Out: one token a sequence. The same token as the
sampler's own way gives, up to the last bit of a logarithm. Each sequence is one program. Where
its cut falls among the largest logits, it looks at those alone. Else it finds the cut by
bisection over the values that a logit can have, reading the row once for each bit, and draws
from all that lie above.

A row's attention is over the tokens that it wrote itself, together with what attention over
its prompt gave. That is where the online softmax (Milakov and Gimelshein, 2018), which is
what FlashAttention sums by, begins: a score that is the prompt's log-sum-exp, and a value
that is the prompt's output. Each row and group of keys is one program.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from tangeval.core.knobs import KNOB

#: The knobs that ``draw`` honours; sequences with other cuts on are drawn by tensors.
SUPPORTS = frozenset({"temperature", "top_k", "top_p"})
_BLOCK = 2048
#: The low bits that are alike in all numbers of a dtype, once they are float32.
_SHIFT = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}
_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15 - 2**64)
_MIX_1, _MIX_2 = tl.constexpr(0xBF58476D1CE4E5B9 - 2**64), tl.constexpr(0x94D049BB133111EB - 2**64)


def draw(
    logits: Tensor,
    values: Tensor,
    ids: Tensor,
    sequences: Any,
    temperatures: Tensor,
    seeds: Tensor,
    token: Tensor,
) -> None:
    """Write each sequence's token to ``token`` ``[S]``; a sequence of temperature 0 is left alone.

    ``logits`` are ``[R, V]``; ``values`` (float32) and ``ids`` ``[R, M]`` the largest of each
    row, falling, M a power of 2; ``sequences`` a ``sampler.SequenceBatch``; ``seeds`` ``[K]`` the keys with the step
    mixed in.
    """
    if len(token):
        top_k, top_p = (_values(sequences, name) for name in ("top_k", "top_p"))
        _draw[(len(token),)](
            logits, logits.stride(0), logits.shape[1], values, ids, sequences.row, sequences.temperature, sequences.key,
            top_k, top_p, temperatures, seeds, token, candidates=values.shape[1], block=_BLOCK,
            shift=_SHIFT[logits.dtype], num_warps=8,
        )  # fmt: skip


def _values(sequences: Any, name: str) -> Tensor:
    """A cut's value of each sequence ``[S]``: where no sequence makes it, off."""
    off, dtype = KNOB[name].off, torch.int64 if KNOB[name].type is int else torch.float64
    found = sequences.knobs.get(name)
    return torch.full_like(sequences.row, off, dtype=dtype) if found is None else found


def attend_own(
    query: Tensor, own: Tensor, position: Tensor, prompt: Tensor, mass: Tensor, back: Tensor, scaling: float
) -> Tensor:
    """Attention over a row's own tokens and its prompt: ``[R, H, D]``.

    ``query`` is ``[R, H, D]``; ``own`` ``[2, N, K, room, D]`` the keys and values of N ≥ R places, of which the
    first ``position`` ``[1]`` + 1 tokens count; ``prompt`` ``[R, H, D]`` and ``mass`` ``[H, R]`` are the output and
    log-sum-exps of attention over the prompts, in another order, in which ``back`` ``[R]`` is each row's place.
    """
    rows, heads, size = query.shape
    groups = own.shape[2]
    output, width = torch.empty_like(query), max(16, triton.next_power_of_2(size))
    _attend_own[(rows, groups)](
        query, own[0], own[1], position, prompt, mass, back, output, mass.stride(0), own.stride(1), own.stride(2),
        scaling, groups, size, queries=heads // groups, most=max(16, triton.next_power_of_2(heads // groups)),
        block=64 if width <= 128 else 32, width=width, num_warps=4,
    )  # fmt: skip
    return output


@triton.jit
def _attend_own(
    query, keys, values, position, prompt, mass, back, output, mass_stride, place, group_stride, scaling, groups, size,
    queries: tl.constexpr, most: tl.constexpr, block: tl.constexpr, width: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    group = tl.program_id(1)
    length = tl.load(position) + 1
    origin = tl.load(back + row)
    head, feature = tl.arange(0, most), tl.arange(0, width)
    inside = (head < queries)[:, None] & (feature < size)[None, :]
    here = (group * queries + head)[:, None] * size + feature[None, :]
    each = tl.load(query + row * groups * queries * size + here, mask=inside, other=0.0)
    seen = tl.load(prompt + origin * groups * queries * size + here, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(mass + (group * queries + head) * mass_stride + origin, mask=head < queries, other=0.0)
    total = tl.full((most,), 1.0, tl.float32)
    own = row * place + group * group_stride
    for begin in range(0, length, block):
        token = begin + tl.arange(0, block)
        there = own + token[:, None] * size + feature[None, :]
        written = (token < length)[:, None] & (feature < size)[None, :]
        key = tl.load(keys + there, mask=written, other=0.0)
        scores = tl.where((token < length)[None, :], tl.dot(each, tl.trans(key)) * scaling, -float("inf"))
        higher = tl.maximum(high, tl.max(scores, axis=1))
        fade, weight = tl.exp(high - higher), tl.exp(scores - higher[:, None])
        value = tl.load(values + there, mask=written, other=0.0)
        seen = tl.dot(weight.to(value.dtype), value, seen * fade[:, None])
        total = total * fade + tl.sum(weight, axis=1)
        high = higher
    tl.store(
        output + row * groups * queries * size + here,
        (seen / total[:, None]).to(output.dtype.element_ty),
        mask=inside,
    )


@triton.jit
def _draw(
    logits, stride, size, values, ids, row_of, temperature_of, noise_of, top_k_of, top_p_of, temperatures, seeds, token,
    candidates: tl.constexpr, block: tl.constexpr, shift: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    temperature = tl.load(temperatures + tl.load(temperature_of + sequence))
    if temperature > 0:
        row = tl.load(row_of + sequence)
        seed = tl.load(seeds + tl.load(noise_of + sequence))
        top_k = tl.load(top_k_of + sequence)
        top_p = tl.load(top_p_of + sequence)
        here = logits + row * stride

        place = tl.arange(0, candidates)
        scaled = tl.div_rn(tl.load(values + row * candidates + place), temperature)
        largest = tl.max(scaled)
        likely = libdevice.exp(scaled - largest).to(tl.float64)
        cumulated = tl.cumsum(likely)
        kept = tl.full((), candidates, tl.int64)
        total = tl.full((), 0.0, tl.float64)
        if top_k > 0:
            ranked = tl.minimum(top_k, candidates)
            threshold = tl.sum(tl.where(place == ranked - 1, scaled, 0.0))
            kept = tl.sum((scaled >= threshold).to(tl.int64))
            total = tl.sum(tl.where(place < kept, likely, 0.0))
        elif top_p < 1:
            total, _, _, _ = _split(here, size, temperature, largest, -2147483648 >> shift, block, shift)
        keep = kept
        if top_p < 1:
            keep = tl.minimum(
                kept, 1 + tl.sum(((cumulated < top_p * total) & (place < candidates - 1)).to(tl.int64))
            )
        edge = tl.sum(tl.where(place == keep - 1, scaled, 0.0))
        cut = (top_k > 0) | (top_p < 1)
        if cut & ((top_k == 0) | (kept < candidates)) & (edge > tl.min(scaled)):
            among = tl.load(ids + row * candidates + place)
            noisy = tl.where(place < keep, scaled + _gumbel(seed, among), -float("inf"))
            _, best = tl.max(noisy, axis=0, return_indices=True)
            tl.store(token + sequence, tl.load(ids + row * candidates + best))
        else:
            bound = tl.full((), -2147483648 >> shift, tl.int32)
            ties = tl.full((), 0, tl.int64) + size
            if top_k > 0:
                bound = _bisect(here, size, temperature, largest, top_k.to(tl.float64), True, block, shift)
                above, _, at, _ = _split(here, size, temperature, largest, bound, block, shift)
                total = above + at
            if top_p < 1:
                target = top_p * total
                bound = _bisect(here, size, temperature, largest, target, False, block, shift)
                above, _, at, count = _split(here, size, temperature, largest, bound, block, shift)
                ties = tl.ceil((target - above) * count / at).to(tl.int64)
            # From the largest id to the smallest: of tied tokens those with small ids go first.
            best_noisy = tl.full((), -float("inf"), tl.float32)
            best_token = tl.full((), 0, tl.int64)
            seen = tl.full((), 0, tl.int64)
            for begin in range((size - 1) // block * block, -1, -block):
                tokens = begin + tl.arange(0, block)
                inside = tokens < size
                scores = tl.load(here + tokens, mask=inside, other=-float("inf")).to(tl.float32)
                rank = _rank(scores, shift)
                tied = ((rank == bound) & inside).to(tl.int64)
                held = tl.sum(tied)
                later = seen + held - tl.cumsum(tied)
                keeps = inside & ((rank > bound) | ((rank == bound) & (later < ties)))
                noisy = tl.where(
                    keeps, tl.div_rn(scores, temperature) + _gumbel(seed, tokens.to(tl.int64)), -float("inf")
                )
                most, best = tl.max(noisy, axis=0, return_indices=True)
                if most > best_noisy:
                    best_noisy = most
                    best_token = (begin + best).to(tl.int64)
                seen += held
            tl.store(token + sequence, best_token)


@triton.jit
def _bisect(
    here, size, temperature, largest, target, by_count: tl.constexpr, block: tl.constexpr, shift: tl.constexpr
):
    """The smallest rank above which lies less than ``target``: of probability, or of tokens."""
    low = tl.full((), -2147483648 >> shift, tl.int32)
    high = tl.full((), 2147483647 >> shift, tl.int32)
    while low < high:
        middle = (low & high) + ((low ^ high) >> 1)
        mass, count, _, _ = _split(here, size, temperature, largest, middle, block, shift)
        less = (count < target) if by_count else (mass < target)
        if less:
            high = middle
        else:
            low = middle + 1
    return low


@triton.jit
def _split(here, size, temperature, largest, bound, block: tl.constexpr, shift: tl.constexpr):
    """Mass and number (float64) of the tokens whose rank is above ``bound``, and of those at it."""
    above = tl.zeros((block,), tl.float64)
    at = tl.zeros((block,), tl.float64)
    more = tl.zeros((block,), tl.int32)
    same = tl.zeros((block,), tl.int32)
    for begin in range(0, size, block):
        tokens = begin + tl.arange(0, block)
        inside = tokens < size
        scores = tl.load(here + tokens, mask=inside, other=-float("inf")).to(tl.float32)
        rank = _rank(scores, shift)
        mass = libdevice.exp(tl.div_rn(scores, temperature) - largest).to(tl.float64)
        over = (rank > bound) & inside
        equal = (rank == bound) & inside
        above += tl.where(over, mass, 0.0)
        at += tl.where(equal, mass, 0.0)
        more += over.to(tl.int32)
        same += equal.to(tl.int32)
    return tl.sum(above), tl.sum(more).to(tl.float64), tl.sum(at), tl.sum(same).to(tl.float64)


@triton.jit
def _rank(scores, shift: tl.constexpr):
    """Integers in the order of the floats ``scores``."""
    bits = (scores + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> shift


@triton.jit
def _gumbel(seed, tokens):
    """``noise.gumbel``."""
    bits = _mix(seed ^ ((tokens + 1) * _GOLDEN))
    uniform = (((bits >> 41) & 0x7FFFFF).to(tl.float32) + 0.5) * 1.1920928955078125e-07
    return -libdevice.log(-libdevice.log1p(-uniform))


@triton.jit
def _mix(x):
    """``noise._mix``."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * _MIX_1
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * _MIX_2
    return x ^ ((x >> 31) & 0x1FFFFFFFF)
