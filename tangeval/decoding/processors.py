"""What a row has written changes its logits: tokens that stand there are penalised or banned.

In: logits of rows, the tokens of each so far, a knob's value. Out: the logits, changed in place. The definitions are
transformers' where it has one, else vLLM's. Knows nothing of settings and sequences.

A new processor is a ``Knob`` of kind ``history`` in ``core/knobs.py`` and a function in ``PROCESSORS`` here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class History:
    """The tokens of R rows ``[R, L]``, padded on the left with -1; the last ``written`` are output, the others prompt."""

    tokens: Tensor
    written: int

    @property
    def output(self) -> Tensor:
        return self.tokens[:, self.tokens.shape[1] - self.written :]

    def __getitem__(self, rows: Tensor) -> "History":
        return History(self.tokens[rows], self.written)


def repetition_penalty(logits: Tensor, history: History, penalty: float) -> None:
    """Divide what is positive and multiply what is negative, once: ``RepetitionPenaltyLogitsProcessor``; the prompt counts."""
    # A row's padding stands for its newest token, which is there anyway.
    seen = torch.where(history.tokens < 0, history.tokens[:, -1:], history.tokens)
    score = logits.gather(1, seen)
    logits.scatter_(1, seen, torch.where(score < 0, score * penalty, score / penalty))


def presence_penalty(logits: Tensor, history: History, penalty: float) -> None:
    """Subtract the penalty from what the output has: vLLM's and OpenAI's definition; the prompt does not count."""
    logits.scatter_(1, history.output, logits.gather(1, history.output) - penalty)


def frequency_penalty(logits: Tensor, history: History, penalty: float) -> None:
    """Subtract the penalty as often as the output has a token: vLLM's and OpenAI's definition; the prompt does not count."""
    output = history.output.contiguous()
    ordered = output.sort(dim=1).values
    count = torch.searchsorted(ordered, output, right=True) - torch.searchsorted(ordered, output)
    logits.scatter_(1, output, logits.gather(1, output) - penalty * count)


def no_repeat_ngram_size(logits: Tensor, history: History, size: int) -> None:
    """Set tokens to -inf that would end an n-gram seen before: ``NoRepeatNGramLogitsProcessor``; the prompt counts.

    The newest n - 1 tokens are compared with every place at once; nothing is kept between steps.
    """
    tokens = history.tokens
    places = tokens.shape[1] - size + 1
    if places < 1:
        return
    same = tokens[:, :places] >= 0
    for offset in range(size - 1):
        same = same & (tokens[:, offset : offset + places] == tokens[:, offset - size + 1, None])
    bound = torch.full_like(same, torch.inf, dtype=logits.dtype).masked_fill_(same, -torch.inf)
    logits.scatter_reduce_(1, tokens[:, size - 1 :].clamp(min=0), bound, "amin")


#: In the order in which they are applied, by the name of their knob.
PROCESSORS: dict[str, Callable[[Tensor, History, Any], None]] = {
    each.__name__: each
    for each in (repetition_penalty, presence_penalty, frequency_penalty, no_repeat_ngram_size)
}
