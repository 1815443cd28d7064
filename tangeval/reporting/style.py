"""What all pictures share: their style, colours, axes and panels.

In: frames as ``summarize`` makes them, and matplotlib's axes. Out: marks on the axes; files whose
bytes are the same for the same figure, whatever the user's matplotlibrc says. Lines are
checkpoints, pale when early and dark when late, ``base`` orange; random baseline and reference are
horizontal lines. ``pyplot`` is not used.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
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

from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics import BY_NAME
from tangeval.results.files import write_bytes

STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.labelsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#a0a0a0",
    "xtick.color": "#a0a0a0", "xtick.labelcolor": "#333333", "ytick.color": "#a0a0a0",
    "ytick.labelcolor": "#333333", "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#ececec",
    "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "tangeval",
}  # fmt: skip
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
BASELINES = {RANDOM: ("#6b6b6b", "--"), REFERENCE: ("#222222", ":")}
BASE_COLOUR = "#d55e00"
COLUMNS = 4
_LINE = 0.16  # inches a line of small text takes
_NAMED = 13  # checkpoints a legend names


@contextmanager
def style() -> Iterator[None]:
    """Draw as all pictures are drawn, and leave matplotlib as it was."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def save(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Write each (name, figure) as PNG, then SVG; return the paths."""
    paths = []
    for name, figure in figures:
        for kind, metadata in _METADATA.items():
            data = BytesIO()
            figure.savefig(data, format=kind, dpi=150, metadata=metadata)
            paths.append(folder / f"{name}.{kind}")
            write_bytes(paths[-1], data.getvalue())
    return paths


def of_checkpoints(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """The rows of one split that belong to checkpoints: base first, then by step, then value."""
    part = frame[(frame["split"] == split) & ~frame["checkpoint"].isin(BASELINES)]
    part = part.assign(_trained=part["checkpoint"] != BASE)
    return part.sort_values(["_trained", "step"], kind="stable").drop(columns="_trained")


def levels_of(frame: pd.DataFrame, split: str, metric: str) -> dict[str, float]:
    """Where random baseline and reference stand, those that have a value."""
    part = frame[(frame["split"] == split) & frame["checkpoint"].isin(BASELINES) & frame[metric].notna()]
    return {str(name): float(level) for name, level in zip(part["checkpoint"], part[metric], strict=True)}


def measured_on(part: pd.DataFrame) -> str:
    poems, samples, split = part[["poems", "samples", "split"]].iloc[0]
    return f"{poems} {split} poem{'' if poems == 1 else 's'} with {samples} sample{'' if samples == 1 else 's'} each"


def shade(age: float) -> Any:
    """The colour of a checkpoint, ``age`` 0 for the first and 1 for the last."""
    return matplotlib.colormaps["viridis"](0.82 - 0.77 * age)


def looks_of(part: pd.DataFrame) -> dict[str, tuple[Any, str]]:
    """Colour and marker of each checkpoint of ``part``, in order."""
    names = list(dict.fromkeys(part["checkpoint"]))
    trained = [name for name in names if name != BASE]
    last = max(len(trained) - 1, 1)
    shades = {name: shade(1 - (len(trained) - 1 - place) / last) for place, name in enumerate(trained)}
    return {name: (BASE_COLOUR, "s") if name == BASE else (shades[name], "o") for name in names}


def short(name: str) -> str:
    """A name that fits beside a picture: a checkpoint's folder and step, or the end of what is too long."""
    if len(name) > 20:
        name = name.replace("/checkpoint-", "/")
    return name if len(name) <= 20 else f"…{name[-19:]}"


def names_to_write(names: list[str]) -> list[str]:
    """The names to write: colours run in order, so of many checkpoints some will do."""
    every = ceil(len(names) / _NAMED)
    return [name for i, name in enumerate(names) if i == 0 or (len(names) - 1 - i) % every == 0]


def ticks(knob: str, values: Sequence[float]) -> list[str]:
    """Labels of a knob's values, at most eight of them written."""
    off = {"top_k": 0, "top_p": 1}.get(knob)
    every = ceil(len(values) / 8)
    return ["" if i % every else "off" if v == off else f"{v:g}" for i, v in enumerate(values)]


def value_and_interval(part: pd.DataFrame, metric: str) -> tuple[Any, Any, Any]:
    return tuple(part[f"{metric}{end}"].to_numpy(float) for end in ("", "_low", "_high"))  # type: ignore[return-value]


def lines(panel: Axes, part: pd.DataFrame, metric: str) -> None:
    """Draw ``metric`` against the one knob of ``part``, a line and a band a checkpoint."""
    knob = part["knob"].iloc[0]
    values = sorted(part["value"].unique(), key=lambda v: (knob == "top_k" and v == 0, v))
    looks = looks_of(part)
    for name, (colour, marker) in looks.items():
        own = part[part["checkpoint"] == name]
        x = own["value"].map(values.index).to_numpy()
        order = np.argsort(x)
        value, low, high = (ends[order] for ends in value_and_interval(own, metric))
        panel.plot(x[order], value, color=colour, marker=marker, markersize=4, label=short(name))
        panel.fill_between(x[order], low, high, color=colour, alpha=min(0.12, 0.7 / len(looks)), linewidth=0)
    panel.set_xticks(range(len(values)), ticks(knob, values))


def baselines(panel: Axes, metric: str, part: pd.DataFrame, frame: pd.DataFrame, split: str) -> None:
    """Set the y axis to what the checkpoints and random baseline reach, and draw random baseline and reference.

    Where the reference lies far off (its BLEU is 100, a model's under 1), a note says so.
    """
    levels = levels_of(frame, split, metric)
    reach = [*np.concatenate(value_and_interval(part, metric)), levels.get(RANDOM, np.nan)]
    low, high = np.nanmin(reach), np.nanmax(reach)
    span = (high - low) or abs(high) or 1.0
    far = not low - span <= levels.get(REFERENCE, low) <= high + span
    if far and not BY_NAME[metric].share:
        note = f"reference {levels.pop(REFERENCE):.3g}"
        panel.text(0.98, 0.98, note, transform=panel.transAxes, ha="right", va="top", fontsize=9)
        high += 0.15 * span
    low, high = min([low, *levels.values()]), max([high, *levels.values()])
    scale(panel, low - 0.05 * span, high + 0.05 * span, share=BY_NAME[metric].share)
    for name, level in levels.items():
        colour, dashes = BASELINES[name]
        panel.axhline(level, color=colour, linestyle=dashes, linewidth=1.3, label=f"_{name}")
    label_right(panel, [(level, name, BASELINES[name][0]) for name, level in levels.items()])


def scale(panel: Axes, low: float = 0.0, high: float = 1.0, *, share: bool) -> None:
    panel.set_ylim(*((-0.03, 1.03) if share else (low, high)))
    if share:
        panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def label_right(panel: Axes, labels: list[tuple[float, str, Any]]) -> None:
    """Write (y, text, colour) beside the right edge, pushed apart where they would overlap."""
    low, high = panel.get_ylim()
    box, size = panel.get_position(), panel.get_figure().get_size_inches()  # type: ignore[union-attr]
    gap = _LINE / (box.height * size[1])
    labels = sorted(labels, key=lambda label: label[0])
    ends = [(y - low) / (high - low) for y, _, _ in labels]
    for (_, text, colour), end, place in zip(labels, ends, _spread(ends, gap), strict=True):
        panel.annotate(
            short(text), (1, end), (1 + 0.1 / (box.width * size[0]), place),
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


def steps_apart(steps: Any, fixed: list[float]) -> list[float]:
    """Steps to label, from the last down, those left out that would run into another."""
    span = max([*steps, *fixed]) - min([*steps, *fixed])
    kept = list(fixed)
    for step in sorted(steps, reverse=True):
        if all(abs(step - other) >= 0.2 * span for other in kept):
            kept.append(float(step))
    return sorted(kept)


def panels(
    count: int, title: str, note: str, *, columns: int = COLUMNS, panel: tuple[float, float] = (2.3, 1.9),
    gap: tuple[float, float] = (1.15, 0.75), left: float = 0.6, margin: float = 0.8,
) -> tuple[Figure, list[Axes]]:  # fmt: skip
    """Return a figure with ``count`` panels, sizes in inches; ``left`` and ``margin`` are kept beside them.

    Laid out by hand: matplotlib's own layout engines take a second a picture.
    """
    columns = min(columns, count)
    rows = ceil(count / columns)
    bottom = 0.6
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
