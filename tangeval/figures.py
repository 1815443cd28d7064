"""The summary as pictures: what each knob does, heat maps, training, poems cut off.

In: the three frames of ``summarize``. Out: PNG and SVG, the same bytes for the same frames,
whatever the user's matplotlibrc says. Lines are checkpoints, pale when early and dark when
late, ``base`` orange; bands are the summary's 95 % intervals; floor and reference are
horizontal lines. Knows nothing of generations, models or tables; ``pyplot`` is not used.
"""

from collections.abc import Iterator, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tangeval.metrics import BY_NAME
from tangeval.metrics.aggregate import KNOBS
from tangeval.records import BASE, FLOOR, REFERENCE
from tangeval.store import write_bytes

SHOWN = ("reference_nll", "bleu", "chrf", "form", "metre", "clause_count", "punctuation", "complete")
_STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.labelsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#a0a0a0",
    "xtick.color": "#a0a0a0", "xtick.labelcolor": "#333333", "ytick.color": "#a0a0a0",
    "ytick.labelcolor": "#333333", "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#ececec",
    "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "tangeval",
}  # fmt: skip
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
_YARDSTICKS = {FLOOR: ("#6b6b6b", "--"), REFERENCE: ("#222222", ":")}
_BASE_COLOUR = "#d55e00"
_COLUMNS = 4
_LINE = 0.16  # inches a line of small text takes
_NAMED = 13  # checkpoints a legend names


def draw(
    cells: pd.DataFrame, effects: pd.DataFrame, checkpoints: pd.DataFrame, folder: Path, *, by: str = "bleu"
) -> list[Path]:
    """Draw what the frames have something to show for, each as PNG, then SVG; return the paths.

    The frames have ``summarize.Summary``'s columns; ``by`` is the metric of the first heat
    map, ``form`` that of the second. A knob needs two values to be drawn, training two
    checkpoints with a step.

    Raises:
        KeyError: ``by`` is no metric.
    """
    paths = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        for name, figure in _figures(cells, effects, checkpoints, BY_NAME[by].name):
            for kind, metadata in _METADATA.items():
                data = BytesIO()
                figure.savefig(data, format=kind, dpi=150, metadata=metadata)
                paths.append(folder / f"{name}.{kind}")
                write_bytes(paths[-1], data.getvalue())
    return paths


def _figures(
    cells: pd.DataFrame, effects: pd.DataFrame, checkpoints: pd.DataFrame, by: str
) -> Iterator[tuple[str, Figure]]:
    """Every picture's name and figure, those left out for which there is nothing to show."""
    splits = list(dict.fromkeys(checkpoints["split"]))
    values = effects.groupby(["split", "knob"])["value"].nunique()
    varied = {split: [k for k in KNOBS if values.get((split, k), 0) > 1] for split in splits}
    for knob in KNOBS:
        yield from ((f"{knob}_{s}", knob_figure(effects, knob, s)) for s in splits if knob in varied[s])
    for split in splits:
        own = _own(cells, split)
        if {"temperature", "top_p"} <= set(varied[split]):
            for metric in dict.fromkeys((by, "form")):
                if BY_NAME[metric].per_cell and own[metric].notna().any():
                    yield f"heatmap_{metric}_{split}", heatmap_figure(cells, metric, split)
        if _own(checkpoints, split)["step"].nunique() > 1:
            yield f"training_{split}", training_figure(checkpoints, split)
        if "max_length" in varied[split] and own["complete"].notna().any():
            yield f"cut_off_{split}", cut_off_figure(effects, split)


def knob_figure(effects: pd.DataFrame, knob: str, split: str) -> Figure:
    """Return each metric against ``knob``: a panel a metric, a line a checkpoint.

    Values stand at even distances; ``off`` (top-k 0, top-p 1) stands last, for it cuts least.
    """
    part = _own(effects[effects["knob"] == knob], split)
    metrics = [m for m in SHOWN if BY_NAME[m].per_cell and part[m].notna().any()]
    title = f"What {knob} does to each metric, on {_on(part)}"
    note = "Averaged over the other knobs. Bands are 95 % intervals over poems."
    figure, axes = _grid(len(metrics) + 1, title, note)
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(BY_NAME[metric].label)
        _lines(panel, part, metric)
        _yardsticks(panel, metric, part, effects, split)
        if place + _COLUMNS >= len(metrics):
            panel.set_xlabel(knob)
    axes[-1].axis("off")
    named = [_short(name) for name in _named(list(_looks(part)))]
    handles, labels = axes[0].get_legend_handles_labels()
    chosen = [handle for handle, label in zip(handles, labels, strict=True) if label in named]
    axes[-1].legend(handles=chosen, loc="upper left", borderaxespad=0)
    return figure


def training_figure(checkpoints: pd.DataFrame, split: str) -> Figure:
    """Return each metric against the training step; ``base`` stands apart at step 0."""
    part = _own(checkpoints, split)
    metrics = [m for m in SHOWN if part[m].notna().any()]
    lower = [BY_NAME[m].label.partition(" (")[0] for m in metrics if BY_NAME[m].better == "low"]
    note = (
        "Averaged over all decoding settings. Bands and bars are 95 % intervals over poems. Higher is better"
    )
    note += f", but for {' and '.join(lower)}." if lower else "."
    figure, axes = _grid(len(metrics), f"How each metric changes in training, on {_on(part)}", note)
    trained, base = part[part["step"].notna()], part[part["checkpoint"] == BASE]
    steps = trained["step"].to_numpy(float)
    ticks = _apart(steps, fixed=[0.0] if len(base) else [])
    for place, (panel, metric) in enumerate(zip(axes, metrics, strict=False)):
        panel.set_title(BY_NAME[metric].label)
        value, low, high = _interval(trained, metric)
        panel.plot(steps, value, color=_shade(1), marker="o", markersize=4)
        panel.fill_between(steps, low, high, color=_shade(1), alpha=0.15, linewidth=0)
        value, low, high = _interval(base, metric)
        panel.vlines(np.zeros(len(base)), low, high, color=_BASE_COLOUR)
        panel.plot(np.zeros(len(base)), value, "s", color=_BASE_COLOUR, markersize=6)
        panel.set_xticks(ticks, [BASE if len(base) and tick == 0 else f"{tick:g}" for tick in ticks])
        _yardsticks(panel, metric, part, checkpoints, split)
        if place + _COLUMNS >= len(metrics):
            panel.set_xlabel("training step")
    return figure


def cut_off_figure(effects: pd.DataFrame, split: str) -> Figure:
    """Return the share of poems that max_length cut off: 1 − ``complete``, a line a checkpoint."""
    part = _own(effects[effects["knob"] == "max_length"], split)
    part = part.assign(cut=1 - part["complete"], cut_low=1 - part["complete_high"])
    part["cut_high"] = 1 - part["complete_low"]
    title = f"Share of poems cut off by max_length, on {_on(part)}"
    note = "Averaged over the other knobs. Bands are 95 % intervals over poems. Lower is better."
    figure, (panel,) = _grid(1, title, note, panel=(7.5, 4.0), margin=1.8)
    _lines(panel, part, "cut")
    panel.set_xlabel("max_length: most tokens a poem may have")
    _scale(panel, share=True)
    ends = part.sort_values("value").drop_duplicates("checkpoint", keep="last").set_index("checkpoint")["cut"]
    looks = _looks(part)
    _label_right(panel, [(float(ends[name]), name, looks[name][0]) for name in _named(list(looks))])
    panel.set_xlim(right=part["value"].nunique() - 1)
    return figure


def heatmap_figure(cells: pd.DataFrame, metric: str, split: str) -> Figure:
    """Return ``metric`` over temperature × top-p, averaged over top-k and max_length.

    A panel a checkpoint, one colour scale; values are written where there are at most 8 × 8.
    """
    part = _own(cells, split)
    means = part.groupby(["checkpoint", "temperature", "top_p"])[metric].mean()
    names = list(_looks(part))
    rows, columns = sorted(part["temperature"].unique()), sorted(part["top_p"].unique())
    values = [means[name].unstack().reindex(index=rows, columns=columns).to_numpy() for name in names]
    low, high = 0.0 if BY_NAME[metric].share else np.nanmin(values), np.nanmax(values)
    high = high if high > low else low + 1
    aside = [f"{name} {level:.3g}" for name, level in _levels(cells, split, metric).items()]
    across = len(names) if len(names) <= 4 else min(5, ceil(len(names) / 2))
    figure, axes = _grid(
        len(names),
        f"How {BY_NAME[metric].label.partition(':')[0]} depends on temperature and top_p, on {_on(part)}",
        "Averaged over top_k and max_length." + f" For comparison: {', '.join(aside)}." * bool(aside),
        columns=across,
        panel=(max(1.7, 0.48 * len(columns)), max(1.2, 0.34 * len(rows))), gap=(0.5, 0.75), margin=1.2,
    )  # fmt: skip
    for panel, name, grid in zip(axes, names, values, strict=False):
        panel.set_title(_short(name))
        mesh = panel.pcolormesh(grid, vmin=low, vmax=high, cmap="viridis", edgecolors="white", linewidth=1)
        panel.set_xticks(np.arange(len(columns)) + 0.5, _ticks("top_p", columns))
        panel.set_yticks(np.arange(len(rows)) + 0.5, _ticks("temperature", rows))
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


def _own(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split that belong to checkpoints: base first, then by step, then value."""
    part = frame[(frame["split"] == split) & ~frame["checkpoint"].isin(_YARDSTICKS)]
    part = part.assign(_trained=part["checkpoint"] != BASE)
    return part.sort_values(["_trained", "step"], kind="stable").drop(columns="_trained")


def _levels(frame: pd.DataFrame, split: str, metric: str) -> dict[str, float]:
    """Where floor and reference stand, those that have a value."""
    part = frame[(frame["split"] == split) & frame["checkpoint"].isin(_YARDSTICKS) & frame[metric].notna()]
    return {str(name): float(level) for name, level in zip(part["checkpoint"], part[metric], strict=True)}


def _on(part: pd.DataFrame) -> str:
    poems, samples, split = part[["poems", "samples", "split"]].iloc[0]
    return f"{poems} {split} poem{'' if poems == 1 else 's'} with {samples} sample{'' if samples == 1 else 's'} each"


def _shade(age: float) -> Any:
    """The colour of a checkpoint, ``age`` 0 for the first and 1 for the last."""
    return matplotlib.colormaps["viridis"](0.82 - 0.77 * age)


def _looks(part: pd.DataFrame) -> dict[str, tuple[Any, str]]:
    """Colour and marker of each checkpoint of ``part``, in order."""
    names = list(dict.fromkeys(part["checkpoint"]))
    trained = [name for name in names if name != BASE]
    last = max(len(trained) - 1, 1)
    shades = {name: _shade(1 - (len(trained) - 1 - place) / last) for place, name in enumerate(trained)}
    return {name: (_BASE_COLOUR, "s") if name == BASE else (shades[name], "o") for name in names}


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"…{name[-19:]}"


def _named(names: list[str]) -> list[str]:
    """The names to write: colours run in order, so of many checkpoints some will do."""
    every = ceil(len(names) / _NAMED)
    return [name for i, name in enumerate(names) if i == 0 or (len(names) - 1 - i) % every == 0]


def _ticks(knob: str, values: Sequence[float]) -> list[str]:
    """Labels of a knob's values, at most eight of them written."""
    off = {"top_k": 0, "top_p": 1}.get(knob)
    every = ceil(len(values) / 8)
    return ["" if i % every else "off" if v == off else f"{v:g}" for i, v in enumerate(values)]


def _interval(part: pd.DataFrame, metric: str) -> tuple[Any, Any, Any]:
    return tuple(part[f"{metric}{end}"].to_numpy(float) for end in ("", "_low", "_high"))  # type: ignore[return-value]


def _lines(panel: Axes, part: pd.DataFrame, metric: str) -> None:
    """Draw ``metric`` against the one knob of ``part``, a line and a band a checkpoint."""
    knob = part["knob"].iloc[0]
    values = sorted(part["value"].unique(), key=lambda v: (knob == "top_k" and v == 0, v))
    looks = _looks(part)
    for name, (colour, marker) in looks.items():
        own = part[part["checkpoint"] == name]
        x = own["value"].map(values.index).to_numpy()
        order = np.argsort(x)
        value, low, high = (ends[order] for ends in _interval(own, metric))
        panel.plot(x[order], value, color=colour, marker=marker, markersize=4, label=_short(name))
        panel.fill_between(x[order], low, high, color=colour, alpha=min(0.12, 0.7 / len(looks)), linewidth=0)
    panel.set_xticks(range(len(values)), _ticks(knob, values))


def _yardsticks(panel: Axes, metric: str, part: pd.DataFrame, frame: pd.DataFrame, split: str) -> None:
    """Set the y axis to what the checkpoints and floor reach, and draw floor and reference.

    Where the reference lies far off (its BLEU is 100, a model's under 1), a note says so.
    """
    levels = _levels(frame, split, metric)
    reach = [*np.concatenate(_interval(part, metric)), levels.get(FLOOR, np.nan)]
    low, high = np.nanmin(reach), np.nanmax(reach)
    span = (high - low) or abs(high) or 1.0
    far = not low - span <= levels.get(REFERENCE, low) <= high + span
    if far and not BY_NAME[metric].share:
        note = f"reference {levels.pop(REFERENCE):.3g}"
        panel.text(0.98, 0.98, note, transform=panel.transAxes, ha="right", va="top", fontsize=9)
        high += 0.15 * span
    low, high = min([low, *levels.values()]), max([high, *levels.values()])
    _scale(panel, low - 0.05 * span, high + 0.05 * span, share=BY_NAME[metric].share)
    for name, level in levels.items():
        colour, dashes = _YARDSTICKS[name]
        panel.axhline(level, color=colour, linestyle=dashes, linewidth=1.3, label=f"_{name}")
    _label_right(panel, [(level, name, _YARDSTICKS[name][0]) for name, level in levels.items()])


def _scale(panel: Axes, low: float = 0.0, high: float = 1.0, *, share: bool) -> None:
    panel.set_ylim(*((-0.03, 1.03) if share else (low, high)))
    if share:
        panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def _label_right(panel: Axes, labels: list[tuple[float, str, Any]]) -> None:
    """Write (y, text, colour) beside the right edge, pushed apart where they would overlap."""
    low, high = panel.get_ylim()
    box, size = panel.get_position(), panel.get_figure().get_size_inches()  # type: ignore[union-attr]
    gap = _LINE / (box.height * size[1])
    labels = sorted(labels, key=lambda label: label[0])
    ends = [(y - low) / (high - low) for y, _, _ in labels]
    for (_, text, colour), end, place in zip(labels, ends, _spread(ends, gap), strict=True):
        panel.annotate(
            _short(text), (1, end), (1 + 0.1 / (box.width * size[0]), place),
            xycoords="axes fraction", textcoords="axes fraction", color=colour, fontsize=9, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _spread(ends: list[float], gap: float) -> list[float]:
    """The places nearest to the sorted ``ends`` that are ``gap`` apart and lie in 0–1.

    Least squares under an order (isotonic regression), by pooling neighbours that violate it.
    """
    pools: list[list[float]] = []
    for i, end in enumerate(ends):
        pools.append([end - i * gap])
        while len(pools) > 1 and np.mean(pools[-2]) > np.mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    free = [float(np.mean(pool)) for pool in pools for _ in pool]
    return [i * gap + min(max(place, 0.0), 1 - (len(ends) - 1) * gap) for i, place in enumerate(free)]


def _apart(steps: Any, fixed: list[float]) -> list[float]:
    """Steps to label, from the last down, those left out that would run into another."""
    span = max([*steps, *fixed]) - min([*steps, *fixed])
    kept = list(fixed)
    for step in sorted(steps, reverse=True):
        if all(abs(step - other) >= 0.2 * span for other in kept):
            kept.append(float(step))
    return sorted(kept)


def _grid(
    count: int, title: str, note: str, *, columns: int = _COLUMNS, panel: tuple[float, float] = (2.3, 1.9),
    gap: tuple[float, float] = (1.15, 0.75), margin: float = 0.8,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Return a figure with ``count`` panels, sizes in inches; ``margin`` is kept at its right.

    Laid out by hand: matplotlib's own layout engines take a second a picture.
    """
    columns = min(columns, count)
    rows = ceil(count / columns)
    left, bottom = 0.6, 0.6
    used = left + columns * panel[0] + (columns - 1) * gap[0]
    width = max(used + margin, 6.0)  # room for the title
    heading, remark = wrap(title, int(width * 9)), wrap(note, int(width * 12.5))
    top = 0.5 + 0.24 * len(heading) + 0.18 * len(remark)
    height = bottom + rows * panel[1] + (rows - 1) * gap[1] + top
    figure = Figure(figsize=(width, height))
    room = {
        "left": left / width, "right": used / width, "bottom": bottom / height, "top": 1 - top / height,
        "wspace": gap[0] / panel[0], "hspace": gap[1] / panel[1],
    }  # fmt: skip
    axes = list(figure.subplots(rows, columns, squeeze=False, gridspec_kw=room).flat)
    for spare in axes[count:]:
        spare.remove()
    x, y = 0.15 / width, 1 - 0.15 / height
    figure.text(x, y, "\n".join(heading), fontsize=13, fontweight="bold", va="top")
    y -= (0.24 * len(heading) + 0.02) / height
    figure.text(x, y, "\n".join(remark), fontsize=10, color="#555555", va="top")
    return figure, axes[:count]
