"""Decode in the memory that is there.

In: what ``decoder.decode`` takes. Out: the tokens, in halves where a GPU's memory does not hold
the whole. Knows nothing of what a sequence costs: a size is tried, and halved when memory runs out.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from tangeval.core.errors import TangevalError
from tangeval.decoding.batch import Workspace
from tangeval.decoding.contrast import Reader
from tangeval.decoding.decoder import TokenSequence, decode


def decode_in_memory(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sequences: Sequence[TokenSequence],
    *,
    workspace: Workspace,
    other: Reader | None = None,
    on_step: Callable[[int], None] = lambda ended: None,
    **options: Any,
) -> list[list[int]]:
    """Return each sequence's tokens; where a GPU's memory does not hold them all, in halves.

    ``options`` are ``decode``'s. Noise belongs to the sequence, so halves draw what the whole would; and so do
    prompts one at a time, where a model's way wants them so. ``workspace.limit`` remembers how many fitted. ``on_step`` is told a negative number where a try failed.

    Raises:
        TangevalError: the memory does not hold a single sequence.
    """
    limit, tokens, left = workspace.limit, [], [list(sequences)]
    used = [workspace, *([other.workspace] if other else [])]
    if not all(each.way.pads for each in used):
        left = [list(own) for _, own in groupby(sequences, lambda sequence: sequence.prompt)][::-1]
    limit.begin()
    while left:
        part = left.pop()
        size = sum(sequence.setting.num_beams for sequence in part)
        if len(part) == 1 or limit.too_many is None or size < limit.too_many:
            found = _tried(model, prompts, part, workspace=workspace, other=other, on_step=on_step, **options)
            if found is not None:
                limit.fitted = max(limit.fitted or 0, size)
                tokens += found
                continue
            for each in used:
                each.clear()
            limit.failed(size)
            torch.cuda.empty_cache()
        middle = len(part) // 2
        left += [part[middle:], part[:middle]]
    return tokens


def _tried(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sequences: Sequence[TokenSequence],
    *,
    on_step: Callable[[int], None],
    **options: Any,
) -> list[list[int]] | None:
    """Each sequence's tokens; None where memory runs out."""
    used = sorted({sequence.prompt for sequence in sequences})
    own = [replace(sequence, prompt=used.index(sequence.prompt)) for sequence in sequences]
    ended = 0

    def count(more: int, tokens: torch.Tensor) -> None:
        nonlocal ended
        ended += more
        on_step(more)

    try:
        return decode(model, [prompts[place] for place in used], own, on_step=count, **options).tokens
    except torch.OutOfMemoryError as error:
        if len(own) == 1:
            raise TangevalError(
                f"the GPU's memory does not hold one output of max_length {own[0].setting.max_length} ({error}); "
                "use load.quantization: nf4, a smaller max_length, or a larger GPU"
            ) from error
    # Outside of the handler: the traceback would keep what was allocated.
    on_step(-ended)
    return None
