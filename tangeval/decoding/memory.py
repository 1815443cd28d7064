"""Decode in the memory that is there.

In: what ``engine.decode`` takes. Out: the tokens, in halves where a GPU's memory does not hold
the whole; or, of a GPU, how many sequences it holds, by trial.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.decoding.batch import Workspace
from tangeval.decoding.decoder import TokenSequence, decode

_SHARE = 0.85  # of the free memory is planned with: the rest is for what a trial does not see
_FEW, _MANY, _SHORT, _LONG = 64, 576, 2, 66  # rows and tokens of the trials
_BLOCK = 2**20  # bytes; PyTorch keeps smaller ones apart


def decode_in_memory(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sequences: Sequence[TokenSequence],
    *,
    workspace: Workspace,
    on_step: Callable[[int], None] = lambda ended: None,
    **options: Any,
) -> list[list[int]]:
    """Return each sequence's tokens; where a GPU's memory does not hold them all, in halves.

    ``options`` are ``decode``'s. Noise belongs to the sequence, so halves draw what the whole would.
    As many sequences as once were too many are not tried again in this ``workspace``. ``on_step``
    is told a negative number where a try failed.

    Raises:
        TangevalError: the memory does not hold a single stream.
    """
    if workspace.too_many is None or len(sequences) < workspace.too_many:
        ended = 0

        def count(more: int) -> None:
            nonlocal ended
            ended += more
            on_step(more)

        try:
            return decode(model, prompts, sequences, workspace=workspace, on_step=count, **options).tokens
        except torch.OutOfMemoryError as error:
            if len(sequences) == 1:
                raise TangevalError(
                    f"the GPU's memory does not hold one output of max_length {sequences[0].setting.max_length} ({error}); "
                    "use load.quantization: nf4, a smaller max_length, or a larger GPU"
                ) from error
        # Outside of the handler, or the traceback would keep what was allocated.
        on_step(-ended)
        workspace.clear()
        workspace.too_many = len(sequences)
        torch.cuda.empty_cache()
    middle = len(sequences) // 2
    tokens: list[list[int]] = []
    for half in (sequences[:middle], sequences[middle:]):
        used = sorted({sequence.prompt for sequence in half})
        own = [replace(sequence, prompt=used.index(sequence.prompt)) for sequence in half]
        tokens += decode_in_memory(
            model, [prompts[p] for p in used], own, workspace=workspace, on_step=on_step, **options
        )
    return tokens


class UnmeasuredError(Exception):
    """The trials say nothing of what a row costs."""


@dataclass(frozen=True, slots=True)
class RowCost:
    """Bytes that a row takes on a GPU: ``fixed`` whatever its length, and ``token`` for each token it may write."""

    fixed: float
    token: float

    def sequences(self, length: int, free: float) -> int:
        """Return how many sequences of ``length`` tokens fit into ``free`` bytes, if none shares a row."""
        return max(1, int(_SHARE * free / (self.fixed + self.token * length)))


def measure(model: Any, prompt: Sequence[int]) -> tuple[RowCost, int]:
    """Return what a row of ``model`` costs on its GPU, from the peaks of three short decodes, and the bytes free.

    Raises:
        torch.OutOfMemoryError: the GPU does not hold the trials.
        UnmeasuredError: a longer trial did not take more.
    """
    gc.collect()  # a model that was let go is gone only then, and must not go between two trials
    torch.cuda.empty_cache()
    plugs = _plug_holes(model.device)
    few, many = (_peak(model, prompt, rows, _SHORT) for rows in (_FEW, _MANY))
    longer = _peak(model, prompt, _MANY, _LONG)
    del plugs
    token = (longer - many) / (_MANY * (_LONG - _SHORT))
    # Memory is set aside by up to 20 MiB at a time, beside which a tiny model's row is nothing.
    fixed = max(0.0, (many - few) / (_MANY - _FEW) - token * _SHORT)
    if token <= 0:
        raise UnmeasuredError(f"{token:,.0f} bytes a token were measured")
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(model.device)
    return RowCost(fixed, token), free


def _plug_holes(device: torch.device) -> list[torch.Tensor]:
    """Fill what is free within the memory set aside, so that all that a trial takes is set aside anew.

    A model that was loaded in 4 bits and written out in 16 leaves gigabytes of such holes.
    """
    free = [
        block["size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == (device.index or 0)
        for block in segment["blocks"]
        if block["state"] == "inactive" and block["size"] >= _BLOCK
    ]
    return [torch.empty(size, dtype=torch.uint8, device=device) for size in sorted(free, reverse=True)]


def _peak(model: Any, prompt: Sequence[int], rows: int, length: int) -> int:
    """The most bytes set aside while ``rows`` rows write ``length`` tokens each, beyond what was before."""
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(model.device)
    torch.cuda.reset_peak_memory_stats(model.device)
    sequences = [
        TokenSequence(0, Setting.of(temperature=1.0, top_p=0.9, max_length=length), noise)
        for noise in range(rows)
    ]
    decode(model, [prompt], sequences, eos=[], share=False)
    # Reserved, not allocated: the memory of recorded steps is set aside, and free between replays.
    return torch.cuda.max_memory_reserved(model.device) - before
