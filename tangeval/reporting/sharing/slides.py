"""A verdict → pictures for slides: one metric and one message each, in large type, in either language.

In: ``Results`` with a verdict. Out: 16:9 pictures, one for each claim, whose title is the claim's own sentence with one
metric left in it. What is drawn is the claim's evidence: a line for what is compared with, and for the others the
interval of their difference from it, so that one that crosses the line is not told apart. Knows nothing of tests.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.figure import Figure

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB
from tangeval.core.types import BASE, RANDOM
from tangeval.core.words import language, say
from tangeval.reporting import style
from tangeval.reporting.looks import COLOURS
from tangeval.reporting.notebook import Results
from tangeval.reporting.verdict import Speaker

_SIZE, _POINTS = (12.8, 7.2), 24
#: Columns of a title's line, of which a Chinese character takes two; marks that begin or end no line.
_COLUMNS, _NO_BEGIN, _NO_END = 54, "，。、；：？！）」』", "（「『"
_Claim = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """What is drawn: values at names, the ends of some, the line that these are told from, and the one that matters."""

    metric: str
    names: Sequence[str]
    values: Sequence[float]
    ends: Mapping[str, tuple[float, float]]
    line: str
    marked: str


def draw(results: Results) -> list[Path]:
    """As ``write_slides``."""
    verdict = results.verdict
    if not verdict["claims"]:
        raise TangevalError(f"{results.run.verdict_file}: it claims nothing, so there is nothing to show")
    with matplotlib.style.context(style.STYLE | {"font.size": _POINTS}, after_reset=True):
        return style.save(_figures(results, verdict), results.folder / "slides" / language())


def _figures(results: Results, verdict: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    for number, claim in enumerate(
        (each for each in verdict["claims"] if each["key"] != "none" or each["question"] != "open"), 1
    ):
        one, chart = (
            _CHARTS[claim["question"]](claim, results) if claim["question"] in _CHARTS else (claim, None)
        )
        (said,) = results.speaker.all({**verdict, "claims": [one], "chosen": {}})
        yield (
            f"{number}_{claim['question']}",
            _slide(said.question, said.answer, chart, results.speaker, verdict),
        )


def _slide(
    question: str, message: str, chart: Chart | None, speaker: Speaker, verdict: Mapping[str, Any]
) -> Figure:
    figure, title = Figure(figsize=_SIZE), _wrapped(message)
    figure.text(0.04, 0.95, question, color="#675f54", fontsize=_POINTS, va="top")
    figure.text(
        0.04,
        0.875,
        title,
        fontsize=_POINTS + 2,
        fontweight="normal" if style.is_chinese(message) and not style.chinese_bold() else "bold",
        va="top",
        linespacing=1.3,
    )
    if chart:
        lines = title.count("\n") + 1
        axes = figure.add_axes((0.12, 0.2, 0.84, 0.58 - 0.065 * lines))
        _draw(axes, chart, speaker)
        metric = speaker.metrics[chart.metric]
        better = say("slides.higher" if metric.better == "high" else "slides.lower")
        figure.text(
            0.04,
            0.8 - 0.065 * lines,
            f"{speaker.metric(chart.metric)}{better}",
            fontsize=_POINTS,
            va="bottom",
            color="#333333",
        )
    note = say("slides.note") if chart else speaker.basis(verdict)
    figure.text(
        0.04,
        0.03,
        _wrapped(note, 104 if style.is_chinese(note) else 92),
        fontsize=16,
        color="#675f54",
        va="bottom",
    )
    return figure


def _draw(axes: Any, chart: Chart, speaker: Speaker) -> None:
    places = range(len(chart.names))
    level = chart.values[chart.names.index(chart.line)]
    axes.axhline(level, color=COLOURS["base"], linewidth=2, zorder=1)
    for place, name, value in zip(places, chart.names, chart.values, strict=True):
        colour = COLOURS["late"] if name == chart.marked else COLOURS["base"]
        if name in chart.ends:
            low, high = chart.ends[name]
            axes.plot(
                [place, place], [low, high], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt"
            )
        axes.plot(place, value, "o", color=colour, markersize=15, zorder=3)
        axes.annotate(
            f"{value:.2f}",
            (place, value),
            (14, 8),
            textcoords="offset points",
            fontsize=_POINTS - 2,
            color=colour,
        )
    axes.set_xlim(-0.4, len(chart.names) - 0.4)
    axes.set_xticks(
        places,
        [style.short(name) for name in chart.names],
        fontsize=_POINTS - (4 if len(chart.names) < 6 else 8),
    )
    axes.margins(y=0.18)
    axes.locator_params(axis="y", nbins=5)
    axes.tick_params(axis="y", labelsize=_POINTS - 4)


def _wrapped(text: str, columns: int = _COLUMNS) -> str:
    """Text in lines: Latin words stay whole, Chinese breaks anywhere but before a mark."""
    lines, width = [""], 0
    for part in re.findall(r"[^\s\u2e80-\uffff]+\s*|.", text):
        own = sum(2 if character >= "\u2e80" else 1 for character in part.rstrip())
        if width + own > columns and part not in _NO_BEGIN:
            opened = lines[-1][-1:] if lines[-1].endswith(tuple(_NO_END)) else ""
            lines[-1] = lines[-1].removesuffix(opened)
            lines, width = [*lines, opened], 2 * len(opened)
        lines[-1] += part
        width += own + len(part) - len(part.rstrip())
    return "\n".join(line.rstrip() for line in lines)


def _clearest(rows: Sequence[_Claim]) -> _Claim:
    """The row whose difference is the largest beside its interval."""
    return max(rows, key=lambda row: abs(row["difference"]) / ((row["high"] or 0) - (row["low"] or 0) or 1))


def _around(row: _Claim, line: str) -> tuple[str, tuple[float, float] | None]:
    """Of a comparison with ``line``: the other one, and the ends of its difference, from where the line is."""
    if row["low"] is None:
        return row["a"] if row["b"] == line else row["b"], None
    if row["b"] == line:
        return row["a"], (row["value_b"] + row["low"], row["value_b"] + row["high"])
    return row["b"], (row["value_a"] - row["high"], row["value_a"] - row["low"])


def _ends(rows: Sequence[_Claim], line: str) -> dict[str, tuple[float, float]]:
    found = (_around(row, line) for row in rows if line in (row["a"], row["b"]))
    return {name: ends for name, ends in found if ends}


def _values(results: Results, metric: str, names: Sequence[str] = ()) -> dict[str, float]:
    """The checkpoints' values on the verdict's split, base first, or those of ``names``."""
    columns = ["checkpoint", "split", "step", metric]
    frame = style.of_checkpoints(results.checkpoints[columns], results.verdict["split"])
    found = dict(zip(frame["checkpoint"], frame[metric].astype(float), strict=True))
    return {name: value for name, value in found.items() if not names or name in names}


def _helped(claim: _Claim, results: Results) -> tuple[_Claim, Chart]:
    values, name = claim["values"], claim["values"]["checkpoint"]
    row = _clearest(values["better"] or values["worse"] or claim["evidence"])
    one = {
        side: [each for each in values[side] if each["metric"] == row["metric"]]
        for side in ("better", "worse")
    }
    shown = _values(results, row["metric"])
    key = "yes" if one["better"] else "no" if one["worse"] else claim["key"]
    metrics = [row["metric"]] if not (one["better"] or one["worse"]) else values["metrics"]
    said = {**claim, "key": key, "values": {**values, **one, "metrics": metrics}}
    return said, Chart(row["metric"], [*shown], [*shown.values()], _ends([row], BASE), BASE, name)


def _checkpoint(claim: _Claim, results: Results) -> tuple[_Claim, Chart]:
    values, rows = claim["values"], claim["evidence"]
    names = {row[side] for row in rows for side in "ab"}
    shown, leader = _values(results, values["metric"], [*names]), values["checkpoint"]
    return claim, Chart(values["metric"], [*shown], [*shown.values()], _ends(rows, leader), leader, leader)


def _settings(claim: _Claim, results: Results) -> tuple[_Claim, Chart]:
    values, rows = claim["values"], claim["evidence"]
    row = _clearest(values["harm"] or rows)
    own = [each for each in rows if (each["knob"], each["metric"]) == (row["knob"], row["metric"])]
    best = row.get("best", row["a"])
    found = {each[side]: each[f"value_{side}"] for each in own for side in "ab"}
    order = {
        str(value): place for place, value in enumerate(KNOB[row["knob"]].by_strength(map(_number, found)))
    }
    names = sorted(found, key=lambda name: order.get(str(_number(name)), 0))
    told = {name: results.speaker.value(row["knob"], name) for name in names}
    ends = {told[name]: both for name, both in _ends(own, best).items()}
    quiet = (
        {"quiet": [], "harm": [row]}
        if values["harm"]
        else {"metrics": [row["metric"]], "quiet": [row["knob"]]}
    )
    chart = Chart(
        row["metric"], [*told.values()], [found[name] for name in names], ends, told[best], told[best]
    )
    return {**claim, "values": {**values, **quiet}}, chart


def _number(text: str) -> Any:
    return float(text) if re.fullmatch(r"-?[\d.]+(e-?\d+)?", text) else text


def _random(claim: _Claim, results: Results) -> tuple[_Claim, Chart]:
    values = claim["values"]
    rows = [row for row in values["far"] if row["better"] or claim["status"] != "shown"]
    row = _clearest(rows)
    key = {1: "yes", -1: "no"}.get(row["better"], claim["key"])
    kind = "verse" if results.speaker.verse else "text"
    names = [say(f"random.{kind}"), row["a"], say(f"people.{kind}")]
    one = {**claim, "key": key, "values": {**values, "far": [row]}}
    return one, Chart(
        row["metric"],
        names,
        [row["value_b"], row["value_a"], row["reference"]],
        _ends([row], RANDOM),
        names[0],
        row["a"],
    )


_CHARTS: Mapping[str, Callable[[_Claim, Results], tuple[_Claim, Chart]]] = {
    "helped": _helped, "checkpoint": _checkpoint, "settings": _settings, "random": _random,
}  # fmt: skip
