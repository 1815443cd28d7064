"""What samples know, and the contest of samplers, for readers: tables and pictures.

In: the frames of ``analysis.headroom`` and ``analysis.families``, and the task's metrics. Out: files in ``tables/`` and
``figures/``, as those of ``tables`` and ``figures``. Knows nothing of generations or models.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tangeval.analysis.families import BUDGET, TEMPERATURE, Families
from tangeval.analysis.grid import axes_of
from tangeval.analysis.headroom import NONE, Headroom
from tangeval.metrics.base import Metric, Metrics
from tangeval.reporting import style
from tangeval.reporting.style import Sizes, label
from tangeval.reporting.tables import WHY_NONE, Section, best_settings, write_table
from tangeval.results.folder import RunFolder

_NOTE = f"A value and its 95 % interval over examples. {WHY_NONE}"
_MARKERS = "oDs^vP*X"
_COLOURS = (
    "#2a6f97", "#d55e00", "#117733", "#cc79a7", "#e69f00", "#44aa99", "#882255", "#4d4d4d", "#8c6bb1", "#b15928",
    "#999933", "#332288",
)  # fmt: skip


def write_headroom(found: Headroom, metrics: Metrics, run: RunFolder, by: str) -> None:
    """Write the tables of ``headroom`` and the picture ``best_of_SPLIT``; ``by`` ranks settings where it is known of all."""
    shown = _shown(found.reranked, metrics)
    texts = [name for name in shown if name in found.best_of]
    for name, frame, key, title in (
        ("best_of", found.best_of, "k", "Best of {} samples of each example: best settings by {}, on {}"),
        (
            "reranked",
            found.reranked,
            "rerank",
            "One sample picked of each example's ({}): best settings by {}, on {}",
        ),
    ):
        ranks = by if by in frame else texts[0]
        write_table(run.tables, name, frame, _ranked(frame, key, title, ranks, metrics), shown)
    keys = ["checkpoint", "metric", "settings", "single", "adaptive", "with_luck"]
    oracle = found.oracle.round(4)
    title = "What the best setting for each example could win over the best single one"
    write_table(run.tables, "oracle", found.oracle, [Section(title, keys, oracle, _NOTE)], ["room"])
    with matplotlib.style.context(style.STYLE, after_reset=True):
        split = found.best_of["split"].iloc[0]
        figure = best_of_figure(found, [metrics[name] for name in texts])
        style.save([(f"best_of_{split}", figure)], run.figures)


def write_families(found: Families, metrics: Metrics, run: RunFolder) -> None:
    """Write the tables of ``families`` and the picture ``families_SPLIT``."""
    values, apart = found.values, found.differences
    shown, budget = _shown(values, metrics), int(apart["budget"].iloc[0])
    where = f"{values['checkpoint'].iloc[0]} on {values['split'].iloc[0]}"
    tried, hot = (values[values["by"] == by].rename(columns={"at": by}) for by in (BUDGET, TEMPERATURE))
    sections = [
        Section(f"Best of {budget} settings of each family, {where}", ("family", "settings"), tried[tried[BUDGET] == budget], _NOTE),
        Section(f"Each family by budget, {where}", ("family", BUDGET), tried, _NOTE),
        Section(f"Each family by temperature, {where}", ("family", TEMPERATURE), hot, _NOTE),
    ]  # fmt: skip
    write_table(run.tables, "families", values, sections, shown)
    rows = apart.round(4).rename(columns={end: f"difference_{end}" for end in ("low", "high")})
    keys = ("metric", "a", "b", "value_a", "value_b", "p", "p_adjusted")
    title = f"Families at a budget of {budget} settings, {where}"
    note = "a less b, and p of resampling the examples, adjusted for all rows together."
    section = Section(title, keys, rows, f"{_NOTE} {note}")
    write_table(run.tables, "family_differences", apart, [section], ["difference"])
    with matplotlib.style.context(style.STYLE, after_reset=True):
        figure = families_figure(values, [metrics[name] for name in shown])
        style.save([(f"families_{values['split'].iloc[0]}", figure)], run.figures)


def _shown(frame: pd.DataFrame, metrics: Metrics) -> list[str]:
    """The metrics to show: the headline ones that the frame has, all of it if it has none of these."""
    names = [name for name in metrics if name in frame and frame[name].notna().any()]
    return [name for name in names if metrics[name].headline] or names


def _ranked(frame: pd.DataFrame, key: str, title: str, by: str, metrics: Metrics) -> Iterator[Section]:
    axes = axes_of(frame)
    for value, part in frame.groupby(key, sort=False):
        best = best_settings(part, by, metrics)
        heading = title.format(value, by, part["split"].iloc[0])
        yield Section(heading, ("rank", "checkpoint", *axes), best, _NOTE)


def best_of_figure(found: Headroom, metrics: Sequence[Metric]) -> Figure:
    """Return each metric against k, a line a temperature; beside the last k, what rerankers make of all samples.

    Of several checkpoints the last is drawn.
    """
    name = found.best_of["checkpoint"].iloc[-1]
    best, picked = (f[f["checkpoint"] == name] for f in (found.best_of, found.reranked))
    ways = [way for way in dict.fromkeys(picked["rerank"]) if way != NONE]
    signs = ", ".join(f"{'◆■▲'[place]} {way}" for place, way in enumerate(ways))
    note = f"A line a temperature, averaged over the other knobs. On the right one sample picked of all: {signs}."
    title = f"The best of k samples: {style.short(name)} on {best['split'].iloc[0]}"
    figure, axes = style.panels(len(metrics), title, note, Sizes(right=1.2))
    temperatures, ks = sorted(best[TEMPERATURE].unique()), sorted(best["k"].unique())
    last = max(len(temperatures) - 1, 1)
    for panel, metric in zip(axes, metrics, strict=True):
        panel.set_title(label(metric))
        names = []
        for place, temperature in enumerate(temperatures):
            colour = style.shade(1 - place / last)
            own = best[best[TEMPERATURE] == temperature].groupby("k")[metric.name].mean()
            panel.plot(range(len(ks)), own.loc[ks], "o-", color=colour, markersize=4)
            names.append((float(own.iloc[-1]), f"T {temperature:g}", colour))
            for way, marker in zip(ways, _MARKERS[1:], strict=False):
                rows = picked[(picked[TEMPERATURE] == temperature) & (picked["rerank"] == way)]
                panel.plot(len(ks) - 0.6, rows[metric.name].mean(), marker, color=colour, markersize=5)
        panel.set_xticks(range(len(ks)), [f"{k:g}" for k in ks])
        panel.set_xlabel("k")
        style.label_right(panel, names)
    return figure


def families_figure(values: pd.DataFrame, metrics: Sequence[Metric]) -> Figure:
    """Return each metric, a line a family: against the settings tried, and against temperature."""
    names = list(dict.fromkeys(values["family"]))
    looks = {name: (_COLOURS[n % len(_COLOURS)], _MARKERS[n % len(_MARKERS)]) for n, name in enumerate(names)}
    note = "Left: the best of so many settings, cross-fitted. Right: the mean over a family's settings at each temperature. "
    note += "Bands are 95 % intervals over examples, where enough of them carry a value."
    where = f"{style.short(values['checkpoint'].iloc[0])} on {values['split'].iloc[0]}"
    title = f"Families of samplers: {where}, {values['poems'].iloc[0]} examples"
    sizes = Sizes(panel=(3.4, 2.3), right=2.2)
    figure, axes = style.panels(2 * len(metrics), title, note, sizes, columns=2)
    for place, panel in enumerate(axes):
        metric, by = metrics[place // 2], (BUDGET, TEMPERATURE)[place % 2]
        part = values[values["by"] == by]
        ticks: Any = sorted(part["at"].unique())
        for name, (colour, marker) in looks.items():
            own = part[part["family"] == name].sort_values("at")
            x = np.searchsorted(ticks, own["at"])
            value, low, high = style.value_and_interval(own, metric.name)
            panel.plot(x, value, color=colour, marker=marker, markersize=4, label=name)
            panel.fill_between(x, low, high, color=colour, alpha=min(0.12, 0.7 / len(names)), linewidth=0)
        panel.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
        panel.set_title(label(metric))
        panel.set_xlabel("settings tried" if by == BUDGET else by)
    axes[1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.03))
    return figure
