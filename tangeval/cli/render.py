"""What the commands print of what ``api`` found.

In: a console, and the frames and records of ``api``. Out: lines and tables. What comes from a model, a file
or a path is shown as it is, never read as markup.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from tangeval.cli.progress import SafeConsole
from tangeval.core.knobs import AXES
from tangeval.core.types import SPLITS
from tangeval.reporting.tables import rich_table

if TYPE_CHECKING:
    from tangeval.api import Data, Results, Scored
    from tangeval.core.types import Checkpoint
    from tangeval.explain.subject import Subject
    from tangeval.generation import Pending
    from tangeval.judge.asking import Judge
    from tangeval.judge.grading import Graded
    from tangeval.models.checkpoints import Skipped
    from tangeval.resolve import ResolvedStudy
    from tangeval.results.explained import Explained

_LONG = 24  # characters of a name beyond which a letter stands for it in a table


def knobs(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {setting[name]}" for name in AXES)


def interval(row: Mapping[Any, Any], name: str, digits: int = 2) -> str:
    """Return ``value [low, high]`` of a metric's columns in a row."""
    return estimate({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}, digits)


def estimate(found: Mapping[str, float], digits: int = 2) -> str:
    value, low, high = (f"{found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def show_table(
    console: SafeConsole, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0
) -> None:
    """A table, whose last ``right`` columns are numbers."""
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(columns):
        number = place >= len(columns) - right
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


# Runs


def show_plan(
    console: SafeConsole, resolved: "ResolvedStudy", pending: "Pending", takes: str, out: str | None
) -> None:
    """What a run would decode, where to, and what that takes."""
    rows = []
    for checkpoint in resolved.checkpoints:
        own = [batch for batch in pending.waiting if batch.checkpoint == checkpoint.name]
        counts = (len(own), sum(b.sequences() for b in own), sum(b.outputs() for b in own))
        rows.append(
            (checkpoint.name, str(checkpoint.step or ""), checkpoint.kind, *(f"{n:,}" for n in counts))
        )
    settings = len(resolved.study.decoding.settings())
    title = f"{resolved.study.name}: {settings} settings → {out or f'results/{resolved.study.name}'}"
    columns = ("checkpoint", "step", "kind", "batches to make", "sequences", "outputs")
    show_table(console, title, columns, rows, right=3)
    console.say(takes)


def show_results(console: SafeConsole, results: "Results", *, selected: bool = True) -> None:
    """What a run or a summary found, and where it lies."""
    show_engine(console, results)
    console.print(
        rich_table(results.checkpoints, "Checkpoints, averaged over all settings", results.task.metrics)
    )
    if selected and results.study.select:
        show_selection(console, results)
    if results.pictures:
        console.say(
            f"pictures: {', '.join(f'{name}.png' for name in results.pictures)} in {results.run.figures}"
        )
    console.say(f"tables: {results.run.tables}; every setting: {results.run.table('summary')}")
    show_page(console, results.page, results.note)


def show_engine(console: SafeConsole, results: "Results") -> None:
    """Who wrote the texts, where that was a server, and that noise is not shared."""
    manifest = results.run.manifest
    if "server" in manifest:
        console.say(f"written by {manifest['engine']}; noise: {manifest['noise']}")


def show_page(console: SafeConsole, file: Path, about: str) -> None:
    console.say(f"page: {file} ({about}); open it in a browser")


def show_selection(console: SafeConsole, results: "Results") -> None:
    """What was chosen, how good it is, what it cannot be told from, and three of its texts."""
    selection = results.selection
    rule, best, chosen = (selection[key] for key in ("rule", "checkpoint", "setting"))
    by = rule["setting"]["by"]
    # The share that readers see first: of Tang poems, form.
    form = next((m.name for m in results.task.metrics.values() if m.share and m.headline), by)
    value = f"{rule['checkpoint']} {best[rule['checkpoint']]:.3f} on {rule['split']}"
    console.say(f"best checkpoint: {best['checkpoint']} ({value})", "bold")
    if selection["saw_test"]:
        console.say(f"  it was fine-tuned on {selection['saw_test']} of the test poems", "yellow")
    ties = [r["checkpoint"] for r in selection["runners_up"]["checkpoints"] if not r["distinguishable"]]
    console.say(f"  cannot be told from it: {', '.join(ties) or 'none'}")
    if chosen is None:
        console.say(f"no setting meets {rule['setting']['require']}; nearest:", "yellow")
        for near in selection["nearest"]:
            metrics = ", ".join(f"{m} {near[m]['value']:.3f}" for m in rule["setting"]["require"])
            console.say(f"  {knobs(near)}: {metrics}")
        return
    console.say(f"best setting: {knobs(chosen)}", "bold")
    for split in dict.fromkeys((rule["split"], "test")):
        if split in selection:
            values = ", ".join(f"{m} {estimate(selection[split][m])}" for m in dict.fromkeys((by, form)))
            console.say(f"  on {split}: {values}")
    if selection["corrected"]["value"] is not None:
        console.say(f"  corrected for having been picked: {by} {estimate(selection['corrected'])}")
    if others := selection["runners_up"]["settings"]:
        apart = sum(other["distinguishable"] for other in others)
        console.say(
            f"  of the other {len(others)} settings that may be chosen, {apart} can be told from it by {by}"
        )
    console.say(f"  all of it in {results.run.best}")
    if "test" in results.study.splits:
        texts = results.texts().head(3)
        show = results.task.show
        rows = [
            [show(row[name]) for name in ("input", "text", "reference")] for row in texts.to_dict("records")
        ]
        show_table(console, "Three texts of the test split", ("given", "written", "reference"), rows)


def show_halving(console: SafeConsole, found: Mapping[str, Any], folder: Path) -> None:
    """What successive halving chose, what it is worth, and what that cost."""
    rule, by = found["rule"], found["rule"]["setting"]["by"]
    console.say(f"best checkpoint: {found['checkpoint']}", "bold")
    console.say(f"best setting: {knobs(found['setting'])}", "bold")
    for split in dict.fromkeys((rule["split"], "test")):
        if split in found:
            console.say(f"  {by} on {split}: {estimate(found[split][by], 3)}")
    share = found["spent"] / found["whole"]
    console.say(f"  chosen for {share:.0%} of the grid's generations; all of it in {folder}")


# Files of outputs, comparisons


def scored_json(scored: "Scored") -> str:
    """Return scored files as JSON."""
    matched = [{"name": o.name, "matched": o.matched, "notes": list(o.notes)} for o in scored.outputs]
    rows, comparisons = (json.loads(f.to_json(orient="records")) for f in (scored.table, scored.differences))
    content = {
        "signatures": scored.task.signatures(),
        "files": matched,
        "rows": rows,
        "comparisons": comparisons,
    }
    return json.dumps(content, indent=2)


def show_scored(console: SafeConsole, scored: "Scored") -> None:
    """A row for each file, how its outputs were matched, and the files' differences."""
    files = [each.name for each in scored.outputs]
    title = files[0] if len(files) == 1 else f"{len(files)} files"
    examples = len(scored.dataset.split(scored.split))
    console.print(
        rich_table(
            scored.table, f"{title} on {examples} poems of {scored.dataset.folder}", scored.task.metrics
        )
    )
    for each in scored.outputs:
        console.say(each.summary)
    if len(files) > 1:
        show_comparison(console, scored.differences, "Differences between the files")


def show_comparison(console: SafeConsole, frame: pd.DataFrame, title: str) -> None:
    """A row for each pair and metric, the reasons to believe it last."""
    if not len(frame):
        console.say("nothing to compare: no metric was measured of two of them", "yellow")
        return
    title += f", {frame['poems'].iloc[0]} poems"
    names = list(dict.fromkeys([*frame["a"], *frame["b"]]))
    if max(map(len, names)) > _LONG and len(names) <= len(ascii_uppercase):
        letters = dict(zip(names, ascii_uppercase, strict=False))
        for name, letter in letters.items():
            console.say(f"{letter}  {name}")
        frame = frame.assign(a=frame["a"].map(letters), b=frame["b"].map(letters))
    needed = ["poems needed"] if "poems_needed" in frame and frame["poems_needed"].notna().any() else []
    rows = []
    for row in frame.to_dict("records"):
        sides = (f"{row[side]}  {row[f'value_{side}']:.3f}" for side in ("a", "b"))
        real = f"{row['p_holm']:.4f}{'*' if row['p_holm'] < 0.05 else ' '}"
        between = f"{row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        known = needed and pd.notna(row["poems_needed"])
        size = [f"{row['poems_needed']:,.0f} for {row['effect']:g}" if known else ""] * len(needed)
        rows.append((row["metric"], *sides, between, f"{row['p']:.4f}", real, *size))
    columns = ("metric", "a", "b", "a − b, 95 % interval", "p", "p (Holm)", *needed)
    show_table(console, title, columns, rows, right=3 + len(needed))
    noise = "shared" if frame["shared_noise"].all() else "not shared by all of them, which makes it larger"
    console.say(
        f"{len(rows)} comparison{'s' * (len(rows) > 1)}, corrected together (Holm); *: real at the 5 % level. "
        f"p by flipping signs of poems. Noise is {noise}."
    )


def show_calibration(console: SafeConsole, measured: pd.DataFrame) -> None:
    """Every metric of the training references, and of random endings of their form: rows ``reference``, ``random``."""
    names = [str(name) for name in measured if f"{name}_low" in measured and measured[name].notna().any()]
    sides = measured.to_dict("records")
    rows = [
        (name, *("–" if pd.isna(side[name]) else interval(side, name, 3) for side in sides)) for name in names
    ]
    show_table(console, "The training texts", ("metric", "reference", "random"), rows, right=2)
    console.say(
        "reference: the poets' own endings, looked for in all other training poems. random: another poem's ending of "
        "the same form; real verse, so what a couplet has by itself (form, tone_opposition) is right in it."
    )


# A judge, one text


def show_graded(console: SafeConsole, graded: "Graded", judge: "Judge", split: str) -> None:
    """Each checkpoint's mean grades, and what they leave out."""
    there = f"{graded.wanted:,} votes are wanted, {graded.kept:,} were there"
    console.say(f"{there}; asked {judge.host} for {graded.asked:,}")
    rows = []
    for row in graded.summary.to_dict("records"):
        grades = [interval(row, name) if row["poems"] else "" for name in ("prosody", "fluency")]
        shares = ["" if pd.isna(row[name]) else f"{row[name]:.0%}" for name in ("unparsable", "agreement")]
        rows.append(
            (row["checkpoint"], *grades, f"{row['poems']} of {row['poems'] + row['missing']}", *shares)
        )
    columns = ("checkpoint", "prosody 格律", "fluency 語意通順", "poems", "unparsable", "votes agree")
    title = f"Judged by {judge.model} on the {split} split, {judge.votes} votes an output"
    show_table(console, title, columns, rows, right=5)
    unread = graded.outputs[(graded.outputs["parsed"] == 0) & (graded.outputs["votes"] == judge.votes)]
    if len(unread):
        some = ", ".join(f"{row.example_id} of {row.checkpoint}" for row in unread.head(5).itertuples())
        some += f" and {len(unread) - 5} more" * (len(unread) > 5)
        console.say(f"no vote could be read for {some}; they are missing above", "yellow")
    if graded.cut_off:
        console.say(
            f"{graded.cut_off} answers were cut off before their scores; give more --max-tokens", "yellow"
        )
    if graded.left:
        console.say(
            f"{graded.left:,} votes are left beyond --limit {graded.asked}; the same command goes on",
            "yellow",
        )
    console.say("every output is in judge.csv, every answer in judge.jsonl")


def show_explained(console: SafeConsole, subject: "Subject", content: "Explained", folder: Path) -> None:
    """Whose text it is, the text, and where its steps are."""
    setting = knobs(subject.setting.as_dict())
    console.say(
        f"{subject.example.id} on {subject.checkpoint.name}, {setting}, sample {subject.sample} ({subject.why})"
    )
    console.say(content.input + content.text)
    console.say(f"{len(content.steps)} steps: {folder / 'explain.json'}")


# What is there


def show_data(console: SafeConsole, spec: str, found: "Data") -> None:
    """Splits, copies and leaks of a data set."""
    counts = ", ".join(f"{split} {len(found.dataset.split(split))}" for split in SPLITS)
    console.say(f"{spec} in {found.dataset.folder}: {counts}", "bold")
    first = f", such as {', '.join(found.duplicates[0])}" if found.duplicates else ""
    console.say(f"  {len(found.duplicates)} poems stand there more than once{first}")
    for split, leaks in found.leaks.items():
        shared = "; ".join(f"{name}: {' '.join(parts)}" for name, parts in leaks.items())
        more = f" ({shared})" if shared else ""
        console.say(f"  {split}: {len(leaks)} poems share a clause with training{more}")


def show_checkpoints(
    console: SafeConsole,
    folder: str,
    found: "Sequence[tuple[Checkpoint, int | None]]",
    skipped: "Sequence[Skipped]",
) -> None:
    """The checkpoints of a folder, what they were trained on, and what was left out."""
    rows: list[tuple[str, str, str, str]] = [
        (c.name, str(c.step or ""), c.kind, "no record" if texts is None else f"{texts} poems")
        for c, texts in found
    ]
    rows += [(left_out.path.name, "", "left out", left_out.reason) for left_out in skipped]
    show_table(console, folder, ("checkpoint", "step", "kind", "fine-tuned on"), rows)
