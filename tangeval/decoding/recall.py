"""What cuts keep of a text that is given: its own tokens, and how much beside them; nothing is drawn.

In: the logits at a text's places, its tokens, temperatures and cuts. Out: recall, mass and risk of each. Knows nothing of
references, tasks or files.
"""

from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor

from tangeval.core.knobs import Setting, warp_name
from tangeval.decoding.ordering import descending
from tangeval.decoding.warpers import Candidates, cut, cuts_on, deviation, read_by, statistics

#: How many of a row's largest logits are looked at first; where a cut lies beyond them, all are.
SOME = 8192


class Kept(NamedTuple):
    """Means over a text's places (after Zhou et al., arXiv 2408.13586, whose many texts are here the one that is given).

    ``recall``: the share of places whose own token is kept. ``mass``: the probability, at the temperature, of what is
    kept. ``risk``: the probability of drawing another token than the text's own from what is kept.
    """

    recall: float
    mass: float
    risk: float


def kept(logits: Tensor, tokens: Tensor, warps: Sequence[Setting]) -> dict[str, Kept]:
    """Return what each of ``warps`` keeps, by ``warp_name``; ``logits`` are ``[T, V]``, ``tokens`` ``[T]`` the text's.

    Raw logits: no knob that goes by what was written plays a part. Temperature 0 keeps the largest logit.
    """
    found, ordered = dict[str, Kept](), cache(partial(descending, logits.float()))
    some = SOME if logits.shape[1] > 2 * SOME else logits.shape[1]  # else to look at all takes hardly longer
    for temperature in dict.fromkeys(warp.temperature for warp in warps):
        own = [warp for warp in warps if warp.temperature == temperature]
        if temperature == 0:
            hit = float((logits.argmax(dim=-1) == tokens).double().mean())
            found |= {warp_name(warp): Kept(hit, 1.0, 1 - hit) for warp in own}
            continue
        cuts = {n: None for warp in own for n in cuts_on(warp.as_dict())}
        row = _Row(logits.float(), tokens, temperature, cuts, ordered)
        for size in (some, logits.shape[1]):
            own = [warp for warp in own if not row.measure(warp, size, found)]
    return found


class _Row:
    """The places of one text at one temperature."""

    def __init__(
        self, logits: Tensor, tokens: Tensor, temperature: float, cuts: Collection[str],
        ordered: Callable[[int], tuple[Tensor, Tensor]],
    ) -> None:  # fmt: skip
        self.tokens, self.temperature, self.cuts, self.ordered = tokens, temperature, cuts, ordered
        self.size = logits.shape[1]
        scaled = logits / temperature
        falls = (scaled - scaled.amax(dim=-1, keepdim=True)).double()
        weight = falls.exp()
        self.total = {
            name: deviation(scaled) if name == "sigma" else statistics(name, weight, falls).sum(dim=-1)
            for name in read_by(cuts)
        }
        self.weight = weight.gather(1, tokens[:, None]).squeeze(1)
        self.made: dict[int, tuple[Candidates, Tensor]] = {}

    def _candidates(self, size: int) -> tuple[Candidates, Tensor]:
        """The ``size`` largest of each place, and where the text's own token is among them: behind them if it is not."""
        if size not in self.made:
            values, ids = self.ordered(size)
            rows = torch.arange(len(values), device=values.device)
            same = ids == self.tokens[:, None]
            place = torch.where(same.any(dim=1), same.int().argmax(dim=1), size)
            self.made[size] = Candidates.of(values / self.temperature, rows, self.total, self.cuts), place
        return self.made[size]

    def measure(self, warp: Setting, size: int, found: dict[str, Kept]) -> bool:
        """Add what ``warp`` keeps to ``found``, and return whether ``size`` candidates were enough to tell."""
        mass, inside = self.total["mass"], torch.ones_like(self.tokens, dtype=torch.bool)
        if on := cuts_on(warp.as_dict()):
            top, place = self._candidates(size)
            knobs = {
                name: torch.full_like(self.tokens, getattr(warp, name), dtype=torch.float64) for name in on
            }
            knobs |= {name: knobs[name].long() for name in on if isinstance(getattr(warp, name), int)}
            for _, left in cut(top, knobs):
                top = left
            if size < self.size and not bool(top.certain.all()):
                return False
            mass, inside = top.total["mass"], place < top.kept
            if top.first is not None:
                inside &= place >= top.first
        drawn = torch.where(inside, self.weight / mass, 0.0)
        means = (each.double().mean() for each in (inside, mass / self.total["mass"], 1 - drawn))
        found[warp_name(warp)] = Kept(*map(float, means))
        return True
