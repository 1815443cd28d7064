"""The summary as tables: CSV for programs, Markdown and LaTeX for readers, one for the terminal.

In: the three frames of ``summarize``. Out: ``checkpoints``, ``effects`` and ``best_cells``,
each as .csv, .md and .tex; a ``rich`` table. The same frames give the same bytes. Knows
nothing of generations, models or pictures.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tangeval.metrics import BY_NAME
from tangeval.metrics.aggregate import KNOBS
from tangeval.records import BASE, FLOOR, REFERENCE
from tangeval.store import write_text

#: Metrics a reader is shown; the CSV files have all of them.
SHOWN = ("bleu", "chrf", "reference_nll", "form", "metre", "clause_count", "punctuation", "complete")
BEST = 10
_CONSOLE_WIDTH = 100
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#",
    "$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "[": "{[}", "]": "{]}",
})  # fmt: skip


class Section(NamedTuple):
    """A part of a table under its own heading: ``keys`` name the rows of ``frame``."""

    title: str
    keys: Sequence[str]
    frame: pd.DataFrame


def write(
    cells: pd.DataFrame,
    effects: pd.DataFrame,
    checkpoints: pd.DataFrame,
    folder: Path,
    *,
    by: str = "bleu",
    split: str = "validation",
) -> list[Path]:
    """Write the nine files into ``folder`` and return their paths.

    The frames have ``summarize.Summary``'s columns. ``by`` is the metric that ranks the best
    cells, low or high first as the metric knows; ``split`` is the one that stands first.

    Raises:
        KeyError: ``by`` is no metric.
    """
    cells, effects, checkpoints = (_in_order(frame, split) for frame in (cells, effects, checkpoints))
    best = best_cells(cells, by)
    written = []
    for name, frame, sections in (
        ("checkpoints", checkpoints, _checkpoint_sections(checkpoints)),
        ("effects", effects, _effect_sections(effects)),
        ("best_cells", best, _best_sections(best, by)),
    ):
        for suffix, text in (
            (".csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")),
            (".md", "\n".join(map(_markdown, sections))),
            (".tex", _latex(name, sections)),
        ):
            written.append(folder / f"{name}{suffix}")
            write_text(written[-1], text)
    return written


def best_cells(cells: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return each split's ten best cells over all checkpoints, then its floor and reference.

    Adds ``rank``, 1 for the best, empty beside floor and reference. At temperature 0 every
    top-k and top-p is the same text, so one cell stands for all of them. Cells without a
    value of ``by`` are left out; ties keep the order of ``cells``.

    Raises:
        KeyError: ``by`` is no metric.
    """
    ascending = BY_NAME[by].better == "low"
    yardstick = cells["checkpoint"].isin([FLOOR, REFERENCE])
    greedy = cells["temperature"].eq(0) & cells.duplicated(["checkpoint", "split", "temperature", "max_length"])
    parts = []
    for _, part in cells.groupby("split", sort=False):
        ranked = part[~yardstick & ~greedy & part[by].notna()]
        ranked = ranked.sort_values(by, ascending=ascending, kind="stable").head(BEST)
        whole = pd.concat([ranked, part[yardstick]])
        rank = [*range(1, len(ranked) + 1), *[None] * (len(whole) - len(ranked))]
        whole.insert(0, "rank", pd.array(rank, dtype="Int64"))
        parts.append(whole)
    return pd.concat(parts, ignore_index=True)


def rich_table(
    frame: pd.DataFrame, title: str, metrics: Sequence[str] = ("bleu", "form", "reference_nll")
) -> Table:
    """Return ``frame`` for the terminal: what names its rows, and ``metrics``.

    Intervals are left out where they would make it wider than 100 columns.
    """
    named = [key for key in ("rank", "checkpoint", "knob", "value", *KNOBS) if key in frame]
    keys = [key for key in named if frame[key].notna().any()]
    keys[keys.index("checkpoint") + 1 : 0] = ["split"] if frame["split"].nunique() > 1 else []
    for intervals in (True, False):
        table = Table(title=title, title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0))
        for name in (*keys, *metrics):
            words = name in ("checkpoint", "split", "knob")
            table.add_column(name.replace("_", " "), justify="left" if words else "right", no_wrap=words)
        for row in _readable(frame, keys, metrics, intervals=intervals):
            table.add_row(*map(Text, row))
        if Console(width=10**4).measure(table).maximum <= _CONSOLE_WIDTH:
            break
    return table


def _in_order(frame: pd.DataFrame, first: str) -> pd.DataFrame:
    """Splits with ``first`` ahead; in each: base, checkpoints by step, floor, reference."""
    splits = sorted(frame["split"].unique(), key=lambda split: split != first)
    place = frame["checkpoint"].map({BASE: 0, FLOOR: 2, REFERENCE: 3}).fillna(1)
    keyed = frame.assign(_split=frame["split"].map(splits.index), _place=place)
    ordered = keyed.sort_values(["_split", "_place", "step"], kind="stable", ignore_index=True)
    return ordered.drop(columns=["_split", "_place"])


def _checkpoint_sections(frame: pd.DataFrame) -> list[Section]:
    return [
        Section(f"Checkpoints {_on(part)}, averaged over all cells", ("checkpoint", "step"), part)
        for _, part in frame.groupby("split", sort=False)
    ]


def _effect_sections(frame: pd.DataFrame) -> list[Section]:
    sections = []
    for knob in KNOBS:
        # Floor and reference know no knob: they stand beside each of them.
        for _, part in frame[frame["knob"].isna() | (frame["knob"] == knob)].groupby("split", sort=False):
            if (part["knob"] == knob).any():
                title = f"Effect of {knob} {_on(part)}, averaged over the other knobs"
                part = part.rename(columns={"value": knob}).drop(columns="knob")
                sections.append(Section(title, ("checkpoint", knob), part))
    return sections


def _best_sections(frame: pd.DataFrame, by: str) -> list[Section]:
    return [
        Section(f"Best cells by {by} {_on(part)}", ("rank", "checkpoint", *KNOBS), part)
        for _, part in frame.groupby("split", sort=False)
    ]


def _on(part: pd.DataFrame) -> str:
    """What a section's rows were measured on: poems, and samples of the checkpoints' own."""
    own = part[~part["checkpoint"].isin([FLOOR, REFERENCE])]
    first = (own if len(own) else part).iloc[0]
    return f"on {first['poems']} {first['split']} poems with {first['samples']} samples each"


def _readable(
    frame: pd.DataFrame, keys: Iterable[str], metrics: Sequence[str], *, intervals: bool = True
) -> list[list[str]]:
    """``frame`` as text: ``0.42 [0.31, 0.53]``, and nothing where nothing was measured."""

    def measured(row: dict[str, Any], name: str) -> str:
        decimals = 3 if name == "reference_nll" else 2
        value, low, high = (
            "" if pd.isna(number := row.get(name + end)) else f"{number:.{decimals}f}"
            for end in ("", "_low", "_high")
        )
        return f"{value} [{low}, {high}]" if value and low and high and intervals else value

    def key(value: Any) -> str:
        return "" if pd.isna(value) else value if isinstance(value, str) else f"{value:g}"

    rows: list[dict[Any, Any]] = frame.to_dict("records")
    return [[*(key(row[k]) for k in keys), *(measured(row, m) for m in metrics)] for row in rows]


def _markdown(section: Section) -> str:
    title, keys, frame = section
    rows = [[*keys, *SHOWN], ["---"] * len(keys) + ["---:"] * len(SHOWN), *_readable(frame, keys, SHOWN)]
    lines = ["| " + " | ".join(text.replace("|", r"\|") for text in row) + " |" for row in rows]
    return "\n".join([f"### {title}", "", "A value and its 95 % interval over poems.", "", *lines, ""])


def _latex(name: str, sections: list[Section]) -> str:
    r"""One ``table`` a section, shrunk to the text's width, to ``\input`` into a document."""
    lines = [r"% \usepackage{booktabs,graphicx}"]
    for number, (title, keys, frame) in enumerate(sections, start=1):
        head, *body = (
            " & ".join(text.translate(_LATEX) for text in row) + r" \\"
            for row in ([*keys, *SHOWN], *_readable(frame, keys, SHOWN))
        )
        lines += [
            r"\begin{table}",
            rf"\caption{{{title.translate(_LATEX)}. A value and its 95\,\% interval over poems.}}",
            rf"\label{{tab:{name}-{number}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{'l' * len(keys)}{'r' * len(SHOWN)}}}",
            r"\toprule", head, r"\midrule", *body, r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
