"""``verdict``, ``summarize``, ``report``, ``select``, ``compare``, ``score``: what works from files, without torch."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tangeval.cli.base import Place, Split, TaskName, Unseen, Validation, api, command, console, render
from tangeval.cli.progress import watch


@command("verdict")
def verdict(place: Place) -> None:
    """Say in words what is shown, what is not, and how many texts would show it."""
    render.show_verdict(api.verdict(place))


@command("summarize")
def summarize(place: Place) -> None:
    """Score, summarise and draw what a results folder holds; needs no torch."""
    render.show_results(api.summarize(place, watch=watch(console)), selected=False)


@command("report")
def report(
    places: Annotated[
        list[str],
        Argument(
            metavar="STUDY-or-RESULTS...",
            help="A study file or a results folder; several for one page of all.",
        ),
    ],
    out: Annotated[
        Path | None, Option(help="The file (default: report.html in the folder; of several A+B.html here).")
    ] = None,
) -> None:
    """Write the page of a results folder, or one page of several: one HTML file to explore, nothing loaded from the network."""
    render.show_page(*api.report(*places, out=out, watch=watch(console)))


@command("select")
def select(
    place: Place,
    within: Annotated[
        list[str] | None,
        Option(help="METRIC=MARGIN: say what is shown to be no worse than the best by more; again for more."),
    ] = None,
    prefer: Annotated[
        str | None, Option(help="Of those as good as the best, take: earliest, shortest or most_varied.")
    ] = None,
    assume_unseen: Unseen = False,
) -> None:
    """Choose the best checkpoint and setting of a results folder; writes best/."""
    from tangeval.core.config import named_numbers

    margins = named_numbers(within or [], "--within", "form=0.05")
    results = api.select(
        place, within=margins, prefer=prefer, assume_unseen=assume_unseen, watch=watch(console)
    )
    render.show_selection(results)
    render.show_verdict(results)
    if results.note:
        render.show_page(results.page, results.note)


@command("compare")
def compare(
    items: Annotated[
        list[str],
        Argument(
            metavar="FOLDER[:CHECKPOINT[:KNOBS]]...",
            help="A results folder (what was chosen there), one of its checkpoints, or of its settings: "
            "results/grid:checkpoint-65:temperature=0.7,top_k=5",
        ),
    ],
    metric: Annotated[list[str] | None, Option(help="A metric to compare by; again for more.")] = None,
    split: Split = "validation",
    effect: Annotated[
        list[str] | None,
        Option(help="METRIC=SIZE: say how many texts would show a difference of that size."),
    ] = None,
    out: Annotated[Path | None, Option(help="Write the table to this CSV file too.")] = None,
) -> None:
    """Say which differences are real: paired on poems and noise, tested, corrected for their number."""
    from tangeval.core.config import named_numbers
    from tangeval.results.files import write_csv

    effects = named_numbers(effect or [], "--effect", "form=0.05")
    frame = api.compare(*items, metrics=metric or (), split=split, effects=effects)
    if out:
        write_csv(out, frame)
    render.show_comparison(frame, f"Differences on {split}")


@command("score")
def score(
    files: Annotated[
        list[Path], Argument(metavar="FILE...", help="results.txt, results.json, JSONL, or one poem a line.")
    ],
    data: Annotated[
        str | None, Option(help="sample, hw5, or a folder (default: hw5; of another task its own files).")
    ] = None,
    task: TaskName = "tang",
    split: Split = "test",
    validation: Validation = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score outputs made elsewhere, one file or several, beside random baseline and reference."""
    scored = api.score_files(files, data, split, validation, task=task)
    if as_json:
        print(render.scored_json(scored))
    else:
        render.show_scored(scored)
