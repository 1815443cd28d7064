"""A results folder in a notebook: tables as DataFrames, pictures that show themselves.

In: a results folder. Out: ``Results``, which reads a file when it is asked for it.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import tasks
from tangeval.analysis import scoring
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import axes_in
from tangeval.core.study import Study
from tangeval.reporting.verdict import Speaker
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset, Task

_SHOWN = ("checkpoint", "split", "bleu", "form", "rhyme", "reference_nll")


@dataclass(frozen=True)
class Picture:
    """A picture of a results folder; a notebook shows it as the value of a cell."""

    name: str
    folder: Path

    def _repr_png_(self) -> bytes:
        return (self.folder / f"{self.name}.png").read_bytes()

    @property
    def svg(self) -> str:
        """The picture as SVG, to put on a slide."""
        return (self.folder / f"{self.name}.svg").read_text(encoding="utf-8")


def _table(name: str) -> "cached_property[pd.DataFrame]":
    return cached_property(lambda results: results.run.read_table(name))


@dataclass(frozen=True)
class Results:
    """A results folder. Tables are read once; their columns are those of docs/results.md.

    ``asked`` is the study that the results are asked for by, where it is not the folder's own: it may select
    otherwise. ``note`` says what the page holds, where it was just written.

    Raises:
        TangevalError: when something is asked for that the folder does not hold.
    """

    folder: Path
    asked: Study | None = None
    note: str = ""

    @cached_property
    def run(self) -> RunFolder:
        """Every path and reader of the folder."""
        return RunFolder(self.folder)

    @property
    def study(self) -> Study:
        return self.asked or self.run.study

    @property
    def task(self) -> Task:
        return tasks.load(self.study.task)

    @cached_property
    def dataset(self) -> Dataset:
        return self.task.load(self.study.data_name, self.study.validation_size)

    #: A row for each checkpoint, setting and split: every metric with its 95 % interval.
    summary = _table("summary")
    #: What each value of a knob does, averaged over the others.
    effects = _table("effects")
    #: Each checkpoint, averaged over all settings.
    checkpoints = _table("checkpoints")
    #: Each recipe, averaged over its runs' last checkpoints; only where the study declares recipes.
    recipes = _table("recipes")

    @cached_property
    def generations(self) -> pd.DataFrame:
        """Every text, with its setting and example."""
        return scoring.read_generations(self.study, self.folder)

    @property
    def selection(self) -> dict[str, Any]:
        """What was chosen, and what it cannot be told from."""
        found = self.run.selection
        if found is None:
            raise TangevalError(f"{self.run.best}: nothing was chosen; `tangeval select` chooses")
        return found

    @property
    def verdict(self) -> dict[str, Any]:
        """What may be said of the results: the claims of ``verdict.json``."""
        found: dict[str, Any] | None = self.run.read_json(self.run.verdict_file)
        if found is None:
            raise TangevalError(
                f"{self.run.verdict_file} is missing; `tangeval verdict {self.folder}` makes it"
            )
        return found

    @property
    def speaker(self) -> Speaker:
        """What puts the verdict into words, in the language that is chosen."""
        return Speaker(self.task.metrics, self.task.verse is not None)

    @property
    def pictures(self) -> list[str]:
        """The names that ``picture`` takes."""
        return sorted(path.stem for path in self.run.figures.glob("*.png"))

    def picture(self, name: str) -> Picture:
        """Return one picture."""
        if name not in self.pictures:
            raise TangevalError(f"there is no picture {name}; there are {', '.join(self.pictures)}")
        return Picture(name, self.run.figures)

    @property
    def page(self) -> Path:
        """The page to explore the study with: open it in a browser."""
        return self.run.page

    def texts(self, split: str = "test", **values: Any) -> pd.DataFrame:
        """Return input, text and reference of the outputs with these values (default: of the chosen setting)."""
        if not values:
            checkpoint, setting = self.selection["checkpoint"], self.selection["setting"] or {}
            values = {"checkpoint": checkpoint["checkpoint"]}
            values |= {knob: setting[knob] for knob in axes_in(setting)}
        rows = scoring.read_generations(self.study, self.folder, None, values.get("checkpoint"))
        rows = rows[rows["split"] == split]
        for name, value in values.items():
            if name not in rows:
                known = ", ".join(map(str, rows))
                raise TangevalError(f"texts: {name} is no column of the generations: {known}")
            rows = rows[rows[name] == value]
        examples = [self.dataset.by_id[name] for name in rows["example_id"]]
        beside = {"input": [e.input for e in examples], "reference": [e.reference for e in examples]}
        return rows.assign(**beside).reset_index(drop=True)

    def _repr_html_(self) -> str:
        shown = self.checkpoints[[c for c in _SHOWN if c in self.checkpoints]]
        return str(shown.round(3).to_html(index=False))
