"""Everything that tangeval does, one function a feature; the command line parses, calls these and prints.

    from tangeval import load_study, run
    results = run("studies/quickstart.yaml", "samples=2")
    results.checkpoints

In: study files and results folders. Out: files in the folder, and what was found, as frames and records.
Prints nothing. What is slow is imported where it is used.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import engines, generation
from tangeval.analysis import scoring, variance
from tangeval.analysis import summarize as summaries
from tangeval.analysis.compare import compare as compare_items
from tangeval.analysis.compare import measure_all
from tangeval.analysis.external import Data, Scored, calibrate, data, score_files
from tangeval.analysis.planning import plan
from tangeval.analysis.select import check_selection, chosen_outputs
from tangeval.analysis.select import select as choose
from tangeval.analysis.successive_halving import halve
from tangeval.core.config import validated
from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs, quieten
from tangeval.core.study import Selection, Study, load_study
from tangeval.core.types import Checkpoint, check_split
from tangeval.engines.base import OnProgress, needs_logits
from tangeval.explain import subject as subjects
from tangeval.generation import Pending
from tangeval.judge.asking import Asking, Judge, PairPrompt
from tangeval.judge.coherence import LocalJudge, measure
from tangeval.judge.grading import Graded, Wanted, grade
from tangeval.judge.pairwise import Paired, compare_pairs
from tangeval.models.checkpoints import Skipped, discover, identity, resolve_base, trained_on
from tangeval.reporting.notebook import Results
from tangeval.resolve import ResolvedStudy, resolve
from tangeval.results import explained, remote
from tangeval.results.files import exclusive_lock, no_url, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import check_data
from tangeval.results.remote import break_lock as unlock
from tangeval.tasks.tang.data import fetch

__all__ = [
    "Data", "Options", "Results", "Scored", "Watch", "calibrate", "checkpoints", "coherence", "compare", "data",
    "dry_run", "explain", "fetch", "generate", "halving", "judge", "load_results", "plan", "report", "run", "score_files",
    "select", "summarize", "unlock",
]  # fmt: skip
#: A study, or the file of one.
AnyStudy = str | Path | Study


@dataclass(frozen=True)
class Options:
    """How a study is run.

    ``out`` is the results folder, or a URL of one; ``results/NAME`` if None. ``on`` is a Ray cluster to
    decode on. ``overwrite`` removes generations of which none fits the study any longer; ``keep_going``
    leaves out checkpoints that cannot be used; ``assume_unseen`` takes checkpoints without a record of their
    training as not trained on the split; ``allow_pickle`` loads pickled weights, which can run code.
    """

    out: str | Path | None = None
    on: str | None = None
    overwrite: bool = False
    keep_going: bool = False
    assume_unseen: bool = False
    allow_pickle: bool = False


@dataclass(frozen=True)
class Watch:
    """Contexts around what takes time, to show it; by default nothing is shown.

    ``decoding`` is given what is decoded and what of it is pending, and yields what is called with the
    progress; ``counting`` yields what is called with how many are done, of how many.
    """

    decoding: Callable[[str, Pending], AbstractContextManager[OnProgress]] = lambda what, pending: (
        nullcontext(lambda name, ended, text: None)
    )
    counting: Callable[[str], AbstractContextManager[Callable[[int, int], None]]] = lambda what: nullcontext(
        lambda done, total: None
    )
    working: Callable[[str], AbstractContextManager[Any]] = lambda what: nullcontext()


def run(study: AnyStudy, *overrides: str, options: Options = Options(), watch: Watch = Watch()) -> Results:
    """Decode what the folder lacks, score, summarise, draw and select; return the results."""
    resolved = _resolved(study, overrides, options)
    _check(resolved, options)
    with remote.at(_place(resolved, options)) as (folder, send):
        _decode(resolved, folder, options, send, watch)
        results = Results(folder, resolved.study)
        _evaluate(results, watch)
        if resolved.study.select:
            _select(results)
        return _with_page(results, watch)


def generate(
    study: AnyStudy, *overrides: str, options: Options = Options(), watch: Watch = Watch()
) -> Results:
    """Decode the generations and likelihoods that the folder lacks; return the results, not scored yet."""
    resolved = _resolved(study, overrides, options)
    with remote.at(_place(resolved, options)) as (folder, send):
        _decode(resolved, folder, options, send, watch)
        return Results(folder, resolved.study)


def dry_run(
    study: AnyStudy, *overrides: str, options: Options = Options()
) -> tuple[ResolvedStudy, Pending, str]:
    """Return what ``run`` would decode, and what that takes, in words; nothing is written."""
    resolved = _resolved(study, overrides, options)
    _check(resolved, options)
    place = _place(resolved, options)
    with (
        remote.copied(place) if remote.is_url(place) else nullcontext(Path(place)) as folder,
        engines.make(resolved, on=options.on) as engine,
    ):
        pending = generation.pending(resolved, folder, engine, overwrite=True)
        return resolved, pending, generation.estimate(folder, engine, pending.waiting)


def load_results(place: str | Path) -> Results:
    """Return the results in a folder, or of a study that was run before, whose file may select anew."""
    place = Path(place)
    no_url(place)
    if place.is_dir():
        return Results(place)
    results = Results(Path("results") / load_study(place).name)
    if not results.run.study_file.is_file():
        raise TangevalError(f"{place}: there is no {results.folder} yet; `tangeval run {place}` makes it")
    rule = load_study(place).select
    if rule and rule.split not in results.study.splits:
        missing = f"{results.folder} has no {rule.split} split"
        raise TangevalError(f"{place}: select.split: {missing}; run the study with it")
    return Results(results.folder, results.study.model_copy(update={"select": rule}))


def summarize(place: str | Path, *, watch: Watch = Watch()) -> Results:
    """Score, summarise and draw what a results folder holds; return the results."""
    results = load_results(place)
    with exclusive_lock(results.folder):
        _evaluate(results, watch)
        return _with_page(results, watch)


def select(
    place: str | Path,
    *,
    within: Mapping[str, float] | None = None,
    prefer: str | None = None,
    assume_unseen: bool = False,
    watch: Watch = Watch(),
) -> Results:
    """Choose the best checkpoint and setting of a results folder, and write ``best/``; return the results.

    ``within`` (metric → margin) and ``prefer`` take the place of the study's ``select.within`` and ``select.prefer``.
    """
    results = load_results(place)
    if within or prefer:
        results = _with_margins(results, within or {}, prefer)
    if results.study.select:
        seen = {record["name"]: record["seen"] for record in results.run.manifest["checkpoints"]}
        check_selection(results.study.select, results.task.metrics, seen, assume_unseen=assume_unseen)
    with exclusive_lock(results.folder):
        _select(results)
        # A page that is there would still show the old choice.
        return _with_page(results, watch) if results.page.is_file() else results


def _with_margins(results: Results, within: Mapping[str, float], prefer: str | None) -> Results:
    rule = results.study.select
    if rule is None:
        raise TangevalError("select: the study has none; write one into its file")
    content = rule.model_dump() | {"within": dict(within) or rule.within, "prefer": prefer or rule.prefer}
    asked = validated(Selection, content, Path("select"))
    return replace(results, asked=results.study.model_copy(update={"select": asked}))


def report(place: str | Path, out: str | Path | None = None, *, watch: Watch = Watch()) -> tuple[Path, str]:
    """Write the page of a results folder, to ``out`` or into the folder; return the file, and what is in it."""
    return _page(load_results(place), watch, Path(out) if out else None)


def halving(
    study: AnyStudy, *overrides: str, options: Options = Options(), watch: Watch = Watch()
) -> tuple[dict[str, Any], Path]:
    """Choose the best setting by successive halving; return what ``halving.json`` says, and its folder."""
    resolved = _resolved(study, overrides, options)
    needs_logits(resolved, "halving")
    _check(resolved, options)
    folder = Path(options.out or Path("results") / f"{resolved.study.name}-halving")
    with exclusive_lock(folder):
        return halve(resolved, folder, watch.decoding), folder


def compare(
    *items: str, metrics: Sequence[str] = (), split: str = "validation",
    effects: Mapping[str, float] | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the paired differences of ``FOLDER[:CHECKPOINT[:KNOBS]]`` items, a row for each pair and metric.

    With ``effects`` (metric → size) the table says how many examples would show a difference of that size.
    """
    return compare_items(measure_all(items, split), metrics, effects)


def judge(
    place: str | Path, judge: Judge, wanted: Wanted, *, limit: int = 500, parallel: int = 8,
    watch: Watch = Watch(),
) -> Graded | Paired:  # fmt: skip
    """Let a language model grade outputs, or compare pairs where its prompt is a ``PairPrompt``.

    With at most ``limit`` calls, ``parallel`` of them in flight.
    """
    results = load_results(place)
    check_data(results.dataset, results.run)
    make: Callable[..., Graded | Paired] = compare_pairs if isinstance(judge.prompt, PairPrompt) else grade
    with exclusive_lock(results.folder), watch.counting(f"asking {judge.host}") as on_answer:
        return make(results.run, results.dataset, judge, wanted, Asking(limit, parallel, on_answer))


def coherence(
    place: str | Path, wanted: Wanted, *, by: str = "tang-mini", watch: Watch = Watch()
) -> pd.DataFrame:
    """Return by how much outputs follow their own input better than others, by the base model ``by``, a row an output."""
    quieten()
    results, base = load_results(place), resolve_base(by)
    with needs("coherence"):
        from tangeval.engines.likelihood import scorer
    with exclusive_lock(results.folder), watch.counting(f"asking {by}") as on_done:
        local = LocalJudge(by, identity(base), scorer(base))
        return measure(results.run, results.dataset, wanted, local, on_done)


def explain(
    study: AnyStudy, *overrides: str, asked: subjects.Asked, step: int | None = None,
    options: Options = Options(), watch: Watch = Watch(),
) -> tuple[subjects.Subject, explained.Explained, Path]:  # fmt: skip
    """Run one checkpoint on one example; return what was asked for, what ``explain.json`` says, and its folder.

    ``step`` is the token to begin with, from 1 (default: the first character); ``options.out`` the folder
    (default ``results/NAME/explain/ID``). The study's page is written again where there is one, else a page of this text.
    """
    check_split(asked.split)
    resolved = _resolved(study, overrides, options)
    needs_logits(resolved, "explain")
    with needs("explaining"):
        from tangeval.explain import trace
    folder = Path("results") / resolved.study.name
    subject = subjects.find(resolved, folder, asked)
    with watch.working(f"running {subject.checkpoint.name} on {subject.example.id}"):
        content = trace.explain(resolved, subject, step)
    run = RunFolder(folder)
    out = Path(options.out or run.explain / subject.example.id)
    write_text(out / explained.FILE, content.as_json())
    if out.parent == run.explain and run.page.is_file():  # it shows what is explained
        report(folder, watch=watch)
    else:
        from tangeval.reporting.page import build

        build.write_explained([out / explained.FILE], out / run.page.name)
    return subject, content, out


def checkpoints(
    folder: str | Path, *, allow_pickle: bool = False
) -> tuple[list[tuple[Checkpoint, int | None]], tuple[Skipped, ...]]:
    """Return the checkpoints of a folder with how many texts each was trained on (None: no record), and those left out."""
    found, skipped = discover([str(folder)], allow_pickle=allow_pickle)
    records = [trained_on(checkpoint) for checkpoint in found]
    return [(c, None if r is None else len(r.texts)) for c, r in zip(found, records, strict=True)], skipped


def _resolved(study: AnyStudy, overrides: Sequence[str], options: Options) -> ResolvedStudy:
    """The study with its names resolved; warns of checkpoints that are left out."""
    quieten()
    if isinstance(study, Study) and overrides:
        raise TangevalError("overrides go with a study's file; use study.model_copy(update=…) instead")
    read = study if isinstance(study, Study) else load_study(study, overrides)
    with needs("decoding"):
        resolved = resolve(read, allow_pickle=options.allow_pickle)
    for skipped in resolved.skipped:
        warnings.warn(f"left out {skipped.path}: {skipped.reason}", stacklevel=3)
    return resolved


def _check(resolved: ResolvedStudy, options: Options) -> None:
    """Refuse now what would end the run after hours of decoding: a selection, or data without a random baseline."""
    study = resolved.study
    if study.select:
        seen = {c.name: resolved.seen(c) for c in resolved.checkpoints}
        check_selection(study.select, resolved.task.metrics, seen, assume_unseen=options.assume_unseen)
    for example in (e for split in study.ordered_splits() for e in resolved.examples(split)):
        resolved.task.baseline(resolved.dataset, example, study.seed, 1)


def _place(resolved: ResolvedStudy, options: Options) -> str:
    return str(options.out or Path("results") / resolved.study.name)


def _decode(
    resolved: ResolvedStudy, folder: Path, options: Options, send: Callable[[], None], watch: Watch
) -> None:
    with engines.make(resolved, on=options.on) as engine:
        pending = generation.pending(resolved, folder, engine, overwrite=options.overwrite)
        if pending.stale:
            old = f"{len(pending.stale)} batch files of an earlier run fit no longer ({generation.STALE})"
            warnings.warn(f"{folder}: {old} and are removed", stacklevel=3)
        grid = f"{len(resolved.checkpoints)} checkpoints × {len(resolved.study.decoding.settings())} settings"
        with watch.decoding(grid, pending) as on_progress:
            left_out = generation.decode(
                resolved, folder, on_progress, keep_going=options.keep_going, engine=engine, after_write=send
            )
    for skipped in left_out:
        warnings.warn(f"left out {skipped.path}: {skipped.reason}", stacklevel=3)


def _evaluate(results: Results, watch: Watch) -> None:
    """Write scores, summary, tables and pictures of what is in the folder."""
    from tangeval.reporting import figures, tables

    study, run = results.study, results.run
    with watch.working("scoring, summarising, drawing"):
        scoring.score(study, results.dataset, results.folder)
        metrics = results.task.metrics
        first = next(metric.name for metric in metrics.values() if metric.per_setting)
        by = study.select.setting.by if study.select else first
        summary = summaries.summarize(run)
        tables.write(summary, metrics, run.tables, by=by)
        shares = variance.write_variance(run)
        figures.draw(summary, shares, metrics, run.figures, by=by)


def _select(results: Results) -> None:
    """Choose, and write ``best/``."""
    selection = choose(results.study, results.run)
    if selection["setting"] and "test" in results.study.splits:
        name = selection["checkpoint"]["checkpoint"]
        generations = scoring.read_generations(results.study, results.folder, 0, name)
        outputs = chosen_outputs(generations, selection)
        examples = [results.dataset.by_id[name] for name in outputs["example_id"]]
        text = results.task.outputs_file(examples, outputs["text"].tolist())
        write_text(results.run.best_outputs, text)


def _page(results: Results, watch: Watch, out: Path | None = None) -> tuple[Path, str]:
    from tangeval.reporting.page import build

    with watch.working("writing the page"):
        return build.write(results.study, results.dataset, results.folder, out)


def _with_page(results: Results, watch: Watch) -> Results:
    """Write the page; the results, with a note of what it holds."""
    return Results(results.folder, results.study, _page(results, watch)[1])
