"""Generations → scores: one row a generation, one column a metric.

In: a results folder's batch files (or texts made elsewhere), the data and the task. Out: ``scores.parquet``,
with the rows ``random`` and ``reference`` scored by the same code. A folder is scored in chunks of examples,
each a row group of the file, so that memory does not grow with it. Knows nothing of torch, and nothing of
intervals.
"""

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval import tasks
from tangeval.analysis.over_samples import TEXTS_AT_ONCE, over_samples, rows_at
from tangeval.analysis.processes import in_order, processes_for
from tangeval.core.errors import DamagedError, TangevalError
from tangeval.core.keeping import present
from tangeval.core.knobs import COMMON, KNOB, KNOBS, axes_in
from tangeval.core.study import Study
from tangeval.core.types import CLUSTER, RANDOM, REFERENCE, Example, Split
from tangeval.metrics.base import Texts
from tangeval.results.files import read_parquet, write_json, write_parts
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, check_data, check_rows, read_plan
from tangeval.tasks.base import Dataset, Task, nearest_forms, training_index

#: Draws of the random baseline for each example, at least.
BASELINE_DRAWS = 32
#: Draws for all examples of a split together, at most: of so many examples fewer each say as much.
BASELINE_TEXTS = 200_000
#: Rows that are scored together, about; all of an example's are, however many there are.
SCORE_CHUNK_ROWS = 100_000
#: Columns that may be empty.
_TYPES = {"step": "Int64"} | {k.name: {int: "Int64", float: "float64", str: "str"}[k.type] for k in KNOBS}


def score(study: Study, dataset: Dataset, folder: Path) -> None:
    """Score what ``folder`` holds of the study and write ``scores.parquet`` and ``signatures.json``.

    The rows are in the order of ``read_generations``, then the random baseline's and the reference's.

    Raises:
        TangevalError: a batch file that the plan names is missing, or the data are not the run's.
    """
    run, task = RunFolder(folder), tasks.load(study.task)
    batches, names = _whole_run(folder)
    check_data(dataset, run)
    if strange := sorted({name for batch in batches for name in batch.examples} - dataset.by_id.keys()):
        repair = f"`tangeval repair {folder}` makes it anew of the batch files"
        raise DamagedError(f"{run.plan}: {strange[0]} is no example of its data; {repair}")
    chunks = _chunks(study, dataset, batches, names)
    write_parts(run.scores_file, _scored(study, task, dataset, folder, chunks))
    near = {s: text for s in study.ordered_splits() if (text := nearest_forms(task, dataset, s))}
    write_json(
        run.signatures, {**task.signatures(dataset), **({"random": "; ".join(near.values())} if near else {})}
    )


@dataclass(frozen=True)
class _Chunk:
    """Some examples of one split and checkpoint, and the batches that hold them."""

    checkpoint: str
    examples: tuple[str, ...]
    batches: tuple[Batch, ...]
    rows: int


def _chunks(study: Study, dataset: Dataset, batches: Sequence[Batch], names: Sequence[str]) -> list[_Chunk]:
    """Cut the study's generations into chunks, in the order in which they are scored."""
    settings = len(study.decoding.settings())
    chunks = []
    for name, split in product(names, study.ordered_splits()):
        own = [batch for batch in batches if batch.checkpoint == name]
        there = {e for batch in own for e in batch.examples if dataset.by_id[e].split == split}
        ordered = sorted(there, key=_number)
        rows = settings * study.samples_of(split)
        size = max(1, SCORE_CHUNK_ROWS // rows)
        for begin in range(0, len(ordered), size):
            examples = tuple(ordered[begin : begin + size])
            holding = tuple(batch for batch in own if not set(examples).isdisjoint(batch.examples))
            chunks.append(_Chunk(name, examples, holding, rows * len(examples)))
    return chunks


def _scored(
    study: Study, task: Task, dataset: Dataset, folder: Path, chunks: Sequence[_Chunk]
) -> Iterator[pd.DataFrame]:
    """Yield the scores of each chunk, then the baselines'."""
    yield from _scores(study, dataset, folder, chunks)
    splits = study.ordered_splits()
    drawn = (random_parts(task, dataset, s, study.seed, study.samples_of(s)) for s in splits)
    for part in chain(*drawn, (reference_rows(task, dataset, s) for s in splits)):
        if len(part):
            yield score_texts(_with_knobs(part, study.decoding.columns), task, dataset)


def _scores(study: Study, dataset: Dataset, folder: Path, chunks: Sequence[_Chunk]) -> Iterator[pd.DataFrame]:
    """Yield the chunks' scores in order, by as many processes as there are cores where that pays."""
    processes, content = processes_for(sum(chunk.rows for chunk in chunks)), json.dumps(study.content())
    if processes == 1:
        return (_score_chunk(study, dataset, folder, chunk) for chunk in chunks)
    return in_order(_score_in_process, ((content, folder, chunk) for chunk in chunks), processes, folder)


def _score_in_process(study: str, folder: Path, chunk: _Chunk) -> pd.DataFrame:
    return _score_chunk(*_opened(study, folder), folder, chunk)


@lru_cache(maxsize=1)
def _opened(content: str, folder: Path) -> tuple[Study, Dataset]:
    """A process reads the data itself: arguments that are large would hide its death."""
    study = Study.model_validate_json(content)
    dataset = tasks.load(study.task).load(study.data_name, study.validation_size)
    check_data(dataset, RunFolder(folder))
    return study, dataset


def _score_chunk(study: Study, dataset: Dataset, folder: Path, chunk: _Chunk) -> pd.DataFrame:
    only = {"example_id": list(chunk.examples)}
    frame = _read(study, folder, chunk.batches, [chunk.checkpoint], only)
    return score_texts(frame, tasks.load(study.task), dataset)


def read_generations(
    study: Study, folder: Path, sample: int | None = None, checkpoint: str | None = None
) -> pd.DataFrame:
    """Return the study's generations, in the order of checkpoints, splits, examples, settings, samples.

    With ``sample`` only that one of each example and setting is read, with ``checkpoint`` only its own.

    Raises:
        TangevalError: there are none, or a batch file is missing.
    """
    batches, names = _whole_run(folder, checkpoint)
    return _read(study, folder, batches, names, {"sample": [sample]} if sample is not None else {})


def samples_in_parts(
    study: Study, dataset: Dataset, folder: Path
) -> Iterator[tuple[int, Iterator[pd.DataFrame]]]:
    """Return each sample and its generations, some examples at a time, each part in the order of ``read_generations``.

    What is not asked for is not read, save the whole of a batch file at a time.

    Raises:
        TangevalError: as ``read_generations``.
    """
    batches, names = _whole_run(folder)
    held = {each for batch in batches for each in product(batch.examples, batch.samples)}
    size = max(1, SCORE_CHUNK_ROWS // (len(names) * len(study.decoding.settings())))
    splits = study.ordered_splits()

    def parts(sample: int) -> Iterator[pd.DataFrame]:
        there = [e.id for split in splits for e in dataset.split(split) if (e.id, sample) in held]
        for begin in range(0, len(there), size):
            only: dict[str, list[Any]] = {"sample": [sample], "example_id": there[begin : begin + size]}
            yield _read(study, folder, batches, names, only)

    return ((sample, parts(sample)) for sample in range(max(map(study.samples_of, splits))))


def _whole_run(folder: Path, checkpoint: str | None = None) -> tuple[list[Batch], list[str]]:
    """A run's batches, or a checkpoint's, whose files are as they were written, and its checkpoints' names."""
    run = RunFolder(folder)
    batches = [batch for batch in read_plan(run) if checkpoint in (None, batch.checkpoint)]
    if not batches:
        raise TangevalError(f"{folder} holds no generations; `tangeval generate STUDY` makes them")
    files = [run.batch_file(batch.id) for batch in batches]
    if missing := [file for file in files if not present(file)]:
        raise TangevalError(f"{missing[0]}: {len(missing)} such files are missing; run the study again")
    if unchecked := len(run.unchecked(files)):
        what = f"{unchecked} batch files have no checksum: nothing tells whether they were altered"
        warnings.warn(f"{folder}: {what}", stacklevel=2)
    if broken := run.damaged(*files):
        what = f"{broken[0]} and {len(broken) - 1} more are not as they were written"
        raise TangevalError(f"{what}; run the study again, which makes them anew")
    return batches, [checkpoint["name"] for checkpoint in run.manifest["checkpoints"]]


def _read(
    study: Study, folder: Path, batches: Sequence[Batch], names: list[str], only: Mapping[str, list[Any]]
) -> pd.DataFrame:
    """What the batch files hold of the study, in order; of some columns ``only`` these values."""
    run, parts = RunFolder(folder), list[pd.DataFrame]()
    for batch in batches:
        examples = tuple(e for e in batch.examples if e in only.get("example_id", batch.examples))
        samples = tuple(s for s in batch.samples if s in only.get("sample", batch.samples))
        if not (examples and samples):
            continue
        file = run.batch_file(batch.id)
        parts.append(read_parquet(file, [(name, "in", values) for name, values in only.items()] or None))
        check_rows(replace(batch, examples=examples, samples=samples), parts[-1], file)
    own = study.decoding.columns
    axes = axes_in({*own, *(str(column) for part in parts for column in part)})
    off = {axis: KNOB[axis].off for axis in axes}
    parts = [part.assign(**{axis: off[axis] for axis in axes if axis not in part}) for part in parts]
    frame = pd.concat(parts, ignore_index=True)
    grid = {setting.at(axes) for setting in study.decoding.settings()}
    knobs = frame.groupby(axes, sort=False).ngroup()
    points = frame.loc[~knobs.duplicated(), axes].itertuples(index=False, name=None)
    wanted = knobs.map(dict(enumerate(point in grid for point in points)))
    wanted &= frame["checkpoint"].isin(names) & frame["split"].isin(study.splits)
    for split in study.ordered_splits():
        wanted &= (frame["split"] != split) | (frame["sample"] < study.samples_of(split))
    frame = frame[wanted].drop(columns=[axis for axis in axes if axis not in own])
    order = frame.assign(
        checkpoint=pd.Categorical(frame["checkpoint"], names),
        split=pd.Categorical(frame["split"], study.ordered_splits()),
        example_id=frame["example_id"].map({name: _number(name) for name in frame["example_id"].unique()}),
    )
    places = order.sort_values(["checkpoint", "split", "example_id", *own, "sample"]).index
    return frame.loc[places].reset_index(drop=True)


def keys_in(frame: pd.DataFrame) -> list[str]:
    """Return the columns that tell a generation from others, each knob of the table among them."""
    return ["checkpoint", "step", *axes_in(frame), "split", "example_id", "sample"]


def _number(example_id: str) -> int:
    """An example's place in its file."""
    return int(example_id.rpartition("-")[2])


def score_texts(frame: pd.DataFrame, task: Task, dataset: Dataset) -> pd.DataFrame:
    """Return ``keys_in``, ``n_tokens``, ``cluster`` where the data have any, and the metrics for rows with ``example_id`` and ``text``.

    The same text for the same example is scored once. What is measured of all samples of an example and
    setting (of the same ``set``, where the rows have one) stands in each of their rows.
    """
    what = ["example_id", "text", "finish_reason"]
    codes = np.asarray(frame.groupby(what, dropna=False, sort=False).ngroup(), np.int64)
    distinct = frame[what].iloc[np.unique(codes, return_index=True)[1]]
    training = _training(task, dataset)
    measured, compared = list[dict[str, NDArray[np.float64]]](), list[str]()
    for begin in range(0, len(distinct), TEXTS_AT_ONCE):
        some = distinct.iloc[begin : begin + TEXTS_AT_ONCE]
        examples = [dataset.by_id[name] for name in some["example_id"].tolist()]
        finish = some["finish_reason"].astype(object).where(some["finish_reason"].notna(), None).tolist()
        texts = Texts(some["text"].tolist(), examples, finish, task.normalise, training)
        measured.append(_measure(task, texts))
        compared += texts.compared
    left = frame[[*keys_in(frame), "n_tokens"]].reset_index(drop=True)
    left = left.astype(
        {name: kind for name, kind in _TYPES.items() if name in left} | {"n_tokens": "float64"}
    )
    if any(example.cluster for example in dataset.examples):
        left[CLUSTER] = [dataset.by_id[name].cluster for name in frame["example_id"]]
    columns = [left, rows_at(measured, codes), over_samples(task, frame, codes, compared)]
    return pd.concat(columns, axis=1)


_training = lru_cache(maxsize=1)(training_index)


def _measure(task: Task, texts: Texts) -> dict[str, NDArray[np.float64]]:
    """The metrics of texts, and the counts of those of a corpus."""
    values: dict[str, NDArray[np.float64]] = {}
    for metric in task.metrics.values():
        if metric.level == "text":
            values[metric.name] = np.asarray(metric.compute(texts), float)
        elif metric.level == "corpus":
            values.update(zip(metric.counts, np.asarray(metric.compute(texts), float).T, strict=True))
    return values


def random_rows(
    task: Task, dataset: Dataset, split: Split, seed: int, samples: int, draws: int = BASELINE_DRAWS
) -> pd.DataFrame:
    """Return the random baseline's rows for a split, as ``random_parts`` makes them."""
    parts = list(random_parts(task, dataset, split, seed, samples, draws))
    return pd.concat(parts, ignore_index=True) if parts else frame_of(RANDOM, [])


def random_parts(
    task: Task, dataset: Dataset, split: Split, seed: int, samples: int, draws: int = BASELINE_DRAWS
) -> Iterator[pd.DataFrame]:
    """Yield the random baseline's rows for a split in parts of whole examples, in sets of ``samples`` draws.

    ``draws`` or a few more for each example; fewer where that would be more than ``BASELINE_TEXTS``. Sets as large as the
    runs' own, because a larger set of texts is less diverse.

    Raises:
        TangevalError: an example has no baseline.
    """
    examples = dataset.split(split)
    draws = math.ceil(min(draws, BASELINE_TEXTS // max(len(examples), 1)) / samples) * samples or samples
    if near := nearest_forms(task, dataset, split):
        warnings.warn(near, stacklevel=2)
    size = max(1, SCORE_CHUNK_ROWS // draws)
    for begin in range(0, len(examples), size):
        drawn = ((e, task.baseline(dataset, e, seed, draws)) for e in examples[begin : begin + size])
        yield frame_of(
            RANDOM, ((e, n, text, n // samples) for e, texts in drawn for n, text in enumerate(texts))
        )


def reference_rows(task: Task, dataset: Dataset, split: Split) -> pd.DataFrame:
    """Return the answers themselves, as a model should write them."""
    return frame_of(REFERENCE, ((e, 0, task.target(e), 0) for e in dataset.split(split)))


def outputs_frame(name: str, examples: Sequence[Example], texts: Sequence[str]) -> pd.DataFrame:
    """Return rows as ``score_texts`` takes them for texts made elsewhere, named ``name``."""
    return frame_of(name, ((e, 0, text, 0) for e, text in zip(examples, texts, strict=True)))


def frame_of(name: str, answers: Iterable[tuple[Example, int, str, int]]) -> pd.DataFrame:
    """Return rows of (example, sample, text, set) without knobs, tokens or a finish: nothing here was decoded."""
    rows = [(name, e.split, e.id, sample, text, group) for e, sample, text, group in answers]
    frame = pd.DataFrame(rows, columns=["checkpoint", "split", "example_id", "sample", "text", "set"])
    return _with_knobs(frame, COMMON)


def _with_knobs(frame: pd.DataFrame, knobs: Sequence[str]) -> pd.DataFrame:
    """The rows with columns for some knobs, empty where there were none."""
    keys = keys_in(pd.DataFrame(columns=list(knobs)))
    frame = frame.reindex(columns=[*keys, "text", "n_tokens", "finish_reason", "set"])
    return frame.astype(
        {name: kind for name, kind in (_TYPES | {"n_tokens": "float64"}).items() if name in frame}
    )
