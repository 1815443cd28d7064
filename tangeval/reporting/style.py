"""What all figures share: style, colours, axes and panels.

In: frames as ``summarize`` makes them, and matplotlib's axes. Out: marks on the axes; files whose
bytes are the same for the same figure, whatever the user's matplotlibrc says. Texts are drawn as they are: no mathtext, and a font that has their
characters. Lines are
checkpoints, ochre when early and blue when late, ``base`` grey; the baselines are horizontal
lines. ``pyplot`` is not used. Knows nothing of tasks: a metric is what its ``Metric`` says.
"""

import warnings
from collections.abc import Iterable, Sequence
from functools import lru_cache
from io import BytesIO
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager, get_font
from matplotlib.text import Text
from scipy.optimize import isotonic_regression

from tangeval.core.knobs import KNOB
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.core.untrusted import inert
from tangeval.metrics.base import Metric
from tangeval.reporting.looks import COLOURS, DASHES
from tangeval.results.files import write_bytes

STYLE: dict[Any, Any] = {
    "font.size": 10, "axes.titlesize": 10, "axes.titlelocation": "left", "axes.labelsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#a0a0a0",
    "xtick.color": "#a0a0a0", "xtick.labelcolor": "#333333", "ytick.color": "#a0a0a0",
    "ytick.labelcolor": "#333333", "axes.grid": True, "axes.grid.axis": "y", "grid.color": "#ececec",
    "axes.axisbelow": True, "svg.fonttype": "none", "svg.hashsalt": "tangeval",
    "text.parse_math": False,
}  # fmt: skip
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
BASELINES = {RANDOM: ("#6b6b6b", DASHES[RANDOM]), REFERENCE: ("#222222", DASHES[REFERENCE])}
BASE_COLOUR = COLOURS["base"]
COLUMNS = 4
_LINE = 0.16  # inches a line of small text takes
_NAMED = 13  # checkpoints a legend names


class Sizes(NamedTuple):
    """Of panels, in inches: each panel, the gaps between them, and what is kept on the left and right."""

    panel: tuple[float, float] = (2.3, 1.9)
    gap: tuple[float, float] = (1.15, 0.75)
    left: float = 0.6
    right: float = 0.8


_SIZES = Sizes()


def save(figures: Iterable[tuple[str, Figure]], folder: Path) -> list[Path]:
    """Write each (name, figure) as PNG, then SVG; return the paths."""
    paths = []
    for name, figure in figures:
        _make_plain(figure)
        for kind, metadata in _METADATA.items():
            data = BytesIO()
            with (
                warnings.catch_warnings()
            ):  # a box for each character that no font has: `tangeval doctor` says so
                warnings.filterwarnings("ignore", message="Glyph .* missing from")
                figure.savefig(data, format=kind, dpi=150, metadata=metadata)
            paths.append(folder / f"{name}.{kind}")
            write_bytes(paths[-1], data.getvalue())
    return paths


@lru_cache
def chinese_font() -> str | None:
    """Return the name of an installed font with Chinese characters; None if there is none.

    Of several a regular one without serifs. matplotlib's own list of fonts may be older than the font.
    """
    named = [
        (any(w in file.lower() for w in ("bold", "black", "light", "thin")), "sans" not in file.lower(), file)
        for file in findSystemFonts()
    ]
    for *_, file in sorted(named):
        try:
            font = get_font(file)
            if all(map(font.get_char_index, map(ord, "詩诗"))):
                fontManager.addfont(file)
                return font.family_name
        except (OSError, RuntimeError, ValueError):  # a file that FreeType cannot read
            continue
    return None


@lru_cache
def chinese_bold() -> bool:
    """Return whether ``chinese_font`` is installed in bold too."""
    for file in findSystemFonts():
        try:
            if "bold" in Path(file).stem.lower() and get_font(file).family_name == chinese_font():
                fontManager.addfont(file)
                return True
        except (OSError, RuntimeError, ValueError):
            continue
    return False


def is_chinese(text: str) -> bool:
    """Return whether a text has characters that need ``chinese_font``."""
    return any(character >= "\u2e80" for character in text)


def _make_plain(figure: Figure) -> None:
    """Make each text of a figure one that steers nothing, and give those with Chinese characters a font that has them."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(inert(text.get_text()))
        if is_chinese(text.get_text()) and (font := chinese_font()):
            text.set_fontfamily(["DejaVu Sans", font])


def label(metric: Metric) -> str:
    return metric.label["en"]


def brief(metric: Metric) -> str:
    """Return a metric's label without its unit or explanation."""
    return label(metric).partition(" (")[0].partition(":")[0]


def of_checkpoints(frame: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of one split that belong to checkpoints: base first, then by step."""
    part = frame[(frame["split"] == split) & ~frame["checkpoint"].isin(BASELINES)]
    part = part.assign(_trained=part["checkpoint"] != BASE)
    return part.sort_values(["_trained", "step"], kind="stable").drop(columns="_trained")


def levels_of(frame: pd.DataFrame, split: str, metric: Metric) -> dict[str, float]:
    """Return the values of the baselines, of those that have one."""
    part = frame[(frame["split"] == split) & frame["checkpoint"].isin(BASELINES) & frame[metric.name].notna()]
    return dict(zip(part["checkpoint"], part[metric.name].astype(float), strict=True))


def shade(age: float) -> Any:
    """Return the colour of a checkpoint, ``age`` 0 for the first and 1 for the last."""
    stops = [COLOURS[name] for name in ("early", "middle", "late")]
    return matplotlib.colors.LinearSegmentedColormap.from_list("training", stops)(float(age))


def ink_on(colour: Any) -> str:
    """Return black or white, whichever has more contrast with ``colour`` (WCAG 2.2's relative luminance)."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


def looks_of(part: pd.DataFrame) -> dict[str, tuple[Any, str]]:
    """Return colour and marker of each checkpoint of ``part``, in order."""
    names = list(dict.fromkeys(part["checkpoint"]))
    trained = [name for name in names if name != BASE]
    last = max(len(trained) - 1, 1)
    shades = {name: shade(1 - (len(trained) - 1 - place) / last) for place, name in enumerate(trained)}
    return {name: (BASE_COLOUR, "s") if name == BASE else (shades[name], "o") for name in names}


def short(name: str) -> str:
    """Return a name that fits beside a panel: a checkpoint's folder and step, or the end of a long one."""
    name = " ".join(name.split())
    if len(name) > 20:
        name = name.replace("/checkpoint-", "/")
    return name if len(name) <= 20 else f"…{name[-19:]}"


def names_to_write(names: list[str]) -> list[str]:
    """Return the names to write: colours run in order, so of many checkpoints some will do."""
    every = ceil(len(names) / _NAMED)
    return [name for i, name in enumerate(names) if i == 0 or (len(names) - 1 - i) % every == 0]


def ticks(knob: str, values: Sequence[Any]) -> list[str]:
    """Return labels of a knob's values, at most eight of them written."""
    every = ceil(len(values) / 8)
    return ["" if place % every else KNOB[knob].spell(value) for place, value in enumerate(values)]


def value_and_interval(part: pd.DataFrame, metric: str) -> tuple[Any, Any, Any]:
    return tuple(part[f"{metric}{end}"].to_numpy(float) for end in ("", "_low", "_high"))  # type: ignore[return-value]


def lines(panel: Axes, part: pd.DataFrame, metric: Metric) -> None:
    """Draw ``metric`` against the one knob of ``part``, a line and a band a checkpoint."""
    knob = part["knob"].iloc[0]
    values = KNOB[knob].by_strength(part["value"].unique())
    looks = looks_of(part)
    for name, (colour, marker) in looks.items():
        own = part[part["checkpoint"] == name]
        x = own["value"].map(values.index).to_numpy()
        order = np.argsort(x)
        value, low, high = (ends[order] for ends in value_and_interval(own, metric.name))
        panel.plot(x[order], value, color=colour, marker=marker, markersize=4, label=short(name))
        panel.fill_between(x[order], low, high, color=colour, alpha=min(0.12, 0.7 / len(looks)), linewidth=0)
    panel.set_xticks(range(len(values)), ticks(knob, values))


def baselines(panel: Axes, metric: Metric, part: pd.DataFrame, frame: pd.DataFrame) -> None:
    """Set the y axis to what the checkpoints of ``part`` and ``random`` reach; draw the baselines of ``frame``.

    Where the reference lies far off (its BLEU is 100, a model's under 1), a note says so.
    """
    levels = levels_of(frame, part["split"].iloc[0], metric)
    reach = [*np.concatenate(value_and_interval(part, metric.name)), levels.get(RANDOM, np.nan)]
    low, high = np.nanmin(reach), np.nanmax(reach)
    span = (high - low) or abs(high) or 1.0
    far = not low - span <= levels.get(REFERENCE, low) <= high + span
    if far and not metric.share:
        note = f"reference {levels.pop(REFERENCE):.3g}"
        panel.text(0.98, 0.98, note, transform=panel.transAxes, ha="right", va="top", fontsize=9)
        high += 0.15 * span
    low, high = min([low, *levels.values()]), max([high, *levels.values()])
    if metric.share:
        panel.set_ylim(-0.03, 1.03)
        panel.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    else:
        panel.set_ylim(low - 0.05 * span, high + 0.05 * span)
    for name, level in levels.items():
        colour, dashes = BASELINES[name]
        panel.axhline(level, color=colour, linestyle=dashes, linewidth=1.3, label=f"_{name}")
    label_right(panel, [(level, name, BASELINES[name][0]) for name, level in levels.items()])


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

    Least squares under an order: isotonic regression.
    """
    apart = np.arange(len(ends)) * gap
    free = isotonic_regression(np.array(ends) - apart).x if ends else apart
    return list(np.clip(free, 0.0, 1 - (len(ends) - 1) * gap) + apart)


def steps_apart(steps: Any, fixed: list[float]) -> list[float]:
    """Return the steps to label, from the last down, without those that would run into another."""
    span = max([*steps, *fixed]) - min([*steps, *fixed])
    kept = list(fixed)
    for step in sorted(steps, reverse=True):
        if all(abs(step - other) >= 0.2 * span for other in kept):
            kept.append(float(step))
    return sorted(kept)


def panels(
    count: int, title: str, note: str, sizes: Sizes = _SIZES, columns: int = COLUMNS
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels under a title and a note.

    Laid out by hand: matplotlib's own layout engines take a second a figure.
    """
    panel, gap = sizes.panel, sizes.gap
    columns = min(columns, count)
    rows = ceil(count / columns)
    bottom = 0.6
    used = sizes.left + columns * panel[0] + (columns - 1) * gap[0]
    width = max(used + sizes.right, 6.0)  # room for the title
    heading, remark = wrap(title, int(width * 9)), wrap(note, int(width * 12.5))
    top = 0.5 + 0.24 * len(heading) + 0.18 * len(remark)
    height = bottom + rows * panel[1] + (rows - 1) * gap[1] + top
    figure = Figure(figsize=(width, height))
    room = {"left": sizes.left / width, "right": used / width, "bottom": bottom / height}
    room |= {"top": 1 - top / height, "wspace": gap[0] / panel[0], "hspace": gap[1] / panel[1]}
    axes = list(figure.subplots(rows, columns, squeeze=False, gridspec_kw=room).flat)
    for spare in axes[count:]:
        spare.remove()
    x, y = 0.15 / width, 1 - 0.15 / height
    figure.text(x, y, "\n".join(heading), fontsize=13, fontweight="bold", va="top")
    y -= (0.24 * len(heading) + 0.02) / height
    figure.text(x, y, "\n".join(remark), fontsize=10, color="#555555", va="top")
    return figure, axes[:count]
