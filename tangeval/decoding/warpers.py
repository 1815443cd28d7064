"""The cuts, stated once: which of a sorted row's tokens each one keeps.

In: the largest logits of rows over the temperature, falling, and knobs' values. Out: the range of places
that stay: the first ones, but for ``typical_p``. Order and meaning are those of transformers' logits
warpers, where it has one. Knows nothing of where the logits come from; ``sampler``, ``explain`` and the
tests of the GPU kernel rely on it.

A new cut is a ``Knob`` of kind ``cut`` in ``core/knobs.py`` and a function in ``WARPERS`` here.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tangeval.core.knobs import KNOB

#: Transformers' ``top_h`` looks at so many of the largest.
TOP_H_AMONG = 100


@dataclass(frozen=True, slots=True)
class Candidates:
    """The M largest tokens of S rows, and which of them are kept so far.

    ``negated`` ``[S, M]`` is -logit / temperature, rising. With ``weight`` = exp(logit / temperature), the
    largest being 1, ``cumulated`` (float64) is the cumulative sum of the weights. ``tables`` (``[G, M]``,
    float64) have those of other ``statistics``, of which a row's is at ``warp`` ``[S]``. Candidates from
    ``first`` ``[S]`` (None: 0) to before ``kept`` ``[S]`` stay, and ``total`` ``[S]`` are the statistics of all
    tokens that stay, those beyond the candidates too. ``certain`` ``[S]`` says that more candidates would change none
    of it.
    """

    negated: Tensor
    cumulated: Tensor
    tables: Mapping[str, Tensor]
    warp: Tensor
    kept: Tensor
    total: Mapping[str, Tensor]
    certain: Tensor
    first: Tensor | None = None

    @classmethod
    def of(
        cls, scaled: Tensor, warp: Tensor, total: Mapping[str, Tensor], knobs: Iterable[str]
    ) -> "Candidates":
        """Return what ``knobs`` need to cut ``scaled[warp]``, of G rows ``[G, M]``; ``total`` is of whole rows, ``[S]``."""
        falls = (scaled - scaled[:, :1]).double()
        weight = falls.exp()
        others = [name for name in read_by(knobs) if name not in ("mass", "sigma")]
        tables = {name: statistics(name, weight, falls).cumsum(dim=-1) for name in others}
        every = torch.full_like(warp, scaled.shape[1])
        certain = torch.ones_like(warp, dtype=torch.bool)
        return cls(scaled.neg()[warp], weight.cumsum(dim=-1)[warp], tables, warp, every, total, certain)

    @classmethod
    def whole(cls, scaled: Tensor, knobs: Iterable[str]) -> "Candidates":
        """Return what ``knobs`` need to cut whole rows ``[S, V]``, without what is forbidden."""
        falls = (scaled - scaled[:, :1]).double()
        names = read_by(knobs)
        total = {n: statistics(n, falls.exp(), falls).sum(dim=-1) for n in names if n != "sigma"}
        total |= {"sigma": deviation(scaled)} if "sigma" in names else {}
        return cls.of(scaled, torch.arange(len(scaled)), total, knobs)

    @property
    def range(self) -> tuple[int, int]:
        """The places that stay, of one row: the first, and that behind the last."""
        return 0 if self.first is None else int(self.first), int(self.kept)

    def entropy(self) -> Tensor:
        """Return the entropy of what stays in nats: log of the mass less the mean of log weights."""
        return self.total["mass"].log() - self.total["entropy"] / self.total["mass"]

    def __getitem__(self, chosen: Tensor) -> "Candidates":
        """Return some of the rows."""
        total = {name: value[chosen] for name, value in self.total.items()}
        negated, cumulated, warp, kept = (
            each[chosen] for each in (self.negated, self.cumulated, self.warp, self.kept)
        )
        first = None if self.first is None else self.first[chosen]
        return Candidates(negated, cumulated, self.tables, warp, kept, total, self.certain[chosen], first)


def statistics(name: str, weight: Tensor, falls: Tensor) -> Tensor:
    """Return what a statistic is the sum of: ``mass`` the weights, ``entropy`` weight × logarithm (``falls``), ``squares``."""
    if name == "entropy":
        return weight * falls.clamp(min=torch.finfo(falls.dtype).min)  # 0 where a token is forbidden
    return weight.square() if name == "squares" else weight


def read_by(knobs: Iterable[str]) -> list[str]:
    """Return the statistics that some cuts read, and the mass."""
    return sorted({"mass"}.union(*(WARPERS[knob].reads for knob in knobs)))


def deviation(logits: Tensor) -> Tensor:
    """Return the standard deviation of each row's finite logits, as ``torch.std`` has it: float64 ``[R]``."""
    values, size = logits.float().nan_to_num(neginf=0.0), logits.shape[1]
    number = (logits > -torch.inf).sum(dim=-1)
    mean = values.sum(dim=-1, dtype=torch.float64) / number
    # A forbidden token, which stands as 0, is one mean from the mean.
    norm: Tensor = torch.linalg.vector_norm(values - mean[:, None].float(), dim=-1, dtype=torch.float64)
    spread = norm.square() - (size - number) * mean.float().double().square()
    return (spread / (number - 1).clamp(min=1)).sqrt()


@dataclass(frozen=True, slots=True)
class Warper:
    """A cut: given candidates and the knob's values ``[S]``, how many of the first candidates stay, ``[S]``.

    What it says must rest on the candidates down to the cut alone, and on the statistics that it ``reads``
    of ``total``; for the first of a setting's cuts the whole row is summed up for them. It need not look at
    ``kept``: of all cuts the shortest counts. A cut ``in_full`` computes with every candidate, and so is
    given the rows alone where it is on. One that ``looks_at`` more candidates than it keeps says at how many.
    A cut that keeps no prefix gives the first place that stays, too.
    """

    keep: Callable[[Candidates, Tensor], Tensor | tuple[Tensor, Tensor]]
    reads: frozenset[str] = frozenset()
    in_full: bool = False
    looks_at: int = 0


def top_n_sigma(row: Candidates, value: Tensor) -> Tensor:
    """Logits at most n standard deviations under the largest (Tang et al., 2411.07641); forbidden tokens do not count."""
    return _at_least(row, -value * row.total["sigma"])


def top_h(row: Candidates, value: Tensor) -> Tensor:
    """The first of the 100 largest, as long as their terms sum to h of their entropy at most: ``TopHLogitsWarper``."""
    among = row.kept.clamp(max=TOP_H_AMONG)[:, None] - 1
    mass, terms = row.cumulated[:, :TOP_H_AMONG], _terms(row)[:, :TOP_H_AMONG].cumsum(dim=-1)
    log, whole = mass.gather(1, among).log(), mass.gather(1, among)
    return (mass * log - terms <= value[:, None] * (whole * log - terms.gather(1, among))).sum(dim=1)


def top_h_whole(row: Candidates, value: Tensor) -> Tensor:
    """The most whose own entropy is h of all tokens' at most (Baghaei Potraghloo et al., 2509.02510)."""
    mass, terms = row.cumulated, _terms(row).cumsum(dim=-1)
    return (mass.log() - terms / mass <= (value * row.entropy())[:, None]).sum(dim=1)


def top_k(row: Candidates, value: Tensor) -> Tensor:
    """The k largest, and all that tie with the k-th: ``TopKLogitsWarper``."""
    last = value.clamp(1, row.negated.shape[1])
    threshold = row.negated.gather(1, last[:, None] - 1)
    return torch.searchsorted(row.negated, threshold, right=True).squeeze(1)


def top_p(row: Candidates, value: Tensor) -> Tensor:
    """The fewest whose probability reaches p, of what the cuts before keep: ``TopPLogitsWarper``."""
    return torch.searchsorted(row.cumulated, (value * row.total["mass"])[:, None]).squeeze(1) + 1


def min_p(row: Candidates, value: Tensor) -> Tensor:
    """Those at least m times as likely as the likeliest (Nguyen et al., 2407.01082): ``MinPLogitsWarper``."""
    return _at_least(row, value.log())


def typical_p(row: Candidates, value: Tensor) -> tuple[Tensor, Tensor]:
    """Those whose information is nearest to the entropy, until their probability reaches p: ``TypicalLogitsWarper``.

    Along the row the distance falls, then rises, so what stays is one range.
    """
    information = row.total["mass"].log()[:, None] + (row.negated - row.negated[:, :1])
    far = (information - row.entropy()[:, None]).abs()
    gone = torch.arange(far.shape[1], device=far.device) >= row.kept[:, None]
    near, order = far.masked_fill(gone, torch.inf).sort(dim=-1)
    mass = (-information).exp().gather(1, order).cumsum(dim=-1)
    last = torch.minimum((mass < value[:, None]).sum(dim=1), row.kept - 1)
    stays = (far <= near.gather(1, last[:, None])) & ~gone
    first = stays.int().argmax(dim=1)
    return first, first + stays.sum(dim=1)


def epsilon_cutoff(row: Candidates, value: Tensor) -> Tensor:
    """Those of probability epsilon or more (Hewitt et al., 2210.15191): ``EpsilonLogitsWarper``."""
    return _at_least(row, (value * row.total["mass"]).log())


def eta_cutoff(row: Candidates, value: Tensor) -> Tensor:
    """Those of min(eta, sqrt(eta) / exp(entropy)) or more (Hewitt et al., 2210.15191): ``EtaLogitsWarper``."""
    bound = torch.minimum(value, value.sqrt() * (-row.entropy()).exp())
    return _at_least(row, (bound * row.total["mass"]).log())


def p_less(row: Candidates, value: Tensor) -> Tensor:
    """Those at least as likely as two draws are to be the same token (Tan et al., 2509.23234)."""
    return _at_least(row, (row.total["squares"] / row.total["mass"]).log())


def _at_least(row: Candidates, bound: Tensor) -> Tensor:
    """How many have a log weight of ``bound`` ``[S]`` or more; the largest that are left stay in any case."""
    largest = row.negated[:, 0]
    if row.first is not None:
        largest = row.negated.gather(1, row.first[:, None]).squeeze(1)
    limit = torch.maximum((row.negated[:, 0] - bound).to(row.negated.dtype), largest)
    return torch.searchsorted(row.negated, limit[:, None], right=True).squeeze(1)


def _terms(row: Candidates) -> Tensor:
    """Each candidate's part in the statistic ``entropy``."""
    falls = (row.negated[:, :1] - row.negated).double()
    return statistics("entropy", falls.exp(), falls)


_MASS = frozenset({"mass"})
#: The cuts in the order in which they are applied, by the name of their knob.
WARPERS: dict[str, Warper] = {
    "top_n_sigma": Warper(top_n_sigma, frozenset({"sigma"})),
    "top_h": Warper(top_h, in_full=True, looks_at=TOP_H_AMONG),
    "top_h_whole": Warper(top_h_whole, _MASS | {"entropy"}, in_full=True),
    "top_k": Warper(top_k),
    "top_p": Warper(top_p, _MASS),
    "min_p": Warper(min_p),
    "typical_p": Warper(typical_p, _MASS | {"entropy"}, in_full=True),
    "epsilon_cutoff": Warper(epsilon_cutoff, _MASS),
    "eta_cutoff": Warper(eta_cutoff, _MASS | {"entropy"}),
    "p_less": Warper(p_less, _MASS | {"squares"}),
}  # fmt: skip


def cuts_on(knobs: Mapping[str, Any]) -> list[str]:
    """Return the cuts that are not off, in their order."""
    return [name for name in WARPERS if knobs[name] != KNOB[name].off]


def cut(row: Candidates, knobs: Mapping[str, Tensor]) -> Iterator[tuple[str, Candidates]]:
    """Apply each of the cuts in ``knobs`` (name → values ``[S]``) in turn; yield its name and what then stays.

    A cut is certain where it falls before the last candidate, ties with that one excluded: tokens
    beyond could not be among those kept. What an uncertain cut keeps is no base for a later one.
    """
    size = row.negated.shape[1]
    for name in filter(knobs.__contains__, WARPERS):
        on = knobs[name] != KNOB[name].off
        first, found = _found(row, WARPERS[name], knobs[name], on)
        least = 1 if first is None else first + 1
        kept = torch.where(on, torch.minimum(found, row.kept).clamp(min=least), row.kept)
        last = kept - 1
        total = {
            each: value if each == "sigma" else torch.where(on, _sum(row, each, first, last), value)
            for each, value in row.total.items()
        }
        inside = row.negated.gather(1, last[:, None]).squeeze(1) < row.negated[:, -1]
        if size < WARPERS[name].looks_at:
            inside &= row.kept < size
        row = replace(row, kept=kept, total=total, certain=row.certain & (inside | ~on), first=first)
        yield name, row


def _found(row: Candidates, warper: Warper, value: Tensor, on: Tensor) -> tuple[Tensor | None, Tensor]:
    """The first place that stays (None: 0) and the number of places down to the last one, as a cut finds them."""
    if not warper.in_full:
        found = warper.keep(row, value)
        return (row.first, found) if isinstance(found, Tensor) else found
    first, kept, some = row.first, row.kept.clone(), on.nonzero()[:, 0]
    found = warper.keep(row[some], value[some])
    if not isinstance(found, Tensor):
        first = torch.zeros_like(kept)
        first[some], found = found
    kept[some] = found
    return first, kept


def _sum(row: Candidates, name: str, first: Tensor | None, last: Tensor) -> Tensor:
    """A statistic of the candidates from ``first`` to ``last`` ``[S]``."""

    def until(place: Tensor) -> Tensor:
        if name == "mass":
            return row.cumulated.gather(1, place[:, None]).squeeze(1)
        return row.tables[name][row.warp, place]

    if first is None:
        return until(last)
    return until(last) - torch.where(first > 0, until((first - 1).clamp(min=0)), 0)
