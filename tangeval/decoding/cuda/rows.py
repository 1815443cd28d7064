"""What the draw kernel finds out by reading a whole row: sums, the bound of what stays, and the winner of that.

In: a row (its logits' place, their number, the temperature, the largest scaled logit) and cuts. Out: statistics as those
of ``warpers``; a bound, which is a rank (an integer in the order of the logits) and how many of the tokens that have it
stay; a token. Knows nothing of sequences.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from tangeval.decoding.warpers import TOP_H_AMONG

LOWEST = tl.constexpr(-(2**31))
_TOP_H_AMONG = tl.constexpr(TOP_H_AMONG)
_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15 - 2**64)
_MIX_1, _MIX_2 = tl.constexpr(0xBF58476D1CE4E5B9 - 2**64), tl.constexpr(0x94D049BB133111EB - 2**64)


@triton.jit
def bounds(
    row, raw, scaled, cuts, sigma, mass, terms, squares, candidates: tl.constexpr, block: tl.constexpr,
    shift: tl.constexpr, full: tl.constexpr,
):  # fmt: skip
    """The rank of the last logits that stay, and how many of those with it do: all above stay."""
    top_n_sigma, top_h, top_h_whole, top_k, top_p, min_p, epsilon, eta, p_less = cuts
    bound, ties = tl.full((), LOWEST >> shift, tl.int32), tl.full((), 0, tl.int64) + row[1]
    cut = tl.full((), 0, tl.int1)  # whether a cut has been made: before, the statistics are known
    if top_n_sigma > 0:
        bound, ties = _above(row, bound, ties, raw, -top_n_sigma * sigma, shift)
    if top_h > 0:  # what is cut before it keeps all candidates: else the row need not be read
        rank, place, every = _rank(raw, shift), tl.arange(0, candidates), tl.full((), candidates, tl.int64)
        found = first_of_top_h(scaled, every, top_h, candidates)
        edge = tl.max(tl.where(place == found - 1, rank, LOWEST >> shift))
        bound, ties = _shorter(bound, ties, edge, tl.sum(((place < found) & (rank == edge)).to(tl.int64)))
    cut |= (top_n_sigma > 0) | (top_h > 0)
    if top_h_whole > 0:
        mass, terms, squares = _of_kept(row, cut, bound, ties, mass, terms, squares, block, shift, full)
        target = top_h_whole * entropy(mass, terms)
        found = _bisect(row, target, "entropy", block, shift)
        above, _, at, count, inside, _ = split(row, found, block, shift, full)
        bound, ties = _shorter(bound, ties, found, _most_ties(above, inside, at, count, target))
    if top_k > 0:
        found = _bisect(row, top_k.to(tl.float64), "count", block, shift)
        bound, ties = _shorter(bound, ties, found, row[1])
    cut |= (top_h_whole > 0) | (top_k > 0)
    if top_p < 1:
        mass, terms, squares = _of_kept(row, cut, bound, ties, mass, terms, squares, block, shift, full)
        target = top_p * mass
        found = _bisect(row, target, "mass", block, shift)
        above, _, at, count, _, _ = split(row, found, block, shift, False)
        bound, ties = _shorter(bound, ties, found, tl.ceil((target - above) * count / at).to(tl.int64))
    if min_p > 0:
        bound, ties = _above(row, bound, ties, raw, libdevice.log(min_p), shift)
    cut |= (top_p < 1) | (min_p > 0)
    if epsilon > 0:
        mass, terms, squares = _of_kept(row, cut, bound, ties, mass, terms, squares, block, shift, full)
        bound, ties = _above(row, bound, ties, raw, libdevice.log(epsilon * mass), shift)
    cut |= epsilon > 0
    if eta > 0:
        mass, terms, squares = _of_kept(row, cut, bound, ties, mass, terms, squares, block, shift, full)
        bound, ties = _above(row, bound, ties, raw, eta_bound(eta, mass, terms), shift)
    cut |= eta > 0
    if p_less > 0:
        mass, terms, squares = _of_kept(row, cut, bound, ties, mass, terms, squares, block, shift, full)
        bound, ties = _above(row, bound, ties, raw, libdevice.log(squares / mass), shift)
    return bound, ties


@triton.jit
def winner(row, seed, bound, ties, block: tl.constexpr, shift: tl.constexpr):
    """The token with the largest noisy logit of those that stay."""
    here, size, temperature, _ = row
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
            keeps, tl.div_rn(scores, temperature) + gumbel(seed, tokens.to(tl.int64)), -float("inf")
        )
        most, best = tl.max(noisy, axis=0, return_indices=True)
        if most > best_noisy:
            best_noisy = most
            best_token = (begin + best).to(tl.int64)
        seen += held
    return best_token


@triton.jit
def limit_of(largest, fall):
    """The smallest scaled logit that lies at most ``fall`` under the largest, which stays in any case."""
    return tl.minimum((largest.to(tl.float64) + fall).to(tl.float32), largest)


@triton.jit
def first_of_top_h(scaled, keep, value, candidates: tl.constexpr):
    """How many of the candidates stay after ``warpers.top_h``, of the first ``keep``."""
    place = tl.arange(0, candidates)
    falls = scaled - tl.max(scaled)
    likely = libdevice.exp(falls).to(tl.float64)
    cumulated, summed = tl.cumsum(likely), tl.cumsum(term(likely, falls))
    among = place == tl.minimum(keep, _TOP_H_AMONG) - 1
    mass, terms = tl.sum(tl.where(among, cumulated, 0.0)), tl.sum(tl.where(among, summed, 0.0))
    log = libdevice.log(mass)
    fits = cumulated * log - summed <= value * (mass * log - terms)
    return tl.sum((fits & (place < _TOP_H_AMONG)).to(tl.int64))


@triton.jit
def _of_kept(
    row, cut, bound, ties, mass, terms, squares, block: tl.constexpr, shift: tl.constexpr, full: tl.constexpr
):
    """The statistics of what stays of the row, if a cut has changed them."""
    if cut:
        mass, _, at, count, terms, squares = split(row, bound, block, shift, full)
        each = at / tl.maximum(count, 1.0)
        share = tl.minimum(ties.to(tl.float64), count) / tl.maximum(count, 1.0)
        mass += at * share
        terms += share * tl.where(at > 0, at * libdevice.log(each), 0.0)
        squares += share * at * each
    return mass, terms, squares


@triton.jit
def _most_ties(mass, terms, at, count, target):
    """How many of ``count`` tied tokens of weight ``at`` leave the entropy of what stays at ``target`` at most."""
    each = at / tl.maximum(count, 1.0)
    term = tl.where(at > 0, each * libdevice.log(each), 0.0)
    low, high = tl.full((), 0, tl.int64), count.to(tl.int64)
    while low < high:
        middle = (low + high + 1) // 2
        if entropy(mass + middle * each, terms + middle * term) > target:
            high = middle - 1
        else:
            low = middle
    return low


@triton.jit
def entropy(mass, terms):
    """Of tokens with weights that sum to ``mass``, and weight × logarithm to ``terms``: nats."""
    return libdevice.log(mass) - terms / mass


@triton.jit
def term(likely, falls):
    """Each token's part in the statistic ``entropy``."""
    return tl.where(likely > 0, likely * falls, 0.0)


@triton.jit
def eta_bound(value, mass, terms):
    """``warpers.eta_cutoff``: the bound of a weight's logarithm."""
    low = tl.minimum(value, libdevice.sqrt(value) * libdevice.exp(-entropy(mass, terms)))
    return libdevice.log(low * mass)


@triton.jit
def _shorter(bound, ties, found, tied):
    """Of two bounds, each a rank and how many with it stay, the one that keeps less."""
    ties = tl.where(found > bound, tied, tl.where(found == bound, tl.minimum(ties, tied), ties))
    return tl.maximum(bound, found), ties


@triton.jit
def _above(row, bound, ties, raw, fall, shift: tl.constexpr):
    """The bound after a cut that keeps what lies at most ``fall`` under the largest."""
    _, size, temperature, largest = row
    limit = limit_of(largest, fall)
    low, high = tl.full((), LOWEST >> shift, tl.int32), tl.max(_rank(raw, shift))
    while low < high:
        middle = (low & high) + ((low ^ high) >> 1)
        if tl.div_rn(_logit(middle, shift), temperature) >= limit:
            high = middle
        else:
            low = middle + 1
    return _shorter(bound, ties, low, size)


@triton.jit
def _bisect(row, target, of: tl.constexpr, block: tl.constexpr, shift: tl.constexpr):
    """The smallest rank above which lies less than ``target``: of mass, of tokens (count), of entropy (at most)."""
    low = tl.full((), LOWEST >> shift, tl.int32)
    high = tl.full((), 2147483647 >> shift, tl.int32)
    while low < high:
        middle = (low & high) + ((low ^ high) >> 1)
        mass, count, _, _, terms, _ = split(row, middle, block, shift, of == "entropy")
        if of == "entropy":
            less = (count == 0) | (entropy(mass, terms) <= target)
        else:
            less = (count < target) if of == "count" else (mass < target)
        if less:
            high = middle
        else:
            low = middle + 1
    return low


@triton.jit
def split(row, bound, block: tl.constexpr, shift: tl.constexpr, full: tl.constexpr):
    """Mass and number (float64) of the tokens whose rank is above ``bound``, and of those at it.

    If ``full`` then also the other statistics of those above, as ``warpers.statistics`` has them.
    """
    here, size, temperature, largest = row
    above = tl.zeros((block,), tl.float64)
    at = tl.zeros((block,), tl.float64)
    terms = tl.zeros((block,), tl.float64)
    squares = tl.zeros((block,), tl.float64)
    more = tl.zeros((block,), tl.int32)
    same = tl.zeros((block,), tl.int32)
    for begin in range(0, size, block):
        tokens = begin + tl.arange(0, block)
        inside = tokens < size
        scores = tl.load(here + tokens, mask=inside, other=-float("inf")).to(tl.float32)
        rank = _rank(scores, shift)
        falls = tl.div_rn(scores, temperature) - largest
        mass = libdevice.exp(falls).to(tl.float64)
        over = (rank > bound) & inside
        equal = (rank == bound) & inside
        above += tl.where(over, mass, 0.0)
        at += tl.where(equal, mass, 0.0)
        more += over.to(tl.int32)
        same += equal.to(tl.int32)
        if full:
            terms += tl.where(over, term(mass, falls), 0.0)
            squares += tl.where(over, mass * mass, 0.0)
    number, tied = tl.sum(more).to(tl.float64), tl.sum(same).to(tl.float64)
    return tl.sum(above), number, tl.sum(at), tied, tl.sum(terms), tl.sum(squares)


@triton.jit
def deviation(row, block: tl.constexpr):
    """The standard deviation of the row's finite logits over the temperature: ``warpers.deviation``."""
    here, size, temperature, _ = row
    total = tl.zeros((block,), tl.float64)
    squares = tl.zeros((block,), tl.float64)
    number = tl.zeros((block,), tl.int32)
    for begin in range(0, size, block):
        tokens = begin + tl.arange(0, block)
        scores = tl.load(here + tokens, mask=tokens < size, other=-float("inf")).to(tl.float64)
        finite = scores > -float("inf")
        total += tl.where(finite, scores, 0.0)
        squares += tl.where(finite, scores * scores, 0.0)
        number += finite.to(tl.int32)
    count, sum = tl.sum(number).to(tl.float64), tl.sum(total)
    return libdevice.sqrt((tl.sum(squares) - sum * sum / count) / tl.maximum(count - 1, 1.0)) / temperature


@triton.jit
def _rank(scores, shift: tl.constexpr):
    """Integers in the order of the floats ``scores``."""
    bits = (scores + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> shift


@triton.jit
def _logit(rank, shift: tl.constexpr):
    """The float32 of a rank: ``_rank`` the other way."""
    bits = (rank << shift) | tl.where(rank < 0, (1 << shift) - 1, 0)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def gumbel(seed, tokens):
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
