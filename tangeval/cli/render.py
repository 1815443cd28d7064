"""What commands print: what was chosen, which differences are real, what a judge said.

In: the frames and records of the rooms below, and a console. Out: lines and tables on it. What
comes from a model, a file or a path is shown as it is, never read as markup.
"""

import re
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tangeval.judge.asking import SCORES
from tangeval.metrics import METRICS
from tangeval.tasks.base import Dataset

_LONG = 24  # characters of a name beyond which a letter stands for it in a table


def verse(text: str) -> Text:
    """A poem set as verse, two clauses a line; what is no verse stays on its line."""
    parts = re.findall("[^，、；：？！。]*[，、；：？！。]+|[^，、；：？！。]+$", " ".join(text.split()))
    return Text("\n".join("".join(parts[place : place + 2]) for place in range(0, len(parts), 2)))


def show_selection(console: Console, selection: dict[str, Any], folder: Path) -> None:
    rule, best = selection["rule"], selection["checkpoint"]
    value = best[rule["checkpoint"]]
    console.print(
        f"[bold]best checkpoint[/]: {escape(best['checkpoint'])} ({rule['checkpoint']} {value:.3f} on {rule['split']})",
        highlight=False,
    )
    if selection["saw_test"]:
        console.print(f"  [yellow]it was fine-tuned on {selection['saw_test']} of the test poems[/]")
    ties = [r["checkpoint"] for r in selection["runners_up"]["checkpoints"] if not r["distinguishable"]]
    console.print(f"  cannot be told from it: {escape(', '.join(ties)) or 'none'}", highlight=False)
    if selection["setting"] is None:
        console.print(f"[yellow]no setting meets[/] {rule['setting']['require']}; nearest:", highlight=False)
        for setting in selection["nearest"]:
            metrics = ", ".join(f"{m} {setting[m]['value']:.3f}" for m in rule["setting"]["require"])
            console.print(f"  {knobs(setting)}: {metrics}", highlight=False)
        return
    by = rule["setting"]["by"]
    console.print(f"[bold]best setting[/]: {knobs(selection['setting'])}", highlight=False)
    for split in dict.fromkeys((rule["split"], "test")):
        if split in selection:
            shown = [
                f"{m} {selection[split][m]['value']:.2f} [{selection[split][m]['low']:.2f}, {selection[split][m]['high']:.2f}]"
                for m in (by, "form")
            ]
            console.print(f"  on {split}: {', '.join(shown)}", highlight=False, markup=False)
    corrected = selection["corrected"]
    if corrected["value"] is not None:
        console.print(
            f"  corrected for having been picked: {by} {corrected['value']:.2f} [{corrected['low']:.2f}, "
            f"{corrected['high']:.2f}]",
            highlight=False, markup=False,
        )  # fmt: skip
    rest = selection["runners_up"]["settings"]
    if rest:
        told = sum(r["distinguishable"] for r in rest)
        console.print(
            f"  of the other {len(rest)} settings that may be chosen, {told} can be told from it by {by}",
            highlight=False,
        )
    console.print(f"  all of it in {escape(str(folder / 'best'))}", highlight=False)


def show_poems(console: Console, outputs: pd.DataFrame, data: Dataset) -> None:
    """A few poems of the test split: what was given, what was written, and the poet's own."""
    table = Table(
        "given", "written", "the poet's own", title="Three poems of the test split", title_justify="left"
    )
    for example_id, text in zip(outputs["example_id"], outputs["text"], strict=True):
        example = data.by_id[example_id]
        table.add_row(*map(verse, (example.input, text, example.reference)))
    console.print(table)


def show_race(console: Console, result: dict[str, Any], folder: Path) -> None:
    """What a race chose, what it is worth, and what the race cost."""
    rule = result["rule"]
    by = rule["setting"]["by"]
    console.print(f"[bold]best checkpoint[/]: {escape(result['checkpoint'])}", highlight=False)
    console.print(f"[bold]best setting[/]: {knobs(result['setting'])}", highlight=False)
    for split in dict.fromkeys((rule["split"], "test")):
        if split in result:
            value, low, high = (result[split][by][key] for key in ("value", "low", "high"))
            console.print(
                f"  {by} on {split}: {value:.3f} [{low:.3f}, {high:.3f}]", highlight=False, markup=False
            )
    console.print(
        f"  chosen for {result['spent'] / result['whole']:.0%} of the grid's generations; all of it in "
        f"{escape(str(folder / 'race.json'))}",
        highlight=False,
    )


def show_calibration(console: Console, poets: pd.Series, floor: pd.Series) -> None:
    """Every metric of what the poets wrote, and of what stands in another poem of the same metre."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric", no_wrap=True)
    for name in ("the poets' own endings", "random"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in METRICS:
        values = [
            "–" if pd.isna(row[each.name])
            else f"{row[each.name]:.3f} [{row[f'{each.name}_low']:.3f}, {row[f'{each.name}_high']:.3f}]"
            for row in (poets, floor)
        ]  # fmt: skip
        if values != ["–", "–"]:
            table.add_row(each.name, *map(Text, values))
    console.print(table)
    console.print(
        "The random baseline is another poem's ending of the same metre: real verse, so all that a couplet has by itself "
        "(form, tone_opposition) is right in it. The poets' own endings are looked for in all other training poems.",
        highlight=False,
    )


def show_comparison(console: Console, frame: pd.DataFrame, title: str) -> None:
    """A row for each pair and metric, the reasons to believe it last."""
    if not len(frame):
        console.print("[yellow]nothing to compare[/]: no metric was measured of two of them")
        return
    poems = frame["poems"].iloc[0]
    places = {name.partition(":")[0] for name in [*frame["a"], *frame["b"]]}
    if len(places) == 1 and all(":" in name for name in [*frame["a"], *frame["b"]]):
        title += f" of {places.pop()}"
        frame = frame.assign(a=frame["a"].str.partition(":")[2], b=frame["b"].str.partition(":")[2])
    console.print(Text(f"{title}, {poems} poems", "italic"))
    names = list(dict.fromkeys([*frame["a"], *frame["b"]]))
    if max(map(len, names)) > _LONG and len(names) <= len(ascii_uppercase):
        letters = dict(zip(names, ascii_uppercase, strict=False))
        for name, letter in letters.items():
            console.print(Text(f"{letter}  {name}"), soft_wrap=True)
        frame = frame.assign(a=frame["a"].map(letters), b=frame["b"].map(letters))
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    needed = "poems_needed" in frame and bool(frame["poems_needed"].notna().any())
    for name in ("metric", "a", "b"):
        table.add_column(name, overflow="fold")
    for name in ("a − b", "95 % interval", "p", "p (Holm)", *["poems needed"] * needed):
        table.add_column(name, justify="right", no_wrap=True)
    for row in frame.to_dict("records"):
        needs = (
            ""
            if not needed or pd.isna(row["poems_needed"])
            else f"{row['poems_needed']:,.0f} for {row['effect']:g}"
        )
        table.add_row(
            row["metric"], Text(f"{row['a']}  {row['value_a']:.3f}"), Text(f"{row['b']}  {row['value_b']:.3f}"),
            f"{row['difference']:+.3f}", f"[{row['low']:+.3f}, {row['high']:+.3f}]".replace("[", r"\["),
            f"{row['p']:.4f}", f"{row['p_holm']:.4f}", *[needs] * needed, style="bold" if row["p_holm"] < 0.05 else "",
        )  # fmt: skip
    console.print(table)
    noise = "shared" if frame["shared_noise"].all() else "not shared by all of them, which makes noise larger"
    console.print(
        f"{len(frame)} comparison{'s' * (len(frame) > 1)}, corrected together (Holm); bold: real at the 5 % level. "
        f"p by flipping signs of poems. Noise is {noise}.",
        highlight=False,
    )


def show_server(console: Console, manifest: dict[str, Any]) -> None:
    """Who wrote the texts, and that noise is not shared."""
    console.print(
        f"written by {manifest['engine']}; noise: {manifest['noise']}", highlight=False, markup=False
    )


def show_explained(console: Console, content: dict[str, Any], file: Path) -> None:
    """The text as the setting writes it, and where every step of it is."""
    console.print(verse(content["couplet"] + content["text"]))
    token = content["vocabulary"][str(content["steps"][content["step"] - 1]["token"])]
    console.print(
        f"step {content['step']} of {len(content['steps'])}: {token!r}", highlight=False, markup=False
    )
    console.print(f"every step: {file}", highlight=False, markup=False)


def knobs(setting: dict[str, Any]) -> str:
    return ", ".join(f"{knob} {setting[knob]}" for knob in ("temperature", "top_k", "top_p", "max_length"))


def show_judged(console: Console, summary: pd.DataFrame, title: str) -> None:
    table = Table(
        title=Text(title), title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    table.add_column("checkpoint", no_wrap=True)
    for name in ("prosody 格律", "fluency 語意通順", "poems", "unparsable", "votes agree"):
        table.add_column(name, justify="right")
    rows: list[dict[Any, Any]] = summary.to_dict("records")
    for row in rows:
        scores = [
            f"{row[name]:.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" if row["poems"] else ""
            for name in SCORES
        ]
        shares = ["" if pd.isna(row[k]) else f"{row[k]:.0%}" for k in ("unparsable", "agreement")]
        poems = f"{row['poems']} of {row['poems'] + row['missing']}"
        table.add_row(*map(Text, (row["checkpoint"], *scores, poems, *shares)))
    console.print(table)


def show_unjudged(console: Console, judged: pd.DataFrame, votes: int, cut_off: int) -> None:
    """Say what the means leave out, and why."""
    unread = judged[(judged["parsed"] == 0) & (judged["votes"] == votes)]
    if len(unread):
        names = [f"{row.example_id} of {row.checkpoint}" for row in unread.head(5).itertuples()]
        more = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
        console.print(
            f"[yellow]no vote could be read[/] for {escape(', '.join(names))}{more}; they are missing above",
            highlight=False,
        )
    if cut_off:
        console.print(
            f"[yellow]{cut_off} answers were cut off[/] before their scores; give more --max-tokens",
            highlight=False,
        )
