"""The whole way, one step after another: study → generations → scores → summary → pictures → choice → page.

In: a study and a results folder. Out: the folder filled, and what each step found. It prints
nothing: the command line and notebooks do, each in its way. Torch is reached by ``engine_of`` alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tangeval import dataset, figures, insights, score, select, summarize, tables, variance
from tangeval.checkpoint import Skipped
from tangeval.dataset import Dataset
from tangeval.plan import Setup, Wave
from tangeval.progress import OnProgress
from tangeval.records import TangevalError
from tangeval.store import no_url, read_columns
from tangeval.study import Study, load_study

if TYPE_CHECKING:
    from tangeval.generate import Workers

STALE = "engine, checkpoints, weights, data, prompt, seed, versions or machine are others"


@dataclass(frozen=True)
class Pending:
    """What is still to be decoded: all waves of the study, those without a shard, and shards that fit no longer."""

    waves: Sequence[Wave]
    waiting: Sequence[Wave]
    stale: Sequence[Path]

    @property
    def streams(self) -> int:
        return sum(wave.streams() for wave in self.waiting)

    @property
    def outputs(self) -> int:
        return sum(wave.outputs() for wave in self.waves)


def check(setup: Setup, *, assume_unseen: bool) -> None:
    """Refuse now what would end the run after hours of decoding.

    Raises:
        TangevalError: selection would refuse what it finds, or the data have no floor.
    """
    study = setup.study
    if study.select:
        seen = {c.name: setup.seen(c) for c in setup.checkpoints}
        select.check_selection(study.select, seen, assume_unseen=assume_unseen)
    score.floor_rows(setup.dataset, study.ordered_splits(), study.seed)


def engine_of(setup: Setup) -> Any:
    """Return the room that makes a study's generations, with its ``plan``, ``generate`` and ``estimate``."""
    if setup.study.engine:
        from tangeval import server

        return server
    # torch takes seconds to import, and no other step needs it.
    from tangeval import generate

    return generate


def planned(
    setup: Setup, folder: Path, workers: "Workers | None" = None
) -> tuple[list[Wave], Callable[[Sequence[Wave]], str]]:
    """Return the study's waves, and what says how long some of them will take."""
    engine, machine = engine_of(setup), [workers.machine] if workers else []
    waves, _ = engine.plan(setup, folder, *machine)
    return waves, lambda some: engine.estimate(setup, folder, some, *machine)


def pending(
    setup: Setup, folder: Path, *, overwrite: bool = False, workers: "Workers | None" = None
) -> Pending:
    """Return what ``decode`` would make.

    Raises:
        TangevalError: nothing in the folder fits the study, and ``overwrite`` was not given.
    """
    waves, _ = planned(setup, folder, workers)
    waiting = [wave for wave in waves if not wave.shard(folder).is_file()]
    there = set((folder / "generations").glob("*.parquet"))
    stale = there - {wave.shard(folder) for wave in waves}
    if stale and stale == there and not overwrite:
        raise TangevalError(
            f"{folder}: none of its {len(stale)} shards of generations fits this study any longer ({STALE}); give "
            "--overwrite to remove them, or another folder with --out"
        )
    return Pending(waves, waiting, sorted(stale))


def decode(
    setup: Setup,
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
    engine, by = engine_of(setup), {"workers": workers} if workers else {}
    failed: tuple[Skipped, ...] = engine.generate(setup, folder, on_progress, keep_going=keep_going, **by)
    if failed:
        engine.generate(setup.without(failed), folder, **by)
    return failed


def evaluate(study: Study, data: Dataset, folder: Path) -> tuple[summarize.Summary, list[Path]]:
    """Write scores, summary, tables and pictures of what is in the folder."""
    score.score(study, data, folder)
    by = study.select.cell.by if study.select else "bleu"
    summary = summarize.summarize(folder, study.seed)
    frames = (summary.cells, summary.effects, summary.checkpoints)
    tables.write(*frames, folder / "tables", by=by)
    behind = variance.write_variance(partial(read_columns, folder), folder)
    pictures = figures.draw(*frames, folder / "figures", by=by)
    return summary, pictures + insights.draw(*behind, summary.curve, folder / "figures")


def choose(study: Study, data: Dataset, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """Choose, write ``best/``, and return the selection and the chosen cell's outputs on test (or none)."""
    selection = select.select(study, folder)
    if "test" not in study.splits:
        return selection, pd.DataFrame()
    name = selection["checkpoint"]["checkpoint"]
    outputs = select.chosen_outputs(score.read_generations(study, folder, 0, name), selection)
    if selection["cell"]:
        couplets = {example.id: example.couplet for example in data.examples}
        select.write_results_txt(outputs, couplets, folder / "best" / "results.txt")
    return selection, outputs


def data_of(study: Study) -> Dataset:
    """Return the study's data."""
    return dataset.load(study.data_name, study.validation_size)


def open_results(place: Path) -> tuple[Study, Path]:
    """Return a results folder and the study it was made by; a study file may choose anew from its folder.

    Raises:
        TangevalError: the study has no results yet.
    """
    no_url(place)
    if place.is_dir():
        return load_study(place / "study.yaml"), place
    folder = Path("results") / load_study(place).name
    if not (folder / "study.yaml").is_file():
        raise TangevalError(f"{place}: there is no {folder} yet; `tangeval run {place}` makes it")
    made, rule = load_study(folder / "study.yaml"), load_study(place).select
    if rule and rule.split not in made.splits:
        raise TangevalError(
            f"{place}: select.split: {folder} has no {rule.split} split; run the study with it"
        )
    return made.model_copy(update={"select": rule}), folder
