"""Texts that no checkpoint wrote: files of outputs scored, data sets measured and inspected.

In: files of outputs, or a data set. Out: frames, a row each beside random baseline and reference; copies and
leaks. Knows nothing of results folders.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd

from tangeval import tasks
from tangeval.analysis import compare, scoring, summarize
from tangeval.analysis.aggregate import Part, groups
from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE, SPLITS, Split, check_split
from tangeval.results.folder import NO_LIKELIHOOD
from tangeval.tasks.base import Dataset, Outputs, Task, duplicates, leaks

SEED = 42  # of the random baseline and the bootstrap


@dataclass(frozen=True)
class Scored:
    """Files of outputs, a row of ``table`` each beside random baseline and reference, and differences."""

    outputs: Sequence[Outputs]
    dataset: Dataset
    split: Split
    table: pd.DataFrame
    differences: pd.DataFrame
    task: Task


@dataclass(frozen=True)
class Data:
    """A data set, the ids of equal texts in it, and for each split the parts that training has too, by id."""

    dataset: Dataset
    duplicates: Sequence[Sequence[str]]
    leaks: Mapping[Split, Mapping[str, Sequence[str]]]


def score_files(
    files: Sequence[str | Path], data: str | None = None, split: str = "test", validation: int | None = None, *,
    task: str = "tang",
) -> Scored:  # fmt: skip
    """Return the scores of files of outputs made elsewhere, beside random baseline and reference.

    Raises:
        TangevalError: there is no such task, data set or split, or a file cannot be read as outputs of it.
    """
    on, asked = check_split(split), tasks.load(task)
    dataset = asked.load(data or ("hw5" if task == "tang" else "sample"), validation)
    if asked.read_outputs is None:
        raise TangevalError(f"task {task} reads no files of outputs")
    others = [example for example in dataset.examples if example.split != on]
    paths = list(map(Path, files))
    names = output_names(paths)
    read = [asked.read_outputs(*n, dataset.split(on), others) for n in zip(paths, names, strict=True)]
    rows = [scoring.outputs_frame(each.name, dataset.split(on), each.texts) for each in read]
    beside = chain(
        scoring.random_parts(asked, dataset, on, SEED, 1), [scoring.reference_rows(asked, dataset, on)]
    )
    scores = (scoring.score_texts(part, asked, dataset) for part in chain(rows, beside) if len(part))
    measured = list(groups(scores, NO_LIKELIHOOD, asked.metrics))
    items = [compare.Item(g.checkpoint, Part(g.measured, [0])) for g in measured[: len(read)]]
    differences = compare.compare(items) if len(read) > 1 else pd.DataFrame()
    return Scored(read, dataset, on, summarize.overall(measured), differences, asked)


def output_names(files: Sequence[Path]) -> list[str]:
    """Return a name for each file of outputs, distinct from the others and from ``random`` and ``reference``.

    A file is named by its name, and by as many of its folders as tell it from the others.

    Raises:
        TangevalError: a file is given twice.
    """
    resolved = [file.parent.resolve() / file.name for file in files]
    if twice := [file for file, place in zip(files, resolved, strict=True) if resolved.count(place) > 1]:
        raise TangevalError(f"{twice[0]}: given twice; give each file once")
    whole = [[part for part in file.absolute().parts if part != file.anchor] for file in files]
    depth = [1] * len(files)
    while True:
        shown = ["/".join(parts[-d:]) for parts, d in zip(whole, depth, strict=True)]
        taken = Counter([*shown, RANDOM, REFERENCE])
        alike = [n for n, name in enumerate(shown) if taken[name] > 1 and depth[n] < len(whole[n])]
        if not alike:
            return shown
        for n in alike:
            depth[n] += 1


def calibrate(spec: str, validation: int | None = None, *, task: str = "tang") -> pd.DataFrame:
    """Return every metric of the training references, and of random answers of their form: a row each."""
    asked = tasks.load(task)
    dataset = asked.load(spec, validation)
    answers = scoring.random_rows(asked, dataset, "train", SEED, 2, draws=2)
    rows = pd.concat([scoring.reference_rows(asked, dataset, "train"), answers], ignore_index=True)
    scores = scoring.score_texts(rows, asked, dataset)
    frame = summarize.overall(groups(scores, NO_LIKELIHOOD, asked.metrics))
    frame = frame.set_index("checkpoint")
    return frame.loc[[name for name in (REFERENCE, RANDOM) if name in frame.index]]


def data(spec: str, validation: int | None = None, *, task: str = "tang") -> Data:
    """Return what is found of a data set: ``sample``, ``hw5``, or a folder.

    Raises:
        TangevalError: it is not there, or cannot be read.
    """
    asked = tasks.load(task)
    dataset = asked.load(spec, validation)
    return Data(dataset, duplicates(asked, dataset), {s: leaks(asked, dataset, s) for s in SPLITS[1:]})
