"""Scores → summary: each checkpoint × setting × split with intervals, and the grid's margins.

In: ``scores.parquet`` and ``likelihood.parquet``. Out: frames, written as ``summary.csv`` (a row a setting),
``effects.csv`` (each value of each knob, averaged over the other knobs), ``checkpoints.csv`` (averaged over all
settings), ``likelihood_curve.csv`` (the reference's likelihood by place in the poem) and ``recipes.csv`` (each
run's last checkpoint, averaged over runs too). Intervals are over poems, those of recipes over runs too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Group, Measured, Part, ends, groups
from tangeval.analysis.differences import facing
from tangeval.analysis.hypothesis_tests import corpora_tests
from tangeval.analysis.intervals import Clusters, Floats, carrying, mean_interval, rate_interval
from tangeval.analysis.processes import in_order, processes_for
from tangeval.analysis.recipes import between_runs, estimate
from tangeval.core.knobs import KNOBS, axes_in
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics.base import Metric, Metrics
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

#: What a checkpoint's record says of its training, where the study declares recipes.
_RUN = ("recipe", "run")
#: ``Measured.counted``: clusters only where the task names them.
_COUNTS = ("poems", "clusters", "samples")


def measures(metrics: Metrics) -> list[str]:
    """Return the columns of metrics: each one's value, its interval's ends, and of ``carried`` ones p against random."""
    ends = ("", "_low", "_high")
    return [f"{m.name}{end}" for m in metrics.values() for end in (*ends, *["_p"] * (m in carried(metrics)))]


def carried(metrics: Metrics) -> list[Metric]:
    """Return the metrics that may have no interval, and are tested against the random baseline instead."""
    return [metric for metric in metrics.values() if metric.rarest and metric.headline]


@dataclass(frozen=True)
class Summary:
    """The frames; columns as in docs/results.md. ``recipes`` has rows where the study declares recipes."""

    settings: pd.DataFrame
    effects: pd.DataFrame
    checkpoints: pd.DataFrame
    curve: pd.DataFrame
    recipes: pd.DataFrame = field(default_factory=pd.DataFrame)


def summarize(run: RunFolder) -> Summary:
    """Summarise a folder's scores, write the CSV files and return them.

    Raises:
        TangevalError: the folder holds no scores.
    """
    settings, effects, checkpoints = [], [], []
    likelihood, trained = run.likelihood(), run.trained
    last = {(each["recipe"], each["run"]): name for name, each in trained.items()}.values()
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    drawn = {g.split: _draws(g) for g in groups(run.scores(RANDOM), likelihood, run.metrics)}
    keys = run.columns(["checkpoint", "split"])
    pairs = list(keys.drop_duplicates().astype(str).itertuples(index=False, name=None))
    asked = (
        (run.path, name, split, _of(likelihood, name, split), trained.get(name, {}), drawn.get(split, {}))
        for name, split in pairs
    )
    found = in_order(_summed_up, asked, processes_for(len(keys)), run.path)
    for (name, split), (own, varied, overall, whole) in zip(pairs, found, strict=True):
        settings += own
        effects += varied
        checkpoints += overall
        if name in last:
            runs.setdefault((overall[0]["recipe"], split), []).append(whole)
    first = ["checkpoint", "step"]
    counts = [*_COUNTS, *measures(run.metrics), "n_tokens"]
    summary = Summary(
        _frame(settings, [*first, *axes_in(settings[0]), "split", *counts]),
        _frame(effects, [*first, "split", "knob", "value", *counts]),
        _frame(checkpoints, [*first, *(_RUN if trained else ()), "split", *counts]),
        curve(likelihood, run.clusters()),
        _recipes(runs, run.metrics),
    )
    run.table("recipes").unlink(missing_ok=True)
    tables = ("summary", "effects", "checkpoints", "likelihood_curve", *(["recipes"] if runs else []))
    for name, frame in zip(tables, vars(summary).values(), strict=False):
        write_csv(run.table(name), frame)
    return summary


def _of(likelihood: pd.DataFrame, checkpoint: str, split: str) -> pd.DataFrame:
    return likelihood[(likelihood["checkpoint"] == checkpoint) & (likelihood["split"] == split)]


def _draws(baseline: Group) -> dict[str, Floats]:
    """The random baseline's counts ``[P, N, K]`` of each metric that is tested against it."""
    part = Part(baseline.measured, [0])
    return {metric.name: part.counts(metric.name) for metric in carried(baseline.measured.metrics)}


def _summed_up(
    folder: Path,
    name: str,
    split: str,
    likelihood: pd.DataFrame,
    made: Mapping[str, Any],
    drawn: Mapping[str, Floats],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """A checkpoint on a split: the rows of its settings, of its knobs' values and of all, and what ``_run`` keeps.

    ``made`` is what its record says of its training.
    """
    run = RunFolder(folder)
    (group,) = groups(run.scores(name, split), likelihood, run.metrics)
    measured = group.measured
    every = list(range(len(measured.knobs)))
    own = _rows(group, [[place] for place in every], measured.knobs.to_dict("records"))
    overall = _rows(group, [every], [{key: made[key] for key in _RUN if key in made}])
    if drawn and name not in (RANDOM, REFERENCE):
        _test([*own, *overall], measured, drawn)
    effects = []
    for knob in (knob for knob in axes_in(measured.knobs) if measured.knobs[knob].nunique() > 1):
        for value, places in measured.knobs.groupby(knob).indices.items():
            effects += _rows(group, [list(places)], [{"knob": knob, "value": value}])
    if measured.knobs["temperature"].isna().all():
        effects += _rows(group, [every], [{}])
    return own, effects, overall, _run(Part(measured, every)) if made else {}


def _run(whole: Part) -> dict[str, Any]:
    """What is kept of a recipe's run: its counts, and each metric by poem."""
    counts = whole.measured.counted | {"outputs": whole.outputs_per_poem}
    return counts | {name: (whole.centred(name), whole.rare(name)) for name in whole.measured.metrics}


def _recipes(runs: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], metrics: Metrics) -> pd.DataFrame:
    """A row for each recipe and split: the mean over its runs, and how far these are apart."""
    ends, rows = ("", "_low", "_high", "_tau", "_tau_low", "_tau_high"), []
    for (recipe, split), own in runs.items():
        row = {
            "recipe": recipe,
            "split": split,
            "runs": len(own),
            "poems": own[0]["poems"],
            "samples": own[0]["samples"],
        }
        for name, metric in metrics.items():
            values, rare = (np.stack(each) for each in zip(*(run[name] for run in own), strict=True))
            found = estimate(values)
            low, high = found.low, found.high
            if metric.share:  # never narrower than over poems alone, nor beyond what a share can be
                least, most = rate_interval(values.mean(axis=0), own[0]["outputs"])
                low, high = max(min(low, float(least)), 0), min(max(high, float(most)), 1)
            if (metric.rarest or metric.rare_from) and np.isnan(carrying(rare.sum(axis=0))):
                low = high = np.nan
            row |= zip(
                (name + end for end in ends), (found.value, low, high, *between_runs(values)), strict=True
            )
        rows.append(row)
    return pd.DataFrame(rows)


def _test(rows: Sequence[dict[str, Any]], measured: Measured, drawn: Mapping[str, Floats]) -> None:
    """Add p against the random baseline to the rows of all settings, adjusted for all of them, and of all together.

    The last row is of all settings together; the others may be left out. As many draws of the baseline as there are
    samples: what changes places must be as many on both sides.
    """
    for metric in carried(measured.metrics):
        parts = (Part(measured, [place]).counts(metric.name) for place in range(len(measured.knobs)))
        against = drawn[metric.name][:, : measured.samples]
        adjusted, together = corpora_tests([facing(metric, own, against) for own in parts], seed=0)
        for row, p in zip(rows, [*adjusted, together][-len(rows) :], strict=True):
            row[f"{metric.name}_p"] = float(p)


def curve(likelihood: pd.DataFrame, clusters: Mapping[str, str] = MappingProxyType({})) -> pd.DataFrame:
    """Return the references' negative log-likelihood, character by character; ``clusters`` are of examples that have one.

    A row for each checkpoint × split × group (``Task.group``) × ``position`` (1 is the first character
    of the reference): ``nll`` in nats, its interval over poems, and how many poems reach so far;
    places that fewer than half of them reach are left out.
    """
    keys = ["checkpoint", "step", "split", "group"]
    rows = []
    if "by_character" in likelihood:
        spelt = likelihood[likelihood["by_character"].map(len) > 0]
        for own, part in spelt.groupby(keys, sort=False, dropna=False):
            padded = zip(*zip_longest(*part["by_character"], fillvalue=np.nan), strict=True)
            places = np.array(list(padded), float)  # [poems, positions]
            names = np.array(
                [clusters.get(own, "") for own in part["example_id"]] if clusters else [""] * len(part)
            )
            for place, column in enumerate(places.T, 1):
                reached = column[~np.isnan(column)]
                if 2 * len(reached) >= len(column):
                    low, high = mean_interval(
                        Clusters.named(names[~np.isnan(column)].tolist()).linear(reached)
                    )
                    ends = (float(np.maximum(low, 0)), float(high))  # no likelihood is above 1
                    rows.append((*own, place, len(reached), reached.mean(), *ends))
    columns = [*keys, "position", "poems", "nll", "nll_low", "nll_high"]
    return pd.DataFrame(rows, columns=columns).astype({"step": "Int64"})


def overall(measured: Iterable[Group]) -> pd.DataFrame:
    """Return one row a group, averaged over all of its settings; each has a family of its own."""
    groups = list(measured)
    rows = [row for group in groups for row in _rows(group, [range(len(group.measured.knobs))], [{}])]
    drawn = next((_draws(group) for group in groups if group.checkpoint == RANDOM), {})
    for row, group in zip(rows, groups, strict=True):
        if drawn and group.checkpoint not in (RANDOM, REFERENCE):
            _test([row], group.measured, drawn)
    columns = measures(groups[0].measured.metrics) if groups else []
    return _frame(rows, ["checkpoint", "step", "split", *_COUNTS, *columns, "n_tokens"])


def _rows(
    group: Group, places: Sequence[Sequence[int]], labels: Sequence[Mapping[Any, Any]]
) -> list[dict[str, Any]]:
    """A row for each of ``places``: the mean over these settings, with its interval; all are of as many."""
    measured = group.measured
    parts = [Part(measured, own) for own in places]
    rows: list[dict[str, Any]] = [
        {
            "checkpoint": group.checkpoint, "step": group.step, "split": group.split, **label,
            **measured.counted, "n_tokens": part.value("n_tokens"),
        }
        for part, label in zip(parts, labels, strict=True)
    ]  # fmt: skip
    for metric in measured.metrics:
        for row, part, (low, high) in zip(rows, parts, ends(parts, metric), strict=True):
            row |= {metric: part.value(metric), f"{metric}_low": low, f"{metric}_high": high}
    return rows


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=[c for c in columns if c != "clusters" or c in frame])
    whole = [c for c in ("step", *(knob.name for knob in KNOBS if knob.type is int)) if c in frame]
    return frame.astype(dict.fromkeys(whole, "Int64")).copy()  # in one piece: there are many columns
