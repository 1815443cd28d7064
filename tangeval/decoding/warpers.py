"""The cuts, stated once: how many of a sorted row's tokens each one keeps.

In: the largest logits of a row over the temperature, falling, and a knob's value. Out: the number
that stays. Order and meaning are those of transformers' logits warpers. Knows nothing of where
the logits come from; ``sampler``, ``explain`` and the tests of the GPU kernel rely on it.

A new cut is a ``Knob`` of kind ``cut`` in ``core/knobs.py`` and a function in ``WARPERS`` here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tangeval.core.knobs import KNOB


@dataclass(frozen=True, slots=True)
class Candidates:
    """The M largest tokens of S rows, and how many of them are kept so far.

    ``scaled`` ``[S, M]`` is logit / temperature, falling; ``cumulated`` (float64) the cumulative sum
    of exp(scaled - scaled[:, 0]). ``kept`` ``[S]`` of the candidates stay, and ``total``
    ``[S]`` is the sum, on the same scale, of all tokens that stay, those beyond the candidates too.
    ``certain`` ``[S]`` says that more candidates would change neither.
    """

    scaled: Tensor
    cumulated: Tensor
    kept: Tensor
    total: Tensor
    certain: Tensor


@dataclass(frozen=True, slots=True)
class Warper:
    """A cut: given candidates and the knob's values ``[S]``, how many candidates stay, ``[S]``.

    What it says must rest on the candidates down to the cut alone, and, with ``of_mass``, on
    ``total``, for which the whole row is summed up. It need not look at ``kept``: of all cuts the
    shortest counts.
    """

    keep: Callable[[Candidates, Tensor], Tensor]
    of_mass: bool = False


def top_k(row: Candidates, value: Tensor) -> Tensor:
    """The k largest, and all that tie with the k-th: ``TopKLogitsWarper``."""
    last = value.clamp(1, row.scaled.shape[1])
    threshold = row.scaled.gather(1, last[:, None] - 1)
    return torch.searchsorted(-row.scaled, -threshold, right=True).squeeze(1)


def top_p(row: Candidates, value: Tensor) -> Tensor:
    """The fewest whose probability reaches p, of what the cuts before keep: ``TopPLogitsWarper``."""
    return torch.searchsorted(row.cumulated, (value * row.total)[:, None]).squeeze(1) + 1


def min_p(row: Candidates, value: Tensor) -> Tensor:
    """Those at least m times as likely as the likeliest (Nguyen et al., 2024): ``MinPLogitsWarper``."""
    return _at_least(row, value.log())


def _at_least(row: Candidates, bound: Tensor) -> Tensor:
    """How many candidates have a logarithm of ``bound`` ``[S]`` or more, that of the likeliest being 0."""
    return torch.searchsorted((row.scaled[:, :1] - row.scaled).double(), -bound[:, None], right=True).squeeze(
        1
    )


#: The cuts in the order in which they are applied, by the name of their knob.
WARPERS: dict[str, Warper] = {
    "top_k": Warper(top_k),
    "top_p": Warper(top_p, of_mass=True),
    "min_p": Warper(min_p),
}  # fmt: skip


def cuts_on(knobs: Mapping[str, Any]) -> list[str]:
    """Return the cuts that are not off, in their order."""
    return [name for name in WARPERS if knobs[name] != KNOB[name].off]


def cut(row: Candidates, knobs: Mapping[str, Tensor]) -> Iterator[tuple[str, Candidates]]:
    """Apply each of the cuts in ``knobs`` (name → values ``[S]``) in turn; yield its name and what then stays.

    A cut is certain where it falls before the last candidate, ties with that one excluded: tokens
    beyond could not be among those kept. What an uncertain cut keeps is no base for a later one.
    """
    for name in filter(knobs.__contains__, WARPERS):
        on = knobs[name] != KNOB[name].off
        found = torch.minimum(WARPERS[name].keep(row, knobs[name]), row.kept).clamp(min=1)
        kept = torch.where(on, found, row.kept)
        last = kept[:, None] - 1
        total = torch.where(on, row.cumulated.gather(1, last).squeeze(1), row.total)
        inside = row.scaled.gather(1, last).squeeze(1) > row.scaled[:, -1]
        row = replace(row, kept=kept, total=total, certain=row.certain & (inside | ~on))
        yield name, row
