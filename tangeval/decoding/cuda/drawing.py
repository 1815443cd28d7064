"""The sampler's draw in one GPU kernel, where PyTorch would need a hundred and a wait.

In: logits, each row's largest in order, and the sequences. Out: one token a sequence: the one that ``sampler``
draws by tensors, up to the last bit of an exponential or a logarithm. Knows nothing of models and text.

Each sequence is one program. What its cuts keep are the first tokens of its sorted row, so a cut is a number of
them. Where the first cut falls among the row's largest logits, the program looks at those alone. Else it finds
for each cut the smallest logit that stays: for a probability or a number by bisection over the values that a
logit can have, reading the row once for each bit; and it draws from all that stay.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from tangeval.decoding.cuda.rows import (
    LOWEST,
    bounds,
    deviation,
    entropy,
    eta_bound,
    first_of_top_h,
    gumbel,
    limit_of,
    split,
    term,
    winner,
)
from tangeval.decoding.warpers import WARPERS

#: The cuts that ``draw`` makes, in their order; sequences with another one on are drawn by tensors.
SUPPORTS = (
    "top_n_sigma", "top_h", "top_h_whole", "top_k", "top_p", "min_p", "epsilon_cutoff", "eta_cutoff", "p_less",
)  # fmt: skip
_BLOCK = 2048
#: The low bits that are alike in all numbers of a dtype, once they are float32.
_SHIFT = {torch.bfloat16: 16, torch.float16: 13, torch.float32: 0}
#: Two programs at a time in a multiprocessor of an H100, however many cuts there are.
_REGISTERS = {} if torch.version.hip else {"maxnreg": 128}


def draw(
    logits: Tensor, largest: tuple[Tensor, Tensor], sequences: Any, summed: int, temperatures: Tensor, seeds: Tensor,
    token: Tensor,
) -> None:  # fmt: skip
    """Write each sequence's token to ``token`` ``[S]``; a sequence of temperature 0 is left alone.

    ``logits`` are ``[R, V]``; ``largest`` the values (float32) and ids ``[R, M]`` of the largest of each
    row, falling, M a power of 2; ``sequences`` a ``sampler.SequenceBatch``, of which the last ``summed`` have a first
    cut that reads statistics of the whole row; ``seeds`` ``[K]`` the keys with the step mixed in.
    """
    if not len(token):
        return
    values, ids = largest
    cuts = [sequences.knobs.get(name) for name in SUPPORTS]  # one kernel for those that are there
    full = any(WARPERS[name].reads - {"mass", "sigma"} for name in sequences.knobs)
    _draw[(len(token),)](
        logits, logits.stride(0), logits.shape[1], values, ids, sequences.row, sequences.temperature, sequences.key,
        temperatures, seeds, token, len(token) - summed, *cuts, candidates=values.shape[1], block=_BLOCK,
        shift=_SHIFT[logits.dtype], full=full, num_warps=8, **_REGISTERS,
    )  # fmt: skip


@triton.jit(do_not_specialize=["summed"])
def _draw(
    logits, stride, size, values, ids, row_of, temperature_of, noise_of, temperatures, seeds, token, summed,
    sigma_of, h_of, h_whole_of, k_of, p_of, min_of, epsilon_of, eta_of, less_of,
    candidates: tl.constexpr, block: tl.constexpr, shift: tl.constexpr, full: tl.constexpr,
):  # fmt: skip
    sequence = tl.program_id(0)
    temperature = tl.load(temperatures + tl.load(temperature_of + sequence))
    if temperature > 0:
        row = tl.load(row_of + sequence)
        seed = tl.load(seeds + tl.load(noise_of + sequence))
        place = row * candidates + tl.arange(0, candidates)
        raw = tl.load(values + place)
        scaled = tl.div_rn(raw, temperature)
        context = (logits + row * stride, size, temperature, tl.max(scaled))
        cuts = (
            _value(sigma_of, sequence, 0.0), _value(h_of, sequence, 0.0), _value(h_whole_of, sequence, 0.0),
            _value(k_of, sequence, 0), _value(p_of, sequence, 1.0), _value(min_of, sequence, 0.0),
            _value(epsilon_of, sequence, 0.0), _value(eta_of, sequence, 0.0), _value(less_of, sequence, 0),
        )  # fmt: skip
        # Statistics of the whole row, where the first cut reads them.
        mass, terms, squares, sigma = _zero(), _zero(), _zero(), _zero()
        if sequence >= summed:
            mass, _, _, _, terms, squares = split(context, LOWEST >> shift, block, shift, full)
        if cuts[0] > 0:
            sigma = deviation(context, block)
        keep = _among(scaled, cuts, sigma, mass, terms, squares, candidates)
        if keep > 0:
            among = tl.load(ids + place)
            noisy = tl.where(tl.arange(0, candidates) < keep, scaled + gumbel(seed, among), -float("inf"))
            _, best = tl.max(noisy, axis=0, return_indices=True)
            tl.store(token + sequence, tl.load(ids + row * candidates + best))
        else:
            bound, ties = bounds(
                context, raw, scaled, cuts, sigma, mass, terms, squares, candidates, block, shift, full
            )
            tl.store(token + sequence, winner(context, seed, bound, ties, block, shift))


@triton.jit
def _zero():
    return tl.full((), 0.0, tl.float64)


@triton.jit
def _value(of, sequence, off: tl.constexpr):
    """A cut's value; ``off`` where no sequence makes it."""
    if of is None:
        return off
    else:
        return tl.load(of + sequence)


@triton.jit
def _among(scaled, cuts, sigma, mass, terms, squares, candidates: tl.constexpr):
    """How many of the candidates stay; 0 where these are too few to tell."""
    top_n_sigma, top_h, top_h_whole, top_k, top_p, min_p, epsilon, eta, p_less = cuts
    place = tl.arange(0, candidates)
    falls = scaled - tl.max(scaled)
    likely = libdevice.exp(falls).to(tl.float64)
    cumulated, summed = tl.cumsum(likely), tl.cumsum(term(likely, falls))
    # More may tie with the last candidate than there are candidates.
    room = tl.sum((scaled > tl.min(scaled)).to(tl.int64))
    keep, sure = tl.full((), candidates, tl.int64), room >= 0
    if top_n_sigma > 0:
        keep, sure = _fewer(keep, sure, room, _as_large(scaled, -top_n_sigma * sigma))
    if top_h > 0:
        keep, sure = _fewer(keep, sure, room, first_of_top_h(scaled, keep, top_h, candidates))
    if top_h_whole > 0:
        mass, terms, _ = _of_first(likely, falls, place, keep, mass, terms, squares, candidates)
        fits = libdevice.log(cumulated) - summed / cumulated <= top_h_whole * entropy(mass, terms)
        keep, sure = _fewer(keep, sure, room, tl.sum(fits.to(tl.int64)))
    if top_k > 0:
        threshold = tl.sum(tl.where(place == tl.minimum(top_k, candidates) - 1, scaled, 0.0))
        keep, sure = _fewer(keep, sure, room, tl.sum((scaled >= threshold).to(tl.int64)))
    if top_p < 1:
        mass, _, _ = _of_first(likely, falls, place, keep, mass, terms, squares, candidates)
        short = (cumulated < top_p * mass) & (place < candidates - 1)
        keep, sure = _fewer(keep, sure, room, 1 + tl.sum(short.to(tl.int64)))
    if min_p > 0:
        keep, sure = _fewer(keep, sure, room, _as_large(scaled, libdevice.log(min_p)))
    if epsilon > 0:
        mass, _, _ = _of_first(likely, falls, place, keep, mass, terms, squares, candidates)
        keep, sure = _fewer(keep, sure, room, _as_large(scaled, libdevice.log(epsilon * mass)))
    if eta > 0:
        mass, terms, _ = _of_first(likely, falls, place, keep, mass, terms, squares, candidates)
        keep, sure = _fewer(keep, sure, room, _as_large(scaled, eta_bound(eta, mass, terms)))
    if p_less > 0:
        mass, _, squares = _of_first(likely, falls, place, keep, mass, terms, squares, candidates)
        keep, sure = _fewer(keep, sure, room, _as_large(scaled, libdevice.log(squares / mass)))
    return tl.where(sure & (keep <= room), keep, 0)


@triton.jit
def _fewer(keep, sure, room, found):
    """How many candidates stay after one more cut, and whether the row beyond them could still change it."""
    keep = tl.maximum(tl.minimum(keep, found), 1)
    return keep, sure & (keep <= room)


@triton.jit
def _as_large(scaled, fall):
    """How many candidates lie at most ``fall`` under the largest."""
    return tl.sum((scaled >= limit_of(tl.max(scaled), fall)).to(tl.int64))


@triton.jit
def _of_first(likely, falls, place, keep, mass, terms, squares, candidates: tl.constexpr):
    """The statistics of the first candidates; the row's own where no cut has been made."""
    inside = tl.where(place < keep, likely, 0.0)
    cut = keep < candidates
    mass = tl.where(cut, tl.sum(inside), mass)
    terms = tl.where(cut, tl.sum(term(inside, falls)), terms)
    return mass, terms, tl.where(cut, tl.sum(inside * inside), squares)
