"""Constraints on the next token by what the row has written: repeated n-grams.

In: logits and the tokens of each row so far. Out: the logits, -inf where a token is forbidden.
Knows nothing of settings: a constraint is the same for the whole study, so that settings share rows.
"""

import torch
from torch import Tensor


def ban_repeats(logits: Tensor, history: Tensor, size: int) -> None:
    """Set ``logits`` ``[R, V]`` to -inf where a token would end an n-gram seen before.

    ``history`` ``[R, L]`` holds each row's prompt and output, padded on the left with -1.
    Transformers' ``NoRepeatNGramLogitsProcessor``: the prompt counts; size 0 is off. The newest
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
