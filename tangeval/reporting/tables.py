"""The summary as tables: CSV for programs, Markdown and LaTeX for readers, one for the terminal.

In: the frames of ``summarize`` and the task's metrics. Out: ``checkpoints``, ``effects`` and
``best_settings``, each as .csv, .md and .tex; a ``rich`` table. The same frames give the same bytes.
Knows nothing of generations, models or figures.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tangeval.analysis.grid import axes_of
from tangeval.analysis.summarize import Summary
from tangeval.core.knobs import AXES, CUTS
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.core.untrusted import inert
from tangeval.core.words import say, sentences
from tangeval.metrics.base import Metrics
from tangeval.results.files import csv_text, write_text

BEST = 10  # settings in ``best_settings``
_CONSOLE_WIDTH, _CONSOLE_METRICS = 120, 4
_DECIMALS = {"reference_nll": 3, "room": 3, "difference": 3}
#: What stands in the place of an interval that is not there, and why.
NO_INTERVAL = "–"
WHY_NONE = "[–]: so few examples carry the value that no interval can be believed."
_AGAINST = "p is of a randomisation test against the random baseline."
_NOTE = f"A value and its 95 % interval over examples. {WHY_NONE} {_AGAINST}"


#: What is markup in a name: all but a _ between letters.
MARKDOWN = re.compile(r"[\\`*\[\]<>|&~$#!]|(?<!\w)_|_(?!\w)")


class Section(NamedTuple):
    """A part of a table under its own heading: ``keys`` name the rows of ``frame``."""

    title: str
    keys: Sequence[str]
    frame: pd.DataFrame
    note: str = _NOTE


def write(
    summary: Summary, metrics: Metrics, folder: Path, *, by: str, split: str = "validation"
) -> list[Path]:
    """Write the nine files into ``folder`` and return their paths.

    ``by`` is the metric that ranks the best settings; ``split`` is the one that stands first. The CSV
    files have every metric, the others the task's headline metrics.
    """
    frames = (summary.settings, summary.effects, summary.checkpoints)
    settings, effects, checkpoints = (_in_order(frame, split) for frame in frames)
    best, keys = best_settings(settings, by, metrics), ("rank", "checkpoint", *axes_of(settings))
    overall = "Checkpoints on {}, averaged over all settings"
    tables: dict[str, tuple[pd.DataFrame, Iterator[Section]]] = {
        "checkpoints": (checkpoints, _sections(checkpoints, overall, ("checkpoint", "step"))),
        "effects": (effects, _effect_sections(effects)),
        "best_settings": (best, _sections(best, f"Best settings by {by} on {{}}", keys)),
    }
    if len(summary.recipes):
        title = "Recipes on {}, averaged over all settings, intervals over runs too"
        tables["recipes"] = (summary.recipes, _sections(summary.recipes, title, ("recipe", "runs")))
    shown = headline(metrics)
    return [file for name, own in tables.items() for file in write_table(folder, name, *own, shown)]


def write_table(
    folder: Path, name: str, frame: pd.DataFrame, sections: Iterable[Section], shown: Sequence[str]
) -> list[Path]:
    """Write a table's .csv, .md and .tex into ``folder``: all of ``frame``, and the sections with the ``shown`` metrics."""
    parts, written = list(sections), []
    texts = {
        ".csv": csv_text(frame, digits=6),
        ".md": "\n".join(_markdown(each, shown) for each in parts) or "No knob has two values.\n",
        ".tex": "% \\usepackage{booktabs,graphicx}\n"
        + "".join(_latex(f"{name}-{place}", each, shown) for place, each in enumerate(parts, 1)),
    }
    for suffix, text in texts.items():
        written.append(folder / f"{name}{suffix}")
        write_text(written[-1], text)
    return written


def best_settings(settings: pd.DataFrame, by: str, metrics: Metrics) -> pd.DataFrame:
    """Return each split's ten best settings over all checkpoints, then the baselines.

    Adds ``rank``, 1 for the best, empty beside the baselines. At temperature 0 the cuts change
    nothing, so one of those settings stands for all. Settings without a value of ``by`` are left
    out; ties keep the order of ``settings``.
    """
    ascending = metrics[by].better == "low"
    baseline = settings["checkpoint"].isin([RANDOM, REFERENCE])
    twins = settings.duplicated(
        ["checkpoint", "split", *(knob for knob in axes_of(settings) if knob not in CUTS)]
    )
    ranked = settings[~baseline & settings[by].notna() & ~(settings["temperature"].eq(0) & twins)]
    ranked = ranked.sort_values(by, ascending=ascending, kind="stable")
    rank = ranked.groupby("split").cumcount().add(1)
    best = pd.concat([ranked.assign(rank=rank)[rank <= BEST], settings[baseline]])
    best.insert(0, "rank", best.pop("rank").astype("Int64"))
    splits = list(settings["split"].unique())
    return best.sort_values("split", key=lambda s: s.map(splits.index), kind="stable", ignore_index=True)


def rich_table(frame: pd.DataFrame, title: str, metrics: Metrics, width: int = _CONSOLE_WIDTH) -> Table:
    """Return ``frame`` for a terminal of ``width`` columns: what names its rows, and the first of the headline metrics.

    An interval stands beside its value, else under it; a narrow terminal has a metric less, then no intervals.
    """
    shown = [name for name in headline(metrics) if frame[name].notna().any()][:_CONSOLE_METRICS]
    whose = "checkpoint" if "checkpoint" in frame else "recipe"
    named = [key for key in ("rank", whose, "runs", "knob", "value", *axes_of(frame)) if key in frame]
    keys = [key for key in named if frame[key].notna().any()]
    keys[keys.index(whose) + 1 : 0] = ["split"] if frame["split"].nunique() > 1 else []
    most, fewer = shown, shown[:-1] if width < _CONSOLE_WIDTH and len(shown) > 2 else shown
    for shown, intervals, under, gap in (
        (most, True, False, 2), (most, True, True, 2), (most, True, True, 1), (fewer, True, True, 1),
        (most, False, False, 2), (most, False, False, 1),
    ):  # fmt: skip
        padding = (0, gap, 0, 0)
        table = Table(title=Text(title), title_justify="left", box=None, header_style="bold", padding=padding)
        for name in (*keys, *shown):
            words = name in (whose, "split", "knob")
            table.add_column(
                say(f"table.{name}") if f"table.{name}" in sentences("en") else name.replace("_", " "),
                justify="left" if words else "right",
                no_wrap=words or under,
            )
        for row in _readable(frame, keys, shown, intervals=intervals).itertuples(index=False):
            table.add_row(
                *(
                    Text(cell.replace(" [", "\n[", 1).replace("100.00", "100") if under else cell)
                    for cell in row
                )
            )
        if Console(width=10**4).measure(table).maximum <= min(width, _CONSOLE_WIDTH):
            break
    if intervals and any((frame[name].notna() & frame[f"{name}_low"].isna()).any() for name in shown):
        tested = any(f"{name}_p" in frame for name in shown)
        table.caption = Text(f"{say('table.none')} {say('table.against') * tested}")
        table.caption_justify = "left"
    return table


def measured_on(part: pd.DataFrame) -> str:
    """Return how many examples and samples the rows of a split were measured on, in words."""
    count, samples, split = part[["poems", "samples", "split"]].iloc[0]
    examples = f"{count} {split} {'example' if count == 1 else 'examples'}"
    return f"{examples} with {samples} {'sample' if samples == 1 else 'samples'} each"


def headline(metrics: Metrics) -> list[str]:
    """Return the metrics that readers see without asking."""
    return [metric.name for metric in metrics.values() if metric.headline]


def _in_order(frame: pd.DataFrame, first: str) -> pd.DataFrame:
    """Splits with ``first`` ahead; in each: base, checkpoints by step, random, reference."""
    splits = sorted(frame["split"].unique(), key=lambda split: split != first)
    place = frame["checkpoint"].map({BASE: 0, RANDOM: 2, REFERENCE: 3}).fillna(1)
    keyed = frame.assign(_split=frame["split"].map(splits.index), _place=place)
    ordered = keyed.sort_values(["_split", "_place", "step"], kind="stable", ignore_index=True)
    return ordered.drop(columns=["_split", "_place"])


def _sections(frame: pd.DataFrame, title: str, keys: Sequence[str]) -> Iterator[Section]:
    """A section a split; ``{}`` in ``title`` becomes what its checkpoints were measured on."""
    for _, part in frame.groupby("split", sort=False):
        own = part[~part.get("checkpoint", part["split"]).isin([RANDOM, REFERENCE])]
        yield Section(title.format(measured_on(own if len(own) else part)), keys, part)


def _effect_sections(frame: pd.DataFrame) -> Iterator[Section]:
    for knob in (knob for knob in AXES if knob in set(frame["knob"].dropna())):
        # The baselines know no knob: they stand beside each of them.
        part = frame[frame["knob"].isna() | (frame["knob"] == knob)].drop(columns="knob")
        title = f"Effect of {knob} on {{}}, averaged over the other knobs"
        yield from _sections(part.rename(columns={"value": knob}), title, ("checkpoint", knob))


def _readable(
    frame: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str], *, intervals: bool = True
) -> pd.DataFrame:
    """``frame`` as text: ``0.42 [0.31, 0.53]``, and nothing where nothing was measured."""

    def text(value: Any, form: str = "g") -> str:
        return (
            ""
            if pd.isna(value)
            else " ".join(inert(value).split())
            if isinstance(value, str)
            else f"{value:{form}}"
        )

    def measured(row: dict[Any, Any], name: str) -> str:
        form = f".{_DECIMALS.get(name, 2)}f"
        value, low, high = (text(row.get(name + end), form) for end in ("", "_low", "_high"))
        if not (value and intervals):
            return value
        p = text(row.get(f"{name}_p"), ".2g")
        return f"{value} [{f'{low}, {high}' if low else NO_INTERVAL + f'; p {p}' * bool(p)}]"

    rows = []
    for row in frame.to_dict("records"):
        rows.append([*(text(row[key]) for key in keys), *(measured(row, name) for name in metrics)])
    return pd.DataFrame(rows, columns=[*keys, *metrics])


def _markdown(section: Section, metrics: Sequence[str]) -> str:
    title, keys, frame, note = section
    table = _readable(frame, keys, metrics)
    table[list(keys)] = table[list(keys)].map(lambda text: MARKDOWN.sub(r"\\\g<0>", text))
    align = ["left"] * len(keys) + ["right"] * len(metrics)
    written = table.to_markdown(index=False, disable_numparse=True, colalign=align)
    return f"### {title}\n\n{note}\n\n{written}\n"


def _latex(label: str, section: Section, metrics: Sequence[str]) -> str:
    r"""A ``table`` shrunk to the text's width, to ``\input`` into a document."""
    title, keys, frame, note = section
    styler = _readable(frame, keys, metrics).style.hide(axis="index").format(escape="latex")
    styler = styler.format_index(escape="latex", axis="columns")
    tabular = styler.to_latex(hrules=True, column_format="l" * len(keys) + "r" * len(metrics))
    # A row that begins with a bracket or a star would be read as the argument of the row's end before it.
    tabular = re.sub(r"^[\[*]", r"{\g<0>}", tabular, flags=re.M)
    caption = f"{title}. {note}".replace("_", r"\_").replace(" %", r"\,\%")
    return (
        f"\\begin{{table}}\n\\caption{{{caption}}}\n\\label{{tab:{label}}}\n"
        f"\\resizebox{{\\textwidth}}{{!}}{{%\n{tabular}}}\n\\end{{table}}\n"
    )
