"""Every sequence of one checkpoint in one shared decode.

In: a model, prompts as token ids, and sequences (prompt, setting, noise). Out: the token ids of
each sequence, EOS included. Knows nothing of text, files or the grid.

Sequences on one prompt whose tokens so far are the same share one row of the batch until they
part: all begin on the prompt's row, and after each step the distinct (row, token) pairs are
the next step's rows. Rows whose sequences have all ended leave the batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from tangeval.core.errors import NOT_NUMBERS, UnusableError
from tangeval.core.knobs import KNOB, Setting
from tangeval.core.types import Constraint
from tangeval.decoding.batch import Rows, Workspace, prefill
from tangeval.decoding.beams import Searches, lines_of, widths
from tangeval.decoding.contrast import Reader
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
    on_step: Callable[[int, Tensor], None] = lambda ended, tokens: None,
    workspace: Workspace | None = None,
    other: Reader | None = None,
) -> Decoded:
    """Decode every sequence until EOS or its max_length.

    ``share=False`` gives each sequence a row of its own: the plain way, for comparison.
    ``on_step`` is told after each step how many sequences ended with it, and the tokens so far in the order asked, -1 after
    an end (of searches, their beams'). A ``workspace`` spares the next decode what this one made ready. ``other`` is what settings with contrast set the model against.

    Raises:
        UnusableError: the model's logits are no numbers.
    """
    live, forms, searches, lines = _begun(sequences, eos, model.device)
    output = searches.output
    kinds = live.kind.bincount(minlength=len(Kind) + len(searches.widths)).tolist()
    models = [Reader(model, workspace or Workspace()), *([other] if other else [])]
    begun = _prefilled(models, prompts, live.batch.row, searches)
    logits, rows = [first for first, _ in begun], begun[0][1]
    ran, size = [len(prompts)], len(prompts)
    for step in range(output.shape[1]):
        # The largest logit is finite unless one is NaN or all are infinite; places without a row have no meaning.
        finite = torch.stack([each.amax(dim=1).isfinite()[live.batch.row].all() for each in logits]).all()
        offered, form = forms.of(logits, History(rows.texts(size), step), live.batch.row)
        form, token, going = _choose(offered, form, live, kinds, searches, step)
        parting = _part(forms.rows(form), token, going, live.kind, len(kinds), rows.sizes, share)
        grouping = forms.group(parting.row, going)
        counts = torch.cat([parting.counts, finite[None], grouping.counts])
        size, number, moved, *counted = counts.tolist()  # the one place that waits for the device
        kinds, [numbers, *sizes] = counted[: len(kinds)], counted[len(kinds) :]
        if not numbers:
            raise UnusableError(NOT_NUMBERS)
        output[live.line, step] = token
        on_step(len(token) - sum(kinds), output[:, : step + 1])
        if not number:
            break
        stays = parting.stays[: sum(kinds)]
        forms.advance(grouping, sizes, parting.row, form, token, stays)
        live = live.stay(parting.row, stays)
        changes = parting.changes(moved, number, token)
        logits = [each.advance(size, *changes) for _, each in begun]
        ran.append(number)
    return Decoded([[token for token in text if token >= 0] for text in output[lines].tolist()], ran)


def _begun(
    sequences: Sequence[TokenSequence], eos: Sequence[int], device: torch.device
) -> tuple["_Live", Forms, Searches, Sequence[int]]:
    """What is known of the sequences as they go, and the line of output that each one's tokens will stand on.

    A search is there once for each beam, and sequences that are chosen for alike stand side by side.
    """
    stop = torch.tensor(list(eos), dtype=torch.int64, device=device)
    firsts = list(accumulate((lines_of(sequence.setting) for sequence in sequences), initial=0))
    beams = widths(sequence.setting for sequence in sequences)
    entries = [
        (sequence, line + beam)
        for line, sequence in zip(firsts, sequences, strict=False)
        for beam in range(sequence.setting.num_beams)
    ]
    entries.sort(key=lambda entry: _kind_of(entry[0].setting, beams))
    live = _Live.of(entries, device)
    forms = Forms([s.setting for s, _ in entries], [s.constraint for s, _ in entries], live.batch.row, stop)
    output = torch.full((firsts[-1], int(live.limit.max())), -1, device=device)
    searches = Searches(output, {line: s.setting for line, s in zip(firsts, sequences, strict=False)}, stop)
    return live, forms, searches, [line - 1 for line in firsts[1:]]


def _kind_of(setting: Setting, beams: Sequence[int]) -> int:
    """How a sequence is chosen for: a ``Kind``, or after these by a search of so many ``beams``."""
    return len(Kind) + beams.index(setting.num_beams) if setting.num_beams > 1 else kind_of(setting)


def _choose(
    logits: Tensor, form: Tensor, live: "_Live", kinds: Sequence[int], searches: Searches, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The form that each sequence goes on from, its next token, and whether it goes on: all ``[S]``."""
    drawn = sum(kinds[: len(Kind)])
    batch = replace(live.batch, row=form)[:drawn]
    token = choose(logits, batch, kinds[: len(Kind)], live.temperatures, live.keys, step)
    going = ~torch.isin(token, searches.stop) & (step + 1 < live.limit[:drawn])
    if drawn == len(form):
        return form, token, going
    beams = (form[drawn:], live.line[drawn:], live.limit[drawn:])
    found = searches.choose(logits, *beams, kinds[len(Kind) :], step)
    form, token, going = (torch.cat(pair) for pair in zip((form[:drawn], token, going), found, strict=True))
    return form, token, going


def _prefilled(
    models: Sequence[Reader], prompts: Sequence[Sequence[int]], row: Tensor, searches: Searches
) -> list[tuple[Tensor, Rows]]:
    """Each model's first logits and its rows; ``row`` ``[S]`` is each sequence's prompt."""
    most = torch.bincount(row, minlength=len(prompts)).tolist()
    if searches.widths:  # a search's rows become fewer and more again: any place may be left by any prompt
        most = [sum(most)]
    room = searches.output.shape[1]
    return [prefill(model, prompts, room, most, workspace) for model, workspace in models]


@dataclass(frozen=True, slots=True)
class _Live:
    """The sequences that go on, those drawn alike together; all but the last two are ``[S]``.

    A search is there once for each beam. ``line`` is the line of output, ``limit`` the most tokens of a text.
    """

    batch: SequenceBatch
    kind: Tensor
    line: Tensor
    limit: Tensor
    temperatures: Tensor  #: those that ``batch`` indexes
    keys: Tensor

    @classmethod
    def of(cls, entries: Sequence[tuple[TokenSequence, int]], device: torch.device) -> "_Live":
        chosen = [sequence for sequence, _ in entries]
        beams = widths(sequence.setting for sequence in chosen)
        kinds = {setting: _kind_of(setting, beams) for setting in {s.setting for s in chosen}}
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
        row, kind, line, limit = (
            torch.tensor(values, device=device)
            for values in (
                [sequence.prompt for sequence in chosen],
                [kinds[setting] for setting in settings],
                [line for _, line in entries],
                [setting.max_length for setting in settings],
            )
        )
        return cls(SequenceBatch(row, temperature, key, knobs), kind, line, limit, temperatures, keys)

    def stay(self, row: Tensor, stays: Tensor) -> "_Live":
        """Return the sequences at ``stays``, which lie on other rows now (``row`` ``[S]``)."""
        batch = replace(self.batch, row=row)[stays]
        kind, line, limit = (field[stays] for field in (self.kind, self.line, self.limit))
        return replace(self, batch=batch, kind=kind, line=line, limit=limit)


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
    row: Tensor, token: Tensor, going: Tensor, kind: Tensor, kinds: int, sizes: Tensor | None, share: bool
) -> Parting:
    """Group the sequences that go on by (row, token), and find each group a place.

    Tensors are ``[S]``, one entry a sequence, but ``sizes``: those that a batch may have, in
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
    per_kind = torch.zeros(kinds, dtype=row.dtype, device=row.device).index_add_(0, kind, going.to(row.dtype))
    counts = torch.cat([torch.stack([size, number, move.sum()]), per_kind])
    return Parting(
        order, parent, place, first_places(first), first_places(move), moved_to, first_places(going), counts
    )
