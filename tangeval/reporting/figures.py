"""The summary as figures: each knob's effect, heat maps, training, checkpoints, variance, likelihood by place.

In: the frames of ``summarize`` and ``variance``, and the task's metrics. Out: PNG and SVG, in the
style of ``style``; bands are the summary's 95 % intervals. Knows nothing of generations, models or tables.
"""

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tangeval.analysis.summarize import Summary
from tangeval.analysis.variance import ONE_SAMPLE
from tangeval.core.knobs import AXES, COMMON, KNOB
from tangeval.core.types import BASE
from tangeval.metrics.base import Metric, Metrics
from tangeval.reporting import style
from tangeval.reporting.style import Sizes, brief, label
from tangeval.reporting.tables import measured_on

#: Of runs, the longest run's last, and the same signs in a text; the square is base's.
_MARKERS = (("v", "▼"), ("^", "▲"), ("D", "◆"), ("o", "●"))
#: Examples below which a mean of nats has no band: so few say nothing of its tail.
BANDED = 10
_INTERVALS = "are 95 % intervals over examples, where enough of them carry a value"
#: Colours of the variance figure: dark for what one chooses, green for the examples, grey for noise.
_CHOICES = ("#2a6f97", "#d55e00", "#e69f00", "#cc79a7", "#8c6bb1", "#117733", "#882255", "#44aa99")
_OTHERS = {
    "interactions": "#4d4d4d", "poem": "#9bc59d", "poem × setting": "#c9e0c4", ONE_SAMPLE: "#d5ddd2",
    "noise": "#bdbdbd", "noise × setting": "#e3e3e3",
}  # fmt: skip


def draw(summary: Summary, variance: pd.DataFrame, metrics: Metrics, folder: Path, *, by: str) -> list[Path]:
    """Draw what the frames have something to show for, each as PNG, then SVG; return the paths.

    ``by`` is the metric of the heat map. A knob needs two values to be drawn, training two
    checkpoints with a step.
    """
    shown = [metric for metric in metrics.values() if metric.headline]
    with matplotlib.style.context(style.STYLE, after_reset=True):
        return style.save(figures_of(summary, variance, shown, metrics[by]), folder)


def draw_front(front: pd.DataFrame, metrics: list[Metric], folder: Path) -> list[Path]:
    """Draw ``front_SPLIT`` of a frame as ``analysis.front`` returns it, as PNG, then SVG; return the paths."""
    with matplotlib.style.context(style.STYLE, after_reset=True):
        return style.save([(f"front_{front['split'].iloc[0]}", front_figure(front, metrics))], folder)


def front_figure(front: pd.DataFrame, metrics: list[Metric]) -> Figure:
    """Return every setting by the first two metrics: filled on the front, open if not told from it, small if dominated.

    A third metric is the colour. Of two metrics alone the front is a line.
    """
    best, worse = front["on_front"] == 1, front["dominated_by"].notna()
    x, y, *more = metrics
    title = f"{', '.join(map(brief, metrics))} at once, on {front['split'].iloc[0]}"
    note = "Filled: none beats it in all of them. Open: cannot be told from those. Small: shown to be worse in each than one. "
    figure, (panel,) = style.panels(1, title, note + _better(metrics), Sizes(panel=(5.4, 3.6), right=1.6))
    colours: Any = np.array([matplotlib.colors.to_rgba(style.shade(1))] * len(front))
    if more:
        scale = matplotlib.cm.ScalarMappable(cmap="viridis")
        colours = scale.to_rgba(front[more[0].name].to_numpy())
        box, inch = panel.get_position(), 1 / figure.get_figwidth()
        bar = figure.colorbar(
            scale, cax=figure.add_axes((box.x1 + 0.3 * inch, box.y0, 0.16 * inch, box.height))
        )
        bar.set_label(brief(more[0]))
    else:
        line = front[best].sort_values([x.name, y.name])
        panel.plot(line[x.name], line[y.name], color="#a0a0a0", linewidth=1, zorder=1)
    untold = ~best & ~worse
    panel.scatter(front[x.name][worse], front[y.name][worse], s=7, color="#bdbdbd")
    panel.scatter(
        front[x.name][untold], front[y.name][untold], s=26, facecolors="none", edgecolors=colours[untold]
    )
    panel.scatter(front[x.name][best], front[y.name][best], s=34, color=colours[best])
    panel.set_xlabel(label(x))
    panel.set_ylabel(label(y))
    return figure


def figures_of(
    summary: Summary, variance: pd.DataFrame, shown: list[Metric], by: Metric
) -> Iterator[tuple[str, Figure]]:
    """Yield the name and figure of each that has something to show."""
    settings, effects, checkpoints = summary.settings, summary.effects, summary.checkpoints
    values = effects.groupby(["split", "knob"])["value"].nunique()
    for split in dict.fromkeys(checkpoints["split"]):
        varied = [knob for knob in AXES if values.get((split, knob), 0) > 1]
        yield from ((f"{knob}_{split}", knob_figure(effects, knob, split, shown)) for knob in varied)
        own = style.of_checkpoints(settings, split)
        scales, cuts = ([k for k in varied if KNOB[k].kind == kind] for kind in ("scale", "cut"))
        if scales and cuts and by.per_setting and own[by.name].notna().any():
            yield f"heatmap_{by.name}_{split}", heatmap_figure(settings, by, split, (scales[0], cuts[-1]))
        if style.of_checkpoints(checkpoints, split)["step"].nunique() > 1:
            yield f"training_{split}", training_figure(checkpoints, split, shown)
    for split in dict.fromkeys(variance["split"]):
        yield f"variance_{split}", variance_figure(variance, split, shown)
    for split in dict.fromkeys(summary.curve["split"]):
        yield f"likelihood_{split}", likelihood_figure(summary.curve, split)


def _measured(part: pd.DataFrame, shown: list[Metric]) -> list[Metric]:
    return [metric for metric in shown if part[metric.name].notna().any()]


def knob_figure(effects: pd.DataFrame, knob: str, split: str, shown: list[Metric]) -> Figure:
    """Return each metric against ``knob``: a panel a metric, a line a checkpoint.

    Values stand at even distances; ``off`` stands last, for it cuts least.
    """
    part = style.of_checkpoints(effects[effects["knob"] == knob], split)
    metrics = [metric for metric in _measured(part, shown) if metric.per_setting]
    others = effects[(effects["split"] == split) & (effects["knob"] != knob)]
    averaged = (others.groupby("knob")["value"].nunique() > 1).any()
    note = "Averaged over the other knobs. " * bool(averaged) + f"Bands {_INTERVALS}."
    title = f"What {knob} does to each metric, on {measured_on(part)}"
    figure, axes = style.panels(len(metrics) + 1, title, note)
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(label(metric))
        style.lines(panel, part, metric)
        style.baselines(panel, metric, part, effects)
        if place + style.COLUMNS >= len(metrics):
            panel.set_xlabel(knob)
    axes[-1].axis("off")
    named = [style.short(name) for name in style.names_to_write(list(style.looks_of(part)))]
    handles, labels = axes[0].get_legend_handles_labels()
    chosen = [handle for handle, name in zip(handles, labels, strict=True) if name in named]
    axes[-1].legend(handles=chosen, loc="upper left", borderaxespad=0)
    return figure


def training_figure(checkpoints: pd.DataFrame, split: str, shown: list[Metric]) -> Figure:
    """Return each metric against the training step, a line a run; ``base`` stands apart at step 0."""
    part = style.of_checkpoints(checkpoints, split)
    metrics = _measured(part, shown)
    trained, base = part[part["step"].notna()], part[part["checkpoint"] == BASE]
    runs = _runs(trained)
    ages = reversed(range(len(runs)))
    looks = [(style.shade(1 - age / len(runs)), *_MARKERS[-1 - age % len(_MARKERS)]) for age in ages]
    note = f"Averaged over all decoding settings. Bands and bars {_INTERVALS}. {_better(metrics)}"
    if len(runs) > 1:
        keys = (f"{sign} {name}" for name, (_, _, sign) in zip(runs, looks, strict=True))
        note += f" Runs: {', '.join(keys)}."
    if apart := [name for name in part.loc[part["step"].isna(), "checkpoint"] if name != BASE]:
        note += f" Without a step, and not drawn: {', '.join(apart)}."
    title = f"How each metric changes in training, on {measured_on(part)}"
    figure, axes = style.panels(len(metrics), title, note)
    labelled = style.steps_apart(trained["step"].to_numpy(float), fixed=[0.0] if len(base) else [])
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(label(metric))
        for (name, run), (colour, marker, _) in zip(runs.items(), looks, strict=True):
            steps = run["step"].to_numpy(float)
            value, low, high = style.value_and_interval(run, metric.name)
            panel.plot(steps, value, color=colour, marker=marker, markersize=4, label=name)
            if len(run) > 1:
                panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                panel.vlines(steps, low, high, color=colour)
        value, low, high = style.value_and_interval(base, metric.name)
        panel.vlines(np.zeros(len(base)), low, high, color=style.BASE_COLOUR)
        panel.plot(np.zeros(len(base)), value, "s", color=style.BASE_COLOUR, markersize=6)
        panel.set_xticks(labelled, [BASE if len(base) and step == 0 else f"{step:g}" for step in labelled])
        style.baselines(panel, metric, part, checkpoints)
        if place + style.COLUMNS >= len(metrics):
            panel.set_xlabel("training step")
    return figure


def _runs(trained: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The checkpoints of each folder, by the folder's name or the checkpoints'; the longest run stands last."""
    folders = trained.groupby(trained["checkpoint"].str.rpartition("/")[0])
    named = {}
    for folder, own in sorted(folders, key=lambda pair: (len(pair[1]), pair[1]["step"].max())):
        first, last = own["checkpoint"].iloc[[0, -1]]
        named[folder or (first if first == last else f"{first} to {last.rpartition('-')[2]}")] = own
    return named


def _better(metrics: list[Metric]) -> str:
    *first, last = [brief(metric) for metric in metrics if metric.better == "low"] or [""]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"Higher is better, except for {listed}." if last else "Higher is better."


def heatmap_figure(settings: pd.DataFrame, metric: Metric, split: str, knobs: tuple[str, str]) -> Figure:
    """Return ``metric`` over two knobs, upward and across, averaged over the others.

    A panel a checkpoint, one colour scale, light is high; values are written where there are at most 8 × 8.
    """
    part = style.of_checkpoints(settings, split)
    means = part.groupby(["checkpoint", *knobs])[metric.name].mean()
    names = list(style.looks_of(part))
    rows, columns = (KNOB[knob].by_strength(part[knob].unique()) for knob in knobs)
    values = [means[name].unstack().reindex(index=rows, columns=columns).to_numpy() for name in names]
    low, high = 0.0 if metric.share else np.nanmin(values), np.nanmax(values)
    high = high if high > low else low + 1
    aside = [f"{name} {level:.3g}" for name, level in style.levels_of(settings, split, metric).items()]
    across = len(names) if len(names) <= 4 else min(5, ceil(len(names) / 2))
    size = (max(1.7, 0.48 * len(columns)), max(1.2, 0.34 * len(rows)))
    title = f"How {brief(metric)} depends on {' and '.join(knobs)}, on {measured_on(part)}"
    note = "Averaged over the other knobs." + f" For comparison: {', '.join(aside)}." * bool(aside)
    sizes = Sizes(panel=size, gap=(0.5, 0.75), right=1.2)
    figure, axes = style.panels(len(names), title, note, sizes, across)
    for panel, name, grid in zip(axes, names, values, strict=False):
        panel.set_title(style.short(name))
        mesh = panel.pcolormesh(grid, vmin=low, vmax=high, cmap="viridis", edgecolors="white", linewidth=1)
        panel.set_xticks(np.arange(len(columns)) + 0.5, style.ticks(knobs[1], columns))
        panel.set_yticks(np.arange(len(rows)) + 0.5, style.ticks(knobs[0], rows))
        panel.grid(False)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_xlabel(knobs[1])
        for (y, x), value in np.ndenumerate(grid if max(grid.shape) <= 8 else grid[:0]):
            ink = style.ink_on(mesh.cmap(mesh.norm(value)))
            panel.text(x + 0.5, y + 0.5, f"{value:.2f}", color=ink, ha="center", va="center", fontsize=9)
    for panel in axes[::across]:
        panel.set_ylabel(knobs[0])
    inch, box = 1 / figure.get_figwidth(), axes[across - 1].get_position()
    bar = figure.add_axes((box.x1 + 0.25 * inch, box.y0, 0.16 * inch, box.height))
    figure.colorbar(mesh, cax=bar).outline.set_visible(False)
    return figure


def variance_figure(variance: pd.DataFrame, split: str, shown: list[Metric]) -> Figure:
    """Return each metric's components of variance as one bar, divided by their shares."""
    part = variance[variance["split"] == split]
    chosen = ["checkpoint", *sorted(AXES, key=lambda axis: axis not in COMMON)]
    named = [term for term in chosen if term in ("checkpoint", *COMMON) or (part["term"] == term).any()]
    colours = dict(zip(named, _CHOICES, strict=False)) | _OTHERS
    terms = part["term"].where(part["term"].isin(colours), "interactions")
    shares = part.assign(term=terms).groupby(["metric", "term"])["share"].sum().unstack(fill_value=0)
    metrics = [metric for metric in shown if metric.name in shares.index][::-1]
    rows = range(len(metrics))
    title = f"Where the variance of a generation's score lies, on {split}"
    note = "Components of variance. Dark: what one chooses; 'interactions' are of two choices or more. Green: the "
    note += "example; more examples make it count less. Grey: noise; so do more examples, and more samples."
    sizes = Sizes(panel=(6.5, 0.36 * len(metrics) + 0.3), left=2.2, right=2.3)
    figure, (panel,) = style.panels(1, title, note, sizes)
    left = np.zeros(len(metrics))
    for term, colour in ((term, colour) for term, colour in colours.items() if term in shares):
        width = shares.loc[[metric.name for metric in metrics], term].to_numpy()
        panel.barh(rows, width, left=left, color=colour, label=term.replace("poem", "example"), height=0.72)
        ink = style.ink_on(colour)
        for place, (share, begin) in enumerate(zip(width, left, strict=True)):
            if share >= 0.06:
                middle = begin + share / 2
                panel.text(middle, place, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=8)
        left += width
    panel.set_yticks(rows, [brief(metric) for metric in metrics])
    panel.set_xlim(0, 1)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    panel.grid(False)
    panel.tick_params(axis="y", length=0)
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), handlelength=1, handleheight=1)
    return figure


def likelihood_figure(curve: pd.DataFrame, split: str) -> Figure:
    """Return nats of the reference's characters against their place, a panel for each group of examples.

    A group that is a number is the length of its lines.
    """
    part = style.of_checkpoints(curve, split)
    groups = sorted(part["group"].astype(str).unique())
    counts = part[part["position"] == 1].drop_duplicates("group").set_index("group")["poems"]
    title = f"Negative log-likelihood of the reference, character by character, on {split}"
    note = "Nats of each character, given all before it; marks left out. A gap stands between lines. "
    note += f"Bands are 95 % intervals over examples, of {BANDED} or more. Lower is better."
    sizes = Sizes(panel=(7.5, 2.4), right=1.6)
    figure, axes = style.panels(len(groups), title, note, sizes, columns=1)
    looks = style.looks_of(part)
    for panel, group in zip(axes, groups, strict=True):
        own = part[part["group"] == group].sort_values("position")
        longest = int(own["position"].max())
        length = int(group) if group.isdecimal() else longest
        shape = f"{group} characters a line" if group.isdecimal() else group
        panel.set_title(f"{shape}: {counts[group]} examples")
        for name, (colour, _) in looks.items():
            line = own[own["checkpoint"] == name]
            for _, stroke in line.groupby((line["position"] - 1) // length):
                panel.plot(stroke["position"], stroke["nll"], color=colour, marker="o", markersize=3)
                many = stroke[stroke["poems"] >= BANDED]
                ends, alpha = (many["nll_low"], many["nll_high"]), min(0.12, 0.7 / len(looks))
                panel.fill_between(many["position"], *ends, color=colour, alpha=alpha, linewidth=0)
        begins = range(1, longest + 1, length)
        panel.set_xticks(begins, [f"line {number}" for number in range(1, len(begins) + 1)])
        panel.set_xlim(0.5, longest + 0.5)
        panel.set_ylabel("nats")
        last = own.drop_duplicates("checkpoint", keep="last").set_index("checkpoint")["nll"]
        written = [name for name in style.names_to_write(list(looks)) if name in last]
        style.label_right(panel, [(float(last[name]), name, looks[name][0]) for name in written])
    return figure
