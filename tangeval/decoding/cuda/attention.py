"""A row's attention over its own tokens and its prompt in one GPU kernel, where PyTorch would need many.

Written in Triton, which PyTorch brings along where it drives a GPU.

Attention is over the tokens that a row wrote itself, together with what attention over
its prompt gave. That is where the online softmax (Milakov and Gimelshein, 2018), which is
what FlashAttention sums by, begins: a score that is the prompt's log-sum-exp, and a value
that is the prompt's output. Each row and group of keys is one program.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


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
