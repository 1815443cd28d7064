"""Families of settings at an equal budget: the best of k of each, the winner's luck taken out, and which differ.

In: what was measured of the settings, and which of them each family has. Out: each family's best of k, with intervals,
and each two families' difference. Knows nothing of knobs or files.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from tangeval.analysis.aggregate import Measured, Part
from tangeval.analysis.best_of import best_of, chances
from tangeval.analysis.differences import Difference
from tangeval.analysis.hypothesis_tests import step_down
from tangeval.analysis.intervals import LEVEL, RESAMPLES, Floats, carrying, resample_weights
from tangeval.analysis.selection_bias import Bools, Ints, folds

#: Resamples at least, and how many settings × samples are scored for them, about.
_FEWEST, _SCORED = 200, 20_000_000
_AT_ONCE = 2_000_000  # counts that are held at a time


@dataclass(frozen=True)
class Contest:
    """One metric of F families: ``value``, ``low``, ``high`` and ``naive`` are ``[F, K]``, a column for each budget.

    ``at`` ``[1 + n, F]`` are the values at the budget of the contest, as observed, then of each resample; ``known``
    ``[F]`` says of which enough examples carry the value. ``most`` is the largest difference that can be.
    """

    value: Floats
    low: Floats  #: NaN where there is no interval to believe
    high: Floats
    naive: Floats
    at: Floats
    known: Bools
    t: float  #: standard errors that an interval reaches
    most: float


def contest(
    measured: Measured, families: Mapping[str, Sequence[int]], metric: str, budgets: Sequence[int], at: int, seed: int
) -> Contest:  # fmt: skip
    """Return the best of k settings of each family, for each k of ``budgets``, of which ``at`` is the contest's.

    Who tunes a family tries k of its settings, all where it has fewer, and takes the best. Its value is expected over
    all ways to draw the k (Dodge et al., "Show your work", EMNLP 2019), and cross-fitted: settings are ranked on the
    examples of other folds (Stone, JRSS B 36, 1974). ``naive`` ranks and measures on the same examples.

    Cross-fitted values vary more than those of any one setting, for examples also decide which is picked. So all of it
    is done anew on each resample of the examples, an example's copies staying in one fold. Ends are NaN where too few
    examples carry a family's value (``intervals.carrying``).
    """
    kind, poems, samples = measured.metrics[metric], measured.poems, measured.samples
    fold = folds(poems, seed)
    cost = len(measured.knobs) * (samples if metric in measured.corpora else 1) * fold.size // poems * 8
    resamples = min(RESAMPLES, max(_FEWEST, _SCORED // cost))
    weights = np.concatenate([np.ones((1, poems)), resample_weights(poems, seed, resamples)])
    found = cross_fitted_best(measured, families, metric, budgets, fold, weights)
    value, error = found[0], found[1:].std(axis=0, ddof=1) * math.sqrt(poems / max(poems - 1, 1))
    places = [list(own) for own in families.values()]
    naive = np.array(
        [
            [best_of(measured.value[metric][own], min(k, len(own)), kind.better) for k in budgets]
            for own in places
        ]
    )
    sign = 1 if kind.better == "high" else -1
    tops = [Part(measured, [own[int((sign * measured.value[metric][own]).argmax())]]) for own in places]
    rare = kind.level == "corpus" or kind.rare_from
    known = np.array([not (rare and np.isnan(carrying(top.rare(metric)))) for top in tops])
    t = float(special.stdtrit(max(poems - 1, 1), (1 + LEVEL) / 2))
    # Never narrower than that of the best setting, which was not picked.
    own = np.array([np.abs(np.array(top.interval(metric)) - top.value(metric)) for top in tops])
    low, high = value - np.fmax(t * error, own[:, :1]), value + np.fmax(t * error, own[:, 1:])
    if kind.share or kind.most < np.inf:
        low, high = np.maximum(low, 0), np.minimum(high, 1 if kind.share else kind.most)
    low[~known] = high[~known] = np.nan
    at_budget = found[:, :, list(budgets).index(at)]
    return Contest(value, low, high, naive, at_budget, known, t, 1 if kind.share else math.inf)


def cross_fitted_best(
    measured: Measured, families: Mapping[str, Sequence[int]], metric: str, budgets: Sequence[int],
    fold: Ints, weights: Floats,
) -> Floats:  # fmt: skip
    """Return each family's best of each of K budgets ``[n, F, K]``, the examples weighted by ``weights`` ``[n, P]``.

    ``fold`` is ``[R, P]``. A corpus metric is scored of whole corpora, in which each example's counts are those of the
    setting at one place of the order that the other folds give, a corpus for each place and sample.
    """
    parts, score = _summed(measured, metric)
    sign = 1 if measured.metrics[metric].better == "high" else -1
    chance = [
        np.stack([chances(len(own), min(k, len(own))) for k in budgets], axis=1) for own in families.values()
    ]
    size, found = max(1, _AT_ONCE // parts[0].size), []
    for begin in range(0, len(weights), size):
        some = weights[begin : begin + size]
        total, every = np.tensordot(some, parts, 1), some @ measured.size
        values = np.zeros((len(some), len(families), len(budgets)))
        for own_fold in fold:
            sums = [np.zeros((len(some), len(own), *parts.shape[2:])) for own in families.values()]
            for number in np.unique(own_fold):
                here = own_fold == number
                inside, rest = (
                    np.tensordot(some[:, here], parts[here], 1),
                    every - some[:, here] @ measured.size[here],
                )
                outside = total if here.all() else total - inside
                worth = sign * np.round(score(outside, every if here.all() else rest), 12)
                for added, own in zip(sums, families.values(), strict=True):
                    order = np.argsort(-worth[:, list(own)], axis=1, kind="stable")
                    added += np.take_along_axis(inside[:, list(own)], order[..., None, None], axis=1)
            for place, added in enumerate(sums):
                values[:, place] += score(added, every) @ chance[place]
        found.append(values / len(fold))
    return np.concatenate(found)


def _summed(measured: Measured, metric: str) -> tuple[Floats, Callable[[Floats, Floats], Floats]]:
    """What is summed over examples ``[P, C, S, K]``, and what makes values ``[n, C]`` of the sums and of how many they are."""
    if metric in measured.corpora:
        counts = np.stack(measured.corpora[metric].counts, axis=-1).astype(np.float64)
        corpus_score = measured.metrics[metric].score

        def of_corpora(sums: Floats, size: Floats) -> Floats:
            values: Floats = np.nan_to_num(corpus_score(sums)).mean(axis=2)
            return values

        return counts.transpose(1, 0, 2, 3), of_corpora

    def of_means(sums: Floats, size: Floats) -> Floats:
        return sums[:, :, 0, 0] / np.where(size > 1e-9, size, 1)[:, None]

    return measured.by_poem[metric][:, :, None, None], of_means


def told_apart(contests: Sequence[Contest]) -> list[list[Difference]]:
    """Return for each metric's contest the difference of each two families, in the order of ``combinations``.

    p is how often a resample's difference, less the mean of all resamples, is as large; it is adjusted for all pairs of
    all metrics by the step-down maximum (Westfall & Young, *Resampling-Based Multiple Testing*, 1993).
    """
    ways = min(len(each.at) for each in contests)
    pairs = list(combinations(range(len(contests[0].known)), 2))
    apart = np.stack([each.at[:ways, a] - each.at[:ways, b] for each in contests for a, b in pairs])
    known = np.array([each.known[a] and each.known[b] for each in contests for a, b in pairs])
    centred = apart - apart[:, 1:].mean(axis=1, keepdims=True)
    centred[:, 0] = apart[:, 0]
    error = centred[:, 1:].std(axis=1, ddof=1)
    known &= error > 1e-12
    p, adjusted = np.full((2, len(apart)), np.nan)
    if known.any():
        p[known], adjusted[known] = step_down(centred[known].astype(np.float32))
    error[~known] = np.nan
    found = []
    for place, each in enumerate(contest for contest in contests for _ in pairs):
        value, far = float(apart[place, 0]), each.t * float(error[place])
        low, high = np.clip((value - far, value + far), -each.most, each.most).tolist()
        found.append(Difference(value, low, high, float(p[place]), float(adjusted[place])))
    return [found[begin : begin + len(pairs)] for begin in range(0, len(found), len(pairs))]
