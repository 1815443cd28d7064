"""The command line: parse, delegate, print."""

import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from rich.markup import escape
from rich.table import Table

from tangeval import generation, pipeline, tasks
from tangeval.analysis import compare as comparing
from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize
from tangeval.analysis.aggregate import Part, groups
from tangeval.cli import render as terminal
from tangeval.cli.progress import Audience as For
from tangeval.cli.progress import Decoding, SafeConsole, make_bar, print_event
from tangeval.core.config import named_numbers
from tangeval.core.errors import TangevalError
from tangeval.core.libraries import quieten
from tangeval.core.study import Study, load_study
from tangeval.core.types import RANDOM, REFERENCE, SPLITS
from tangeval.core.untrusted import inert
from tangeval.engines import make
from tangeval.engines.base import Engine, needs_logits
from tangeval.judge import asking, grading
from tangeval.models.checkpoints import discover, trained_on
from tangeval.reporting import tables
from tangeval.reporting.page import build as report
from tangeval.resolve import ResolvedStudy, resolve
from tangeval.results import explained, plan, remote
from tangeval.results.files import exclusive_lock, write_csv, write_text
from tangeval.results.folder import NO_LIKELIHOOD, RunFolder
from tangeval.tasks.base import Dataset, duplicates, leaks
from tangeval.tasks.tang import data as dataset

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, help=__doc__)
data_app = typer.Typer(help="What data are found, where, and whether they can be trusted.")
app.add_typer(data_app, name="data")
# In a pipe or a log there is no width to keep to.
console = SafeConsole(width=None if sys.stdout.isatty() else 120)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the study's keys.")
]
StudyFile = Annotated[Path, typer.Argument(help="A study file.")]
Place = Annotated[Path, typer.Argument(metavar="STUDY-or-RESULTS", help="A study file, or a results folder.")]
Out = Annotated[
    str | None,
    typer.Option(help="The results folder, or a URL of one such as s3://bucket/x (default: results/NAME)."),
]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run code.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Remove generations of which none fits the study any longer.")
]
Validation = Annotated[
    int | None, typer.Option(min=0, help="Size of the validation split (default: the data set's own).")
]
Unseen = Annotated[
    bool, typer.Option("--assume-unseen", help="Checkpoints without train_ids.json did not see the split.")
]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", help="Leave out checkpoints that cannot be used, and run the others.")
]
On = Annotated[
    str | None,
    typer.Option(
        help="Decode on a Ray cluster: ray (this machine is one of its nodes), or ray://HOST:10001."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Machines = Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for machines.")]


@app.command()
def run(
    study_file: StudyFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and stop.")] = False,
    overwrite: Overwrite = False,
    allow_pickle: Pickle = False,
    assume_unseen: Unseen = False,
    keep_going: KeepGoing = False,
    on: On = None,
    quiet: Quiet = False,
    as_json: Machines = False,
) -> None:
    """Generate, score, summarise, draw and select; goes on where it was cut off."""
    audience = _audience(quiet, as_json)
    study, folder, resolved = _open(study_file, overrides, None, allow_pickle)
    place = out or str(folder)
    pipeline.check(resolved, assume_unseen=assume_unseen)
    if dry_run:
        read = remote.copied(place) if remote.is_url(place) else nullcontext(Path(place))
        with read as folder, make(resolved, on=on) as engine:
            _show_plan(resolved, folder, engine)
        return
    with _results(place) as (folder, send):
        _generate(
            resolved,
            folder,
            on,
            overwrite=overwrite,
            keep_going=keep_going,
            audience=audience,
            after_write=send,
        )
        with _going_on():
            _finish(study, resolved, folder, audience)


def _finish(study: Study, resolved: ResolvedStudy, folder: Path, audience: For) -> None:
    """What follows the decoding of a ``run``."""
    summary, pictures = _evaluate(study, resolved.dataset, folder)
    console.print(
        tables.rich_table(
            summary.checkpoints, "Checkpoints, averaged over all settings", tasks.load(study.task).metrics
        )
    )
    selection = _select(study, resolved.dataset, folder) if study.select else None
    drawn = [path.name for path in pictures if path.suffix == ".png"]
    if drawn:
        console.print(f"pictures: {', '.join(drawn)} in {folder / 'figures'}", markup=False)
    console.print(f"tables: {folder / 'tables'}; every setting: {folder / 'summary.csv'}", markup=False)
    _report(study, resolved.dataset, folder)
    if audience == "machines":
        print_event("done", folder=str(folder), selection=selection)


@app.command()
def generate(
    study_file: StudyFile,
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    allow_pickle: Pickle = False,
    keep_going: KeepGoing = False,
    on: On = None,
    quiet: Quiet = False,
    as_json: Machines = False,
) -> None:
    """Make the generations and likelihoods that the results folder lacks."""
    audience = _audience(quiet, as_json)
    _, folder, resolved = _open(study_file, overrides, None, allow_pickle)
    with _results(out or str(folder)) as (folder, send):
        _generate(
            resolved,
            folder,
            on,
            overwrite=overwrite,
            keep_going=keep_going,
            audience=audience,
            after_write=send,
        )


@app.command(name="summarize")
def summarize_command(place: Place) -> None:
    """Score, summarise and draw what a results folder holds; needs no torch."""
    study, folder = pipeline.open_results(place)
    data = pipeline.data_of(study)
    with _going_on(), exclusive_lock(folder):
        summary, pictures = _evaluate(study, data, folder)
        console.print(
            tables.rich_table(
                summary.checkpoints, "Checkpoints, averaged over all settings", tasks.load(study.task).metrics
            )
        )
        console.print(f"{len(pictures)} pictures in {folder / 'figures'}", markup=False)
        _report(study, data, folder)


@app.command(name="report")
def report_command(
    place: Place,
    out: Annotated[Path | None, typer.Option(help="The file (default: report.html in the folder).")] = None,
) -> None:
    """Write the page of a results folder: one HTML file to explore, nothing loaded from the network."""
    study, folder = pipeline.open_results(place)
    _report(study, pipeline.data_of(study), folder, out)


@app.command(name="select")
def select_command(place: Place, assume_unseen: Unseen = False) -> None:
    """Choose the best checkpoint and setting of a results folder; writes best/."""
    study, folder = pipeline.open_results(place)
    if study.select:
        manifest = RunFolder(folder).manifest
        seen = {record["name"]: record["seen"] for record in manifest["checkpoints"]}
        select.check_selection(study.select, seen, assume_unseen=assume_unseen)
    data = pipeline.data_of(study)
    with _going_on(), exclusive_lock(folder):
        _select(study, data, folder)
        if RunFolder(folder).page.is_file():  # it would still show the old choice
            _report(study, data, folder)


@app.command()
def race(
    study_file: StudyFile,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Where it runs (default: results/NAME-race).")] = None,
    allow_pickle: Pickle = False,
    assume_unseen: Unseen = False,
) -> None:
    """Choose the best setting for a fraction of the generations: successive halving."""
    _, folder, resolved = _open(study_file, overrides, out, allow_pickle)
    needs_logits(resolved, "race")
    folder = out or folder.with_name(f"{folder.name}-race")
    pipeline.check(resolved, assume_unseen=assume_unseen)
    from tangeval.analysis import successive_halving as racing

    def watch(what: str, sequences: int) -> Decoding:
        console.print(f"{what}: {sequences:,} sequences to decode", highlight=False)
        return Decoding(console, sequences)

    with _going_on(), exclusive_lock(folder):
        result = racing.race(resolved, folder, watch)
    terminal.show_race(console, result, folder)


@app.command(name="score")
def score_command(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="results.txt, results.json, JSONL, or one poem a line."),
    ],
    data: Annotated[str, typer.Option(help="sample, hw5, or a folder with HW5's three files.")] = "hw5",
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    validation: Validation = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score outputs made elsewhere, one file or several, beside random baseline and reference."""
    if split not in SPLITS[1:]:
        raise TangevalError(f"--split {split}: give validation or test")
    task = tasks.load("tang")
    loaded = task.load(data, validation)
    examples = loaded.split(split)
    others = [example for example in loaded.examples if example.split != split]
    read = task.read_outputs(files, examples, others)
    rows = [score.outputs_frame(each.name, examples, each.texts) for each in read]
    rows += [score.random_rows(task, loaded, split, 42, 1), score.reference_rows(task, loaded, split)]
    scores = score.score_texts(pd.concat(rows, ignore_index=True), task, loaded)
    measured = list(groups(scores, NO_LIKELIHOOD, 42))
    frame = summarize.overall(measured)
    files_only = [comparing.Item(g.checkpoint, Part(g.measured, [0])) for g in measured[: len(read)]]
    compared = comparing.compare(files_only) if len(read) > 1 else pd.DataFrame()
    if as_json:
        matched = [{"name": each.name, "matched": each.matched, "notes": list(each.notes)} for each in read]
        records, differences = (json.loads(f.to_json(orient="records")) for f in (frame, compared))
        content = {
            "signatures": task.signatures(),
            "files": matched,
            "rows": records,
            "comparisons": differences,
        }
        print(json.dumps(content, indent=2))
        return
    title = str(files[0]) if len(files) == 1 else f"{len(files)} files"
    console.print(
        tables.rich_table(frame, f"{title} on {len(examples)} poems of {loaded.folder}", task.metrics)
    )
    for each in read:
        console.print(each.summary, highlight=False, markup=False)
    if len(read) > 1:
        terminal.show_comparison(console, compared, "Differences between the files")


@app.command()
def compare(
    items: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER[:CHECKPOINT[:KNOBS]]...",
            help="A results folder (what was chosen there), one of its checkpoints, or of its settings: "
            "results/grid:checkpoint-65:temperature=0.7,top_k=5",
        ),
    ],
    metric: Annotated[list[str] | None, typer.Option(help="A metric to compare by; again for more.")] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "validation",
    effect: Annotated[
        list[str] | None,
        typer.Option(help="METRIC=SIZE: say how many poems would show a difference of that size."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table to this CSV file too.")] = None,
) -> None:
    """Say which differences are real: paired on poems and noise, tested, corrected for their number."""
    effects = named_numbers(effect or [], "--effect", "form=0.05")
    metrics = metric or [*dict.fromkeys((*comparing.METRICS, *effects))]
    measured = [comparing.read_item(item, split) for item in items]
    frame = comparing.compare(measured, metrics, effects)
    if out:
        write_csv(out, frame)
    terminal.show_comparison(console, frame, f"Differences on {split}")


@app.command()
def checkpoints(
    folder: Annotated[Path, typer.Argument(help="A Trainer's output folder, or one checkpoint.")],
    allow_pickle: Pickle = False,
) -> None:
    """List the checkpoints in a folder, by step, and what was left out."""
    found, skipped = discover([str(folder)], allow_pickle=allow_pickle)
    table = Table("checkpoint", "step", "kind", "fine-tuned on", title=escape(str(folder)))
    for checkpoint in found:
        hashes = trained_on(checkpoint)
        saw = "no record" if hashes is None else f"{len(hashes)} poems"
        table.add_row(escape(checkpoint.name), str(checkpoint.step or ""), checkpoint.kind, saw)
    for left_out in skipped:
        table.add_row(escape(left_out.path.name), "", "left out", escape(left_out.reason))
    console.print(table)


@app.command(name="judge")
def judge_command(
    place: Place,
    endpoint: Annotated[str, typer.Option(help="An OpenAI-compatible server; mostly ends in /v1.")],
    model: Annotated[str, typer.Option(help="The model that judges, as the server names it.")],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="A checkpoint to judge; repeatable (default: the selected one).")
    ] = None,
    base: Annotated[bool, typer.Option("--base", help="Judge the model before fine-tuning too.")] = False,
    setting: Annotated[
        list[str] | None, typer.Option(help="knob=value: changes the selected setting; repeatable.")
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    samples: Annotated[int, typer.Option(min=1, help="Outputs of each poem.")] = 1,
    votes: Annotated[int, typer.Option(min=1, help="How often an output is judged.")] = 3,
    limit: Annotated[int, typer.Option(min=0, help="The most calls this run may make.")] = 500,
    parallel: Annotated[int, typer.Option(min=1, help="Calls in flight at a time.")] = 8,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="The judge's own.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer, reasoning included.")] = 2048,
    retries: Annotated[int, typer.Option(min=0, help="How often a busy server is asked again.")] = 5,
    prompt: Annotated[
        Path | None, typer.Option(help="Other instructions for the judge (default: its own).")
    ] = None,
) -> None:
    """Let a language model grade metre and fluency, 0 to 10; goes on where it stopped."""
    study, folder = pipeline.open_results(place)
    instructions = asking.load_prompt(prompt or asking.PROMPT)
    judge = asking.Judge(endpoint, model, instructions, votes, temperature, max_tokens, retries)
    wanted = grading.Wanted(tuple(checkpoint or ()), base, tuple(setting or ()), split, samples)
    loaded, results = pipeline.data_of(study), RunFolder(folder)
    plan.check_data(loaded, results)
    with exclusive_lock(folder), _going_on(), make_bar(console) as bar:
        task = bar.add_task(f"asking {judge.host}", total=None, more="")
        graded = grading.grade(
            results, loaded, judge, wanted, limit=limit, parallel=parallel,
            on_answer=lambda answered, asked: bar.update(task, completed=answered, total=asked),
        )  # fmt: skip
    console.print(
        f"{graded.wanted:,} votes are wanted, {graded.kept:,} were there; asked {judge.host} for {graded.asked:,}",
        highlight=False,
    )
    if graded.left:
        console.print(
            f"[yellow]{graded.left:,} votes are left[/] beyond --limit {limit}; the same command goes on",
            highlight=False,
        )
    title = f"Judged by {model} on the {split} split, {votes} votes an output"
    terminal.show_judged(console, graded.summary, title)
    terminal.show_unjudged(console, graded.outputs, votes, graded.cut_off)
    console.print(f"every output: {results.table('judge')}; every answer: {results.answers}", markup=False)


@app.command(name="explain")
def explain_command(
    study_file: Annotated[Path, typer.Argument(metavar="STUDY", help="A study file.")],
    overrides: Overrides = None,
    prompt: Annotated[str, typer.Option(help="The poem: its place in the split, from 1, or its id.")] = "1",
    step: Annotated[
        int | None, typer.Option(help="The token to draw, from 1 (default: the first character).")
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="By name (default: the selected one, else the last).")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(help="knob=value: changes the selected setting, else the first; repeatable."),
    ] = None,
    split: Annotated[str, typer.Option(help="validation or test.")] = "test",
    sample: Annotated[int, typer.Option(min=0, help="Whose noise, from 0.")] = 0,
    reference: Annotated[
        bool, typer.Option("--reference", help="Follow the poet's text, not the setting's.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="The folder (default: results/NAME/explain/ID).")] = None,
    allow_pickle: Pickle = False,
) -> None:
    """Show one poem's next-character distributions, what each knob leaves of them, and what noise picks."""
    if split not in SPLITS[1:]:
        raise TangevalError(f"--split {split}: give validation or test")
    _, folder, resolved = _open(study_file, overrides, None, allow_pickle)
    needs_logits(resolved, "explain")
    # torch takes seconds to import, and few commands need it.
    from tangeval.explain import trace as explaining

    asked = explaining.Asked(prompt, split, checkpoint, tuple(setting or ()), sample, reference)
    subject = explaining.find(resolved, folder, asked)
    console.print(
        f"{subject.example.id} on {subject.checkpoint.name}, {terminal.knobs(subject.setting.as_dict())}, sample {sample} "
        f"({subject.why}); loading {resolved.base.name}", highlight=False, markup=False,
    )  # fmt: skip
    with console.status("running the model"):
        content = explaining.explain(resolved, subject, step)
    out = out or folder / "explain" / subject.example.id
    write_text(out / explained.FILE, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")
    terminal.show_explained(console, content, out / explained.FILE)
    if out.parent == folder / "explain" and RunFolder(folder).page.is_file():  # it shows what is explained
        made, _ = pipeline.open_results(folder)
        _report(made, pipeline.data_of(made), folder)


@data_app.callback(invoke_without_command=True)
def data(
    context: typer.Context,
    path: Annotated[str | None, typer.Option(help="A folder with HW5's three files, of your own.")] = None,
    validation: Validation = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the training poems' real endings beside random ones.")
    ] = False,
) -> None:
    """Show the data that are found: splits, duplicates, and clauses that leak into training."""
    if context.invoked_subcommand:
        return
    task = tasks.load("tang")
    for spec in (path,) if path else ("sample", "hw5"):
        try:
            loaded = task.load(spec, validation)
        except TangevalError as error:
            console.print(f"[bold]{escape(spec)}[/]: {escape(str(error))}", highlight=False)
            continue
        counts = ", ".join(f"{name} {len(loaded.split(name))}" for name in SPLITS)
        console.print(f"[bold]{escape(spec)}[/] in {escape(str(loaded.folder))}: {counts}", highlight=False)
        copies = duplicates(task, loaded)
        console.print(
            f"  {len(copies)} poems stand there more than once"
            + (f", such as {', '.join(copies[0])}" if copies else "")
        )
        for split in SPLITS[1:]:
            leaking = leaks(task, loaded, split)
            found = "; ".join(f"{name}: {' '.join(shared)}" for name, shared in leaking.items())
            console.print(
                f"  {split}: {len(leaking)} poems share a clause with training"
                + (f" ({found})" if found else "")
            )
        if calibrate:
            _calibrate(loaded)


@data_app.command()
def fetch() -> None:
    """Clone HW5's repository into data/GenAI-Hw5 with git."""
    console.print(f"HW5's data are in {dataset.fetch()}", markup=False)


def main() -> None:
    """Run the command line; what the user can mend is one message, not a traceback."""
    quieten()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    warnings.showwarning = lambda message, *place: print(inert(f"warning: {message}"), file=sys.stderr)
    try:
        app()
    except TangevalError as error:
        print(inert(f"error: {error}"), file=sys.stderr)
        sys.exit(2)


def _audience(quiet: bool, as_json: bool) -> For:
    """Who listens; the console falls silent for all but people."""
    if quiet and as_json:
        raise TangevalError("--quiet, --json: give one of them")
    console.quiet = quiet or as_json
    return "nobody" if quiet else "machines" if as_json else "people"


def _open(
    study_file: Path, overrides: list[str] | None, out: Path | None, allow_pickle: bool
) -> tuple[Study, Path, ResolvedStudy]:
    study = load_study(study_file, overrides or [])
    resolved = resolve(study, allow_pickle=allow_pickle)
    for skipped in resolved.skipped:
        console.print(
            f"[yellow]left out[/] {escape(str(skipped.path))}: {escape(skipped.reason)}", highlight=False
        )
    return study, out or Path("results") / study.name, resolved


@contextmanager
def _results(place: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """The results folder at a path or URL, with no other run in it, and what sends a batch that is written."""
    with remote.at(place) as (folder, send):
        if remote.is_url(place):
            console.print(f"{place} is copied in {folder}", highlight=False, markup=False)
        yield folder, send


def _generate(
    resolved: ResolvedStudy,
    folder: Path,
    on: str | None,
    *,
    overwrite: bool,
    keep_going: bool,
    audience: For,
    after_write: Callable[[], None],
) -> None:
    with _going_on(), make(resolved, on=on) as engine:
        pending = generation.pending(resolved, folder, engine, overwrite=overwrite)
        _show_pending(resolved, pending, audience)
        with Decoding(console, pending.sequences, resolved.names, audience) as progress:
            failed = generation.decode(
                resolved,
                folder,
                progress.advance,
                keep_going=keep_going,
                engine=engine,
                after_write=after_write,
            )
    if resolved.served:
        terminal.show_server(console, RunFolder(folder).manifest)
    for checkpoint in failed:
        console.print(
            f"[yellow]left out[/] {escape(str(checkpoint.path))}: {escape(checkpoint.reason)}",
            highlight=False,
        )


def _show_pending(resolved: ResolvedStudy, pending: generation.Pending, audience: For) -> None:
    if pending.stale:
        console.print(
            f"[yellow]{len(pending.stale)} batch files of an earlier run fit no longer[/] ({generation.STALE}) and are removed",
            highlight=False,
        )
    settings = len(resolved.study.decoding.settings())
    console.print(
        f"{len(resolved.checkpoints)} checkpoints × {settings} settings: {pending.outputs:,} outputs; "
        f"{pending.sequences:,} sequences to decode in {len(pending.waiting)} batches",
        highlight=False,
    )
    if audience == "machines":
        print_event("planned", checkpoints=len(resolved.checkpoints), settings=settings, outputs=pending.outputs,
             sequences=pending.sequences)  # fmt: skip


@contextmanager
def _going_on() -> Iterator[None]:
    """Say how to go on where the user stopped."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None


def _evaluate(study: Study, data: Dataset, folder: Path) -> tuple[summarize.Summary, list[Path]]:
    with console.status("scoring, summarising, drawing"):
        return pipeline.evaluate(study, data, folder)


def _select(study: Study, data: Dataset, folder: Path) -> dict[str, Any]:
    """Choose, write ``best/``, and show what was chosen and three of its poems."""
    selection, outputs = pipeline.choose(study, data, folder)
    terminal.show_selection(console, selection, folder)
    if len(outputs):
        terminal.show_poems(console, outputs.head(3), data)
    return selection


def _report(study: Study, data: Dataset, folder: Path, out: Path | None = None) -> None:
    with console.status("writing the page"):
        page, about = report.write(study, data, folder, out)
    console.print(f"page: {page} ({about}); open it in a browser", highlight=False, markup=False)


def _calibrate(data: Dataset) -> None:
    task = tasks.load("tang")
    rows = [score.reference_rows(task, data, "train"), score.random_rows(task, data, "train", 42, 2, draws=2)]
    with console.status("measuring the training poems"):
        scores = score.score_texts(pd.concat(rows, ignore_index=True), task, data)
        frame = summarize.overall(groups(scores, NO_LIKELIHOOD, 42))
    poets, floor = (frame[frame["checkpoint"] == name].iloc[0] for name in (REFERENCE, RANDOM))
    terminal.show_calibration(console, poets, floor)


def _show_plan(resolved: ResolvedStudy, folder: Path, engine: Engine) -> None:
    pending = generation.pending(resolved, folder, engine, overwrite=True).waiting
    table = Table(
        "checkpoint",
        "step",
        "kind",
        "batches to make",
        "sequences",
        "outputs",
        title=f"{resolved.study.name}: {len(resolved.study.decoding.settings())} settings → {escape(str(folder))}",
    )
    for checkpoint in resolved.checkpoints:
        own = [batch for batch in pending if batch.checkpoint == checkpoint.name]
        outputs = sum(batch.outputs() for batch in own)
        table.add_row(
            escape(checkpoint.name),
            str(checkpoint.step or ""),
            checkpoint.kind,
            str(len(own)),
            f"{sum(w.sequences() for w in own):,}",
            f"{outputs:,}",
        )
    console.print(table)
    console.print(generation.estimate(folder, engine, pending), highlight=False)
