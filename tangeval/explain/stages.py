"""One step of a text: the distributions that its next token goes through, and what noise picks from the last.

In: a step's logits as each knob before the temperature leaves them, noise, settings. Out: its record in
``explain.json`` (``results/explained.py``). Knows nothing of models and texts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tangeval.core.knobs import KNOB, WIDE, Setting
from tangeval.decoding.ordering import descending
from tangeval.decoding.processors import PROCESSORS
from tangeval.decoding.warpers import Candidates, cut
from tangeval.results import explained

#: The knobs that make another form of a row's logits, in the order in which they are applied.
FORMS = ("contrast", *(name for name in PROCESSORS if name != WIDE), "constrain", WIDE)


def stage_keys(setting: Setting, knobs: Sequence[str]) -> list[tuple[Any, ...]]:
    """What tells each of a setting's stages from others': nothing for the model, then the knobs applied so far."""
    values = replace(setting, values=setting.sequence).at(knobs)
    return [values[:place] for place in range(len(knobs) + 1)]


@dataclass(frozen=True)
class _Left:
    """What a stage leaves: ``kept`` tokens, which held ``mass`` of the stage before; ``p`` (float64) are all or the first."""

    kept: int
    mass: float
    p: Tensor

    def record(self, at: Tensor, score: Tensor) -> explained.Stage:
        """The stage in ``explain.json``; ``at`` ``[C]`` are the candidates' places in ``p``, out of it where removed."""
        some = self.p[self.p > 0]
        entropy = max(0.0, float(-(some * some.log()).sum()))
        inside = (at >= 0) & (at < len(self.p))
        shown = torch.where(inside, self.p[at.clamp(0, len(self.p) - 1)], 0.0)
        return explained.Stage(
            kept=self.kept, mass=_short(min(1.0, self.mass)), entropy=_short(entropy),
            choices=_short(math.exp(entropy)), p=_shorts(shown.clamp(max=1.0)), score=_shorts(score),
        )  # fmt: skip


class Row:
    """One step: logits ``[V]`` sorted, ties in the sampler's order, which tokens are allowed, their noise.

    ``forms`` are the model's logits, as each knob before the temperature leaves them, and as all of these do; of what is
    forbidden the model's own are shown. ``before`` are the stages of all but the last.
    """

    def __init__(self, forms: Sequence[Tensor], noise: Tensor) -> None:
        *stages, changed = forms
        allowed = ~changed.isneginf()
        values, ids = descending(torch.where(allowed, changed, stages[0])[None], len(noise))
        self.values, self.ids = values[0], ids[0]
        self.noise, self.free = noise[self.ids], allowed[self.ids]
        self.rank = torch.where(self.free, self.free.cumsum(0) - 1, -1)
        self.place = self.ids.argsort()  #: of each token in ``ids``
        self.before, left = [], torch.full(noise.shape, 1.0 / len(noise), dtype=torch.float64)
        for logits in stages:
            stays = ~logits.isneginf()
            mass = float(left[stays].sum())
            left = logits.double().softmax(0)
            self.before.append(_Left(int(stays.sum()), mass, left[self.ids]))

    def follow(self, setting: Setting, turned: Sequence[str]) -> tuple[list[_Left], int, float | None]:
        """The stages of a setting, one a knob that is ``turned``, and the rank and score of what it picks."""
        values, noise, model = (each[self.free] for each in (self.values, self.noise, self.before[-1].p))
        given = len(self.before)
        if setting.temperature == 0:
            pick = int((values == values[0]).sum()) - 1  # of tied tokens argmax takes the smallest id
            only = torch.nn.functional.one_hot(torch.tensor(pick)).double()
            rest = [_Left(1, 1.0, only)] * (len(turned) - given)
            return [*self.before, _Left(1, float(model[pick]), only), *rest], pick, None
        scaled = values / setting.temperature
        weights = (scaled - scaled[0]).double().exp()
        types = {name: torch.int64 if KNOB[name].type is int else torch.float64 for name in turned[given:]}
        knobs = {name: torch.tensor([getattr(setting, name)], dtype=types[name]) for name in types}
        row = Candidates.whole(scaled[None], knobs)
        ranges = [(0, len(values)), *(left.range for _, left in cut(row, knobs))]
        stages, before = [*self.before], weights.sum() / model.sum()
        for first, kept in ranges:
            own = torch.where(torch.arange(kept) >= first, weights[:kept], 0)
            stages.append(_Left(kept - first, float(own.sum() / before), own / own.sum()))
            before = own.sum()
        noisy = (scaled + noise)[:kept].masked_fill(torch.arange(kept) < first, -torch.inf)
        pick = int(noisy.argmax())
        return stages, pick, float(noisy[pick])


def step_of(
    token: int, settings: Sequence[Setting], turned: Sequence[str], rows: Mapping[tuple[Any, ...], Row]
) -> explained.Step:
    """The record of the step at which ``token`` was written; ``rows`` are by the values of ``FORMS``.

    Candidates are told by the row of the first setting.
    """
    left: dict[tuple[Any, ...], tuple[_Left, Row]] = {}
    own, picks = rows[settings[0].at(FORMS)], []
    for setting in settings:
        row = rows[setting.at(FORMS)]
        stages, pick, score = row.follow(setting, turned)
        left |= {key: (stage, row) for key, stage in zip(stage_keys(setting, turned), stages, strict=True)}
        picks.append(explained.Pick(id=int(row.ids[row.free][pick]), score=score and _short(score)))
    allowed = int(own.free.sum())
    kept = [len(stage.p) for stage, row in left.values() if row is own and len(stage.p) < allowed]
    edges = torch.tensor([*kept, *(number - 1 for number in kept)], dtype=torch.int64)
    named = torch.tensor([token, *(pick.id for pick in picks)])
    likeliest = torch.arange(len(own.ids)) < explained.LIKELIEST
    shown = likeliest | torch.isin(own.ids, named) | torch.isin(own.rank, edges)
    ids, rank, logit, noise = (each[shown] for each in (own.ids, own.rank, own.values, own.noise))
    columns = zip(ids.tolist(), rank.tolist(), _shorts(logit, 9), _shorts(noise, 9), strict=True)
    records, scaled = [], turned.index("temperature") + 1
    for key, (stage, row) in left.items():
        place = row.place[ids]
        at = place if len(key) < scaled else row.rank[place]
        noisy = row.values[place] / key[-1] + noise if len(key) == scaled and key[-1] else logit[:0]
        records.append(stage.record(at, noisy))
    candidates = [explained.Candidate(id=i, rank=r, logit=x, noise=n) for i, r, x, n in columns]
    return explained.Step(token=token, candidates=candidates, stages=records, picks=picks)


def _shorts(values: Tensor, digits: int = 6) -> list[float]:
    return [_short(value, digits) for value in values.tolist()]


def _short(value: float, digits: int = 6) -> float:
    """With that many significant digits; a float32 comes back as it was from nine."""
    return float(f"{value:.{digits}g}")
