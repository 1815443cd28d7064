"""The whole way, one step after another: study → generations → scores → summary → pictures → choice → page.

In: a study and a results folder. Out: the folder filled, and what each step found. It prints
nothing: the command line and notebooks do, each in its way.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import tasks
from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize, variance
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study, load_study
from tangeval.reporting import figures, tables
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import no_url, write_text
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset


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
