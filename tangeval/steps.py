"""The steps that the functions of ``api`` are made of: resolve, check, decode, evaluate, choose, write the page.

In: a study or its results, and how it is run. Out: what a step found, and files in the results folder. How
progress is shown is the caller's (``Watch``).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import engines, generation
from tangeval.analysis import recall, scoring, variance, verdict
from tangeval.analysis import summarize as summaries
from tangeval.analysis.headroom import Nats
from tangeval.analysis.select import check_selection, chosen_outputs
from tangeval.analysis.select import select as choose
from tangeval.core.config import validated
from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs, quieten
from tangeval.core.study import Selection, Study, load_study
from tangeval.core.words import say
from tangeval.engines.base import OnProgress, needs_logits
from tangeval.generation import Pending
from tangeval.reporting.notebook import Results
from tangeval.resolve import ResolvedStudy, resolve
from tangeval.results.files import no_url, write_parquet, write_text
from tangeval.results.folder import RunFolder

#: A study, or the file of one.
AnyStudy = str | Path | Study


@dataclass(frozen=True)
class Options:
    """How a study is run.

    ``out`` is the results folder, or a URL of one; ``results/NAME`` if None. ``on`` is a Ray cluster to
    decode on; ``gpus`` is how many of this machine's are used, all if None. ``overwrite`` moves aside generations of which none fits the study any longer; ``keep_going``
    leaves out checkpoints that cannot be used; ``assume_unseen`` takes checkpoints without a record of their
    training as not trained on the split; ``allow_pickle`` loads pickled weights, which can run code;
    ``explain`` takes some chosen texts apart for the page; ``live`` writes the page while it is decoded.
    """

    out: str | Path | None = None
    on: str | None = None
    overwrite: bool = False
    keep_going: bool = False
    assume_unseen: bool = False
    allow_pickle: bool = False
    gpus: int | None = None
    explain: bool = True
    live: bool = False

    def __post_init__(self) -> None:
        if self.out is not None and not str(self.out).strip():
            raise TangevalError(
                "--out is empty, as of a variable that is not set; give a folder, or leave it out"
            )


@dataclass(frozen=True)
class Watch:
    """Contexts around what takes time, to show it; by default nothing is shown.

    ``decoding`` is given what is decoded and what of it is pending, and yields what is called with the
    progress; ``counting`` yields what is called with how many are done, of how many. ``saying`` is told on what is decoded.
    """

    decoding: Callable[[str, Pending], AbstractContextManager[OnProgress]] = lambda what, pending: (
        nullcontext(lambda name, ended, text: None)
    )
    counting: Callable[[str], AbstractContextManager[Callable[[int, int], None]]] = lambda what: nullcontext(
        lambda done, total: None
    )
    working: Callable[[str], AbstractContextManager[Any]] = lambda what: nullcontext()
    saying: Callable[[str], None] = lambda text: None


def resolved(study: AnyStudy, overrides: Sequence[str], options: Options) -> ResolvedStudy:
    """The study with its names resolved, as ``named``, and without adapters of another base model.

    Raises:
        TangevalError: there are such, and ``options.keep_going`` does not leave them out.
    """
    found = named(study, overrides, options)
    wrong = found.misfits()
    if wrong and not options.keep_going:
        (first, checkpoint), *others = wrong.items()
        more = f" and {len(others)} more were" if others else " was"
        raise TangevalError(f"checkpoints: {checkpoint.name}{more} {first.reason}")
    for skipped in wrong:
        warnings.warn(f"left out {skipped.path}: {skipped.reason}", stacklevel=3)
    fitting = found.without(list(wrong)) if wrong else found
    for name, whose in fitting.of_other_names().items():
        said = f"{name} says that it was trained on {whose}; base_model is {found.base.name}"
        warnings.warn(f"{said}: make sure that it is the same model", stacklevel=3)
    return fitting


def named(study: AnyStudy, overrides: Sequence[str], options: Options) -> ResolvedStudy:
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


def not_missing(place: Path) -> None:
    """Refuse a URL, and what can only be a results folder and is not there."""
    no_url(place)
    if not place.suffix and not place.exists() and place.parent != Path():
        there = ", ".join(sorted(file.parent.name for file in place.parent.glob("*/study.yaml")))
        raise TangevalError(f"there are no results {place.absolute()}; {place.parent} has {there or 'none'}")


def load_results(place: str | Path) -> Results:
    """Return the results in a folder, or of a study that was run before, whose file may select anew."""
    place = Path(place)
    not_missing(place)
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


def nats(results: Results, wanted: bool) -> Nats | None:
    """Return what gives a checkpoint's outputs their nats under it, and writes ``sample_likelihood.parquet``; None unless wanted.

    Raises:
        TangevalError: no model of this machine wrote them, or the checkpoint is another one now.
    """
    if not wanted:
        return None
    study = resolved(results.study, (), Options())
    needs_logits(study, "headroom --likelihood")
    from tangeval.engines.sample_likelihood import TEXT, sample_nats

    made = {each["name"]: each["fingerprint"] for each in results.run.manifest["checkpoints"]}
    own, found = {checkpoint.name: checkpoint for checkpoint in study.checkpoints}, list[pd.DataFrame]()

    def of(name: str, rows: pd.DataFrame) -> pd.Series:
        if name not in own or study.fingerprints[name] != made[name]:
            raise TangevalError(
                f"{name}: its weights are not those that wrote the texts; leave --likelihood out"
            )
        texts = sample_nats(study, own[name], rows)
        found.append(texts.assign(checkpoint=name))
        write_parquet(results.run.sample_likelihood, pd.concat(found, ignore_index=True))
        return rows[TEXT].merge(texts, how="left", on=TEXT)["nats"]

    return of


def check(resolved: ResolvedStudy, options: Options) -> None:
    """Refuse now what would end the run after hours of decoding: a selection, or data without a random baseline."""
    study = resolved.study
    if study.select:
        seen = {c.name: resolved.seen(c) for c in resolved.checkpoints}
        check_selection(study.select, resolved.task.metrics, seen, assume_unseen=options.assume_unseen)
    for example in (e for split in study.ordered_splits() for e in resolved.examples(split)):
        resolved.task.baseline(resolved.dataset, example, study.seed, 1)


def place(resolved: ResolvedStudy, options: Options) -> str:
    return str(options.out or Path("results") / resolved.study.name)


def results_of(study: Study) -> Path:
    """Return the folder of a study's results: where its file lies, if that is a results folder's own, else ``results/NAME``."""
    beside = RunFolder(Path(study.file).parent)
    own = Path(study.file) == beside.study_file and beside.manifest_file.is_file()
    return beside.path if own else Path("results") / study.name


def decode(
    resolved: ResolvedStudy, folder: Path, options: Options, send: Callable[[], None], watch: Watch
) -> None:
    with engines.make(resolved, on=options.on, gpus=options.gpus, now=True) as engine:
        pending = generation.pending(resolved, folder, engine, overwrite=options.overwrite)
        told = engine.describe()
        watch.saying(say("run.on", engine=f"{told.name}{f': {told.unused}' if told.unused else ''}"))
        settings = len(resolved.study.decoding.settings())
        grid = say("run.grid", checkpoints=len(resolved.checkpoints), settings=settings)
        with _live(resolved, folder, options) as show, watch.decoding(grid, pending) as on_progress:

            def after_write() -> None:
                send()
                show()

            left_out = generation.decode(
                resolved,
                folder,
                on_progress,
                keep_going=options.keep_going,
                engine=engine,
                after_write=after_write,
            )
    for skipped in left_out:
        warnings.warn(f"left out {skipped.path}: {skipped.reason}", stacklevel=3)


def _live(
    resolved: ResolvedStudy, folder: Path, options: Options
) -> AbstractContextManager[Callable[[], None]]:
    """What is called after each batch, and writes the page of what is whole where that is asked for."""
    if not options.live:
        return nullcontext(lambda: None)
    from tangeval.reporting.page.live import Live

    return Live(resolved.study, resolved.dataset, folder)


def evaluate(results: Results, watch: Watch, *, draw: bool = True) -> None:
    """Write scores, summary, tables and, unless not asked to ``draw``, pictures of what is in the folder."""
    from tangeval.reporting import tables

    study, run = results.study, results.run
    with watch.working(say("run.scoring")):
        scoring.score(study, results.dataset, results.folder)
        metrics, by = results.task.metrics, ranked_by(results)
        summary = summaries.summarize(run)
        tables.write(summary, metrics, run.tables, by=by)
        shares = variance.write_variance(run)
        recall.write_recall(run)
        if draw:
            from tangeval.reporting import figures

            figures.draw(summary, shares, metrics, run.figures, by=by)


def ranked_by(results: Results) -> str:
    """Return the metric that settings are ranked by in tables."""
    first = next(metric.name for metric in results.task.metrics.values() if metric.per_setting)
    return results.study.select.setting.by if results.study.select else first


def select(results: Results) -> None:
    """Choose, and write ``best/``."""
    selection = choose(results.study, results.run)
    if selection["setting"] and "test" in results.study.splits:
        name = selection["checkpoint"]["checkpoint"]
        generations = scoring.read_generations(results.study, results.folder, 0, name)
        outputs = chosen_outputs(generations, selection)
        examples = [results.dataset.by_id[name] for name in outputs["example_id"]]
        text = results.task.outputs_file(examples, outputs["text"].tolist())
        write_text(results.run.best_outputs, text)


def with_margins(results: Results, within: Mapping[str, float], prefer: str | None) -> Results:
    """Return the results as asked for by a study whose ``select`` has these margins and this preference."""
    rule = results.study.select
    if rule is None:
        raise TangevalError("select: the study has none; write one into its file")
    content = rule.model_dump() | {"within": dict(within) or rule.within, "prefer": prefer or rule.prefer}
    asked = validated(Selection, content, Path("select"))
    return replace(results, asked=results.study.model_copy(update={"select": asked}))


def conclude(results: Results) -> None:
    """Write what may be said of the results: ``verdict.json``, and in words ``best/verdict.md``."""
    found = verdict.verdict(results.study, results.run)
    write_text(results.run.verdict_text, results.speaker.markdown(found))


def explained(resolved: ResolvedStudy, results: Results, options: Options, watch: Watch) -> Results:
    """Return the results, some texts of what was chosen explained where this machine's models wrote them.

    What hinders it is said in a line, and ends nothing.
    """
    chosen = (results.run.selection or {}).get("setting") if resolved.study.select else None
    if not (options.explain and chosen) or options.on or resolved.served:
        return results
    from tangeval.explain.chosen import write_chosen

    try:
        with watch.working(say("run.explaining")):
            write_chosen(resolved, results.run)
    except (TangevalError, MemoryError, RuntimeError) as error:  # all else is there: hours of decoding
        said = str(error).partition("\n")[0] or type(error).__name__
        warnings.warn(f"no text is explained on the page; `tangeval explain` said: {said}", stacklevel=3)
    return results


def page(*results: Results, watch: Watch, out: Path | None = None) -> tuple[Path, str]:
    """Write the page of some results: of one into its folder, of several beside them, unless ``out`` says where."""
    from tangeval.reporting.page import build, several
    from tangeval.reporting.page.texts import Corpus

    with watch.working(say("run.page")):
        if len(results) == 1:
            return build.write(results[0].study, results[0].dataset, results[0].folder, out)
        return several.write([Corpus(each.study, each.dataset, each.task, each.run) for each in results], out)


def with_page(results: Results, watch: Watch) -> Results:
    """Write the page; the results, with a note of what it holds."""
    return Results(results.folder, results.study, page(results, watch=watch)[1])
