"""A results folder: the name of every file in it, and its readers.

In: a path. Out: ``RunFolder``, the only place that knows what the files are called, and which
version of their schema they have. Written by ``generation`` and ``analysis``; read by everybody.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.core.errors import TangevalError
from tangeval.core.study import Study, load_study
from tangeval.results import files


@dataclass(frozen=True)
class RunFolder:
    """Every path and reader of one results folder; nothing needs to be there yet.

    Raises (the readers):
        TangevalError: what is asked for is missing or damaged; the message names the file and the
            command that makes it.
    """

    path: Path

    # What a run is made from, and what it says of its making.

    @property
    def study_file(self) -> Path:
        return self.path / "study.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def manifest_file(self) -> Path:
        return self.path / "manifest.json"

    @property
    def timings_file(self) -> Path:
        return self.path / "timings.json"

    # What engines wrote.

    @property
    def generations(self) -> Path:
        return self.path / "generations"

    def batch_file(self, batch_id: str) -> Path:
        return self.generations / f"{batch_id}.parquet"

    @property
    def likelihood_file(self) -> Path:
        return self.path / "likelihood.parquet"

    # What was measured.

    @property
    def scores_file(self) -> Path:
        return self.path / "scores.parquet"

    @property
    def signatures(self) -> Path:
        return self.path / "signatures.json"

    def table(self, name: str) -> Path:
        """``summary``, ``effects``, ``checkpoints``, ``likelihood_curve``, ``variance``, ``judge``: a CSV file."""
        return self.path / f"{name}.csv"

    @property
    def tables(self) -> Path:
        """The tables for readers: CSV, Markdown, LaTeX."""
        return self.path / "tables"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    # What was chosen, explained, judged.

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def selection_file(self) -> Path:
        return self.best / "selection.json"

    @property
    def generation_config(self) -> Path:
        return self.best / "generation_config.json"

    @property
    def best_outputs(self) -> Path:
        return self.best / "results.txt"

    @property
    def explain(self) -> Path:
        return self.path / "explain"

    @property
    def answers(self) -> Path:
        """A judge's answers, one JSON object a line."""
        return self.path / "judge.jsonl"

    @property
    def halving(self) -> Path:
        return self.path / "halving.json"

    # Readers.

    @cached_property
    def study(self) -> Study:
        if not self.study_file.is_file():
            raise TangevalError(f"{self.path} is no results folder; `tangeval run STUDY` makes one")
        return load_study(self.study_file)

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] | None = files.read_json(self.manifest_file)
        if found is None:
            raise TangevalError(f"{self.manifest_file} is missing; `tangeval run STUDY` makes it")
        return found

    @property
    def noise_shared(self) -> bool:
        """Whether its settings and checkpoints were drawn under common random numbers."""
        return bool((files.read_json(self.manifest_file) or {}).get("noise_shared", True))

    @property
    def selection(self) -> dict[str, Any] | None:
        """What was chosen; None if nothing was."""
        found: dict[str, Any] | None = files.read_json(self.selection_file)
        return found

    def scores(
        self, checkpoint: str | None = None, split: str | None = None
    ) -> tuple[Iterator[pd.DataFrame], pd.DataFrame]:
        """Return scores, in parts of whole poems, and likelihoods: see ``files.read_scores``."""
        return files.read_scores(self.path, checkpoint, split)

    def columns(self, names: Sequence[str]) -> pd.DataFrame:
        """Return some columns of all scores; text as categories."""
        return files.read_columns(self.path, names)

    def read_table(self, name: str) -> pd.DataFrame:
        if not self.table(name).is_file():
            raise TangevalError(f"{self.table(name)} is missing; `tangeval summarize` makes it")
        return pd.read_csv(self.table(name))
