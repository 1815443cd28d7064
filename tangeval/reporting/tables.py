"""The summary as tables: CSV for programs, Markdown and LaTeX for readers, one for the terminal.

In: the three frames of ``summarize``. Out: ``checkpoints``, ``effects`` and ``best_settings``,
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

from tangeval.core.knobs import AXES
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics import BY_NAME
from tangeval.results.files import write_text

#: Metrics a reader is shown; the CSV files have all of them.
SHOWN = (
    "bleu", "chrf", "reference_nll", "form", "complete", "length_match", "rhyme", "tone_opposition", "self_bleu",
    "copied_clauses",
)  # fmt: skip
BEST = 10
OVERALL = "Checkpoints on {}, averaged over all settings"
_CONSOLE_WIDTH = 120
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
    settings: pd.DataFrame,
    effects: pd.DataFrame,
    checkpoints: pd.DataFrame,
    folder: Path,
    *,
    by: str = "bleu",
    split: str = "validation",
) -> list[Path]:
    """Write the nine files into ``folder`` and return their paths.

    The frames have ``summarize.Summary``'s columns. ``by`` is the metric that ranks the best
    settings, low or high first as the metric knows; ``split`` is the one that stands first.

    Raises:
        KeyError: ``by`` is no metric.
    """
    settings, effects, checkpoints = (_in_order(frame, split) for frame in (settings, effects, checkpoints))
    best = best_settings(settings, by)
    written = []
    for name, frame, sections in (
        ("checkpoints", checkpoints, _sections(checkpoints, OVERALL, ("checkpoint", "step"))),
        ("effects", effects, _effect_sections(effects)),
        (
            "best_settings",
            best,
            _sections(best, f"Best settings by {by} on {{}}", ("rank", "checkpoint", *AXES)),
        ),
    ):
        for suffix, text in (
            (".csv", frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")),
            (".md", "\n".join(map(_markdown, sections)) or "No knob has two values.\n"),
            (".tex", _latex(name, sections)),
        ):
            written.append(folder / f"{name}{suffix}")
            write_text(written[-1], text)
    return written


def best_settings(settings: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return each split's ten best settings over all checkpoints, then its random baseline and reference.

    Adds ``rank``, 1 for the best, empty beside random baseline and reference. At temperature 0 every
    top-k and top-p is the same text, so one setting stands for all of them. Settings without a
    value of ``by`` are left out; ties keep the order of ``settings``.

    Raises:
        KeyError: ``by`` is no metric.
    """
    ascending = BY_NAME[by].better == "low"
    baseline = settings["checkpoint"].isin([RANDOM, REFERENCE])
    twins = settings.duplicated(["checkpoint", "split", "temperature", "max_length"])
    ranked = settings[~baseline & settings[by].notna() & ~(settings["temperature"].eq(0) & twins)]
    ranked = ranked.sort_values(by, ascending=ascending, kind="stable")
    rank = ranked.groupby("split").cumcount().add(1)
    best = pd.concat([ranked.assign(rank=rank)[rank <= BEST], settings[baseline]])
    best.insert(0, "rank", best.pop("rank").astype("Int64"))
    splits = list(settings["split"].unique())
    return best.sort_values("split", key=lambda s: s.map(splits.index), kind="stable", ignore_index=True)


def rich_table(
    frame: pd.DataFrame, title: str, metrics: Sequence[str] = ("bleu", "form", "rhyme", "reference_nll")
) -> Table:
    """Return ``frame`` for the terminal: what names its rows, and ``metrics``.

    Intervals are left out where they would make it wider than 120 columns.
    """
    metrics = [metric for metric in metrics if frame[metric].notna().any()]
    named = [key for key in ("rank", "checkpoint", "knob", "value", *AXES) if key in frame]
    keys = [key for key in named if frame[key].notna().any()]
    keys[keys.index("checkpoint") + 1 : 0] = ["split"] if frame["split"].nunique() > 1 else []
    for intervals, gap in ((True, 2), (False, 2), (False, 1)):
        padding = (0, gap, 0, 0)
        table = Table(title=Text(title), title_justify="left", box=None, header_style="bold", padding=padding)
        for name in (*keys, *metrics):
            words = name in ("checkpoint", "split", "knob")
            table.add_column(name.replace("_", " "), justify="left" if words else "right", no_wrap=words)
        for row in _readable(frame, keys, metrics, intervals=intervals):
            table.add_row(*map(Text, row))
        if Console(width=10**4).measure(table).maximum <= _CONSOLE_WIDTH:
            break
    return table


def _in_order(frame: pd.DataFrame, first: str) -> pd.DataFrame:
    """Splits with ``first`` ahead; in each: base, checkpoints by step, random baseline, reference."""
    splits = sorted(frame["split"].unique(), key=lambda split: split != first)
    place = frame["checkpoint"].map({BASE: 0, RANDOM: 2, REFERENCE: 3}).fillna(1)
    keyed = frame.assign(_split=frame["split"].map(splits.index), _place=place)
    ordered = keyed.sort_values(["_split", "_place", "step"], kind="stable", ignore_index=True)
    return ordered.drop(columns=["_split", "_place"])


def _sections(frame: pd.DataFrame, title: str, keys: Sequence[str]) -> list[Section]:
    """A section a split; ``{}`` in ``title`` becomes what its checkpoints were measured on."""
    sections = []
    for split, part in frame.groupby("split", sort=False):
        own = part[~part["checkpoint"].isin([RANDOM, REFERENCE])]
        poems, samples = (own if len(own) else part)[["poems", "samples"]].iloc[0]
        on = f"{poems} {split} poem{'s' * (poems != 1)} with {samples} sample{'s' * (samples != 1)} each"
        sections.append(Section(title.format(on), keys, part))
    return sections


def _effect_sections(frame: pd.DataFrame) -> list[Section]:
    sections: list[Section] = []
    for knob in (knob for knob in AXES if knob in set(frame["knob"].dropna())):
        # Random baseline and reference know no knob: they stand beside each of them.
        part = frame[frame["knob"].isna() | (frame["knob"] == knob)].drop(columns="knob")
        title = f"Effect of {knob} on {{}}, averaged over the other knobs"
        sections += _sections(part.rename(columns={"value": knob}), title, ("checkpoint", knob))
    return sections


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
