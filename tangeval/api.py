"""The command line's way for a notebook: studies run, results as DataFrames, pictures that show themselves.

    from tangeval import load_study, run
    results = run("studies/quickstart.yaml", "samples=2")
    results.checkpoints

In: a study file or a ``Study``. Out: ``Results``, which reads a results folder when it is asked.
The same files are made as by ``tangeval run``, by the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from tangeval import generation, pipeline
from tangeval.analysis import compare as comparing
from tangeval.analysis import scoring as score
from tangeval.cli.progress import Decoding
from tangeval.core.errors import TangevalError
from tangeval.core.libraries import quieten
from tangeval.core.study import Study, load_study
from tangeval.engines import make
from tangeval.reporting.page import build as pages
from tangeval.resolve import resolve
from tangeval.results.files import exclusive_lock, read_json
from tangeval.results.folder import RunFolder

_SHOWN = ("checkpoint", "split", "bleu", "form", "rhyme", "reference_nll")


@dataclass(frozen=True)
class Picture:
    """A picture of a results folder; a notebook shows it as the value of a setting."""

    name: str
    folder: Path

    def _repr_png_(self) -> bytes:
        return (self.folder / f"{self.name}.png").read_bytes()

    @property
    def svg(self) -> str:
        """The picture as SVG, to put on a slide."""
        return (self.folder / f"{self.name}.svg").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Results:
    """A results folder. Tables are read once; their columns are those of docs/results.md.

    Raises:
        TangevalError: when something is asked for that the folder does not hold.
    """

    folder: Path

    @cached_property
    def study(self) -> Study:
        return load_study(self.folder / "study.yaml")

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each checkpoint, setting and split: every metric with its 95 % interval."""
        return self._csv("summary.csv")

    @cached_property
    def effects(self) -> pd.DataFrame:
        """What each value of a knob does, averaged over the others."""
        return self._csv("effects.csv")

    @cached_property
    def checkpoints(self) -> pd.DataFrame:
        """Each checkpoint, averaged over all settings."""
        return self._csv("checkpoints.csv")

    @cached_property
    def generations(self) -> pd.DataFrame:
        """Every text, with the setting and the poem it belongs to."""
        return score.read_generations(self.study, self.folder)

    @cached_property
    def selection(self) -> dict[str, Any]:
        """What was chosen, with what it cannot be told from."""
        found: dict[str, Any] | None = read_json(self.folder / "best" / "selection.json")
        if found is None:
            raise TangevalError(f"{self.folder}/best: nothing was chosen; `tangeval select` chooses")
        return found

    @property
    def pictures(self) -> list[str]:
        """The names that ``picture`` takes."""
        return sorted(path.stem for path in (self.folder / "figures").glob("*.png"))

    def picture(self, name: str) -> Picture:
        """Return one picture."""
        if name not in self.pictures:
            raise TangevalError(f"there is no picture {name}; there are {', '.join(self.pictures)}")
        return Picture(name, self.folder / "figures")

    @property
    def page(self) -> Path:
        """The page to explore the study with: open it in a browser."""
        return RunFolder(self.folder).page

    def poems(self, split: str = "test", **knobs: Any) -> pd.DataFrame:
        """Return couplet, text and the poet's own ending of every output at some knobs (or of the chosen setting)."""
        wanted = dict(knobs)
        if not wanted:
            wanted = {
                "checkpoint": self.selection["checkpoint"]["checkpoint"],
                **(self.selection["setting"] or {}),
            }
        rows = self.generations[self.generations["split"] == split]
        for name, value in wanted.items():
            if name not in rows:
                raise TangevalError(
                    f"poems: {name} is no column of the generations: {', '.join(map(str, rows))}"
                )
            rows = rows[rows[name] == value]
        examples = pipeline.data_of(self.study).by_id
        known = [examples[name] for name in rows["example_id"]]
        told = {"couplet": [e.input for e in known], "reference": [e.reference for e in known]}
        return rows.assign(**told).reset_index(drop=True)

    def _csv(self, name: str) -> pd.DataFrame:
        if not (self.folder / name).is_file():
            raise TangevalError(
                f"{self.folder / name} is missing; `tangeval run` or `tangeval summarize` makes it"
            )
        return pd.read_csv(self.folder / name)

    def _repr_html_(self) -> str:
        return str(
            self.checkpoints[[c for c in _SHOWN if c in self.checkpoints]].round(3).to_html(index=False)
        )


def load_results(place: str | Path) -> Results:
    """Return the results in a folder, or of a study that was run before."""
    return Results(pipeline.open_results(Path(place))[1])


def run(
    study: str | Path | Study, *overrides: str, out: str | Path | None = None, assume_unseen: bool = False,
    overwrite: bool = False,
) -> Results:  # fmt: skip
    """Run a study as ``tangeval run`` does, with plain lines of progress, and return its results.

    Raises:
        TangevalError: as the command line would say.
    """
    quieten()
    if isinstance(study, Study) and overrides:
        raise TangevalError("overrides go with a study's file; use study.model_copy(update=…) instead")
    read = study if isinstance(study, Study) else load_study(study, overrides)
    folder = Path(out) if out else Path("results") / read.name
    resolved = resolve(read)
    pipeline.check(resolved, assume_unseen=assume_unseen)
    with exclusive_lock(folder):
        with make(resolved) as engine:
            waiting = generation.pending(resolved, folder, engine, overwrite=overwrite)
            with Decoding(
                Console(width=120, force_terminal=False), waiting.sequences, resolved.names
            ) as progress:
                generation.decode(resolved, folder, progress.advance, engine=engine)
        pipeline.evaluate(read, resolved.dataset, folder)
        if read.select:
            pipeline.choose(read, resolved.dataset, folder)
        pages.write(read, resolved.dataset, folder, None)
    return Results(folder)


def differences(
    *items: str, metrics: Sequence[str] = comparing.METRICS, split: str = "validation"
) -> pd.DataFrame:
    """Return the paired differences of ``FOLDER[:CHECKPOINT[:KNOBS]]`` items, as ``tangeval compare`` shows them."""
    return comparing.compare([comparing.read_item(item, split) for item in items], list(metrics), {})
