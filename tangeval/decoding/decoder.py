"""Every sequence of one checkpoint in one shared decode.

In: a model, prompts as token ids, and sequences (prompt, setting, noise). Out: the token ids of
each sequence, EOS included. Knows nothing of text, files or the grid.

Sequences on one prompt whose tokens so far are the same share one row of the batch until they
part: all begin on the prompt's row, and after each step the distinct (row, token) pairs are
the next step's rows. Rows whose sequences have all ended leave the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tangeval.core.errors import NOT_NUMBERS, UnusableError
from tangeval.core.knobs import KNOB, Setting
from tangeval.core.types import Constraint
from tangeval.decoding.batch import Workspace, prefill
from tangeval.decoding.forms import Forms, first_places
from tangeval.decoding.processors import History
from tangeval.decoding.sampler import Kind, SequenceBatch, choose, kind_of
from tangeval.decoding.warpers import cuts_on


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One output to decode: the prompt's index, the setting, the key of its noise, and what it is held to."""

    prompt: int
    setting: Setting
    key: int
    constraint: Constraint | None = None  #: one object for a prompt and value


@dataclass(frozen=True, slots=True)
class Decoded:
    """The tokens of each sequence, in the order asked, and how many rows the model ran at each step."""

    tokens: list[list[int]]
    rows: list[int]


@torch.inference_mode()
def decode(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sequences: Sequence[TokenSequence],
    *,
    eos: Sequence[int],
    share: bool = True,
    on_step: Callable[[int], None] = lambda ended: None,
    workspace: Workspace | None = None,
) -> Decoded:
    """Decode every sequence until EOS or its max_length.

    ``share=False`` gives each sequence a row of its own: the plain way, for comparison.
    ``on_step`` is told after each step how many sequences ended with it. A ``workspace`` spares
    the next decode what this one made ready.

    Raises:
        UnusableError: the model's logits are no numbers.
    """
    live = _Live.of(sequences, model.device)
    kinds = live.kind.bincount(minlength=len(Kind)).tolist()
    stop = torch.tensor(list(eos), dtype=torch.int64, device=model.device)
    forms = Forms(*live.asked(sequences), live.batch.row, stop)
    output = torch.full((len(sequences), int(live.limit.max())), -1, device=model.device)
    most = torch.bincount(live.batch.row, minlength=len(prompts)).tolist()
    logits, rows = prefill(model, prompts, output.shape[1], most, workspace or Workspace())
    ran, size = [len(prompts)], len(prompts)
    for step in range(output.shape[1]):
        # The largest logit is finite unless one is NaN or all are infinite; places without a row have no meaning.
        finite = logits.amax(dim=1).isfinite()[live.batch.row].all()
        logits, form = forms.of(logits, History(rows.texts(size), step), live.batch.row)
        token = choose(logits, replace(live.batch, row=form), kinds, live.temperatures, live.keys, step)
        going = ~torch.isin(token, stop) & (step + 1 < live.limit)
        parting = _part(live.batch.row, token, going, live.kind, rows.sizes, share)
        grouping = forms.group(parting.row, going)
        counts = torch.cat([parting.counts, finite[None], grouping.counts])
        size, number, moved, *counted = counts.tolist()  # the one place that waits for the device
        kinds, [numbers, *sizes] = counted[: len(Kind)], counted[len(Kind) :]
        if not numbers:
            raise UnusableError(NOT_NUMBERS)
        output[live.index, step] = token
        on_step(len(token) - sum(kinds))
        if not number:
            break
        stays = parting.stays[: sum(kinds)]
        forms.advance(grouping, sizes, parting.row, token, stays)
        live = live.stay(parting.row, stays)
        logits = rows.advance(size, *parting.changes(moved, number, token))
        ran.append(number)
    return Decoded([[t for t in line if t >= 0] for line in output.tolist()], ran)


@dataclass(frozen=True, slots=True)
class _Live:
    """The sequences that go on, those drawn alike together; all but the last two are ``[S]``.

    ``index`` is a sequence's place in what was asked, ``limit`` the most tokens it may have.
    """

    batch: SequenceBatch
    kind: Tensor
    index: Tensor
    limit: Tensor
    temperatures: Tensor  #: those that ``batch`` indexes
    keys: Tensor

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence], device: torch.device) -> "_Live":
        kinds = {setting: kind_of(setting) for setting in {s.setting for s in sequences}}
        order = sorted(range(len(sequences)), key=lambda place: kinds[sequences[place].setting])
        chosen = [sequences[place] for place in order]
        settings = [sequence.setting for sequence in chosen]
        temperatures, temperature = _distinct([setting.temperature for setting in settings], device)
        keys, key = _distinct([sequence.key for sequence in chosen], device)
        used = {name for setting in kinds for name in cuts_on(setting.as_dict())}
        knobs = {
            name: torch.tensor(
                [getattr(setting, name) for setting in settings],
                dtype=torch.int64 if KNOB[name].type is int else torch.float64,
                device=device,
            )
            for name in sorted(used)
        }
        row, kind, index, limit = (
            torch.tensor(values, device=device)
            for values in (
                [sequence.prompt for sequence in chosen],
                [kinds[setting] for setting in settings],
                order,
                [setting.max_length for setting in settings],
            )
        )
        return cls(SequenceBatch(row, temperature, key, knobs), kind, index, limit, temperatures, keys)

    def asked(self, sequences: Sequence[TokenSequence]) -> tuple[list[Setting], list[Constraint | None]]:
        """Return the settings and constraints of ``sequences``, in the order of these."""
        chosen = [sequences[place] for place in self.index.tolist()]
        return [each.setting for each in chosen], [each.constraint for each in chosen]

    def stay(self, row: Tensor, stays: Tensor) -> "_Live":
        """Return the sequences at ``stays``, which lie on other rows now (``row`` ``[S]``)."""
        batch = replace(self.batch, row=row)[stays]
        kind, index, limit = (field[stays] for field in (self.kind, self.index, self.limit))
        return replace(self, batch=batch, kind=kind, index=index, limit=limit)


def _distinct(values: Sequence[float], device: torch.device) -> tuple[Tensor, Tensor]:
    """The distinct values, sorted, and each value's place among them."""
    distinct = sorted(set(values))
    place = {value: index for index, value in enumerate(distinct)}
    return torch.tensor(distinct, device=device), torch.tensor([place[v] for v in values], device=device)


@dataclass(frozen=True, slots=True)
class Parting:
    """Where the sequences of a step go. All but ``counts`` are ``[S]``, so nothing waits to learn a size.

    ``order`` sorts the sequences by what they have written; ``parent`` and ``place`` are, in that
    order, each row's place until now and from now on; ``firsts`` are the entries that stand for
    a row, ``moves`` those whose row is copied to its place. ``row`` is each sequence's place, and
    ``stays`` are the sequences that go on, in their own order. Of ``firsts``, ``moves`` and
    ``stays`` only the beginning counts: ``counts`` are the batch's size, the numbers of rows and
    of moves, and of sequences that go on, kind by kind.
    """

    order: Tensor
    parent: Tensor
    place: Tensor
    firsts: Tensor
    moves: Tensor
    row: Tensor
    stays: Tensor
    counts: Tensor

    def changes(self, moved: int, number: int, token: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what ``Rows.advance`` is told after the batch's size; ``token`` is each sequence's ``[S]``."""
        move, first = self.moves[:moved], self.firsts[:number]
        return self.parent[move], self.place[move], self.place[first], token[self.order[first]]


def _part(
    row: Tensor, token: Tensor, going: Tensor, kind: Tensor, sizes: Tensor | None, share: bool
) -> Parting:
    """Group the sequences that go on by (row, token), and find each group a place.

    All arguments are ``[S]``, one entry a sequence, but ``sizes``: those that a batch may have, in
    order, or None for any. The first child of a row stays at its place; the others, and rows that
    lie beyond the new batch's size, move to free ones, the lowest first. So below any row lie
    fewer dead places than its prompt's ended sequences, and with what is stale there a prompt never
    seems to have more rows than it has sequences.
    """
    sequences = torch.arange(len(row), device=row.device)
    width = 2**31
    code = torch.where(going, row * width + (token if share else sequences), 2**62)
    code, order = code.sort(stable=True)
    parent = code // width
    alive = code < 2**62
    first = alive & ((code != code.roll(1)) | (sequences == 0))
    number = first.sum()
    size = number if sizes is None else sizes.take(torch.searchsorted(sizes, number))

    heir = first & ((parent != parent.roll(1)) | (sequences == 0))
    keep = heir & (parent < size)
    move = first & ~keep
    taken = torch.zeros(len(row) + 1, dtype=torch.bool, device=row.device)
    taken.index_fill_(0, torch.where(keep & (parent < len(row)), parent, len(row)), True)
    free = first_places(~taken[:-1])
    place = torch.where(keep, parent, free[(move.cumsum(0) - 1).clamp(min=0)])

    leader = torch.where(first, sequences, 0).cummax(0).values
    moved_to = torch.empty_like(row)
    moved_to[order] = place[leader]
    per_kind = torch.zeros(len(Kind), dtype=row.dtype, device=row.device).index_add_(
        0, kind, going.to(row.dtype)
    )
    counts = torch.cat([torch.stack([size, number, move.sum()]), per_kind])
    return Parting(
        order, parent, place, first_places(first), first_places(move), moved_to, first_places(going), counts
    )
