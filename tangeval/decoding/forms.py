"""The logits that sequences choose from: the rows', as what each row has written changes them.

In: logits of rows, their texts, and of each sequence its row, setting and constraint. Out: forms, and each sequence's
form. A form is a row's logits under one set of values of the knobs that change logits by the row's history: the
sequences of a row that have the same values share it. Where all have the same, and none is constrained, the rows
are the forms, and nothing is copied. Knows nothing of models and of how a token is drawn.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tangeval.core.knobs import KNOB, Setting
from tangeval.core.types import Constraint
from tangeval.decoding.contrast import contrasted
from tangeval.decoding.processors import PROCESSORS, History

_BAN = "no_repeat_ngram_size"


class Grouping(NamedTuple):
    """Each sequence's form ``[S]``, forms standing value by value; a sequence of each ``[S]``, first ones first; and
    how many forms each value has ``[H]``."""

    form: Tensor
    sequence: Tensor
    counts: Tensor


class Forms:
    """See above. Values of the knobs are numbered 0 to H - 1; ``apart`` says that forms are no rows."""

    def __init__(
        self,
        settings: Sequence[Setting],
        constraints: Sequence[Constraint | None],
        row: Tensor,
        eos: Tensor,
    ) -> None:
        """``settings`` and ``constraints`` have one entry a sequence, as ``row`` ``[S]``."""
        values = [
            (
                each.constrain,
                constraint is not None,
                each.contrast,
                each.num_beams > 1,
                *(getattr(each, name) for name in PROCESSORS),
            )
            for each, constraint in zip(settings, constraints, strict=True)
        ]
        distinct = sorted(set(values))
        place = {value: number for number, value in enumerate(distinct)}
        self.values = [
            {name: value for name, value in zip(PROCESSORS, each[4:], strict=True) if value != KNOB[name].off}
            for each in distinct
        ]
        self.masked, self.reads = [each[1] for each in distinct], [each[2:4] for each in distinct]
        self.apart = len(distinct) > 1 or any(self.masked)
        self.eos = eos
        self.form, self.row = row, row
        self.sizes: Sequence[int] = ()
        self.value = torch.tensor([place[value] for value in values], device=row.device)
        if self.apart:
            grouping = self.group(row, torch.ones_like(row, dtype=torch.bool))
            self._lay_out(grouping, row, sizes := grouping.counts.tolist())
            some = grouping.sequence[: sum(sizes)].tolist()
            self.states = [each and (each, each.start) for each in map(constraints.__getitem__, some)]

    def group(self, row: Tensor, going: Tensor) -> Grouping:
        """Group the sequences that go on by value and ``row`` ``[S]``; nothing waits to learn a size."""
        if not self.apart:
            return Grouping(row, row, row[:0])
        end = 2**62
        code, order = torch.where(going, self.value * 2**31 + row, end).sort(stable=True)
        first = (code < end) & (code != code.roll(1))
        first[0] = going.any()
        form = torch.empty_like(row)
        form[order] = first.cumsum(0) - 1
        counts = torch.zeros(len(self.values), dtype=row.dtype, device=row.device)
        counts.index_add_(0, self.value[order], first.to(row.dtype))
        return Grouping(form, order[first_places(first)], counts)

    def rows(self, form: Tensor) -> Tensor:
        """Return the row of each of ``form``."""
        return self.row[form] if self.apart else form

    def advance(
        self,
        grouping: Grouping,
        sizes: Sequence[int],
        row: Tensor,
        form: Tensor,
        token: Tensor,
        stays: Tensor,
    ) -> None:
        """Go on with the sequences at ``stays``, which lie on ``row`` ``[S]`` now and wrote ``token`` after ``form`` ``[S]``.

        ``sizes`` are the counts of ``grouping``, which is of all sequences.
        """
        if not self.apart:
            return
        some = grouping.sequence[: sum(sizes)]
        if any(self.masked):
            before = zip(form[some].tolist(), token[some].tolist(), strict=True)
            old = ((self.states[form], written) for form, written in before)
            self.states = [each and (each[0], each[0].advance(each[1], written)) for each, written in old]
        self._lay_out(grouping, row, sizes)
        self.form, self.value = self.form[stays], self.value[stays]

    def _lay_out(self, grouping: Grouping, row: Tensor, sizes: Sequence[int]) -> None:
        self.form, self.sizes = grouping.form, sizes
        self.row = row[grouping.sequence[: sum(sizes)]]

    def of(self, logits: Sequence[Tensor], history: History, row: Tensor) -> tuple[Tensor, Tensor]:
        """Return the forms' logits ``[F, V]``, and each sequence's form ``[S]``, given its row.

        ``logits`` ``[R, V]``, of the model and of the one that it may be set against, and ``history`` are the rows'; the
        logits are changed in place where rows are forms.
        """
        if not self.apart:
            return changed(_read(logits, *self.reads[0]), history, self.values[0]), row
        forms, begin = [], 0
        of_values = zip(self.values, self.reads, self.masked, self.sizes, strict=True)
        for values, reads, masked, size in of_values:
            own, states = self.row[begin : begin + size], self.states[begin : begin + size] if masked else ()
            if size:
                read = _read([each[own] for each in logits], *reads)
                forms.append(changed(read, history[own], values, states, self.eos))
            begin += size
        return forms[0] if len(forms) == 1 else torch.cat(forms), self.form


def _read(logits: Sequence[Tensor], contrast: float, search: bool) -> Tensor:
    """What the knobs change: a model's logits, set against those of another where it is asked; a search's log-probabilities."""
    read = contrasted(logits[0], logits[1], contrast) if contrast else logits[0]
    return read.float().log_softmax(dim=1) if search else read


def changed(
    logits: Tensor,
    history: History,
    values: Mapping[str, Any],
    states: Sequence[Any] = (),
    eos: Tensor | None = None,
) -> Tensor:
    """Return the logits ``[R, V]`` as ``values``, by name, and constraints leave them: in place where that is possible.

    ``states`` are each row's constraint and its state; none where rows are held to none. A ban of n-grams that leaves
    nothing of what a constraint allows gives way to it.
    """
    penalties = {name: value for name, value in values.items() if name != _BAN}
    logits = logits.float() if penalties else logits  # as transformers and vLLM do
    for name, value in penalties.items():
        PROCESSORS[name](logits, history, value)
    if states:
        logits.masked_fill_(_forbidden(states, logits, eos), -torch.inf)
    if _BAN not in values:
        return logits
    banned = logits.clone() if states else logits
    PROCESSORS[_BAN](banned, history, values[_BAN])
    return torch.where(banned.amax(dim=1, keepdim=True).isneginf(), logits, banned) if states else banned


def _forbidden(states: Sequence[Any], logits: Tensor, eos: Tensor | None) -> Tensor:
    """What each state does not allow ``[F, V]``."""
    masks: dict[int, int] = {}
    arrays: list[Tensor] = []
    place, without, ends = [], [], []
    for number, (constraint, state) in enumerate(states):
        found = constraint.allowed(state)
        if id(found.tokens) not in masks:
            masks[id(found.tokens)] = len(arrays)
            arrays.append(torch.from_numpy(found.tokens))
        place.append(masks[id(found.tokens)])
        without += [(number, token) for token in found.without]
        ends.append(not found.end)
    beyond = logits.shape[1] - len(arrays[0])  # a model may have more logits than its tokenizer tokens
    table = torch.nn.functional.pad(~torch.stack(arrays), (0, beyond), value=True).to(logits.device)
    mask = table[torch.tensor(place, device=logits.device)]
    if without:
        mask[tuple(torch.tensor(without, device=logits.device).T)] = True
    mask[:, eos] = torch.tensor(ends, device=logits.device)[:, None]
    return mask


def first_places(true: Tensor) -> Tensor:
    """Return the places where ``true`` ``[S]``, in order, and then anything: ``[S]``."""
    size = len(true)
    place = torch.where(true, true.cumsum(0) - 1, size)
    every = torch.arange(size, device=true.device)
    return torch.zeros(size + 1, dtype=torch.int64, device=true.device).scatter_(0, place, every)[:size]
