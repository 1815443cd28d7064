"""A class's files of outputs → who wrote how well, what cannot be told apart, and who handed in the same.

In: files and folders as they were handed in. Out: ``Classroom``. One file that is broken stops no other. Knows nothing
of pages.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval import tasks
from tangeval.analysis import scoring
from tangeval.analysis.aggregate import Measured, Part, ends, groups
from tangeval.analysis.external import SEED, output_names
from tangeval.analysis.ranks import rank_ranges
from tangeval.analysis.shared_texts import shared_texts
from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE, Split, check_split
from tangeval.metrics.base import check_of
from tangeval.results.folder import NO_LIKELIHOOD
from tangeval.tasks.base import Dataset, Outputs, Task

#: A student's files in a folder, the first that is there is read; and files that are one student's each.
NAMES, SUFFIXES = ("results.json", "results.txt"), (".json", ".jsonl", ".txt")
_CLASS = "class"  # what scores call all students, as it were a checkpoint
_STUDENT = "top_k"  # the axis of the grid whose points are students


@dataclass(frozen=True)
class HandedIn:
    """A student, by the name of the folder or file; ``file`` is None where ``problem`` says what is missing."""

    student: str
    file: Path | None
    problem: str = ""


@dataclass(frozen=True)
class Classroom:
    """A class on a split of a data set.

    ``table`` has a row a student: ``student``, ``file``, ``matched``, ``notes``, each metric with its interval, and
    ``_rank_low`` and ``_rank_high`` of those in ``ranked``. ``baselines`` are the same of random and reference. ``texts``
    are each student's, one an example, ``passed`` whether they pass the task's check; ``shared`` is
    ``shared_texts.shared_texts``'s, with the students' names.
    """

    task: Task
    dataset: Dataset
    split: Split
    by: str
    table: pd.DataFrame
    baselines: pd.DataFrame
    texts: Mapping[str, Sequence[str]]
    passed: Mapping[str, Sequence[bool]]
    shared: pd.DataFrame
    broken: Sequence[HandedIn]

    @property
    def metrics(self) -> list[str]:
        """The metrics that the table has."""
        return [name for name in self.task.metrics if name in self.table]

    @property
    def ranked(self) -> list[str]:
        """Those that students have ranks by."""
        return [name for name in self.metrics if f"{name}_rank_low" in self.table]


def score_class(
    places: Sequence[str | Path], data: str | None = None, split: str = "test", by: str = "form", *, task: str = "tang"
) -> Classroom:  # fmt: skip
    """Return what a class handed in, scored; ``by`` is the metric whose ranks order it.

    Raises:
        TangevalError: there is no such task, data, split or metric, or no file can be read.
    """
    on, asked = check_split(split), tasks.load(task)
    dataset = asked.load(data or ("hw5" if task == "tang" else "sample"), None)
    known = [metric.name for metric in asked.metrics.values() if metric.level == "text"]
    if by not in known:
        raise TangevalError(f"--by {by}: no metric that is a mean over texts; there are {', '.join(known)}")
    read, broken = _read(handed_in(list(map(Path, places))), asked, dataset, on)
    if not read:
        what = "".join(f"; {each.file or each.student}: {each.problem}" for each in broken[:1])
        raise TangevalError(f"none of {len(broken)} students' files can be read{what}")
    scores = _scored([outputs for _, outputs in read], asked, dataset, on)
    measured = {each.checkpoint: each.measured for each in groups(scores, NO_LIKELIHOOD, asked.metrics)}
    own, names = measured[_CLASS], [each.student for each, _ in read]
    about = {
        "student": names,
        "file": [str(each.file) for each, _ in read],
        "matched": [outputs.matched for _, outputs in read],
        "notes": ["; ".join(outputs.notes) for _, outputs in read],
    }
    ranked = [name for name in known if asked.metrics[name].headline or name == by]
    table = pd.concat([pd.DataFrame(about), _values(own), _ranks(own, ranked)], axis=1)
    first = [f"{by}_rank_low", f"{by}_rank_high", by]
    order = table.sort_values(first, ascending=[True, True, asked.metrics[by].better == "low"], kind="stable")
    sides = [_values(measured[name]).assign(student=name) for name in (RANDOM, REFERENCE) if name in measured]
    check, references = check_of(asked.metrics), [example.reference for example in dataset.split(on)]
    shared = shared_texts(*_normalised(asked, [outputs.texts for _, outputs in read], references))
    return Classroom(
        asked, dataset, on, by, order.reset_index(drop=True), pd.concat(sides, ignore_index=True),
        {each.student: outputs.texts for each, outputs in read},
        dict(zip(names, _passed(scores, check, len(read)), strict=True)) if check else {},
        shared.assign(a=shared["a"].map(dict(enumerate(names))), b=shared["b"].map(dict(enumerate(names)))),
        broken,
    )  # fmt: skip


def handed_in(places: Sequence[Path]) -> list[HandedIn]:
    """Return the students of files and folders.

    A file is a student's own. So is a folder with one of ``NAMES``; any other has a student in each of its folders, however
    deep its file lies, and in each of its files. A student is called as the folder, or as the file without its ending.

    Raises:
        TangevalError: a place is not there, is given twice, or has nobody in it.
    """
    found: list[tuple[Path, Path | None, str]] = []
    for place in places:
        if not place.exists():
            raise TangevalError(f"{place}: there is no such file or folder")
        place = place.resolve() if place.name in ("", "..") else place
        inner = [place]
        if place.is_dir() and not any((place / name).is_file() for name in NAMES):
            inner = sorted(
                each
                for each in place.iterdir()
                if each.name[0] not in "._" and (each.is_dir() or each.suffix.lower() in SUFFIXES)
            )
            if not inner:
                raise TangevalError(
                    f"{place}: no student's folder in it, and no file that ends in {' or '.join(SUFFIXES)}"
                )
        found += [_of_student(each) for each in inner]
    own = Counter(path for path, _, _ in found)
    paths = [path if own[path] == 1 or file is None else file for path, file, _ in found]
    return [
        HandedIn(name, file, why) for name, (_, file, why) in zip(output_names(paths), found, strict=True)
    ]


def _of_student(place: Path) -> tuple[Path, Path | None, str]:
    """What a student is called by, the file, and what is wrong where there is none."""
    if not place.is_dir():
        return (place.absolute().parent if place.name in NAMES else place.with_suffix("")), place, ""
    for name in NAMES:
        if len(files := [file for file in place.rglob(name) if file.is_file()]) == 1:
            return place, files[0], ""
        if files:
            return place, None, f"{len(files)} files {name} in it; leave one"
    there = [file.name for file in place.rglob("*") if file.is_file() and file.name[0] not in "._"]
    what = f"there {'are' if there[1:] else 'is'} {', '.join(sorted(there)[:3])}" if there else "it is empty"
    return place, None, f"no {' or '.join(NAMES)} in it; {what}"


def _read(
    students: Sequence[HandedIn], task: Task, dataset: Dataset, split: Split
) -> tuple[list[tuple[HandedIn, Outputs]], list[HandedIn]]:
    """Those whose files could be read, with their outputs, and the others, each with its problem."""
    if task.read_outputs is None:
        raise TangevalError(f"task {task.name} reads no files of outputs")
    others = tuple(example for example in dataset.examples if example.split != split)
    read, broken = list[tuple[HandedIn, Outputs]](), list[HandedIn]()
    for each in students:
        if each.file is None:
            broken.append(each)
            continue
        try:
            read.append((each, task.read_outputs(each.file, each.student, dataset.split(split), others)))
        except TangevalError as error:
            broken.append(
                replace(each, problem=str(error).replace(f"{each.file}: ", "").replace(f"{each.file}, ", ""))
            )
    return read, broken


def _passed(scores: pd.DataFrame, check: str, students: int) -> list[list[bool]]:
    """Whether each student's texts pass a check, in the order of the examples."""
    own = scores.loc[scores["checkpoint"] == _CLASS, check].to_numpy()
    found: list[list[bool]] = (own.reshape(students, -1) == 1).tolist()
    return found


def _scored(read: Sequence[Outputs], task: Task, dataset: Dataset, split: Split) -> pd.DataFrame:
    """The class, a setting a student so that all are measured at once, student after student, and the baselines."""
    examples = dataset.split(split)
    own = scoring.outputs_frame(
        _CLASS, examples * len(read), [text for outputs in read for text in outputs.texts]
    )
    own[_STUDENT] = np.repeat(np.arange(len(read)), len(examples))
    rows = [
        own,
        scoring.random_rows(task, dataset, split, SEED, 1),
        scoring.reference_rows(task, dataset, split),
    ]
    return scoring.score_texts(pd.concat(rows, ignore_index=True), task, dataset)


def _values(measured: Measured) -> pd.DataFrame:
    """Each setting's metrics with their intervals, those that were measured."""
    parts = [Part(measured, [place]) for place in range(len(measured.knobs))]
    columns: dict[str, Any] = {}
    for metric, value in measured.value.items():
        if not np.isnan(value).all():
            low, high = zip(*ends(parts, metric), strict=True)
            columns |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
    return pd.DataFrame(columns)


def _ranks(measured: Measured, metrics: Sequence[str]) -> pd.DataFrame:
    parts, columns = [Part(measured, [place]) for place in range(len(measured.knobs))], dict[str, Any]()
    for metric in metrics:
        columns[f"{metric}_rank_low"], columns[f"{metric}_rank_high"] = rank_ranges(parts, metric)
    return pd.DataFrame(columns)


def _normalised(
    task: Task, texts: Sequence[Sequence[str]], references: Sequence[str]
) -> tuple[list[list[str]], list[str]]:
    """Texts and references as they are compared; each distinct one is normalised once."""
    made = {text: task.normalise(text) for text in {text for own in (*texts, references) for text in own}}
    return [[made[text] for text in own] for own in texts], [made[text] for text in references]
