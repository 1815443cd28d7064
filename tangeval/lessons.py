"""The pictures that teach decoding: one step, the knobs, a whole poem, luck.

In: the content of ``explain.json`` (docs/explain.md). Out: PNG and SVG in the manner of
``canvas``, 16:9 and in large type, for a slide. Knows nothing of models, and computes nothing
but the probabilities of tokens whose logits it is given.

Texts and tokens come from a model: they are drawn as they are, never read as mathtext, and what
cannot be printed is written as its escape.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from tangeval.canvas import save, style
from tangeval.poem import MARKS, STOPS, clauses
from tangeval.records import TangevalError
from tangeval.store import read_json

SCHEMA = 1
NAMES = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p"}
STAGES = ("the model", *NAMES.values())
INK, PALE, BLUE, RED, GREY = "#222222", "#8a8a8a", "#2a6f97", "#c1121f", "#d9d9d9"
#: Families with Chinese characters, the traditional forms first, and how their files are named.
FONTS = (
    "Noto Sans CJK TC", "Noto Sans TC", "Source Han Sans TC", "Noto Sans CJK", "Source Han Sans", "PingFang",
    "Heiti TC", "Microsoft JhengHei", "Noto Sans SC", "Microsoft YaHei", "WenQuanYi", "Noto Serif CJK",
    "Source Han Serif", "Noto Serif TC", "AR PL", "PMingLiU", "SimHei", "SimSun", "Droid Sans Fallback",
)  # fmt: skip
_FILES = re.compile(r"CJK|SourceHan|PingFang|STHeiti|msjh|msyh|wqy|uming|ukai|mingliu|sim(hei|sun)|DroidSansFallback|Noto\w+[TS]C", re.I)
_ROWS = 18  # tokens of a step that are drawn
_COLUMNS = 50  # characters of a poem that are drawn
_SIZE = (13.333, 7.5)


@dataclass(frozen=True)
class Bars:
    """The tokens that are drawn of a step, likeliest first: id, and probability at each stage ``[4, N]``."""

    tokens: list[int]
    probability: NDArray[np.float64]
    forbidden: list[bool]


def read(file: Path) -> dict[str, Any]:
    """Return the content of an ``explain.json``.

    Raises:
        TangevalError: there is none, or it is of another version.
    """
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TangevalError(f"{file}: not an explain.json of this version; `tangeval explain STUDY` makes one")
    return content


def draw(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what there is to show, each as PNG, then SVG; return the paths.

    ``knobs`` and ``luck`` need a knob with two values in the study's grid.

    Raises:
        TangevalError: no font with Chinese characters is installed.
    """
    family = han_family()
    with style():
        matplotlib.rcParams.update(
            {"font.family": ["DejaVu Sans", family], "font.size": 14, "text.parse_math": False, "axes.grid": False,
             "text.color": INK, "hatch.color": "#9a9a9a", "hatch.linewidth": 0.8}
        )  # fmt: skip
        return save(_figures(content), folder)


def han_family() -> str:
    """Return the name of an installed font family that has Chinese characters.

    Raises:
        TangevalError: there is none; it says what to install.
    """
    found = _family()
    if found is None:
        # matplotlib keeps a list of fonts, which does not know those installed since.
        for file in filter(_FILES.search, sorted(font_manager.findSystemFonts())):
            font_manager.fontManager.addfont(file)
        found = _family()
    if found is None:
        raise TangevalError(
            "the pictures need a font with Chinese characters, and none is found; install one (Debian, Ubuntu, Colab: "
            "`apt-get install fonts-noto-cjk`; Fedora: `dnf install google-noto-sans-cjk-fonts`; elsewhere Noto Sans "
            f"TC from fonts.google.com). Known: {', '.join(FONTS)}"
        )
    return found


def _family() -> str | None:
    names = sorted({font.name for font in font_manager.fontManager.ttflist if "Mono" not in font.name})
    return next((name for known in FONTS for name in names if name.startswith(known)), None)


def _figures(content: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    yield "step", step_figure(content)
    varied = [knob for knob, places in content["knobs"].items() if len(places) > 1]
    if varied:
        yield "knobs", knobs_figure(content, varied)
    yield "poem", poem_figure(content)
    if varied:
        yield "luck", luck_figure(content, varied)


def label(text: str) -> str:
    """A token as it is written beside a bar: blanks made visible, what cannot be printed escaped."""
    shown = text.replace(" ", "␣").replace("\n", "⏎")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)[:10]


def bars(content: dict[str, Any], step: dict[str, Any], rows: int = _ROWS) -> Bars:
    """Return a step's likeliest tokens and their probabilities at each stage of the cell.

    The token that was written is among them, in the last place if it is not of the likeliest.
    """
    top, cell = step["top"], content["settings"][0]
    ids, logits = [entry[0] for entry in top], np.array([entry[1] for entry in top])
    barred = np.isin(ids, step["forbidden"])
    temperature = cell["temperature"]
    (_, *_), (_, _, *_), (ranked, kept_k, *_), (nucleus, kept_p, *_) = step["stages"][0]
    rank = np.cumsum(~barred) - 1
    model = np.exp(logits - _log_sum(content, step, logits, 1.0))
    heated = np.where(barred, 0.0, rank == 0)
    if temperature:
        heated = np.where(barred, 0.0, np.exp(logits / temperature - _log_sum(content, step, np.where(barred, -np.inf, logits), temperature)))
    second = np.where(rank < ranked, heated, 0) / kept_k
    third = np.where(rank < nucleus, second, 0) / kept_p
    places = list(range(min(rows, len(ids))))
    if step["token"] in ids[rows:]:
        places[-1] = ids.index(step["token"])
    table = np.stack([model, heated, second, third])[:, places]
    return Bars([ids[place] for place in places], table, [bool(barred[place]) for place in places])


def _log_sum(content: dict[str, Any], step: dict[str, Any], logits: NDArray[Any], temperature: float) -> float:
    """The log of the summed exponentials of ``logits / temperature`` and of the rest."""
    parts = list(logits / temperature)
    if step["rest"]["count"]:
        parts.append(step["rest"]["log_sum"][content["temperatures"].index(temperature)])
    return float(np.logaddexp.reduce(parts))


def _blank(title: str, note: str) -> Figure:
    figure = Figure(figsize=_SIZE)
    figure.text(0.03, 0.965, title, fontsize=24, fontweight="bold", va="top")
    figure.text(0.03, 0.895, note, fontsize=14, color="#555555", va="top")
    return figure


def _whence(content: dict[str, Any]) -> str:
    cell = content["cell"]
    knobs = ", ".join(f"{NAMES[knob]} {value(knob, cell[knob])}" for knob in NAMES)
    return f"{content['checkpoint']['name']} on {content['example_id']}, sample {content['sample']}; {knobs}"


def value(knob: str, number: float) -> str:
    off = {"top_k": 0, "top_p": 1}.get(knob)
    return "off" if number == off else f"{number:g}"


def _so_far(content: dict[str, Any]) -> str:
    """The poem up to the step that is drawn."""
    words = [content["vocabulary"][str(s["token"])] for s in content["steps"][: content["step"] - 1]]
    return content["couplet"] + "".join(words).strip()


def step_figure(content: dict[str, Any]) -> Figure:
    """Return one step's distribution through the pipeline: model → temperature → top-k → top-p."""
    step = content["steps"][content["step"] - 1]
    shown = bars(content, step)
    figure = _blank(f"{_so_far(content)} _", "Which character comes next? " + _whence(content))
    reach = 1.22 * float(shown.probability.max())
    names = [label(content["vocabulary"][str(token)]) for token in shown.tokens]
    chosen = shown.tokens.index(step["token"])
    for place, name in enumerate(STAGES):
        panel = figure.add_axes((0.075 + 0.235 * place, 0.09, 0.205, 0.60))
        panel.set_xlim(0, reach)
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.spines["bottom"].set_visible(False)
        panel.tick_params(length=0)
        panel.set_xticks([])
        panel.set_yticks(range(len(names)), names if place == 0 else [""] * len(names), fontsize=16)
        _stage_bars(panel, shown, place)
        _written(panel, chosen, shown.probability[place, chosen], emphatic=place in (0, 3))
        knob = [*NAMES][place - 1] if place else None
        setting = f" {value(knob, content['cell'][knob])}" if knob else ""
        _stage_heading(figure, 0.075 + 0.235 * place, f"{name}{setting}", step["stages"][0][place], place)
    _mark(figure.axes[0], chosen)
    figure.legend(
        handles=[Patch(facecolor=BLUE, label="probability"), Patch(facecolor="none", edgecolor=INK, label="before this knob"),
                 Patch(facecolor="white", edgecolor="#9a9a9a", hatch="////", label="removed"), Patch(facecolor=RED, label="picked by this sample's luck")],
        loc="lower center", ncols=4, fontsize=13, bbox_to_anchor=(0.53, 0.005), handlelength=1.4,
    )  # fmt: skip
    return figure


def _stage_bars(panel: Axes, shown: Bars, place: int) -> None:
    now, before = shown.probability[place], shown.probability[max(place - 1, 0)]
    for row, (after, was, barred) in enumerate(zip(now, before, shown.forbidden, strict=True)):
        gone = after == 0 and was > 0
        if gone or (place == 0 and barred):
            panel.barh(row, was, height=0.74, facecolor="white", edgecolor="#9a9a9a", hatch="////", linewidth=0.8)
        elif after:
            panel.barh(row, after, height=0.74, color=BLUE)
            if place:
                panel.add_patch(Rectangle((0, row - 0.37), was, 0.74, fill=False, edgecolor=INK, linewidth=1.2))


def _written(panel: Axes, row: int, probability: float, *, emphatic: bool) -> None:
    """The token that luck picked: its bar red, its probability beside it."""
    for bar in panel.patches:
        if isinstance(bar, Rectangle) and bar.get_fill() and abs(bar.get_y() + 0.37 - row) < 0.01 and not bar.get_hatch():
            bar.set_facecolor(RED)
    weight = "bold" if emphatic else "normal"
    panel.text(probability, row, f" {_percent(probability)}", color=RED, va="center", fontsize=14, fontweight=weight)


def _mark(panel: Axes, row: int) -> None:
    chosen = panel.get_yticklabels()[row]
    chosen.set_color(RED)
    chosen.set_fontweight("bold")


def _percent(share: float) -> str:
    return "<0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"


def _stage_heading(figure: Figure, x: float, name: str, stage: Sequence[float], place: int) -> None:
    kept, mass, entropy, _ = stage
    figure.text(x, 0.835, name if place == 0 else f"→ {name}", fontsize=19, fontweight="bold", color=BLUE, va="top")
    lines = [f"{kept:,.0f} tokens" + (f" hold {_percent(mass)}" if place > 1 else ""),
             f"{entropy:.2f} nats ≈ {math.exp(entropy):,.{0 if entropy > 2.3 else 1}f} choices"]  # fmt: skip
    figure.text(x, 0.78, "\n".join(lines), fontsize=14, va="top", linespacing=1.4)


def knobs_figure(content: dict[str, Any], knobs: Sequence[str]) -> Figure:
    """Return how choices, kept tokens and largest probability move as each knob turns over its grid."""
    step = content["steps"][content["step"] - 1]
    title = f"What each knob leaves of the next character after {_so_far(content)[-6:]}"
    figure = _blank(title, f"One knob turned, the others as marked ({_whence(content)})")
    kinds = (("effective choices, exp(entropy)", 2), ("tokens that stay", 0), ("largest probability", 3))
    height = 0.72 / len(knobs)
    for row, knob in enumerate(knobs):
        places = content["knobs"][knob]
        labels = [value(knob, content["settings"][place][knob]) for place in places]
        for column, (name, which) in enumerate(kinds):
            panel = figure.add_axes((0.12 + 0.30 * column, 0.80 - (row + 1) * height + 0.075, 0.25, height - 0.11))
            y = [step["stages"][place][3][which] for place in places]
            y = [math.exp(v) for v in y] if which == 2 else y
            _knob_panel(panel, y, places.index(0), share=which == 3)
            panel.set_xticks(range(len(labels)), labels, fontsize=14)
            panel.get_xticklabels()[places.index(0)].set_fontweight("bold")
            if row == 0:
                panel.set_title(name, fontsize=15, pad=14)
            if column == 0:
                panel.set_ylabel(NAMES[knob], fontsize=17, fontweight="bold", color=BLUE, labelpad=12)
    for column in range(len(kinds)):
        own = figure.axes[column :: len(kinds)]
        low, high = min(a.dataLim.y0 for a in own), max(a.dataLim.y1 for a in own)
        for panel in own:
            panel.set_ylim((0, 1.3) if column == 2 else (0.6 * low, 4 * high))
    return figure


def _knob_panel(panel: Axes, y: Sequence[float], chosen: int, *, share: bool) -> None:
    panel.plot(range(len(y)), y, color=BLUE, marker="o", markersize=8, linewidth=2)
    panel.plot([chosen], [y[chosen]], "o", color=RED, markersize=12, zorder=3)
    if not share:
        panel.set_yscale("log")
    panel.set_yticks([], minor=False)
    panel.set_yticks([], minor=True)
    panel.spines["left"].set_visible(False)
    panel.set_xlim(-0.4, len(y) - 0.6)
    for x, number in enumerate(y):
        text = _percent(number) if share else f"{number:,.0f}" if number >= 9.95 else f"{number:.2g}"
        panel.annotate(text, (x, number), (0, 9), textcoords="offset points", ha="center", fontsize=13)


def poem_figure(content: dict[str, Any]) -> Figure:
    """Return, along the poem, how many characters the model weighs, and how many the cell leaves."""
    steps = content["steps"][:_COLUMNS]
    words = [content["vocabulary"][str(step["token"])] for step in steps]
    model = [math.exp(step["stages"][0][0][2]) for step in steps]
    left = [math.exp(step["stages"][0][3][2]) for step in steps]
    kept = [step["stages"][0][3][0] for step in steps]
    who = "the poet's own ending" if content["follows"] == "reference" else "what this cell writes"
    figure = _blank(f"{content['couplet']} …  where is there a choice?", f"Along {who}: {_whence(content)}")
    panel = figure.add_axes((0.075, 0.2, 0.9, 0.6))
    x = range(len(steps))
    panel.set_yscale("log")
    panel.bar(x, kept, bottom=0.8, width=0.86, color="#dbe7ef", label="tokens that stay")
    panel.plot(x, model, color=PALE, marker="o", markersize=7, linewidth=1.5, label="the model's effective choices")
    panel.plot(x, left, color=BLUE, marker="o", markersize=9, linewidth=2.5, label="effective choices after the knobs")
    panel.set_ylim(0.8, 2.2 * max([*kept, *model]))
    panel.set_yticks(_decades(max([*kept, *model])), [f"{tick:,}" for tick in _decades(max([*kept, *model]))], fontsize=13)
    panel.minorticks_off()
    panel.set_xlim(-0.6, len(steps) - 0.4)
    panel.tick_params(length=0)
    _write_below(panel, words)
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=14, borderaxespad=0)
    figure.text(0.075, 0.04, "Red: where the poem rhymes. Lines: ends of clauses. Counts on a log scale; effective choices = exp(entropy).",
                fontsize=13, color="#555555")  # fmt: skip
    return figure


def _decades(top: float) -> list[int]:
    return [10**power for power in range(int(math.log10(max(top, 1))) + 1)]


def _write_below(panel: Axes, words: Sequence[str]) -> None:
    """The characters on the axis: marks grey, rhymes red, a line after each mark."""
    rhymes = rhyme_steps(words)
    size = min(22.0, 0.9 * 72 * 0.9 * _SIZE[0] / len(words))
    panel.set_xticks(range(len(words)), [label(word) for word in words], fontsize=size)
    for place, (tick, word) in enumerate(zip(panel.get_xticklabels(), words, strict=True)):
        tick.set_color(RED if place in rhymes else INK if clauses(word) else PALE)
        if len(label(word)) > 2:
            tick.set_fontsize(10)
        if MARKS & set(word):
            heavy = bool(set(word) & set(STOPS))
            panel.axvline(place + 0.5, color=PALE, linewidth=1.4 if heavy else 0.7, linestyle="-" if heavy else ":")
    for place in rhymes:
        panel.axvspan(place - 0.5, place + 0.5, color=RED, alpha=0.10, linewidth=0)


def rhyme_steps(words: Sequence[str]) -> list[int]:
    """The steps (from 0) that write the last character of every second clause."""
    step_of = [step for step, word in enumerate(words) for _ in word]
    text, end, found = "".join(words), 0, []
    for number, clause in enumerate(clauses(text), 1):
        end = text.index(clause, end) + len(clause)
        if number % 2 == 0:
            found.append(step_of[end - 1])
    return found


def luck_figure(content: dict[str, Any], knobs: Sequence[str]) -> Figure:
    """Return the text of every value of every knob, drawn with one luck, and where neighbours part."""
    figure = _blank(f"{content['couplet']} …  the same luck, other knobs", "A box: where a text parts from the one above it. " + _whence(content))
    rows = [(knob, place) for knob in knobs for place in content["knobs"][knob]]
    texts = [" ".join(setting["text"].split()) for setting in content["settings"]]
    width = min(_COLUMNS, max(len(texts[place]) for _, place in rows))
    panel = figure.add_axes((0.17, 0.04, 0.81, 0.80))
    panel.axis("off")
    panel.set_xlim(-0.5, max(width, 24) + 0.5)
    height = len(rows) + 0.6 * (len(knobs) - 1)
    panel.set_ylim(height - 0.4, -0.6)
    size = min(24.0, 72 * 0.81 * _SIZE[0] / (max(width, 24) + 1) * 0.92, 72 * 0.80 * _SIZE[1] / height * 0.7)
    y = 0.0
    for number, (knob, place) in enumerate(rows):
        first = number == 0 or rows[number - 1][0] != knob
        y += 0.0 if number == 0 else 1.6 if first else 1.0
        above = None if first else texts[rows[number - 1][1]]
        _luck_row(panel, y, texts[place], above, size)
        _luck_name(panel, y, knob if first else "", value(knob, content["settings"][place][knob]), chosen=place == 0)
    return figure


def _luck_row(panel: Axes, y: float, text: str, above: str | None, size: float) -> None:
    parts = parting(text, above) if above is not None else 0
    for x, character in enumerate(text[:_COLUMNS]):
        colour = PALE if x < parts or character in MARKS else INK
        if above is not None and x == parts:
            panel.add_patch(Rectangle((x - 0.5, y - 0.46), 1, 0.92, facecolor=RED, edgecolor="none"))
            colour = "white"
        panel.text(x, y, label(character), fontsize=size, color=colour, ha="center", va="center")
    if len(text) > _COLUMNS:
        panel.text(_COLUMNS, y, "…", fontsize=size, color=PALE, ha="center", va="center")


def parting(text: str, other: str) -> int:
    """Where two texts first differ; the shorter one's length if it begins the other."""
    return next((place for place, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), min(len(text), len(other)))


def _luck_name(panel: Axes, y: float, knob: str, setting: str, *, chosen: bool) -> None:
    weight = "bold" if chosen else "normal"
    panel.text(-1.0, y, setting, fontsize=16, ha="right", va="center", fontweight=weight, color=RED if chosen else INK)
    if knob:
        panel.text(-0.185, y, NAMES[knob], fontsize=17, fontweight="bold", color=BLUE, va="center",
                   transform=panel.get_yaxis_transform())  # fmt: skip
