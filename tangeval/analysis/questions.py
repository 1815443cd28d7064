"""What a verdict asks: which things are compared by which metrics, all tested as one family.

In: checkpoints and baselines measured on the same examples, and margins. Out: a row for each comparison, and what it
shows. Only means over examples are asked: a corpus's score near its floor carries no claim. Knows nothing of files.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import pandas as pd
from scipy import special

from tangeval.analysis.aggregate import Measured, Part
from tangeval.analysis.compare import METRICS
from tangeval.analysis.differences import Difference, Pair, differences, joint_intervals
from tangeval.analysis.hypothesis_tests import poems_needed
from tangeval.core.knobs import axes_in, written
from tangeval.core.study import Study
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics.base import Metric, Metrics, check_of

Question = Literal["helped", "checkpoint", "settings", "random", "open"]
#: Metrics that are asked about: the more, the less each can show.
MOST = 4
#: The smallest difference worth naming where ``select.within`` has none: of a share, of a value up to 100, of nats.
SHARE, PERCENT, NATS = 0.05, 1.0, 0.05
#: The chance that as many examples as are named settle a question, were what is seen now the truth.
SETTLED = 0.9
#: The fewest examples whose spread a number of examples is planned from.
FEWEST = 5


@dataclass(frozen=True)
class Row:
    """One comparison: a's value less b's, with an interval that holds for all rows at once, and what that shows."""

    question: Question
    metric: str
    a: str
    b: str
    knob: str
    value_a: float
    value_b: float
    difference: float
    low: float | None
    high: float | None
    p_adjusted: float
    better: int  #: 1: a is shown to be better, and not by less than the margin; −1: worse; 0: neither
    equal: bool | None  #: whether no more than the margin apart is shown; None where the metric has no margin
    margin: float | None
    needed: int | None  #: examples that would settle it; None where it is settled, or has no margin


@dataclass(frozen=True)
class Model:
    """A checkpoint that did not see the examples."""

    name: str
    step: int | None
    measured: Measured

    @property
    def whole(self) -> Part:
        """All of its settings as one."""
        return Part(self.measured, range(len(self.measured.knobs)))


@dataclass(frozen=True)
class Asked:
    """What is asked: the metric that ranks checkpoints, all ``metrics``, and the margins of those that have one."""

    ranks: str
    metrics: Sequence[str]
    margins: Mapping[str, float]


def measured_of_all(models: Sequence[Model], means: Metrics) -> Metrics:
    """Return the metrics that were measured of every setting of every model."""

    def by_all(name: str) -> bool:
        values = [each.measured.value.get(name) for each in models]
        return all(value is not None and not pd.isna(value).any() for value in values)

    return {name: metric for name, metric in means.items() if by_all(name)}


def asked_of(study: Study, means: Metrics) -> Asked:
    """Return what a study asks of ``measured_of_all``: its own metrics of selection first, as far as they are means."""
    rule = study.select
    own = [rule.checkpoint, rule.setting.by] if rule else []
    headline = [metric.name for metric in means.values() if metric.headline]
    order = dict.fromkeys([*own[:1], *METRICS, check_of(means) or "", *own[1:], *headline])
    there = [name for name in order if name in means][:MOST]
    margins = {name: margin for name in there if (margin := _margin(means[name]))}
    return Asked(there[0] if there else "", there, margins | dict(rule.within if rule else {}))


def _margin(metric: Metric) -> float | None:
    if metric.share:
        return SHARE
    return PERCENT if metric.most == 100 else NATS if metric.level == "reference" else None


Comparison = tuple[Question, str, str, str, str, Pair]


def told_apart(baselines: Mapping[str, Measured], asked: Asked, known: Metrics) -> list[str]:
    """Return the metrics of texts by which references are ahead of random texts by what is worth naming, two at most."""
    if RANDOM not in baselines:
        return []
    random, reference = (baselines[name].value for name in (RANDOM, REFERENCE))

    def apart(name: str) -> bool:
        ahead = float(reference[name][0] - random[name][0]) * (1 if known[name].better == "high" else -1)
        return ahead > (asked.margins.get(name) or _margin(known[name]) or 0)

    headline = [metric.name for metric in known.values() if metric.headline]
    names = [
        n for n in dict.fromkeys((*asked.metrics, *headline)) if known[n].level == "text" and n in random
    ]
    found = [name for name in names if apart(name)]
    # Of checks, random texts fail what joins them to what was given: to pass those is not to be near the reference.
    return ([name for name in found if not known[name].share] or found)[:2]


def helped(models: Sequence[Model], asked: Asked) -> Iterator[Comparison]:
    """Yield each checkpoint beside the base model, where that was measured."""
    base = next((model for model in models if model.name == BASE), None)
    if base is None:
        return
    for model in models:
        for metric in asked.metrics if model is not base else ():
            yield "helped", metric, model.name, BASE, "", Pair(model.whole, base.whole, metric)


def checkpoints(tuned: Sequence[Model], metric: str) -> Iterator[Comparison]:
    """Yield all pairs: the one that leads was picked on these very examples."""
    for a, b in combinations(tuned, 2):
        yield "checkpoint", metric, a.name, b.name, "", Pair(a.whole, b.whole, metric)


def settings(model: Model, asked: Asked, known: Metrics) -> Iterator[Comparison]:
    """Yield all pairs of a knob's values, averaged over the other knobs; none of a grid that is not crossed."""
    knobs = model.measured.knobs
    varied: dict[str, dict[Any, list[int]]] = {
        knob: {value: list(places) for value, places in knobs.groupby(knob).indices.items()}
        for knob in axes_in(knobs)
        if knobs[knob].nunique() > 1
    }
    if math.prod(map(len, varied.values())) != len(knobs):
        return
    for knob, places in varied.items():
        sides = [(written(value), Part(model.measured, own)) for value, own in places.items()]
        for metric in (name for name in asked.metrics if known[name].per_setting):
            for (a, first), (b, second) in combinations(sides, 2):
                yield "settings", metric, a, b, knob, Pair(first, second, metric)


def random_texts(
    models: Sequence[Model], baselines: Mapping[str, Measured], metrics: Sequence[str]
) -> Iterator[Comparison]:
    """Yield each checkpoint beside the random baseline."""
    for model in models:
        for metric in metrics:
            yield (
                "random",
                metric,
                model.name,
                RANDOM,
                "",
                Pair(model.whole, Part(baselines[RANDOM], [0]), metric),
            )


def tested(asked: Sequence[Comparison], margins: Mapping[str, float]) -> list[Row]:
    """Return a row for each comparison, all tested as one family."""
    if not asked:
        return []
    pairs = [each[-1] for each in asked]
    found = differences(pairs)
    ends, critical = joint_intervals(pairs, found)
    return [
        _row(each, difference, interval, margins.get(each[1]), critical)
        for each, difference, interval in zip(asked, found, ends, strict=True)
    ]


def _row(
    asked: Comparison, found: Difference, ends: tuple[float, float], margin: float | None, critical: float
) -> Row:
    question, metric, a, b, knob, pair = asked
    low, high = (None if math.isnan(end) else end for end in ends)
    towards = 1 if pair.first.measured.metrics[metric].better == "high" else -1
    equal = None if margin is None else max(map(abs, ends)) <= margin
    better = towards * (1 if found.value > 0 else -1) if found.real and not equal else 0
    needed = None
    reach = max(found.value - ends[0], ends[1] - found.value)
    poems, size = pair.first.measured.poems, abs(found.value)
    if margin and not better and not equal and reach > 0 and poems >= FEWEST:
        level = 2 * float(special.stdtr(poems - 1, -critical))
        # The deviation that the interval has; what is nearest shows a difference, or shows it to be within the margin.
        clusters = poems_needed(reach * math.sqrt(poems) / critical, max(size, margin - size), level, SETTLED)
        needed = pair.examples_in(clusters)
    return Row(
        question, metric, a, b, knob, pair.first.value(metric), pair.second.value(metric), found.value, low, high,
        found.p_adjusted, better, equal, margin, needed,
    )  # fmt: skip
