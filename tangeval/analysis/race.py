"""A race by successive halving: which settings are measured with how many samples, which wins, and what it is worth.

In: a function that measures settings. Out: the rounds, what they cost, and the winner's value, corrected for its having
been picked. Knows nothing of how anything is decoded, or of files.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tangeval.analysis.aggregate import Measured, Part
from tangeval.analysis.intervals import Floats, resample_weights
from tangeval.analysis.select import after_selection, put_together, shortfalls
from tangeval.analysis.selection_bias import folds, joint_stretch
from tangeval.core.study import Selection

#: Gives what settings are worth with so many samples each.
Measure = Callable[[Sequence[int], int], Measured]
#: Is given what is left in each of several races, and the samples; gives the settings of each, best first.
Rank = Callable[[Sequence[Sequence[int]], int], Sequence[Sequence[int]]]


@dataclass(frozen=True)
class Round:
    """The settings of a round, the samples that each had by its end, and the settings that it kept."""

    settings: tuple[int, ...]
    samples: int
    kept: tuple[int, ...]


@dataclass(frozen=True)
class Raced:
    """A race's rounds, its winner's corrected value, and how many settings × samples that took on top."""

    rounds: list[Round]
    corrected: dict[str, float | None]
    on_top: int

    @property
    def winner(self) -> int:
        return self.rounds[-1].kept[0]


def successive_halving(
    settings: int, samples: int, rank: Callable[[Sequence[int], int], Sequence[int]], keep: float = 0.5
) -> list[Round]:
    """Return the rounds, the last of which keeps the winner alone.

    One sample of all settings, then twice as many of the best ``keep`` of them, and so on until those left
    have ``samples``. ``rank`` is given settings and samples and returns the settings, best first. Karnin et
    al., "Almost optimal exploration in multi-armed bandits", ICML 2013; here the samples that a setting has
    are kept.
    """
    (rounds,) = _side_by_side(1, settings, samples, lambda lefts, have: [rank(lefts[0], have)], keep)
    return rounds


def _side_by_side(
    races: int, settings: int, samples: int, rank: Rank, keep: float = 0.5
) -> list[list[Round]]:
    """The rounds of several races of the same settings, which keep as many in each round."""
    lefts, have = [tuple(range(settings))] * races, 1
    rounds: list[list[Round]] = [[] for _ in lefts]
    while True:
        ranked, many = rank(lefts, have), len(lefts[0])
        last = have == samples or many == 1
        kept = [tuple(order[: 1 if last else math.ceil(many * keep)]) for order in ranked]
        for own, left, some in zip(rounds, lefts, kept, strict=True):
            own.append(Round(left, have, some))
        if last:
            return rounds
        lefts, have = [tuple(sorted(some)) for some in kept], min(2 * have, samples)


def spent(rounds: Sequence[Round]) -> int:
    """Return how many settings × samples the rounds took; the whole grid is all settings × all samples."""
    before = [0, *(r.samples for r in rounds)]
    return sum(len(r.settings) * (r.samples - had) for r, had in zip(rounds, before, strict=False))


def race(settings: int, samples: int, poems: int, measure: Measure, rule: Selection, seed: int) -> Raced:
    """Return the race that the rule asks for, and what its winner is worth on examples that did not pick it.

    Beside it a race is run without each fold of the examples, and the fold is measured with that race's winner
    (cross-fitting, as ``select`` does). What those races keep is measured even where the real one drops it: else
    which settings have samples would tell of the fold. The corrected value is None where no race's winner meets
    what is required.
    """
    fold = folds(poems, seed, repeats=1)[0]
    numbers = np.unique(fold) if poems > 1 else np.empty(0)
    weights = np.stack([np.ones(poems), *(1.0 * (fold != number) for number in numbers)])
    measured, short = list[tuple[Round, Measured]](), dict[int, Floats]()

    def rank(lefts: Sequence[Sequence[int]], have: int) -> list[list[int]]:
        """Settings that meet what is required first, by value; then the others, by how far they are from it."""
        places = tuple(sorted({place for left in lefts for place in left}))
        measured.append((Round(places, have, ()), measure(places, have)))
        lacking, cost = _standing(measured[-1][1], rule, weights)
        short.clear()
        short.update(zip(places, lacking.T, strict=True))
        costs = dict(zip(places, cost.T, strict=True))
        return [
            sorted(left, key=lambda place: (short[place][number], costs[place][number], place))
            for number, left in enumerate(lefts)
        ]

    own, *without = _side_by_side(len(weights), settings, samples, rank)
    last, found = measured[-1]
    picked = np.full(poems, -1)
    for number, rounds in enumerate(without):
        winner = rounds[-1].kept[0]
        if short[winner][number + 1] == 0:
            picked[fold == numbers[number]] = last.settings.index(winner)
    value = put_together(
        [Part(found, [place]) for place in range(len(last.settings))], rule.setting.by, picked
    )
    best = Part(found, [last.settings.index(own[-1].kept[0])])
    corrected = after_selection(best, rule.setting.by, value, _stretch(measured[0][1], rule.setting.by, seed))
    return Raced(own, corrected, spent([each for each, _ in measured]) - spent(own))


def _standing(measured: Measured, rule: Selection, weights: Floats) -> tuple[Floats, Floats]:
    """How far each setting is from what is required, and its value turned so that less is better: ``[n, C]`` each."""
    # A product may round equal settings differently.
    names = {rule.setting.by, *rule.setting.require}
    values = {name: np.round(measured.on(name, weights), 12) for name in names}
    sign = -1 if measured.metrics[rule.setting.by].better == "high" else 1
    return shortfalls(values, rule), sign * values[rule.setting.by]


def _stretch(first: Measured, by: str, seed: int) -> float:
    """How much wider the winner's interval must be: of all settings, as the first round measured them."""
    poems = first.poems
    values = first.on(by, np.ones((1, poems)))[0]
    return joint_stretch(first.on(by, resample_weights(poems, seed)), values, first.metrics[by].better)
