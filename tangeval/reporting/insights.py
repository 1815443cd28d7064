"""What lies behind the summary, as pictures: variance, shared noise, likelihood by place.

In: the frames of ``variance.write_variance`` and ``summarize.curve``. Out: PNG and SVG, in the manner
of ``canvas``. Knows nothing of generations, models or tables.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tangeval.core.knobs import AXES
from tangeval.metrics import BY_NAME
from tangeval.reporting.style import (
    label_right,
    looks_of,
    names_to_write,
    of_checkpoints,
    panels,
    save,
    style,
)

SHOWN = (
    "bleu", "chrf", "form", "complete", "length_match", "rhyme", "tone_opposition", "self_bleu",
    "train_overlap",
)  # fmt: skip
#: Legend of the variance picture: term, colour. All interactions of settings are one.
_TERMS: dict[str, Any] = {
    "checkpoint": "#2a6f97", "temperature": "#d55e00", "top_k": "#e69f00", "top_p": "#cc79a7",
    "max_length": "#8c6bb1", "interactions": "#4d4d4d", "poem": "#9bc59d", "poem × setting": "#c9e0c4",
    "noise": "#bdbdbd", "noise × setting": "#e3e3e3",
}  # fmt: skip


def draw(variance: pd.DataFrame, coupling: pd.DataFrame, curve: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw what the frames have something to show for, each as PNG, then SVG; return the paths."""
    with style():
        return save(_figures(variance, coupling, curve), folder)


def _figures(
    variance: pd.DataFrame, coupling: pd.DataFrame, curve: pd.DataFrame
) -> Iterator[tuple[str, Figure]]:
    for frame, name, figure in (
        (variance, "variance", variance_figure),
        (coupling, "coupling", coupling_figure),
        (curve, "likelihood", likelihood_figure),
    ):
        for split in dict.fromkeys(frame["split"]):
            yield f"{name}_{split}", figure(frame, split)


def variance_figure(variance: pd.DataFrame, split: str) -> Figure:
    """Return each metric's variance over all generations as one bar, shared out among its sources."""
    part = variance[variance["split"] == split]
    terms = part["term"].where(part["term"].isin(_TERMS), "interactions")
    shares = part.assign(term=terms).groupby(["metric", "term"])["share"].sum().unstack(fill_value=0)
    metrics = [m for m in SHOWN if m in shares.index][::-1]
    title = f"Where the variance of a generation's score lies, on {split}"
    note = "Dark colours: what one chooses. Green: which poem. Grey: noise. 'Interactions' are of two or more choices."
    figure, (panel,) = panels(1, title, note, panel=(6.5, 0.36 * len(metrics) + 0.3), left=2.2, margin=1.9)
    left = np.zeros(len(metrics))
    for term, colour in _TERMS.items():
        if term not in shares:
            continue
        width = shares.loc[metrics, term].to_numpy()
        panel.barh(range(len(metrics)), width, left=left, color=colour, label=term, height=0.72)
        for place, (share, begin) in enumerate(zip(width, left, strict=True)):
            if share >= 0.06:
                light = sum(matplotlib.colors.to_rgb(colour)) > 1.7
                ink = "#222222" if light else "white"
                panel.text(
                    begin + share / 2, place, f"{share:.0%}", ha="center", va="center", color=ink, fontsize=8
                )
        left += width
    panel.set_yticks(range(len(metrics)), [BY_NAME[m].label.partition(" (")[0] for m in metrics])
    panel.set_xlim(0, 1)
    panel.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    panel.grid(False)
    panel.tick_params(axis="y", length=0)
    panel.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), handlelength=1, handleheight=1)
    return figure


def coupling_figure(coupling: pd.DataFrame, split: str) -> Figure:
    """Return, for neighbours in each knob, how much of the noise in their difference is left when it is shared."""
    part = coupling[coupling["split"] == split]
    metrics = [m for m in SHOWN if m in part and part[m].notna().any()][::-1]
    knobs = [knob for knob in ("checkpoint", *AXES) if (part["knob"] == knob).any()]
    title = f"What shared noise leaves of the noise in a difference, on {split}"
    note = (
        "Variance over samples of the difference between neighbouring settings ÷ what independent draws would give. "
        "Dot: median over pairs of settings; bar: the middle 80\u00a0%. Left of 1, the difference is easier to see."
    )
    figure, axes = panels(
        len(knobs),
        title,
        note,
        columns=5,
        panel=(1.55, 0.3 * len(metrics) + 0.3),
        gap=(0.2, 0.7),
        left=2.2,
        margin=0.2,
    )
    for panel, knob in zip(axes, knobs, strict=True):
        ratios = part.loc[part["knob"] == knob, metrics]
        low, middle, high = ratios.quantile([0.1, 0.5, 0.9]).to_numpy()
        panel.hlines(range(len(metrics)), low, high, color="#9ecae1", linewidth=5)
        panel.plot(middle, range(len(metrics)), "o", color="#08519c", markersize=5)
        panel.axvline(1, color="#6b6b6b", linestyle="--", linewidth=1)
        panel.set_title("next checkpoint" if knob == "checkpoint" else f"next {knob}")
        panel.set_xlim(0, max(1.25, float(np.nanmax([*high, 0])) + 0.05))
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        panel.set_ylim(-0.6, len(metrics) - 0.4)
        panel.set_yticks(range(len(metrics)), [""] * len(metrics))
        panel.grid(axis="x")
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(metrics)), [BY_NAME[m].label.partition(" (")[0] for m in metrics])
    return figure


def likelihood_figure(curve: pd.DataFrame, split: str) -> Figure:
    """Return nats of the poet's own character against its place in the poem, a panel a metre."""
    part = of_checkpoints(curve, split)
    metres = sorted(part["line_length"].unique())
    counts = part[part["position"] == 1].drop_duplicates("line_length").set_index("line_length")["poems"]
    title = f"Where in the poem the poet's own characters surprise the model, on {split}"
    note = (
        "Nats of each character after the couplet, given all before it; marks left out. A gap stands between clauses. "
        "Bands are 95\u00a0% intervals over poems. Lower is better."
    )
    figure, axes = panels(len(metres), title, note, columns=1, panel=(7.5, 2.4), margin=1.6)
    looks = looks_of(part)
    for panel, line_length in zip(axes, metres, strict=True):
        own = part[part["line_length"] == line_length]
        longest = int(own["position"].max())
        panel.set_title(f"{line_length} characters a clause: {counts[line_length]} poems")
        ends = {}
        for name, (colour, _) in looks.items():
            line = own[own["checkpoint"] == name].sort_values("position")
            # A clause is a stroke of its own: between two lies a mark.
            for _, stroke in line.groupby((line["position"] - 1) // line_length):
                x = stroke["position"]
                panel.plot(x, stroke["nll"], color=colour, marker="o", markersize=3)
                panel.fill_between(
                    x,
                    stroke["nll_low"],
                    stroke["nll_high"],
                    color=colour,
                    alpha=min(0.12, 0.7 / len(looks)),
                    linewidth=0,
                )
            if len(line):
                ends[name] = float(line["nll"].iloc[-1])
        panel.set_xticks(
            range(1, longest + 1, line_length),
            [f"clause {c}" for c in range(3, 3 + -(-longest // line_length))],
        )
        panel.set_xlim(0.5, longest + 0.5)
        panel.set_ylabel("nats")
        label_right(panel, [(ends[n], n, looks[n][0]) for n in names_to_write(list(looks)) if n in ends])
    return figure
