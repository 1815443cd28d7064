"""The summary as pictures: what each knob does, heat maps, training, checkpoints, poems cut off.

In: the three frames of ``summarize``. Out: PNG and SVG, in the manner of ``canvas``; bands are the
summary's 95 % intervals. Knows nothing of generations, models or tables.
"""

from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tangeval.core.knobs import AXES
from tangeval.core.types import BASE
from tangeval.metrics import BY_NAME
from tangeval.reporting.style import (
    BASE_COLOUR,
    BASELINES,
    COLUMNS,
    baselines,
    label_right,
    levels_of,
    lines,
    looks_of,
    measured_on,
    names_to_write,
    of_checkpoints,
    panels,
    save,
    scale,
    shade,
    short,
    steps_apart,
    style,
    ticks,
    value_and_interval,
)

#: Of runs, the longest run's last, and the same signs in a text; the square is base's.
_MARKERS = (("v", "▼"), ("^", "▲"), ("D", "◆"), ("o", "●"))
SHOWN = (
    "reference_nll", "bleu", "chrf", "form", "line_length", "punctuation", "complete", "length_match", "rhyme",
    "tone_opposition", "self_bleu", "copied_clauses",
)  # fmt: skip


def draw(
    settings: pd.DataFrame,
    effects: pd.DataFrame,
    checkpoints: pd.DataFrame,
    folder: Path,
    *,
    by: str = "bleu",
) -> list[Path]:
    """Draw what the frames have something to show for, each as PNG, then SVG; return the paths.

    The frames have ``summarize.Summary``'s columns; ``by`` is the metric of the first heat
    map, ``form`` that of the second. A knob needs two values to be drawn, training two
    checkpoints with a step.

    Raises:
        KeyError: ``by`` is no metric.
    """
    with style():
        return save(_figures(settings, effects, checkpoints, BY_NAME[by].name), folder)


def _figures(
    settings: pd.DataFrame, effects: pd.DataFrame, checkpoints: pd.DataFrame, by: str
) -> Iterator[tuple[str, Figure]]:
    """Every picture's name and figure, those left out for which there is nothing to show."""
    splits = list(dict.fromkeys(checkpoints["split"]))
    values = effects.groupby(["split", "knob"])["value"].nunique()
    varied = {split: [k for k in AXES if values.get((split, k), 0) > 1] for split in splits}
    for knob in AXES:
        yield from ((f"{knob}_{s}", knob_figure(effects, knob, s)) for s in splits if knob in varied[s])
    for split in splits:
        own = of_checkpoints(settings, split)
        if {"temperature", "top_p"} <= set(varied[split]):
            for metric in dict.fromkeys((by, "form")):
                if BY_NAME[metric].per_setting and own[metric].notna().any():
                    yield f"heatmap_{metric}_{split}", heatmap_figure(settings, metric, split)
        if of_checkpoints(checkpoints, split)["step"].nunique() > 1:
            yield f"training_{split}", training_figure(checkpoints, split)
        if own["checkpoint"].str.rpartition("/")[0][own["step"].notna()].nunique() > 1:
            yield f"checkpoints_{split}", checkpoints_figure(checkpoints, split)
        if "max_length" in varied[split] and own["complete"].notna().any():
            yield f"cut_off_{split}", cut_off_figure(effects, split)


def knob_figure(effects: pd.DataFrame, knob: str, split: str) -> Figure:
    """Return each metric against ``knob``: a panel a metric, a line a checkpoint.

    Values stand at even distances; ``off`` (top-k 0, top-p 1) stands last, for it cuts least.
    """
    part = of_checkpoints(effects[effects["knob"] == knob], split)
    metrics = [m for m in SHOWN if BY_NAME[m].per_setting and part[m].notna().any()]
    title = f"What {knob} does to each metric, on {measured_on(part)}"
    note = f"{_averaged(effects, knob, split)}Bands are 95 % intervals over poems."
    figure, axes = panels(len(metrics) + 1, title, note)
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(BY_NAME[metric].label)
        lines(panel, part, metric)
        baselines(panel, metric, part, effects, split)
        if place + COLUMNS >= len(metrics):
            panel.set_xlabel(knob)
    axes[-1].axis("off")
    named = [short(name) for name in names_to_write(list(looks_of(part)))]
    handles, labels = axes[0].get_legend_handles_labels()
    chosen = [handle for handle, label in zip(handles, labels, strict=True) if label in named]
    axes[-1].legend(handles=chosen, loc="upper left", borderaxespad=0)
    return figure


def _averaged(effects: pd.DataFrame, knob: str, split: str) -> str:
    """What a value is averaged over: the other knobs, where one of them varies."""
    others = effects[(effects["split"] == split) & (effects["knob"] != knob)]
    varied = (others.groupby("knob")["value"].nunique() > 1).any()
    return "Averaged over the other knobs. " if varied else ""


def training_figure(checkpoints: pd.DataFrame, split: str) -> Figure:
    """Return each metric against the training step, a line a run; ``base`` stands apart at step 0."""
    part = of_checkpoints(checkpoints, split)
    metrics = [m for m in SHOWN if part[m].notna().any()]
    trained, base = part[part["step"].notna()], part[part["checkpoint"] == BASE]
    runs = _runs(trained)
    looks = [
        (shade(1 - old / len(runs)), *_MARKERS[-1 - old % len(_MARKERS)])
        for old in reversed(range(len(runs)))
    ]
    note = f"Averaged over all decoding settings. Bands and bars are 95 % intervals over poems. {_better(metrics)}"
    if len(runs) > 1:
        keys = (f"{sign} {name}" for name, (_, _, sign) in zip(runs, looks, strict=True))
        note += f" Runs: {', '.join(keys)}."
    figure, axes = panels(len(metrics), f"How each metric changes in training, on {measured_on(part)}", note)
    ticks = steps_apart(trained["step"].to_numpy(float), fixed=[0.0] if len(base) else [])
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(BY_NAME[metric].label)
        for (name, run), (colour, marker, _) in zip(runs.items(), looks, strict=True):
            steps, (value, low, high) = run["step"].to_numpy(float), value_and_interval(run, metric)
            panel.plot(steps, value, color=colour, marker=marker, markersize=4, label=name)
            if len(run) > 1:
                panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
            else:
                panel.vlines(steps, low, high, color=colour)
        value, low, high = value_and_interval(base, metric)
        panel.vlines(np.zeros(len(base)), low, high, color=BASE_COLOUR)
        panel.plot(np.zeros(len(base)), value, "s", color=BASE_COLOUR, markersize=6)
        panel.set_xticks(ticks, [BASE if len(base) and tick == 0 else f"{tick:g}" for tick in ticks])
        baselines(panel, metric, part, checkpoints, split)
        if place + COLUMNS >= len(metrics):
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


def _better(metrics: list[str]) -> str:
    lower = [BY_NAME[m].label.partition(" (")[0] for m in metrics if BY_NAME[m].better == "low"]
    *first, last = lower or [""]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"Higher is better, but for {listed}." if lower else "Higher is better."


def checkpoints_figure(checkpoints: pd.DataFrame, split: str) -> Figure:
    """Return the checkpoints one below the other, with each metric's value and interval: for runs side by side."""
    part = of_checkpoints(checkpoints, split)
    metrics = [m for m in SHOWN if part[m].notna().any()]
    note = f"Averaged over all decoding settings. Bars are 95 % intervals over poems. {_better(metrics)}"
    note += " Dashed: random training poems; dotted: the poets' own endings, where they are near."
    figure, axes = panels(
        len(metrics), f"The checkpoints side by side, on {measured_on(part)}", note,
        panel=(2.2, 0.22 * len(part) + 0.2), gap=(0.35, 0.85), left=1.9,
    )  # fmt: skip
    looks, rows = looks_of(part), np.arange(len(part))
    folders = part["checkpoint"].str.rpartition("/")[0]
    alone = folders.ne("") & ~folders.duplicated(keep=False)
    names = [short(name) for name in part["checkpoint"].where(~alone, folders)]
    colours = [looks[name][0] for name in part["checkpoint"]]
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(BY_NAME[metric].label)
        value, low, high = value_and_interval(part, metric)
        panel.hlines(rows, low, high, color=colours)
        panel.scatter(value, rows, color=colours, s=18, zorder=3)
        if BY_NAME[metric].share:
            panel.set_xlim(-0.03, 1.03)
        edges = panel.get_xlim()
        for name, level in levels_of(checkpoints, split, metric).items():
            if edges[0] <= level <= edges[1]:
                colour, dashes = BASELINES[name]
                panel.axvline(level, color=colour, linestyle=dashes, zorder=1)
        panel.set_yticks(rows if place % COLUMNS == 0 else [], names if place % COLUMNS == 0 else [])
        panel.invert_yaxis()
        panel.grid(visible=True, axis="x")
        panel.grid(visible=False, axis="y")
    return figure


def cut_off_figure(effects: pd.DataFrame, split: str) -> Figure:
    """Return the share of poems that max_length cut off: 1 − ``complete``, a line a checkpoint."""
    part = of_checkpoints(effects[effects["knob"] == "max_length"], split)
    part = part.assign(cut=1 - part["complete"], cut_low=1 - part["complete_high"])
    part["cut_high"] = 1 - part["complete_low"]
    title = f"Share of poems cut off by max_length, on {measured_on(part)}"
    note = f"{_averaged(effects, 'max_length', split)}Bands are 95 % intervals over poems. Lower is better."
    figure, (panel,) = panels(1, title, note, panel=(7.5, 4.0), margin=1.8)
    lines(panel, part, "cut")
    panel.set_xlabel("max_length: most tokens a poem may have")
    scale(panel, share=True)
    ends = part.sort_values("value").drop_duplicates("checkpoint", keep="last").set_index("checkpoint")["cut"]
    looks = looks_of(part)
    label_right(panel, [(float(ends[name]), name, looks[name][0]) for name in names_to_write(list(looks))])
    panel.set_xlim(right=part["value"].nunique() - 1)
    return figure


def heatmap_figure(settings: pd.DataFrame, metric: str, split: str) -> Figure:
    """Return ``metric`` over temperature × top-p, averaged over top-k and max_length.

    A panel a checkpoint, one colour scale; values are written where there are at most 8 × 8.
    """
    part = of_checkpoints(settings, split)
    means = part.groupby(["checkpoint", "temperature", "top_p"])[metric].mean()
    names = list(looks_of(part))
    rows, columns = sorted(part["temperature"].unique()), sorted(part["top_p"].unique())
    values = [means[name].unstack().reindex(index=rows, columns=columns).to_numpy() for name in names]
    low, high = 0.0 if BY_NAME[metric].share else np.nanmin(values), np.nanmax(values)
    high = high if high > low else low + 1
    aside = [f"{name} {level:.3g}" for name, level in levels_of(settings, split, metric).items()]
    across = len(names) if len(names) <= 4 else min(5, ceil(len(names) / 2))
    figure, axes = panels(
        len(names),
        f"How {BY_NAME[metric].label.partition(':')[0]} depends on temperature and top_p, on {measured_on(part)}",
        "Averaged over top_k and max_length." + f" For comparison: {', '.join(aside)}." * bool(aside),
        columns=across,
        panel=(max(1.7, 0.48 * len(columns)), max(1.2, 0.34 * len(rows))), gap=(0.5, 0.75), margin=1.2,
    )  # fmt: skip
    for panel, name, grid in zip(axes, names, values, strict=False):
        panel.set_title(short(name))
        mesh = panel.pcolormesh(grid, vmin=low, vmax=high, cmap="viridis", edgecolors="white", linewidth=1)
        panel.set_xticks(np.arange(len(columns)) + 0.5, ticks("top_p", columns))
        panel.set_yticks(np.arange(len(rows)) + 0.5, ticks("temperature", rows))
        panel.grid(False)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
        panel.set_xlabel("top_p")
        for (y, x), value in np.ndenumerate(grid if max(grid.shape) <= 8 else grid[:0]):
            ink = "white" if (value - low) < 0.6 * (high - low) else "black"
            panel.text(x + 0.5, y + 0.5, f"{value:.2f}", color=ink, ha="center", va="center", fontsize=9)
    for panel in axes[::across]:
        panel.set_ylabel("temperature")
    inch, box = 1 / figure.get_figwidth(), axes[across - 1].get_position()
    bar = figure.add_axes((box.x1 + 0.25 * inch, box.y0, 0.16 * inch, box.height))
    figure.colorbar(mesh, cax=bar).outline.set_visible(False)
    return figure
