"""Generations → scores: one row a generation, one column a metric.

In: a results folder's batch files (or texts made elsewhere) and the data. Out:
``scores.parquet``, with the rows ``random`` and ``reference`` scored by the same code. A folder is
scored some poems of a checkpoint at a time, each lot a row group of the file, so that memory
does not grow with it. Knows nothing of torch, and nothing of intervals.
"""

import multiprocessing
import os
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, COLUMNS, KNOBS
from tangeval.core.study import Study
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.metrics.bleu import COLUMNS as COUNTS
from tangeval.metrics.bleu import pair_statistics, signatures
from tangeval.metrics.copying import Index, copying, index
from tangeval.metrics.diversity import diversity
from tangeval.results.files import read_parquet, write_json, write_parts
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, check_data, read_plan
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang.data import load as dataset_of
from tangeval.tasks.tang.form import check, length_match
from tangeval.tasks.tang.prosody import prosody
from tangeval.tasks.tang.text import as_verse, clauses, line_length

KEYS = ("checkpoint", "step", *COLUMNS, "split", "example_id", "sample")
#: Draws of the random baseline for each poem.
BASELINE_DRAWS = 32
#: Rows that are scored together; all of a poem's are, however many they be.
LOT = 100_000
#: Processes that score, at most, and the rows below which starting them costs more than it brings.
WORKERS, ALONE = 4, 150_000
#: Whole numbers that may be missing.
_TYPES = dict.fromkeys(("step", *(knob.name for knob in KNOBS if knob.type is int)), "Int64")


def score(study: Study, dataset: Dataset, folder: Path) -> None:
    """Score what ``folder`` holds of the study and write ``scores.parquet`` and ``signatures.json``.

    The rows are in the order of ``read_generations``, then the random baseline's and the reference's.

    Raises:
        TangevalError: a batch file that the plan names is missing, or the data are not the run's.
    """
    run = RunFolder(folder)
    batches, names = _whole_run(folder)
    check_data(dataset, run)
    write_parts(run.scores_file, _scored(study, dataset, folder, _lots(study, dataset, batches, names)))
    write_json(run.signatures, signatures())


@dataclass(frozen=True)
class _Lot:
    """Some poems of one split and checkpoint, and the batches that hold them."""

    checkpoint: str
    examples: tuple[str, ...]
    batches: tuple[Batch, ...]
    rows: int


def _lots(study: Study, dataset: Dataset, batches: Sequence[Batch], names: Sequence[str]) -> list[_Lot]:
    """Cut the study's generations into lots of about ``LOT`` rows, in the order in which they are scored."""
    settings = len(study.decoding.settings())
    lots = []
    for name, split in product(names, study.ordered_splits()):
        own = [batch for batch in batches if batch.checkpoint == name]
        there = {e for batch in own for e in batch.examples if dataset.by_id[e].split == split}
        ordered = sorted(there, key=_number)
        rows = settings * study.samples_of(split)
        size = max(1, LOT // rows)
        for begin in range(0, len(ordered), size):
            examples = tuple(ordered[begin : begin + size])
            holding = tuple(batch for batch in own if not set(examples).isdisjoint(batch.examples))
            lots.append(_Lot(name, examples, holding, rows * len(examples)))
    return lots


def _scored(study: Study, dataset: Dataset, folder: Path, lots: Sequence[_Lot]) -> Iterator[pd.DataFrame]:
    """Yield the scores of each lot, then random baseline's and reference's, which are measured in sets as large."""
    samples: dict[str, int] = {}
    with _workers(lots, (study, dataset, folder)) as scored:
        for frame in scored:
            split = str(frame["split"].iloc[0])
            samples[split] = max(samples.get(split, 0), int(frame["sample"].max()) + 1)
            yield frame
    splits = study.ordered_splits()
    baselines = [random_rows(dataset, splits, study.seed), reference_rows(dataset, splits)]
    yield score_texts(pd.concat(baselines, ignore_index=True), dataset, samples)


@contextmanager
def _workers(lots: Sequence[_Lot], run: tuple[Study, Dataset, Path]) -> Iterator[Iterator[pd.DataFrame]]:
    """The lots' scores in order, by as many processes as there are cores where that pays."""
    cores = min(
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, WORKERS
    )
    if cores == 1 or sum(lot.rows for lot in lots) < ALONE:
        scorer = _Scorer(*run)
        yield map(scorer.scored, lots)
        return
    # Not forked: whoever generated before has torch's threads and perhaps a GPU.
    context = multiprocessing.get_context("spawn")
    study, _, folder = run
    # A process reads the data itself: what it is begun with must be small, or its death would not be noticed.
    with ProcessPoolExecutor(cores, context, _begin, (study, folder)) as pool:
        try:
            yield _in_order(pool, lots, ahead=2 * cores)
        except BrokenProcessPool as error:
            raise TangevalError(
                f"{folder}: a process that scores was ended, mostly because memory ran out; free some, and give the same "
                'command again. In a script of your own, call tangeval under if __name__ == "__main__"'
            ) from error


def _in_order(pool: Executor, lots: Sequence[_Lot], ahead: int) -> Iterator[pd.DataFrame]:
    """Each lot's scores, no more than ``ahead`` lots being scored or waiting to be taken."""
    pending: deque[Future[pd.DataFrame]] = deque()
    for lot in lots:
        pending.append(pool.submit(_score_in_worker, lot))
        if len(pending) == ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


class _Scorer:
    """Scores lots of one folder, in this process."""

    def __init__(self, study: Study, dataset: Dataset, folder: Path) -> None:
        self.study, self.dataset, self.folder = study, dataset, folder
        self.training = _training(dataset)

    def scored(self, lot: _Lot) -> pd.DataFrame:
        only = [("example_id", "in", list(lot.examples))]
        frame = _read(self.study, self.folder, lot.batches, [lot.checkpoint], only)
        return score_texts(frame, self.dataset, training=self.training)


_worker: list[_Scorer] = []  # a worker process has one


def _begin(study: Study, folder: Path) -> None:
    data = dataset_of(study.data_name, study.validation_size)
    check_data(data, RunFolder(folder))
    _worker[:] = [_Scorer(study, data, folder)]


def _score_in_worker(lot: _Lot) -> pd.DataFrame:
    return _worker[0].scored(lot)


def read_generations(
    study: Study, folder: Path, sample: int | None = None, checkpoint: str | None = None
) -> pd.DataFrame:
    """Return the study's generations, in the order of checkpoints, splits, poems, settings, samples.

    With ``sample`` only that one of each poem and setting is read, with ``checkpoint`` only its own,
    which takes that much less memory.

    Raises:
        TangevalError: there are none, or a batch file is missing.
    """
    # Who reads sample after sample has had all batch files looked at with the first.
    batches, names = _whole_run(folder, look=not sample)
    batches = [batch for batch in batches if checkpoint in (None, batch.checkpoint)]
    return _read(study, folder, batches, names, [("sample", "==", sample)] if sample is not None else None)


def _whole_run(folder: Path, *, look: bool = True) -> tuple[list[Batch], list[str]]:
    """A run's batches and its checkpoints' names; ``look`` whether its batch files are as they were written."""
    run = RunFolder(folder)
    batches = read_plan(run)
    if not batches:
        raise TangevalError(f"{folder} holds no generations; `tangeval generate STUDY` makes them")
    files = [run.batch_file(batch.id) for batch in batches]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise TangevalError(f"{missing[0]} and {len(missing) - 1} more are missing; run the study again")
    broken = run.damaged() if look else []
    if broken:
        raise TangevalError(
            f"{broken[0]} and {len(broken) - 1} more are not as they were written; run the study again, which makes "
            "them anew"
        )
    return batches, [checkpoint["name"] for checkpoint in run.manifest["checkpoints"]]


def _read(
    study: Study, folder: Path, batches: Sequence[Batch], names: list[str], only: list[Any] | None
) -> pd.DataFrame:
    """What the batches' batch files hold of the study, in order."""
    frame = pd.concat(
        [read_parquet(RunFolder(folder).batch_file(batch.id), only) for batch in batches], ignore_index=True
    )
    grid = {setting.values for setting in study.decoding.settings()}
    knobs = zip(*(frame[name] for name in AXES), strict=True)
    wanted = pd.Series([knob in grid for knob in knobs], index=frame.index)
    wanted &= frame["checkpoint"].isin(names) & frame["split"].isin(study.splits)
    for split in study.ordered_splits():
        wanted &= (frame["split"] != split) | (frame["sample"] < study.samples_of(split))
    frame = frame[wanted]
    order = frame.assign(
        checkpoint=pd.Categorical(frame["checkpoint"], names),
        split=pd.Categorical(frame["split"], study.ordered_splits()),
        example_id=frame["example_id"].map(_number),
    )
    places = order.sort_values(["checkpoint", "split", "example_id", *AXES, "sample"]).index
    return frame.loc[places].reset_index(drop=True)


def _number(example_id: str) -> int:
    """A poem's place in its file."""
    return int(example_id.rpartition("-")[2])


def score_texts(
    frame: pd.DataFrame,
    dataset: Dataset,
    samples: Mapping[str, int] | None = None,
    training: Index | None = None,
) -> pd.DataFrame:
    """Return ``KEYS``, ``n_tokens`` and the metrics for rows with ``example_id`` and ``text``.

    The same text for the same poem is scored once. What is measured of all samples of a poem and
    setting stands in each of their rows. ``samples`` says how many of them the runs have in each
    split, where their rows are not in ``frame``; ``training`` is the index of the poems that may
    have been copied, where it is made already.
    """
    what = ["example_id", "text", "finish_reason"]
    distinct = frame[what].drop_duplicates().reset_index(drop=True)
    training = training or _training(dataset)
    records: list[dict[str, float | None]] = []
    for example_id, text, finish_reason in distinct.itertuples(index=False):
        example = dataset.by_id[example_id]
        reason = None if pd.isna(finish_reason) else finish_reason
        records.append(
            {
                **dict(zip(COUNTS, pair_statistics(text, example.reference), strict=True)),
                **check(example.input, text, reason),
                "length_match": float(length_match(text, example.reference)),
                **prosody(example.input, text),
                **copying(training, text, own=example_id),
            }
        )
    # Looked up by number: a join on long texts would copy them.
    codes = frame.merge(distinct.reset_index(names="code"), on=what, how="left")["code"].to_numpy()
    left = frame[[*KEYS, "n_tokens"]].reset_index(drop=True).astype({**_TYPES, "n_tokens": float})
    each = pd.DataFrame(records).astype(float).iloc[codes].reset_index(drop=True)
    return pd.concat([left, each, _diversity(frame, codes, distinct["text"].tolist(), samples)], axis=1)


def _training(dataset: Dataset) -> Index:
    return index((e.id, e.input + e.reference) for e in dataset.split("train"))


def _diversity(
    frame: pd.DataFrame, codes: NDArray[np.int64], texts: Sequence[str], drawn: Mapping[str, int] | None
) -> pd.DataFrame:
    """``diversity`` of each row's poem and setting; ``codes`` say which of ``texts`` each row has.

    The random baseline's draws are measured in sets as large as the runs', for a larger set is less diverse.
    """
    floor = frame["checkpoint"].eq(RANDOM)
    runs = frame[~floor & frame["checkpoint"].ne(REFERENCE)]
    sizes = drawn or (runs.groupby("split")["sample"].max() + 1).to_dict()
    samples = frame["split"].map(sizes).fillna(BASELINE_DRAWS)
    some = (frame["sample"] // samples).where(floor, 0)
    keys = ["checkpoint", *COLUMNS, "example_id", "some"]
    group = frame.assign(some=some).groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    order = np.lexsort((codes, group))  # the samples in an order of their own: equal sets are measured once
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    measured: dict[bytes, int] = {}
    records: list[dict[str, float]] = []
    which = np.empty(len(begins), np.int64)
    for number, chosen in enumerate(np.split(codes[order], begins[1:])):
        key = chosen.tobytes()
        if key not in measured:
            measured[key] = len(records)
            records.append(diversity([texts[code] for code in chosen]))
        which[number] = measured[key]
    return pd.DataFrame(records).iloc[which[group]].reset_index(drop=True)


def random_rows(
    dataset: Dataset, splits: Sequence[str], seed: int, draws: int = BASELINE_DRAWS
) -> pd.DataFrame:
    """Return, for each poem, the rest of random training poems of its metre and length.

    ``draws`` with replacement, seeded by poem. Where no training poem has as
    many clauses (one of HW5's 15 has ten), those with the nearest number that enough have are
    drawn from.

    Raises:
        TangevalError: no training poem has the metre of a poem.
    """
    pool: dict[int, dict[int, list[str]]] = {}
    for example in dataset.split("train"):
        by_count = pool.setdefault(line_length(example.input), {})
        by_count.setdefault(len(clauses(example.reference)), []).append(as_verse(example.reference))
    rows = []
    for example in _of(dataset, splits):
        by_count = pool.get(line_length(example.input), {})
        if not by_count:
            raise TangevalError(
                f"{dataset.folder}: no training poem has {line_length(example.input)} characters a clause, as "
                f"{example.id} has, so there is no random baseline to draw"
            )
        count = len(clauses(example.reference))
        common = {n: texts for n, texts in by_count.items() if len(texts) >= draws} or by_count
        texts = by_count.get(count) or common[min(common, key=lambda n: (abs(n - count), n))]
        noise = random.Random(f"floor {seed} {example.id}")
        rows += [_row(RANDOM, example, draw, noise.choice(texts)) for draw in range(draws)]
    return _frame(rows)


def reference_rows(dataset: Dataset, splits: Sequence[str]) -> pd.DataFrame:
    """Return the answers themselves, punctuated as verse."""
    return _frame([_row(REFERENCE, e, 0, as_verse(e.reference)) for e in _of(dataset, splits)])


def _of(dataset: Dataset, splits: Sequence[str]) -> Iterable[Example]:
    return (example for split in splits for example in dataset.examples if example.split == split)


def _row(name: str, example: Example, sample: int, text: str) -> dict[str, object]:
    return {
        "checkpoint": name, "split": example.split, "example_id": example.id, "sample": sample, "text": text
    }  # fmt: skip


def _frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Rows without knobs, tokens or a finish: nothing here was decoded."""
    columns = [*KEYS, "text", "n_tokens", "finish_reason"]
    frame = pd.DataFrame(rows).reindex(columns=columns)
    numbers = dict.fromkeys((*(knob.name for knob in KNOBS if knob.type is float), "n_tokens"), "float64")
    return frame.astype({**_TYPES, **numbers})


def outputs_frame(name: str, examples: Sequence[Example], texts: Sequence[str]) -> pd.DataFrame:
    """Return rows as ``score_texts`` takes them for texts made elsewhere, named ``name``."""
    return _frame([_row(name, e, 0, text) for e, text in zip(examples, texts, strict=True)])
