"""The contest of samplers: families of settings, by which knob is on, at an equal budget.

In: a results folder with scores, and metrics. Out: frames, written as ``families.csv`` (the best of k settings of each
family, and each family at each temperature) and ``family_differences.csv`` (each two families at the budget). Knows
nothing of pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd

from tangeval.analysis.aggregate import Measured, Part, groups
from tangeval.analysis.best_of import ladder
from tangeval.analysis.contest import Contest, contest, told_apart
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB
from tangeval.metrics.base import Metrics
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

#: The family of settings whose temperature alone is turned.
TEMPERATURE = "temperature"
#: What a row of ``families.csv`` is by: the best of so many settings, or the mean over the settings of a temperature.
BUDGET = "budget"


@dataclass(frozen=True)
class Families:
    """The frames; columns as in docs/results.md."""

    values: pd.DataFrame
    differences: pd.DataFrame


def families(
    run: RunFolder, names: Sequence[str], split: str = "validation", checkpoint: str | None = None,
    budget: int | None = None,
) -> Families:  # fmt: skip
    """Write the two tables of one checkpoint (default: the chosen one) and return them.

    ``budget`` is how many settings of each family are tried in the contest: by default as many as the smallest family
    has. A family that has fewer has tried all of them.

    Raises:
        TangevalError: no such checkpoint, split or metric; there are not two families; or a budget below 1.
    """
    _check(names, run.metrics, budget)
    checkpoints = run.named(checkpoint, split)
    if len(checkpoints) > 1:
        raise TangevalError(f"{run.path}: families are compared on one checkpoint; give --checkpoint NAME")
    (group,) = groups(run.scores(checkpoints[0], split), run.likelihood(), run.metrics)
    measured = group.measured.only(*names)
    of = by_family(measured.knobs)
    if len(of) < 2:
        raise TangevalError(
            f"{run.path}: its settings are of one family, {next(iter(of), 'greedy')}; a contest wants a grid in which "
            "some knobs are on in some settings alone, as studies/samplers.yaml has it"
        )
    budget = budget or min(map(len, of.values()))
    budgets = sorted({*ladder(max(map(len, of.values()))), budget})
    found = {name: contest(measured, of, name, budgets, budget, run.study.seed) for name in names}
    labels = {"checkpoint": group.checkpoint, "step": group.step, "split": split}
    labels |= {name: count for name, count in measured.counted.items() if name != "samples"}
    first = [*labels, "family", "settings", "by", "at"]
    rows = [*_by_budget(found, of, budgets), *_by_temperature(measured, of, names)]
    values = pd.DataFrame(rows).assign(**labels).astype({"step": "Int64"})
    values = values[[*first, *values.columns.difference(first, sort=False)]]
    frames = Families(values, _differences(found, list(of), run.metrics, labels | {BUDGET: budget}))
    write_csv(run.table("families"), frames.values)
    write_csv(run.table("family_differences"), frames.differences)
    return frames


def _check(names: Sequence[str], metrics: Metrics, budget: int | None) -> None:
    if not names:
        raise TangevalError("give a metric at least: --metric form")
    for name in names:
        if name not in metrics:
            raise TangevalError(f"--metric {name} is no metric; there are {', '.join(metrics)}")
        if not metrics[name].per_setting:
            raise TangevalError(f"--metric {name} is the same for every setting of a checkpoint")
    if budget is not None and budget < 1:
        raise TangevalError(f"--budget {budget}: give the settings that each family tries, 1 or more")


def by_family(knobs: pd.DataFrame) -> dict[str, list[int]]:
    """Return the places of each family's settings: by the knobs that are on, but those that are on in all.

    Greedy settings, in which cuts change nothing, are of no family.
    """
    turned = [str(n) for n in knobs if KNOB[str(n)].kind not in ("scale", "length")]
    on = pd.DataFrame({n: knobs[n] != KNOB[n].off for n in turned})
    greedy = knobs[TEMPERATURE] == KNOB[TEMPERATURE].off
    on.loc[greedy, [n for n in turned if KNOB[n].kind == "cut"]] = False
    on = on.loc[:, ~on.all()]
    found: dict[str, list[int]] = {}
    for place, row in enumerate(on.to_numpy()):
        name = " + ".join(on.columns[row]) or TEMPERATURE
        if not (name == TEMPERATURE and greedy.iloc[place]):
            found.setdefault(name, []).append(place)
    return found


def _by_budget(
    found: Mapping[str, Contest], of: Mapping[str, Sequence[int]], budgets: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A row for each family and budget: each metric with its interval, and as it is with the winner's luck."""
    for column, k in enumerate(budgets):
        for place, (family, own) in enumerate(of.items()):
            row: dict[str, Any] = {"family": family, "settings": len(own), "by": BUDGET, "at": k}
            for name, each in found.items():
                ends = {"": each.value, "_low": each.low, "_high": each.high, "_naive": each.naive}
                row |= {f"{name}{end}": float(values[place, column]) for end, values in ends.items()}
            yield row


def _by_temperature(
    measured: Measured, of: Mapping[str, Sequence[int]], names: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each family and temperature: the mean over its settings there."""
    rows = []
    for family, places in of.items():
        for temperature, own in measured.knobs.loc[list(places)].groupby(TEMPERATURE).groups.items():
            part = Part(measured, list(own))
            row = {"family": family, "settings": len(own), "by": TEMPERATURE, "at": temperature}
            for name in names:
                low, high = part.interval(name)
                row |= {name: part.value(name), f"{name}_low": low, f"{name}_high": high}
            rows.append(row)
    return rows


def _differences(
    found: Mapping[str, Contest], of: Sequence[str], metrics: Metrics, labels: Mapping[str, Any]
) -> pd.DataFrame:
    """A row for each two families and metric, the better one first."""
    rows = []
    for (name, each), differences in zip(found.items(), told_apart(list(found.values())), strict=True):
        at, sign = each.at[0], 1 if metrics[name].better == "high" else -1
        for (a, b), apart in zip(combinations(range(len(of)), 2), differences, strict=True):
            if sign * apart.value < 0:
                a, b, apart = b, a, apart.reversed
            values = {"value_a": at[a], "value_b": at[b], "difference": apart.value, "low": apart.low}
            values |= {"high": apart.high, "p": apart.p, "p_adjusted": apart.p_adjusted}
            rows.append(dict(labels) | {"metric": name, "a": of[a], "b": of[b]} | values)
    return pd.DataFrame(rows).astype({"step": "Int64"})
