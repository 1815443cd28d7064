"""The whole way, one step after another: study → generations → scores → summary → pictures → choice → page.

In: a study and a results folder. Out: the folder filled, and what each step found. It prints
nothing: the command line and notebooks do, each in its way. Torch is reached by ``engine_of`` alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tangeval import tasks
from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize, variance
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study, load_study
from tangeval.engines.base import OnProgress
from tangeval.models.checkpoints import Skipped
from tangeval.reporting import figures, tables
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import no_url, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch
from tangeval.tasks.base import Dataset

if TYPE_CHECKING:
    from tangeval.generation import Workers

STALE = "engine, checkpoints, weights, data, prompt, seed, versions or machine are others"


@dataclass(frozen=True)
class Pending:
    """What is still to be decoded: all batches of the study, those without a batch file, and batch files that fit no longer."""

    batches: Sequence[Batch]
    waiting: Sequence[Batch]
    stale: Sequence[Path]

    @property
    def sequences(self) -> int:
        return sum(batch.sequences() for batch in self.waiting)

    @property
    def outputs(self) -> int:
        return sum(batch.outputs() for batch in self.batches)


def check(resolved: ResolvedStudy, *, assume_unseen: bool) -> None:
    """Refuse now what would end the run after hours of decoding.

    Raises:
        TangevalError: selection would refuse what it finds, or the data have no random baseline.
    """
    study = resolved.study
    if study.select:
        seen = {c.name: resolved.seen(c) for c in resolved.checkpoints}
        select.check_selection(study.select, seen, assume_unseen=assume_unseen)
    for example in (e for split in study.ordered_splits() for e in resolved.examples(split)):
        resolved.task.baseline(resolved.dataset, example, study.seed, 1)


def engine_of(resolved: ResolvedStudy) -> Any:
    """Return the room that makes a study's generations, with its ``plan``, ``generate`` and ``estimate``."""
    if resolved.served:
        from tangeval.engines import openai as server

        return server
    # torch takes seconds to import, and no other step needs it.
    from tangeval import generation as generate

    return generate


def planned(
    resolved: ResolvedStudy, folder: Path, workers: "Workers | None" = None
) -> tuple[list[Batch], Callable[[Sequence[Batch]], str]]:
    """Return the study's batches, and what says how long some of them will take."""
    engine, machine = engine_of(resolved), [workers.machine] if workers else []
    batches, _ = engine.plan(resolved, folder, *machine)
    return batches, lambda some: engine.estimate(resolved, folder, some, *machine)


def pending(
    resolved: ResolvedStudy, folder: Path, *, overwrite: bool = False, workers: "Workers | None" = None
) -> Pending:
    """Return what ``decode`` would make.

    Raises:
        TangevalError: nothing in the folder fits the study, and ``overwrite`` was not given.
    """
    batches, _ = planned(resolved, folder, workers)
    run = RunFolder(folder)
    waiting = [batch for batch in batches if not run.batch_file(batch.id).is_file()]
    there = set(run.generations.glob("*.parquet"))
    stale = there - {run.batch_file(batch.id) for batch in batches}
    if stale and stale == there and not overwrite:
        raise TangevalError(
            f"{folder}: none of its {len(stale)} batch files of generations fits this study any longer ({STALE}); give "
            "--overwrite to remove them, or another folder with --out"
        )
    return Pending(batches, waiting, sorted(stale))


def decode(
    resolved: ResolvedStudy,
    folder: Path,
    on_progress: OnProgress = lambda name, ended, text: None,
    *,
    keep_going: bool = False,
    workers: "Workers | None" = None,
) -> tuple[Skipped, ...]:
    """Make the generations and likelihoods that the folder lacks; ``on_progress`` and ``workers`` are ``generate``'s.

    With ``keep_going`` the folder's record is of the checkpoints that could be used; the others
    are returned.
    """
    engine, by = engine_of(resolved), {"workers": workers} if workers else {}
    failed: tuple[Skipped, ...] = engine.generate(resolved, folder, on_progress, keep_going=keep_going, **by)
    if failed:
        engine.generate(resolved.without(failed), folder, **by)
    return failed


def evaluate(study: Study, data: Dataset, folder: Path) -> tuple[summarize.Summary, list[Path]]:
    """Write scores, summary, tables and pictures of what is in the folder."""
    score.score(study, data, folder)
    by = study.select.setting.by if study.select else "bleu"
    run, metrics = RunFolder(folder), tasks.load(study.task).metrics
    summary = summarize.summarize(run, study.seed)
    tables.write(summary, metrics, run.tables, by=by)
    shares, _ = variance.write_variance(run)
    return summary, figures.draw(summary, shares, metrics, run.figures, by=by)


def choose(study: Study, data: Dataset, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Choose, write ``best/``, and return the selection and the chosen setting's outputs on test (or none)."""
    selection = select.select(study, RunFolder(folder))
    if "test" not in study.splits:
        return selection, pd.DataFrame()
    name = selection["checkpoint"]["checkpoint"]
    outputs = select.chosen_outputs(score.read_generations(study, folder, 0, name), selection)
    if selection["setting"]:
        examples = [data.by_id[name] for name in outputs["example_id"]]
        text = tasks.load(study.task).outputs_file(examples, outputs["text"].tolist())
        write_text(RunFolder(folder).best_outputs, text)
    return selection, outputs


def data_of(study: Study) -> Dataset:
    """Return the study's data."""
    return tasks.load(study.task).load(study.data_name, study.validation_size)


def open_results(place: Path) -> tuple[Study, Path]:
    """Return a results folder and the study it was made by; a study file may choose anew from its folder.

    Raises:
        TangevalError: the study has no results yet.
    """
    no_url(place)
    if place.is_dir():
        return RunFolder(place).study, place
    folder = Path("results") / load_study(place).name
    if not RunFolder(folder).study_file.is_file():
        raise TangevalError(f"{place}: there is no {folder} yet; `tangeval run {place}` makes it")
    made, rule = RunFolder(folder).study, load_study(place).select
    if rule and rule.split not in made.splits:
        raise TangevalError(
            f"{place}: select.split: {folder} has no {rule.split} split; run the study with it"
        )
    return made.model_copy(update={"select": rule}), folder
