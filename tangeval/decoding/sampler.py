"""From logits to tokens: many (setting, sample) sequences on each row, with keyed noise.

In: logits of distinct rows and, for each sequence, its row, knobs and noise. Out: one token a
sequence. Pure tensors, on any device; knows nothing of models, caches or text.

Sampling is Gumbel-max: of the tokens that a setting keeps, the one with the largest
``logit / temperature + noise`` (Gumbel 1954; Maddison et al., *A\\* Sampling*, 2014). The
noise depends on (seed, example, sample, step, token) alone, so two settings that differ in one
knob see the same noise, and what else is in the batch changes nothing.

Temperature does not change the order of logits. So each row is sorted once, the noise is
added in that order, and the winner for any cut is the running maximum at its place.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum

import torch
from torch import Tensor

from tangeval.core.knobs import KNOB, Setting
from tangeval.decoding.cuda import has_kernels
from tangeval.decoding.noise import gumbel, step_seeds
from tangeval.decoding.ordering import descending
from tangeval.decoding.warpers import WARPERS, Candidates, cut, cuts_on, deviation, read_by, statistics

draw: "Callable[..., None] | None" = None
SUPPORTS: Container[str] = KNOB  # without a kernel there is nothing that it does not support
if torch.cuda.is_available():
    # PyTorch for Windows comes without Triton: tensors do the same there, more slowly.
    with suppress(ImportError):
        from tangeval.decoding.cuda.drawing import SUPPORTS, draw

#: How many of a row's largest logits are looked at, one after another, before all of them are.
CANDIDATES = (64, 1024, 8192)


def _at_once(logits: Tensor, width: int) -> int:
    """How many tensors of ``width`` numbers are made at a time: a core's second-level cache holds them, a GPU is busy."""
    return max(1, (2**17 if logits.device.type == "cpu" else 2**21) // width)


@dataclass(frozen=True)
class SequenceBatch:
    """What tells sequences apart, one entry a sequence: every tensor is ``[S]``.

    ``row`` (int64) says which row of the logits a sequence reads; ``temperature`` and
    ``key`` (int64) index ``temperatures`` and ``keys``, which are short. ``knobs`` has the values
    of each cut that some sequence makes, by name: int64 or float64.
    """

    row: Tensor
    temperature: Tensor
    key: Tensor
    knobs: dict[str, Tensor]

    def __getitem__(self, chosen: Tensor | slice) -> "SequenceBatch":
        knobs = {name: value[chosen] for name, value in self.knobs.items()}
        return SequenceBatch(self.row[chosen], self.temperature[chosen], self.key[chosen], knobs)


class Kind(IntEnum):
    """How a sequence is drawn."""

    GREEDY = 0  #: the largest logit
    WHOLE = 1  #: from all tokens
    CUT = 2  #: from those that the cuts keep
    MASS = 3  #: the same, where a cut reads statistics of the whole row
    OTHER = 4  #: by a cut that the GPU's kernel does not support


def kind_of(setting: Setting) -> Kind:
    """Return how sequences of a setting are drawn."""
    if setting.temperature == 0:
        return Kind.GREEDY
    on = cuts_on(setting.as_dict())
    if not on:
        return Kind.WHOLE
    if not all(name in SUPPORTS for name in on):
        return Kind.OTHER
    return Kind.MASS if WARPERS[on[0]].reads else Kind.CUT


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
    there are of each. Temperature 0 takes the largest logit. Else, as transformers' warpers:
    divide by the temperature, and make the cuts of ``warpers`` in their order.

    Where a GPU has kernels nothing here waits for a result, but for cuts that they do not support.
    """
    greedy, whole, _, mass, other = kinds
    token = torch.empty_like(sequences.row)
    if greedy:
        token[:greedy] = logits[sequences.row[:greedy]].argmax(dim=-1)
    cutting = greedy + whole
    most = _most(sequences.knobs)
    if logits.is_cuda and draw and has_kernels(logits.device) and logits.shape[1] >= most:
        cutting = len(token) - other
        part = slice(greedy, cutting)
        seeds = step_seeds(keys, step)
        draw(logits, descending(logits, most), sequences[part], mass, temperatures, seeds, token[part])
        mass = 0
    elif whole:
        part = slice(greedy, cutting)
        token[part] = _choose_from_all(logits, sequences[part], temperatures, keys, step)
    if cutting < len(token):
        part = slice(cutting, None)
        token[part] = _choose_from_some(logits, sequences[part], mass + other, temperatures, keys, step)
    return token


def _most(knobs: Iterable[str]) -> int:
    """How many of each row's largest logits the kernel is given: a power of 2."""
    return max([CANDIDATES[0], *(1 << (WARPERS[name].looks_at - 1).bit_length() for name in knobs)])


def _choose_from_all(
    logits: Tensor, sequences: SequenceBatch, temperatures: Tensor, keys: Tensor, step: int
) -> Tensor:
    """The winner over the whole vocabulary: no order needed."""
    (row, temperature, key), member = _groups(sequences, len(temperatures), len(keys))
    size = logits.shape[1]
    every = torch.arange(size, device=logits.device)[None]
    token = torch.empty_like(row)
    for part in key.argsort(stable=True).split(_at_once(logits, size)):
        # Rows on one prompt share the noise of each sample: it is made once for all of them.
        drawn, place = key[part].unique(return_inverse=True)
        noise = gumbel(keys[drawn], step, every)
        scaled = logits[row[part]].float().div_(temperatures[temperature[part], None])
        token[part] = scaled.add_(noise[place]).argmax(dim=-1)
    return token[member]


def _choose_from_some(
    logits: Tensor, sequences: SequenceBatch, of_mass: int, temperatures: Tensor, keys: Tensor, step: int
) -> Tensor:
    """The winner among those that the cuts keep, ever more logits looked at until it is certain.

    The last ``of_mass`` sequences have a cut that reads statistics of the whole row.
    """
    token = torch.empty_like(sequences.row)
    names = read_by(sequences.knobs)
    total = {name: torch.zeros(len(token), dtype=torch.float64, device=token.device) for name in names}
    if of_mass:
        for name, sums in _whole(logits, sequences[slice(-of_mass, None)], temperatures, names).items():
            total[name][-of_mass:] = sums
    left = sequences.row.argsort(stable=True)  # so that few rows are in several parts
    for candidates in (*CANDIDATES, logits.shape[1]):
        if 2 * candidates > logits.shape[1]:
            candidates = logits.shape[1]
        unsure = [left[:0]]
        for part in left.split(_at_once(logits, candidates)):
            chosen, sure = _choose_from_top(
                logits, sequences[part], {name: sums[part] for name, sums in total.items()}, temperatures, keys, step,
                candidates,
            )  # fmt: skip
            token[part] = chosen
            unsure.append(part[~sure])
        left = torch.cat(unsure)
        if not len(left):
            break
    return token


def _whole(
    logits: Tensor, sequences: SequenceBatch, temperatures: Tensor, names: Sequence[str]
) -> dict[str, Tensor]:
    """Each sequence's statistics over the vocabulary, as of ``Candidates.total``: float64 ``[S]``."""
    warps = sequences.row * len(temperatures) + sequences.temperature
    code, member = warps.unique(return_inverse=True)
    sums: dict[str, list[Tensor]] = {name: [] for name in names if name != "sigma"}
    at_once = _at_once(logits, logits.shape[1])
    for part in code.split(at_once):
        scaled = logits[part // len(temperatures)].float().div_(temperatures[part % len(temperatures), None])
        falls = scaled.sub_(scaled.amax(dim=-1, keepdim=True))
        weight = falls.exp()
        for name, found in sums.items():
            found.append(statistics(name, weight, falls).sum(dim=-1, dtype=torch.float64))
    total = {name: torch.cat(found)[member] for name, found in sums.items()}
    if "sigma" in names:
        rows, row = sequences.row.unique(return_inverse=True)
        spread = torch.cat([deviation(logits[part]) for part in rows.split(at_once)])
        total["sigma"] = spread[row] / temperatures[sequences.temperature]
    return total


def _choose_from_top(
    logits: Tensor,
    sequences: SequenceBatch,
    total: dict[str, Tensor],
    temperatures: Tensor,
    keys: Tensor,
    step: int,
    candidates: int,
) -> tuple[Tensor, Tensor]:
    """The winner among each row's largest logits, and whether those were enough to tell."""
    rows, row_of = sequences.row.unique(return_inverse=True)
    values, ids = descending(logits[rows], candidates)
    sequences = replace(sequences, row=row_of)

    # One warped, cumulated distribution for each row and temperature.
    warps, warp = (row_of * len(temperatures) + sequences.temperature).unique(return_inverse=True)
    scaled = values[warps // len(temperatures)] / temperatures[warps % len(temperatures), None]
    top = Candidates.of(scaled, warp, total, sequences.knobs)
    for _, kept in cut(top, sequences.knobs):
        top = kept
    sure = top.certain | (candidates == logits.shape[1])

    # One draw for each row, temperature and key, whatever the cuts.
    (row, temperature, key), member = _groups(sequences, len(temperatures), len(keys))
    noisy = values[row] / temperatures[temperature, None] + gumbel(keys[key], step, ids[row])
    leader = noisy.cummax(dim=-1).indices
    place = leader[member, top.kept - 1]
    if top.first is not None:
        inner = top.first.nonzero()[:, 0]
        every = torch.arange(candidates, device=ids.device)
        outside = (every < top.first[inner, None]) | (every >= top.kept[inner, None])
        place[inner] = noisy[member[inner]].masked_fill(outside, -torch.inf).argmax(dim=-1)
    return ids[row_of, place], sure


def _groups(
    sequences: SequenceBatch, temperatures: int, keys: int
) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    """The distinct (row, temperature, key) ``[G]`` each, and each sequence's group ``[S]``."""
    code = (sequences.row * temperatures + sequences.temperature) * keys + sequences.key
    distinct, member = code.unique(return_inverse=True)
    parts = (distinct // (temperatures * keys), distinct // keys % temperatures, distinct % keys)
    return parts, member
