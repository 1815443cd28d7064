"""A results folder: the name of every file in it, and its readers.

In: a path. Out: ``RunFolder``, the only place that knows what the files are called, and which
version of their schema they have. Knows nothing of what the numbers mean.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import tasks
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import listed, present
from tangeval.core.knobs import KNOB, WIDE
from tangeval.core.study import Study, load_study
from tangeval.core.types import CLUSTER, RANDOM, REFERENCE
from tangeval.core.untrusted import parsed, read_bytes
from tangeval.metrics.base import Metric, Metrics
from tangeval.results import checksums, files, records, schema2

#: The schema that is written; that of ``schema2`` can be read.
SCHEMA = 3
#: Likelihoods of what no model wrote.
NO_LIKELIHOOD = pd.DataFrame(columns=["checkpoint", "split", "example_id", "reference_nll"])
_EXAMPLE = ["checkpoint", "split", "example_id"]
#: In the place of a checkpoint's name.
ALL = "all"


class _File:
    """The path of a file of a results folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path / self.name


@dataclass(frozen=True)
class RunFolder:
    """Every path and reader of one results folder; nothing needs to be there yet.

    Raises (the readers):
        TangevalError: what is asked for is missing or damaged; the message names the file and the
            command that makes it.
    """

    path: Path

    # What a run is made from, and what it says of its making.
    study_file = _File("study.yaml")
    plan = _File("plan.json")
    manifest_file = _File("manifest.json")
    #: Seconds and memory: a JSON object a line, of which the last of a kind and name holds.
    timings_file = _File("timings.jsonl")
    # What engines wrote, and what ``sha256sum -c`` checks it by.
    generations = _File("generations")
    checksums = _File("generations.sha256")
    likelihood_file = _File("likelihood.parquet")
    sample_likelihood = _File("sample_likelihood.parquet")
    # What was measured.
    scores_file = _File("scores.parquet")
    signatures = _File("signatures.json")
    # What was chosen.
    best = _File("best")
    selection_file = _File("best/selection.json")
    generation_config = _File("best/generation_config.json")
    best_outputs = _File("best/results.txt")
    # What may be said of it all.
    verdict_file = _File("verdict.json")
    verdict_text = _File("best/verdict.md")
    halving = _File("halving.json")
    # For readers. A judge's answers are one JSON object a line.
    tables = _File("tables")
    figures = _File("figures")
    page = _File("report.html")
    explain = _File("explain")
    answers = _File("judge.jsonl")
    votes = _File("votes.csv")  #: of people, as ``judge --human`` reads them
    pair_answers = _File("judge_pairs.jsonl")

    def batch_file(self, batch_id: str) -> Path:
        return self.generations / f"{batch_id}.parquet"

    def table(self, name: str) -> Path:
        """A CSV file: ``summary``, ``effects``, ``checkpoints``, ``recipes``, ``likelihood_curve``, ``variance``, ``front``, ``judge``, …"""
        return self.path / f"{name}.csv"

    # Batch files and their checksums.

    def batch_files(self) -> list[Path]:
        """Return the Parquet files among the generations, whoever wrote them."""
        return listed(self.generations, "*.parquet")

    def write_batch_file(self, batch_id: str, frame: pd.DataFrame, about: Mapping[str, Any]) -> None:
        """Write a batch's rows, which say what they are."""
        self._write(self.batch_file(batch_id), files.parquet_bytes(frame, about))

    def write_likelihood(self, frame: pd.DataFrame) -> None:
        self._write(self.likelihood_file, files.parquet_bytes(frame))

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file after its checksum: whenever the process is killed, what is there has one."""
        files.append_line(self.checksums, f"{hashlib.sha256(data).hexdigest()}  {self._name(path)}")
        files.write_bytes(path, data)

    def damaged(self, *paths: Path) -> list[Path]:
        """Return those of ``paths``, or of all files, that are not as their checksums say: cut short or altered."""
        sums = self._sums()
        checked = [path for path in self._checked(paths or self.batch_files()) if self._name(path) in sums]
        return [path for path in checked if checksums.digest_of(path) not in sums[self._name(path)]]

    def unchecked(self, paths: Iterable[Path]) -> list[Path]:
        """Return the files that have no checksum, of which ``damaged`` knows nothing."""
        sums = self._sums()
        return [path for path in paths if self._name(path) not in sums]

    def tidy_checksums(self, paths: Iterable[Path], *, anew: bool = False) -> None:
        """Write a line for each of these batch files and the likelihoods; what was recorded stays, unless ``anew``."""
        sums = {} if anew else self._sums()
        lines = []
        for path in self._checked(paths):
            known, found = sums.get(self._name(path)), checksums.digest_of(path)
            lines.append(f"{known[-1] if known and found not in known else found}  {self._name(path)}\n")
        if not present(self.checksums) or self.checksums.read_text("utf-8", "replace") != "".join(lines):
            files.write_text(self.checksums, "".join(lines))

    def _checked(self, paths: Iterable[Path]) -> list[Path]:
        return [path for path in dict.fromkeys((*paths, self.likelihood_file)) if present(path)]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _sums(self) -> dict[str, list[str]]:
        remedy = f"`tangeval repair {self.path}` makes it anew of what is there"
        return checksums.read_sums(self.checksums, remedy)

    # What was measured of time and memory.

    def record(self, kind: str, name: str, value: Any) -> None:
        """Add to ``timings``, such as the seconds that a batch took."""
        line = json.dumps({"kind": kind, "name": name, "value": value}, ensure_ascii=False)
        files.append_line(self.timings_file, line)

    def timings(self, kind: str) -> dict[str, Any]:
        """Return what was recorded last of each name."""
        if not self.timings_file.is_file():
            return {}
        found = {}
        for line in read_bytes(self.timings_file).decode("utf-8", "replace").splitlines():
            with suppress(ValueError, LookupError, TypeError):  # a line cut short
                entry = parsed(line)
                if entry["kind"] == kind and 0 < entry["value"] < math.inf:
                    found[entry["name"]] = entry["value"]
        return found

    # Readers.

    @cached_property
    def _old(self) -> bool:
        """Whether the folder is of schema 2."""
        said = files.read_json(self.manifest_file)
        return isinstance(said, dict) and said.get("schema") == schema2.SCHEMA

    @property
    def _old_scores(self) -> bool:
        """Whether its scores are as schema 2 had them: `tangeval summarize` writes them anew."""
        return self._old and schema2.scores(files.column_names(self._made(self.scores_file)))

    def read_json(self, file: Path) -> Any:
        """Return what one of its JSON files says, checked as of ``records``; None where there is no such file."""
        remedy = f"`tangeval repair {self.path}` makes it anew" if file == self.plan else files.DELETE
        if (content := files.read_json(file, remedy)) is None:
            return None
        return records.checked(file, schema2.renamed(content) if self._old else content, remedy)

    def _made(self, file: Path, command: str = "run STUDY") -> Path:
        if not present(file):
            raise TangevalError(f"{file} is missing; `tangeval {command}` makes it")
        return file

    def _frame(self, frame: pd.DataFrame) -> pd.DataFrame:
        return schema2.frame(frame) if self._old else frame

    @cached_property
    def study(self) -> Study:
        if not self.study_file.is_file():
            raise TangevalError(f"{self.path} is no results folder; `tangeval run STUDY` makes one")
        return load_study(self.study_file, translate=schema2.study if self._old else None)

    def wide(self) -> Any:
        """Return the value that the study, as it stands now, has of ``WIDE``: no plan names it; off where it has several."""
        if not present(self.study_file):
            return KNOB[WIDE].off
        value = RunFolder(self.path).study.decoding.wide(WIDE)
        return KNOB[WIDE].off if value is None else value

    @property
    def metrics(self) -> Metrics:
        """The metrics of its task, without those that its scores have not: an earlier version may have made them."""
        metrics = tasks.load(self.study.task).metrics
        if not self.scores_file.is_file():
            return metrics
        there, old = set(files.column_names(self.scores_file)), self._old_scores

        def known(metric: Metric) -> bool:
            names = metric.counts or (metric.name,)
            return metric.level == "reference" or there.issuperset(schema2.columns(names) if old else names)

        return {name: metric for name, metric in metrics.items() if known(metric)}

    @property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] | None = self.read_json(self.manifest_file)
        if found is None:
            raise TangevalError(f"{self.manifest_file} is missing; `tangeval run STUDY` makes it")
        return found

    @property
    def trained(self) -> dict[str, dict[str, Any]]:
        """The records of the checkpoints that are of a recipe, by name, and by step within a ``run``."""
        made = (self.read_json(self.manifest_file) or {}).get("checkpoints", [])
        return {record["name"]: record for record in made if "recipe" in record}

    @property
    def noise_shared(self) -> bool:
        """Whether its settings and checkpoints were drawn under common random numbers; a server's may not be."""
        return bool((self.read_json(self.manifest_file) or {}).get("noise_shared", True))

    @property
    def selection(self) -> dict[str, Any] | None:
        """What was chosen; None if nothing was."""
        found: dict[str, Any] | None = self.read_json(self.selection_file)
        return found

    def scores(self, checkpoint: str | None = None, split: str | None = None) -> Iterator[pd.DataFrame]:
        """Return the scores, or those of one checkpoint or split, in parts of whole examples, in their order."""
        if checkpoint == RANDOM and self._old_scores:
            checkpoint = schema2.FLOOR
        wanted = {"checkpoint": checkpoint, "split": split}
        some = {column: value for column, value in wanted.items() if value is not None}
        return map(self._frame, _whole_examples(files.read_row_groups(self._made(self.scores_file), some)))

    def named(self, checkpoint: str | None, split: str) -> list[str]:
        """Return the checkpoint of that name where it has scores on a split; the chosen one of None, every one of ``ALL``."""
        checkpoint = checkpoint or (self.selection or {}).get("checkpoint", {}).get("checkpoint")
        if checkpoint is None:
            raise TangevalError(f"{self.path}: nothing is chosen there; give --checkpoint NAME or {ALL}")
        there = self.columns(["checkpoint", "split"]).drop_duplicates()
        names = there.loc[there["split"] == split, "checkpoint"]
        found = [n for n in names if n not in (RANDOM, REFERENCE) and checkpoint in (ALL, n)]
        if not found:
            raise TangevalError(f"{self.path}: it has no checkpoint {checkpoint} on {split}")
        return found

    def columns(self, names: Sequence[str], **wanted: Any) -> pd.DataFrame:
        """Return some columns of the scores that have each ``wanted`` column's value; text as categories."""
        names = schema2.columns(names) if self._old_scores else names
        return self._frame(files.read_columns(self._made(self.scores_file), names, _EXAMPLE, wanted))

    def clusters(self) -> dict[str, str]:
        """Return the cluster of each example that is in one; nothing where the task names none."""
        if not present(self.scores_file) or CLUSTER not in files.column_names(self.scores_file):
            return {}
        found = self.columns(["example_id", CLUSTER]).drop_duplicates("example_id").astype(str)
        return dict(zip(found["example_id"], found[CLUSTER], strict=True))

    def likelihood(self) -> pd.DataFrame:
        """Return the references' likelihoods; no rows where no checkpoint gave one."""
        if not present(self.likelihood_file):
            return NO_LIKELIHOOD
        if self.damaged(self.likelihood_file):
            raise TangevalError(
                f"{self.likelihood_file} is not as it was written; `tangeval run STUDY` makes it anew"
            )
        return self._frame(files.read_parquet(self.likelihood_file))

    def read_table(self, name: str) -> pd.DataFrame:
        return self._frame(files.read_csv(self._made(self.table(name), "summarize")))

    def csv_bytes(self, file: Path) -> bytes:
        """Return a table as it stands in its file."""
        data = file.read_bytes()
        return schema2.csv(data) if self._old else data


def _whole_examples(parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Move the rows of each part's last example to the next part, where a part may end within an example."""
    begun: pd.DataFrame | None = None
    for part in parts:
        if not len(part):
            continue
        if begun is not None:
            part = pd.concat([begun, part], ignore_index=True)
        last = (part[_EXAMPLE] == part[_EXAMPLE].iloc[-1]).all(axis=1)
        begun = part[last]
        if not last.all():
            yield part[~last]
    if begun is not None:
        yield begun
