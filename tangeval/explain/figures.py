"""The pictures that teach decoding: one step, the knobs, a whole poem, noise.

In: the content of ``explain.json`` (docs/explain.md). Out: PNG and SVG in the manner of
``canvas``, 16:9 and in large type, for a slide. Knows nothing of models, and computes nothing
but the probabilities of tokens whose logits it is given.

Texts and tokens come from a model: they are drawn as they are, never read as mathtext, and what
cannot be printed is written as its escape.
"""

import itertools
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

from tangeval.core.errors import TangevalError
from tangeval.reporting.style import save, style
from tangeval.results.files import read_json
from tangeval.tasks.tang.text import MARKS, STOPS, clauses

FILE, SCHEMA = "explain.json", 1
KNOBS = ("temperature", "top_k", "top_p")
NAMES = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p"}
INK, PALE, BLUE, RED, HATCH = "#222222", "#8a8a8a", "#2a6f97", "#c1121f", "#9a9a9a"
_REMOVED: dict[str, Any] = {"facecolor": "white", "edgecolor": HATCH, "hatch": "////", "linewidth": 0.8}
#: Families with Chinese characters, the traditional forms first, and how their files are named.
FONTS = (
    "Noto Sans CJK TC", "Noto Sans TC", "Source Han Sans TC", "Noto Sans CJK", "Source Han Sans", "PingFang",
    "Heiti TC", "Microsoft JhengHei", "Noto Sans SC", "Microsoft YaHei", "WenQuanYi", "Noto Serif CJK",
    "Source Han Serif", "Noto Serif TC", "AR PL", "PMingLiU", "SimHei", "SimSun", "Droid Sans Fallback",
)  # fmt: skip
_FILES = re.compile(
    r"CJK|SourceHan|PingFang|STHeiti|msjh|msyh|wqy|uming|ukai|mingliu|sim(hei|sun)|DroidSansFallback|Noto\w+[TS]C",
    re.I,
)
_LIKELIEST = 12  # tokens of a step that are drawn, whatever is cut
_FORBIDDEN = 3  # tokens that would repeat an n-gram, of a step that are drawn
_TITLE = 20  # characters of a poem in a title
_COLUMNS = 50  # characters of a poem that are drawn
_SIZE = (13.333, 7.5)


@dataclass(frozen=True)
class Bars:
    """The tokens drawn of a step, by falling logit: id, rank (-1: forbidden), and probability at each stage ``[4, N]``."""

    tokens: list[int]
    ranks: list[int]
    probability: NDArray[np.float64]

    @property
    def y(self) -> list[float]:
        """Where the rows stand, a gap where ranks are left out."""
        ranks = [rank for rank in self.ranks if rank >= 0]
        jumps = {rank for before, rank in itertools.pairwise(ranks) if rank - before > 1}
        gaps = np.cumsum([rank in jumps for rank in self.ranks])
        return [float(place) for place in np.arange(len(self.ranks)) + 0.45 * gaps]


def read(file: Path) -> dict[str, Any]:
    """Return the content of an ``explain.json``.

    Raises:
        TangevalError: there is none, or it is of another version.
    """
    content = read_json(file)
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TangevalError(
            f"{file}: not an explain.json of this version; `tangeval explain STUDY` makes one"
        )
    return content


def draw(content: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what there is to show, each as PNG, then SVG; return the paths.

    ``knobs`` and ``noise`` need a knob with two values in the study's grid.

    Raises:
        TangevalError: no font with Chinese characters is installed.
    """
    family = han_family()
    with style():
        matplotlib.rcParams.update(
            {"font.family": ["DejaVu Sans", family], "font.size": 14, "text.parse_math": False, "axes.grid": False,
             "text.color": INK, "hatch.color": HATCH, "hatch.linewidth": 0.8}
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
        yield "noise", noise_figure(content, varied)


def label(text: str, most: int = 8) -> str:
    """A token as it is written beside a bar: blanks made visible, what cannot be printed escaped."""
    shown = text.replace(" ", "␣").replace("\n", "⏎")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)[:most]


def bars(content: dict[str, Any], step: dict[str, Any]) -> Bars:
    """Return a step's tokens to draw and their probabilities at each stage of the setting.

    The likeliest, the last that top-k and top-p keep and the first that they remove so far as
    they are stored, some that would repeat an n-gram, and the one that was written.
    """
    ids, logits, _, rank = (np.array(column) for column in zip(*step["top"], strict=True))
    first = np.arange(len(ids)) < _LIKELIEST
    cuts = [place for kept, *_ in step["stages"][0][2:] for place in (kept - 1, kept)]
    forbidden = (rank < 0) & ((rank < 0).cumsum() <= _FORBIDDEN)
    drawn = first | np.isin(rank, cuts) | (ids == step["token"]) | forbidden
    table = np.stack(_probabilities(content, step, logits, rank))[:, drawn]
    return Bars(ids[drawn].tolist(), rank[drawn].tolist(), table)


def _probabilities(
    content: dict[str, Any], step: dict[str, Any], logits: NDArray[Any], rank: NDArray[Any]
) -> tuple[NDArray[Any], ...]:
    """Of the stored tokens, at each stage; 0 where one is removed."""
    _, _, (in_k, mass_k, *_), (in_p, mass_p, *_) = step["stages"][0]
    temperature = content["setting"]["temperature"]
    model = np.exp(logits - _log_sum(content, step, logits, 1.0))
    if temperature:
        heated = np.exp(logits / temperature - _log_sum(content, step, logits[rank >= 0], temperature))
    else:
        heated = (rank == 0).astype(float)
    heated = np.where(rank < 0, 0, heated)
    second = np.where(rank < in_k, heated, 0) / mass_k
    return model, heated, second, np.where(rank < in_p, second, 0) / mass_p


def _log_sum(
    content: dict[str, Any], step: dict[str, Any], logits: NDArray[Any], temperature: float
) -> float:
    """The log of the summed exponentials at a temperature: of ``logits``, and of the rest."""
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
    setting = content["setting"]
    knobs = ", ".join(f"{NAMES[knob]} {value(knob, setting[knob])}" for knob in NAMES)
    return f"{content['checkpoint']['name']} on {content['example_id']}, sample {content['sample']}; {knobs}"


def value(knob: str, number: float) -> str:
    off = {"top_k": 0, "top_p": 1}.get(knob)
    return "off" if number == off else f"{number:g}"


def _so_far(content: dict[str, Any]) -> str:
    """The poem up to the step that is drawn."""
    words = [content["vocabulary"][str(s["token"])] for s in content["steps"][: content["step"] - 1]]
    text = _given(content) + label("".join(words).strip(), most=999)
    return text if len(text) <= _TITLE else f"…{text[-_TITLE:]}"


def _given(content: dict[str, Any]) -> str:
    return label(content["couplet"], most=999)


def step_figure(content: dict[str, Any]) -> Figure:
    """Return one step's distribution through the pipeline: model → temperature → top-k → top-p."""
    step = content["steps"][content["step"] - 1]
    shown = bars(content, step)
    figure = _blank(f"{_so_far(content)}＿", f"Which token comes next? {_whence(content)}")
    written = shown.tokens.index(step["token"])
    for place, name in enumerate(("the model", *NAMES.values())):
        left = 0.09 + 0.229 * place
        knob = f"→ {name} {value(KNOBS[place - 1], content['setting'][KNOBS[place - 1]])}" if place else name
        _stage_heading(figure, left, knob, step["stages"][0][place])
        panel = figure.add_axes((left, 0.07, 0.2, 0.575))
        panel.set_xlim(0, 1.25 * float(shown.probability.max()))
        panel.set_ylim(shown.y[-1] + 0.6, -0.6)
        panel.spines["bottom"].set_visible(False)
        panel.tick_params(length=0)
        panel.set_xticks([])
        panel.set_yticks([])
        _stage_bars(panel, shown, place, written)
    _name_rows(figure.axes[1], content, shown, written)
    handles = [
        Patch(color=BLUE, label="probability"),
        Patch(facecolor="none", edgecolor=INK, label="before this knob"),
        Patch(label="removed", **_REMOVED),
        Patch(color=RED, label=_picked(content)),
    ]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=13, bbox_to_anchor=(0.53, 0.0))
    return figure


def _picked(content: dict[str, Any]) -> str:
    if content["follows"] == "reference":
        return "the poet's own"
    return "picked by noise" if content["setting"]["temperature"] else "the likeliest"


def _stage_heading(figure: Figure, left: float, name: str, stage: Sequence[float]) -> None:
    """What a stage leaves, in words, and as a strip of the stage before: kept, removed."""
    kept, mass, entropy, _ = stage
    figure.text(left, 0.845, name, fontsize=17, fontweight="bold", color=BLUE, va="top")
    words = f"{kept:,.0f} token{'' if kept == 1 else 's'}, {_percent(mass)} kept\n"
    words += f"{entropy:.2f} nats ≈ {_number(math.exp(entropy))} choices"
    figure.text(left, 0.795, words, fontsize=14, va="top", linespacing=1.4)
    strip = figure.add_axes((left, 0.675, 0.2, 0.022))
    strip.axis("off")
    strip.set_xlim(0, 1)
    strip.barh(0, mass, color=BLUE)
    strip.barh(0, 1 - mass, left=mass, **_REMOVED)


def _stage_bars(panel: Axes, shown: Bars, place: int, written: int) -> None:
    now, before = shown.probability[place], shown.probability[max(place - 1, 0)]
    for row, (y, after, was) in enumerate(zip(shown.y, now, before, strict=True)):
        if was and not after:
            panel.barh(y, was, height=0.76, **_REMOVED)
            _put(panel, was, y, " × repeats" if shown.ranks[row] < 0 else " ×", 14, PALE)
        elif after:
            panel.barh(y, after, height=0.76, color=RED if row == written else BLUE)
            if place:
                panel.barh(y, was, height=0.76, fill=False, edgecolor=INK, linewidth=1.2)
        if row == written and after:
            _put(panel, max(was, after), y, f" {_percent(after)}", 14, RED, bold=True)


def _name_rows(panel: Axes, content: dict[str, Any], shown: Bars, written: int) -> None:
    """The tokens beside the first panel, each with its rank."""
    beside: dict[str, Any] = {"ha": "right", "transform": panel.get_yaxis_transform()}
    for row, (y, token, rank) in enumerate(zip(shown.y, shown.tokens, shown.ranks, strict=True)):
        text = label(content["vocabulary"][str(token)])
        _put(panel, -0.04, y, text, 17 if len(text) < 3 else 12, RED if row == written else INK, **beside)
        _put(panel, -0.19, y, f"{rank + 1}" if rank >= 0 else "–", 11, PALE, **beside)


def _put(
    panel: Axes, x: float, y: float, text: str, size: float, colour: str, *, bold: bool = False, **more: Any
) -> None:
    weight = "bold" if bold else "normal"
    panel.text(x, y, text, fontsize=size, color=colour, va="center", fontweight=weight, **more)


def _number(count: float) -> str:
    return f"{count:,.0f}" if count >= 9.95 else f"{count:.1f}"


def _percent(share: float) -> str:
    places = 0 if share >= 0.0995 else 1
    return (
        "<0.1 %"
        if 0 < share < 0.001
        else ">99 %"
        if 0.995 <= share < 0.99999
        else f"{100 * share:.{places}f} %"
    )


def knobs_figure(content: dict[str, Any], knobs: Sequence[str]) -> Figure:
    """Return how choices, kept tokens and largest probability move as each knob turns over its grid.

    The heights of counts are their logarithms: of effective choices, that is the entropy.
    """
    step = content["steps"][content["step"] - 1]
    figure = _blank(f"{_so_far(content)}＿  one knob at a time", f"The others as in red: {_whence(content)}")
    tops = [max(_measure(each[3], column) for each in step["stages"]) for column in range(len(_MEASURES))]
    height = 0.75 / len(knobs)
    for row, knob in enumerate(knobs):
        bottom = 0.80 - (row + 1) * height
        figure.text(0.03, bottom + 0.3 * height, NAMES[knob], fontsize=17, fontweight="bold", color=BLUE)
        for column, name in enumerate(_MEASURES):
            panel = figure.add_axes((0.175 + 0.275 * column, bottom + 0.05, 0.25, height - 0.06))
            _knob_bars(panel, content, step, knob, column)
            panel.set_ylim(0, 1.3 * (tops[column] or 1))
            if row == 0:
                figure.text(0.175 + 0.275 * column, 0.825, name, fontsize=15)
    return figure


_MEASURES = ("effective choices = exp(entropy)", "tokens that stay", "largest probability")


def _measure(stage: Sequence[float], column: int) -> float:
    """How high a bar stands: the entropy, the log of the tokens kept, the largest probability."""
    return (stage[2], math.log(stage[0]), stage[3])[column]


def _knob_bars(panel: Axes, content: dict[str, Any], step: dict[str, Any], knob: str, column: int) -> None:
    places = content["knobs"][knob]
    ends = [step["stages"][place][3] for place in places]
    texts = [(_number(math.exp(end[2])), f"{end[0]:,}", _percent(end[3]))[column] for end in ends]
    heights, colours = [_measure(end, column) for end in ends], [BLUE if place else RED for place in places]
    drawn = panel.bar(range(len(places)), heights, width=0.72, color=colours)
    panel.bar_label(drawn, texts, padding=3, fontsize=14 if len(places) < 6 else 10)
    names = [value(knob, content["settings"][place][knob]) for place in places]
    panel.set_xticks(range(len(places)), names, fontsize=14)
    panel.get_xticklabels()[places.index(0)].set(color=RED, fontweight="bold")
    panel.set_xlim(-0.6, max(len(places), 4) - 0.4)
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    panel.tick_params(length=0)


def poem_figure(content: dict[str, Any]) -> Figure:
    """Return, along the poem, how many characters the model weighs, and how many the setting leaves."""
    steps = content["steps"][:_COLUMNS]
    words = [content["vocabulary"][str(step["token"])] for step in steps]
    model, left = ([math.exp(step["stages"][0][stage][2]) for step in steps] for stage in (0, 3))
    kept = np.array([step["stages"][0][3][0] for step in steps])
    who = "the poet's own ending" if content["follows"] == "reference" else "what this setting writes"
    figure = _blank(f"{_given(content)} …  where is there a choice?", f"Along {who}: {_whence(content)}")
    panel = figure.add_axes((0.075, 0.18, 0.9, 0.62))
    x, base = range(len(steps)), 0.8
    panel.bar(x, kept - base, bottom=base, width=0.86, color="#dbe7ef", label="tokens that stay")
    panel.plot(x, model, "o-", color=PALE, markersize=7, linewidth=1.5, label="the model's effective choices")
    panel.plot(
        x, left, "o-", color=BLUE, markersize=9, linewidth=2.5, label="effective choices after the knobs"
    )
    panel.set_yscale("log")
    panel.set_ylim(base, 2.2 * max([*kept, *model]))
    panel.set_xlim(-0.6, len(steps) - 0.4)
    decades = [10**power for power in range(int(math.log10(panel.get_ylim()[1])) + 1)]
    panel.set_yticks(decades, [f"{tick:,}" for tick in decades], fontsize=13)
    panel.minorticks_off()
    panel.tick_params(length=0)
    _write_below(panel, words)
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, fontsize=14, borderaxespad=0)
    note = "Red: where verse rhymes. Lines: ends of clauses. Counts on a log scale; effective choices = exp(entropy)."
    more = len(content["steps"]) - len(steps)
    figure.text(0.075, 0.035, note + f" {more} more steps." * bool(more), fontsize=13, color="#555555")
    return figure


def _write_below(panel: Axes, words: Sequence[str]) -> None:
    """The characters on the axis: marks grey, rhymes red, a line after each mark."""
    rhymes = rhyme_steps(words)
    size = min(22.0, 0.9 * 72 * 0.9 * _SIZE[0] / len(words))
    panel.set_xticks(range(len(words)), [label(word) for word in words], fontsize=size)
    for place, (tick, word) in enumerate(zip(panel.get_xticklabels(), words, strict=True)):
        tick.set_color(RED if place in rhymes else INK if clauses(word) else PALE)
        if len(label(word)) > 2:
            tick.set(fontsize=12, rotation=90)
        if MARKS & set(word):
            heavy = bool(set(word) & set(STOPS))
            panel.axvline(
                place + 0.5, color=PALE, linewidth=1.4 if heavy else 0.7, linestyle="-" if heavy else ":"
            )
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


def noise_figure(content: dict[str, Any], knobs: Sequence[str]) -> Figure:
    """Return the text of every value of every knob, drawn with one noise, and where neighbours part."""
    note = f"Red box: where a text parts from the one above. {_whence(content)}"
    figure = _blank(f"{_given(content)} …  the same noise, other knobs", note)
    groups = {knob: [content["settings"][place] for place in content["knobs"][knob]] for knob in knobs}
    longest = max(len(_line(setting)) for group in groups.values() for setting in group)
    width, height = max(longest, 24), sum(map(len, groups.values())) + 0.6 * (len(groups) - 1)
    panel = figure.add_axes((0.205, 0.04, 0.78, 0.80))
    panel.axis("off")
    panel.set_xlim(-0.5, width + 0.5)
    panel.set_ylim(height - 0.4, -0.6)
    size = min(24.0, 72 * 0.72 * _SIZE[0] / (width + 1), 72 * 0.56 * _SIZE[1] / height)
    y = 0.0
    for knob, group in groups.items():
        beside = panel.get_yaxis_transform()
        _put(panel, -0.228, y, NAMES[knob], 16, BLUE, bold=True, transform=beside)
        for setting, above in zip(group, [None, *group], strict=False):
            chosen = setting is content["settings"][0]
            colour = RED if chosen else INK
            _put(panel, -1, y, value(knob, setting[knob]), 16, colour, bold=chosen, ha="right")
            _noise_row(panel, y, _line(setting), _line(above) if above else None, size)
            y += 1.0
        y += 0.6
    return figure


def _line(setting: dict[str, Any]) -> str:
    """A setting's text on one line, as much as is drawn; three dots where it was cut."""
    text = " ".join(setting["text"].split())
    cut = setting["finish_reason"] == "length" or len(text) > _COLUMNS
    return text[:_COLUMNS] + "…" * cut


def _noise_row(panel: Axes, y: float, text: str, above: str | None, size: float) -> None:
    parts = 0 if above is None else parting(text, above)
    for x, character in enumerate(text):
        colour = PALE if x < parts or character in MARKS or character == "…" else INK
        if above is not None and x == parts:
            panel.add_patch(Rectangle((x - 0.5, y - 0.46), 1, 0.92, facecolor=RED, edgecolor="none"))
            colour = "white"
        _put(panel, x, y, label(character), size, colour, ha="center")


def parting(text: str, other: str) -> int:
    """Where two texts first differ; the shorter one's length if it begins the other."""
    return next(
        (place for place, (a, b) in enumerate(zip(text, other, strict=False)) if a != b),
        min(len(text), len(other)),
    )
