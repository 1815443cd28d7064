"""``class``: what a class handed in."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tangeval.cli.base import Split, TaskName, api, command, console, render
from tangeval.core import words

if TYPE_CHECKING:
    from tangeval.analysis.classroom import Classroom


@command("class")
def class_(
    files: Annotated[
        list[Path],
        Argument(
            metavar="FILE...",
            help="Students' results.txt or results.json, or folders of them, one a student.",
        ),
    ],
    out: Annotated[Path, Option(help="The folder for class.html, grades.csv and same_texts.csv.")] = Path(
        "class"
    ),
    by: Annotated[str, Option(help="The metric whose ranks order the class.")] = "form",
    hide_names: Annotated[
        bool,
        Option("--hide-names", help="The page has pseudonyms, the same each time; the CSV files have both."),
    ] = False,
    data: Annotated[str | None, Option(help="sample, hw5, or a folder (default: hw5).")] = None,
    task: TaskName = "tang",
    split: Split = "test",
) -> None:
    """Score what a class handed in: ranks with their ties, the same texts, and what is broken; a page and the grade book."""
    _show(*api.score_class(files, out, by=by, hide_names=hide_names, data=data, task=task, split=split))


def _show(found: "Classroom", files: Sequence[Path]) -> None:
    """The first and the last of a class by its metric, the same texts, what is broken, and where all is."""
    table, by, most = found.table, found.by, 10
    rows = [
        (f"{row[f'{by}_rank_low']}–{row[f'{by}_rank_high']}", row["student"], render.interval(row, by))
        for row in table.head(most).to_dict("records")
    ]
    label = words.label(found.task.metrics[by].label).partition(":")[0]
    columns = (words.say("class.ranks"), words.say("class.student"), label)
    render.show_table(
        words.say("class.title", students=len(table), all=len(table) + len(found.broken), shown=len(rows)),
        columns,
        rows,
        right=1,
    )
    first = int((table[f"{by}_rank_low"] == 1).sum())
    console.say(words.say("class.ties", first=first, students=len(table), metric=label))
    if unnamed := int(table["matched"].str.fullmatch(r"[^:]*: \d+ by order(, none with .*)?").sum()):
        console.say(words.say("class.order", count=unnamed, students=len(table)), "yellow")
    if pairs := len(found.shared):
        console.say(words.say("class.same", groups=found.shared["group"].max(), pairs=pairs), "yellow")
    for each in found.broken[:most]:
        console.say(f"{each.file or each.student}: {each.problem}", "red")
    if len(found.broken) > most:
        console.say(words.say("class.more", count=len(found.broken) - most))
    console.say(words.say("class.files", files=", ".join(map(str, files))))
