"""What the samples already know: the best of k, reranking, and the room for adaptive decoding; nothing is decoded.

In: a results folder with scores and generations. Out: frames, written as ``best_of.csv`` (the best of k samples of each
setting), ``reranked.csv`` (one sample picked of each poem's) and ``oracle.csv`` (the setting chosen for each poem).
Knows nothing of pictures.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval import tasks
from tangeval.analysis import oracle
from tangeval.analysis.aggregate import Measured, Part, ends, gathered, of_level, outputs_grid
from tangeval.analysis.best_of import best_of, ladder
from tangeval.analysis.grid import clusters_of
from tangeval.analysis.intervals import Clusters
from tangeval.analysis.rerank import by_check, by_consensus
from tangeval.analysis.scoring import read_generations
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study
from tangeval.metrics.base import Metric, Metrics, check_of
from tangeval.metrics.ngrams import Ints
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

#: How one of a poem's samples is picked; ``none`` is their mean.
NONE, MBR, LIKELIHOOD = "none", "mbr", "likelihood"


#: Gives the outputs of a checkpoint, by its name, their nats under it.
Nats = Callable[[str, pd.DataFrame], pd.Series]


@dataclass(frozen=True)
class Outputs:
    """What was measured of each output: ``values[metric]`` and ``counts[column]`` are ``[C, P, S]``."""

    knobs: pd.DataFrame
    examples: tuple[str, ...]
    values: dict[str, NDArray[np.float32]]
    counts: dict[str, NDArray[np.int32]]
    clusters: Clusters | None = None

    def measured(
        self, metrics: Metrics, by_poem: dict[str, Any], samples: int, counts: Mapping[str, Any] | None = None
    ) -> Measured:
        """Return values by poem ``[P, C]``, and counts ``[C, P, S]``, as what was measured."""
        return gathered(metrics, self.knobs, self.examples, samples, by_poem, counts or {}, self.clusters)

    def picked(self, metrics: Metrics, picks: Ints | None) -> Measured:
        """Return what was measured of the samples at ``picks`` ``[C, P]``, or of all."""

        def own(array: NDArray[Any]) -> NDArray[Any]:
            return array if picks is None else np.take_along_axis(array, picks[..., None], axis=2)

        by_poem = {name: own(each).mean(axis=2, dtype=np.float64).T for name, each in self.values.items()}
        counts = {name: own(each) for name, each in self.counts.items()}
        return self.measured(metrics, by_poem, own(next(iter(self.values.values()))).shape[2], counts)


@dataclass(frozen=True)
class Headroom:
    """The frames; columns as in docs/results.md."""

    best_of: pd.DataFrame
    reranked: pd.DataFrame
    oracle: pd.DataFrame


def headroom(
    study: Study,
    run: RunFolder,
    split: str = "validation",
    checkpoint: str | None = None,
    nats: Nats | None = None,
) -> Headroom:
    """Write the three tables and return them: of one ``checkpoint`` (default: the chosen one), or of "all".

    ``nats`` gives a checkpoint's outputs their ``nats`` under it; then the likeliest sample is one of those picked.

    Raises:
        TangevalError: there is one sample a poem, no such checkpoint or split, or no generations.
    """
    names = run.named(checkpoint, split)
    if study.samples_of(split) < 2:
        raise TangevalError(
            f"samples: one of each {split} example leaves nothing to pick from; give two or more"
        )
    found = [_of_checkpoint(study, run, name, split, nats) for name in names]
    frames = [pd.concat(each, ignore_index=True) for each in zip(*found, strict=True)]
    for name, frame in zip(("best_of", "reranked", "oracle"), frames, strict=True):
        write_csv(run.table(name), frame)
    return Headroom(*frames)


def _of_checkpoint(
    study: Study, run: RunFolder, name: str, split: str, nats: Nats | None
) -> Iterator[pd.DataFrame]:
    """The three frames of one checkpoint."""
    metrics = {m.name: m for m in of_level(run.metrics, "text", "corpus")}
    step, outputs = read_outputs(run.scores(name, split), metrics, f"scores of {name} on {split}")
    rows = read_generations(study, run.path, None, name)
    rows = rows[rows["split"] == split].reset_index(drop=True)
    _, whole = outputs_grid(rows, f"generations of {name} on {split}")
    normalise = tasks.load(study.task).normalise
    written, texts = pd.factorize(rows["text"])
    numbers, compared = pd.factorize(np.array([normalise(text) for text in texts], dtype=object))
    codes = whole.array(numbers[written], np.int64)
    labels = {"checkpoint": name, "step": step, "split": split}
    picks: dict[str, Ints | None] = {NONE: None}
    if check := check_of({m.name: m for m in of_level(metrics, "text")}):
        picks[check] = by_check(outputs.values[check])
    picks[MBR] = by_consensus(codes, list(compared))
    if nats:
        picks[LIKELIHOOD] = np.asarray(whole.array(nats(name, rows), np.float64).argmin(axis=2))
    return frames(outputs, picks, metrics, labels, study.seed)


def frames(
    outputs: Outputs, picks: Mapping[str, Ints | None], metrics: Metrics, labels: Mapping[str, Any], seed: int
) -> Iterator[pd.DataFrame]:
    """Yield the three frames of one checkpoint; ``picks`` are the samples ``[C, P]`` that each way of reranking takes."""
    of_texts = {m.name: m for m in of_level(metrics, "text") if m.ranks}
    settings, poems, samples = next(iter(outputs.values.values())).shape
    rows = []
    for k in ladder(samples):
        best = {n: best_of(outputs.values[n].astype(np.float64), k, m.better).T for n, m in of_texts.items()}
        measured = outputs.measured(of_texts, best, 1 if k == samples else samples)
        rows.append(_rows(measured, {**labels, "k": k}))
    yield _frame(rows, outputs.knobs, "k")
    rows = [_rows(outputs.picked(metrics, own), {**labels, "rerank": how}) for how, own in picks.items()]
    yield _frame(rows, outputs.knobs, "rerank")
    about = {**labels, "settings": settings, "poems": poems, "samples": samples}
    rooms = [{**about, "metric": name, **_room(outputs, metric, seed)} for name, metric in of_texts.items()]
    first = [*labels, "metric"]
    found = pd.DataFrame(rooms).astype({"step": "Int64"})
    yield found[[*first, *found.columns.difference(first, sort=False)]]


def read_outputs(scores: Iterable[pd.DataFrame], metrics: Metrics, where: str) -> tuple[Any, Outputs]:
    """Return a checkpoint's step, and what was measured of each of its outputs on a split, from parts of whole examples."""
    values: dict[str, list[Any]] = {m.name: [] for m in of_level(metrics, "text")}
    counts: dict[str, list[Any]] = {c: [] for m in of_level(metrics, "corpus") for c in m.counts}
    examples, clusters = list[str](), list[str]()
    for part in scores:
        knobs, whole = outputs_grid(part, where)
        step = part["step"].iloc[0]
        examples += whole.levels["example"]
        clusters += clusters_of(part, whole.levels["example"])
        for columns, kind in ((values, np.float32), (counts, np.int32)):
            for column, arrays in columns.items():
                arrays.append(whole.array(part[column], kind))
    measured, counted = (
        {c: np.concatenate(a, axis=1) for c, a in columns.items()} for columns in (values, counts)
    )
    own = Clusters.named(clusters) if any(clusters) else None
    return step, Outputs(knobs, tuple(examples), measured, counted, own)


def _rows(measured: Measured, labels: dict[str, Any]) -> pd.DataFrame:
    """A row for each setting: every metric with its interval."""
    parts = [Part(measured, [place]) for place in range(len(measured.knobs))]
    columns: dict[str, Any] = dict(measured.counted)
    for metric in measured.value:
        low, high = zip(*ends(parts, metric), strict=True)
        columns |= {metric: measured.value[metric], f"{metric}_low": low, f"{metric}_high": high}
    return measured.knobs.assign(**labels, **columns)


def _frame(parts: list[pd.DataFrame], knobs: pd.DataFrame, key: str) -> pd.DataFrame:
    """The parts as one frame: settings in their order, each with all values of ``key``."""
    frame = pd.concat(parts).sort_index(kind="stable").reset_index(drop=True)
    first = ["checkpoint", "step", *knobs.columns, "split", key]
    return frame[[*first, *frame.columns.difference(first, sort=False)]].astype({"step": "Int64"})


def _room(outputs: Outputs, metric: Metric, seed: int) -> dict[str, float]:
    """An oracle's numbers, in the metric's own direction; a room is what is won, so never below 0."""
    values, high = outputs.values[metric.name], metric.better == "high"
    found = oracle.room(values if high else -values, seed, outputs.clusters)
    single, adaptive = ((each if high else 0.0 - each) for each in (found.single, found.adaptive))
    return {
        "single": single, "adaptive": adaptive, "room": found.room, "room_low": found.low, "room_high": found.high,
        "with_luck": found.with_luck,
    }  # fmt: skip
