"""What the commands print of what ``api`` found.

In: the frames and records of ``api``. Out: lines and tables on the console. What comes from a model, a file
or a path is shown as it is, never read as markup.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from tangeval.analysis.hypothesis_tests import ERROR
from tangeval.api import Results, Scored
from tangeval.cli.progress import console
from tangeval.core.knobs import axes_in, axes_set
from tangeval.core.types import SPLITS
from tangeval.core.words import say as told
from tangeval.explain.subject import Subject
from tangeval.metrics.base import check_of
from tangeval.reporting.tables import NO_INTERVAL, WHY_NONE, rich_table
from tangeval.results.explained import Explained

say = console.say
NARROW = 100  # columns of a terminal, below which texts stand under each other
_LONG = 24  # characters of a name beyond which a letter stands for it in a table


def knobs(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {setting[name]}" for name in axes_in(setting))


def interval(row: Mapping[Any, Any], name: str, digits: int = 2) -> str:
    """Return ``value [low, high]`` of a metric's columns in a row."""
    return estimate({"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"]}, digits)


def estimate(found: Mapping[str, float], digits: int = 2) -> str:
    if pd.isna(found["low"]):
        return f"{found['value']:.{digits}f} [{NO_INTERVAL}]"
    value, low, high = (f"{found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: int = 0) -> None:
    """A table, whose last ``right`` columns are numbers."""
    table = Table(title=Text(title), title_justify="left")
    for place, name in enumerate(columns):
        number = place >= len(columns) - right
        table.add_column(name, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


# Runs


def _split(name: str) -> str:
    """A split's name as it is told; one of other results' that has no word stays."""
    return told(f"split.{name}") if name in SPLITS else name


def show_results(results: Results, *, selected: bool = True) -> None:
    """What a run or a summary found, and where it lies."""
    show_engine(results)
    console.print(
        rich_table(results.checkpoints, told("table.checkpoints"), results.task.metrics, console.width)
    )
    if results.run.trained:
        show_recipes(results)
    if selected and results.study.select:
        show_selection(results)
    if results.pictures:
        names = ", ".join(f"{name}.png" for name in results.pictures)
        say(told("end.pictures", names=names, folder=results.run.figures))
    say(told("end.tables", folder=results.run.tables, file=results.run.table("summary")))
    show_verdict(results)
    show_page(results.page, results.note)


def show_recipes(results: Results) -> None:
    """Each recipe over poems and runs, and how far its runs are apart."""
    frame = results.recipes
    console.print(rich_table(frame, told("table.recipes"), results.task.metrics, console.width))
    shown = [f"{metric.name}_tau" for metric in results.task.metrics.values() if metric.headline]
    for row in frame[frame["runs"] > 1].to_dict("records"):
        apart = ", ".join(f"{name.removesuffix('_tau')} {row[name]:.3f}" for name in shown if row[name] > 0)
        where = {"recipe": row["recipe"], "split": _split(row["split"])}
        say(told("end.apart", **where, apart=apart or told("end.unseen")))
    if (frame["runs"] == 1).any():
        say(told("table.one_run"))


def show_verdict(results: Results) -> None:
    """What may be said of the results, a paragraph a question."""
    found, speaker = results.verdict, results.speaker
    for each in speaker.all(found):
        line = Text(
            told(
                f"verdict.line{'' if each.word else '.plain'}",
                question=each.question,
                status=each.word,
                answer=each.answer,
            )
        )
        line.stylize("bold", 0, len(each.question))
        console.print(line)
    say(f"{speaker.basis(found)} {results.run.verdict_text}")


def show_engine(results: Results) -> None:
    """Who wrote the texts, where that was a server, and that noise is not shared."""
    manifest = results.run.manifest
    if "server" in manifest:
        say(told("end.written", engine=manifest["engine"], noise=manifest["noise"]))


def show_page(file: Path, about: str) -> None:
    say(told("end.page", file=file, about=about))


def show_selection(results: Results) -> None:
    """What was chosen, how good it is, what it cannot be told from, and its texts of three examples."""
    selection = results.selection
    rule, best, chosen = (selection[key] for key in ("rule", "checkpoint", "setting"))
    by = rule["setting"]["by"]
    form = check_of(results.task.metrics) or by
    value = {"metric": rule["checkpoint"], "value": f"{best[rule['checkpoint']]:.3f}"}
    say(told("end.best", name=best["checkpoint"], split=_split(rule["split"]), **value), "bold")
    if selection["saw_test"]:
        say(f"  {told('end.saw', n=selection['saw_test'])}", "yellow")
    ties = [r["checkpoint"] for r in selection["runners_up"]["checkpoints"] if not r["distinguishable"]]
    say(f"  {told('end.ties', names=', '.join(ties) or told('end.none'))}")
    _show_as_good(selection, "checkpoints", lambda row: row["checkpoint"])
    if chosen is None:
        say(told("end.unmet", require=rule["setting"]["require"]), "yellow")
        for near in selection["nearest"]:
            metrics = ", ".join(f"{m} {near[m]['value']:.3f}" for m in rule["setting"]["require"])
            say(f"  {knobs(near)}: {metrics}")
        return
    say(told("end.setting", knobs=knobs(chosen)), "bold")
    for split in dict.fromkeys((rule["split"], "test")):
        if split in selection:
            own = selection[split]  # a metric that says nothing of any text is not there
            values = ", ".join(f"{m} {estimate(own[m])}" for m in dict.fromkeys((by, form)) if m in own)
            say(f"  {told('end.on', split=_split(split), values=values)}")
    if selection["corrected"]["value"] is not None:
        key = "end.corrected.best" if "settings" in selection.get("best", {}) else "end.corrected"
        say(f"  {told(key, by=by, value=estimate(selection['corrected']))}")
    if selection["corrected"]["low"] is None:
        say(f"  {told('table.none')}")
    if others := selection["runners_up"]["settings"]:
        apart = sum(other["distinguishable"] for other in others)
        say(f"  {told('end.apart.settings', n=len(others), apart=apart, by=by)}")
    _show_as_good(selection, "settings", knobs)
    say(f"  {told('end.all', folder=results.run.best)}")
    if "test" in results.study.splits:
        texts = results.texts().drop_duplicates("input").head(3)[["input", "text", "reference"]]
        rows = texts.map(results.task.show).to_numpy().tolist()
        title = told("table.texts", n=len(rows))
        columns = tuple(told(f"table.{name}") for name in ("given", "written", "reference"))
        if console.width < NARROW:  # one under another, whole
            rows, columns = [[*pair] for row in rows for pair in zip(columns, row, strict=True)], ("", "")
        show_table(title, columns, rows)


def _show_as_good(selection: Mapping[str, Any], kind: str, named: Callable[[Mapping[str, Any]], str]) -> None:
    """Which are shown to be as good as the best, and which of these was taken in its place."""
    rule, rows = selection["rule"], selection.get("as_good", {}).get(kind, [])
    if not rows:
        return
    margins = ", ".join(
        f"{metric} {margin:g}" for metric, margin in rule["within"].items() if metric in rows[0]
    )
    good = [named(row) for row in rows if row["as_good"]]
    some = "; ".join(good[:5])
    some = told("list.more", names=some, n=len(good) - 5) if len(good) > 5 else some or told("end.none")
    say(f"  {told('end.good', margins=margins, good=len(good), n=len(rows), names=some)}")
    if best := selection.get("best", {}).get(kind):
        say(f"  {told('end.taken', prefer=told('prefer.' + rule['prefer']), best=named(best))}")


def show_halving(found: Mapping[str, Any], folder: Path) -> None:
    """What successive halving chose, what it is worth, and what that cost."""
    rule, by = found["rule"], found["rule"]["setting"]["by"]
    say(f"best checkpoint: {found['checkpoint']}", "bold")
    say(f"best setting: {knobs(found['setting'])}", "bold")
    for split in dict.fromkeys((rule["split"], "test")):
        if split in found:
            say(f"  {by} on {split}: {estimate(found[split][by], 3)}")
    if found["corrected"]["value"] is not None:
        say(f"  corrected for having been picked: {by} {estimate(found['corrected'], 3)}")
    share, more = (found[key] / found["whole"] for key in ("spent", "spent_on_correction"))
    say(
        f"  chosen for {share:.0%} of the grid's generations, corrected for {more:.0%} more; all of it in {folder}"
    )


# Files of outputs, comparisons


def scored_json(scored: Scored) -> str:
    """Return scored files as JSON."""
    matched = [{"name": o.name, "matched": o.matched, "notes": list(o.notes)} for o in scored.outputs]
    rows, comparisons = (json.loads(f.to_json(orient="records")) for f in (scored.table, scored.differences))
    content = {"files": matched, "rows": rows, "comparisons": comparisons}
    return json.dumps({"signatures": scored.task.signatures(scored.dataset)} | content, indent=2)


def show_scored(scored: Scored) -> None:
    """A row for each file, how its outputs were matched, and the files' differences."""
    files = [each.name for each in scored.outputs]
    examples = len(scored.dataset.split(scored.split))
    title = files[0] if len(files) == 1 else f"{len(files)} files"
    title += f" on {examples} {'poems' if scored.task.verse else 'texts'} of {scored.dataset.folder}"
    console.print(rich_table(scored.table, title, scored.task.metrics, console.width))
    for each in scored.outputs:
        say(each.summary)
    if len(files) > 1:
        show_comparison(scored.differences, "Differences between the files")


def show_comparison(frame: pd.DataFrame, title: str) -> None:
    """A row for each pair and metric, the reasons to believe it last."""
    if not len(frame):
        say("nothing to compare: no metric was measured of two of them", "yellow")
        return
    title += f", {frame['poems'].iloc[0]} examples"
    names = list(dict.fromkeys([*frame["a"], *frame["b"]]))
    if max(map(len, names)) > _LONG and len(names) <= len(ascii_uppercase):
        letters = dict(zip(names, ascii_uppercase, strict=False))
        for name, letter in letters.items():
            say(f"{letter}  {name}")
        frame = frame.assign(a=frame["a"].map(letters), b=frame["b"].map(letters))
    needed = ["needed"] * any(map(_needed, frame.to_dict("records")))
    over = ["over"] if (frame["over"] != "poems").any() else []
    rows = []
    for row in frame.to_dict("records"):
        sides = (f"{row[side]}  {row[f'value_{side}']:.3f}" for side in ("a", "b"))
        real = f"{row['p_adjusted']:.4f}{'*' if row['p_adjusted'] <= ERROR else ' '}"
        ends = NO_INTERVAL if pd.isna(row["low"]) else f"{row['low']:+.3f}, {row['high']:+.3f}"
        between = f"{row['difference']:+.3f} [{ends}]"
        size = [_needed(row)] * len(needed)
        rows.append(
            (row["metric"], *sides, *(row[name] for name in over), between, f"{row['p']:.4f}", real, *size)
        )
    columns = ("metric", "a", "b", *over, "a − b, 95 % interval", "p", "p (adjusted)", *needed)
    show_table(title, columns, rows, right=3 + len(needed))
    if "poems, one run each" in set(frame["over"]):
        say(told("table.one_run", "en"))  # as the rest of this command
    if frame["low"].isna().any():
        say(WHY_NONE)
    noise = "shared" if frame["shared_noise"].all() else "not shared by all of them, which makes it larger"
    tested, how = "tested together (max-T)", "p by swapping examples between the two"
    if frame["over"].str.endswith("runs").any():
        tested, how = "adjusted by Holm's rule", f"{how}, over runs by Student's t"
    count = f"{len(rows)} comparison{'s' * (len(rows) > 1)}"
    say(f"{count}, {tested}; *: real at the 5 % level. {how}. Noise is {noise}.")


def _needed(row: Mapping[Any, Any]) -> str:
    """How many poems, or runs, show the size that was asked for."""
    for unit in ("poems", "runs"):
        if pd.notna(found := row.get(f"{unit}_needed")):
            return f"{found:,.0f} {unit} for {row['effect']:g}" if found < math.inf else "more examples"
    return ""


def show_plan(frame: pd.DataFrame) -> None:
    """How many poems and samples show each effect, and what the study as it stands would show."""
    rows = [
        (f"{row['metric']} {row['effect']:g}", row["between"], row["division"],
         *(f"{row[name]:,}" for name in ("poems", "samples", "outputs")),
         f"{row['power']:.0%}", f"{row['smallest_effect']:.3g}")
        for row in frame.to_dict("records")
    ]  # fmt: skip
    columns = ("effect", "between", "study", "poems", "samples", "outputs", "power", "shows")
    show_table("Before running", columns, rows, right=5)
    say(
        "outputs: of each setting. power: the chance to show the effect. shows: the smallest difference that is shown "
        "with a chance of 80 %. All by the upper 80 % limit of what the pilot's examples and samples differ by."
    )


def show_calibration(measured: pd.DataFrame) -> None:
    """Every metric of the training references, and of random endings of their form: rows ``reference``, ``random``."""
    names = [str(name) for name in measured if f"{name}_low" in measured and measured[name].notna().any()]
    sides = measured.to_dict("records")
    rows = [
        (name, *("–" if pd.isna(side[name]) else interval(side, name, 3) for side in sides)) for name in names
    ]
    show_table("The training texts", ("metric", "reference", "random"), rows, right=2)
    say(
        "reference: people's own texts, looked for in all other training texts. random: another example's text of "
        "the same form, so what it has by itself (form and so on) is right in it."
    )


# One text


def show_explained(subject: Subject, content: Explained, folder: Path) -> None:
    """Whose text it is, the text, and where its steps are."""
    where = f"{subject.example.id} on {subject.checkpoint.name}"
    say(
        f"{where}, {knobs(subject.setting.as_dict(axes_set([subject.setting])))}, sample {subject.sample} ({subject.why})"
    )
    say(content.input)
    say(content.text)
    say(f"{len(content.steps)} steps: {folder / 'explain.json'}")
