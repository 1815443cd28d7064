"""The generations that fit on the page, and what is wrong with each.

In: a results folder with scores, its study, data and task. Out: ``Texts``: packed units, each one
example and sample in all checkpoints × settings. Knows nothing of HTML.
"""

import json
from collections.abc import Container, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.scoring import samples_in_parts
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.metrics.base import Metric, Metrics
from tangeval.metrics.copying import Index, reach, runs
from tangeval.metrics.ngrams import lengths
from tangeval.reporting.page.packing import escape_surrogates, packed
from tangeval.reporting.page.schema import Unit
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset, Task, training_index

#: A unit, its texts as ``UnitTexts`` has them, and a bit for each flaw of them ``[C × K]``.
UnitParts = tuple[Unit, dict[str, Any], NDArray[np.uint32]]
#: What stands verbatim in training is marked from this many characters on: shorter runs are common speech.
LEAST_RUN = 4


@dataclass(frozen=True)
class Corpus:
    """What the page's texts are texts of: C checkpoints × K settings, for the examples of the splits."""

    study: Study
    data: Dataset
    task: Task
    run: RunFolder
    #: Metrics to keep to; all of the folder's if None.
    only: Container[str] | None = None

    @property
    def flaws(self) -> list[Metric]:
        return [metric for metric in self.metrics.values() if metric.flaw]

    @cached_property
    def metrics(self) -> Metrics:
        return {
            name: metric
            for name, metric in self.run.metrics.items()
            if self.only is None or name in self.only
        }

    @cached_property
    def examples(self) -> list[Example]:
        return [example for split in self.study.ordered_splits() for example in self.data.split(split)]

    def units(self) -> int:
        """Return how many pairs of an example and a sample the study has."""
        return sum(self.study.samples_of(example.split) for example in self.examples)

    def has_texts(self) -> bool:
        """Return whether the folder holds generations: they are often left out of what is published."""
        return any(self.run.generations.glob("*.parquet"))


@dataclass
class Texts:
    """The texts that fit, unit by unit."""

    packed: list[str] = field(default_factory=list)  #: ``UnitTexts``
    units: list[Unit] = field(default_factory=list)
    flaws: list[NDArray[np.uint32]] = field(default_factory=list)  #: ``[C × K]`` of each
    characters: set[str] = field(default_factory=set)

    def flaw_bits(self) -> str:
        bits = np.concatenate([np.empty(0, np.uint32), *self.flaws])
        return packed(bits.astype("<u4").tobytes())


def texts_of(found: Iterable[Sequence[UnitParts]], room: int) -> Texts:
    """Return units until ``room`` [bytes] is full, in the order in which they are ``found``, some at a time."""
    texts = Texts()
    with ThreadPoolExecutor() as pool:  # zlib lets other threads run
        for some in found:
            units, contents, flaws = zip(*some, strict=True)
            marks = pool.map(packed, [each.tobytes() for each in flaws])
            squeezed = pool.map(packed, map(_spelt, contents))
            for unit, content, bits, mark, text in zip(units, contents, flaws, marks, squeezed, strict=True):
                room -= len(text) + 1 + len(mark)
                if room < 0:
                    return texts
                texts.packed.append(text)
                texts.units.append(unit)
                texts.flaws.append(bits)
                texts.characters.update(*content["texts"])
    return texts


def _spelt(content: dict[str, Any]) -> bytes:
    return escape_surrogates(json.dumps(content, ensure_ascii=False, separators=(",", ":"))).encode()


def parts(corpus: Corpus) -> Iterator[list[UnitParts]]:
    """Yield some units at a time: sample 0 of every example, then sample 1, …, examples in order."""
    training = training_index(corpus.task, corpus.data)
    for sample, frames in samples_in_parts(corpus.study, corpus.data, corpus.run.path):
        scores = _scores(corpus, sample)
        for frame in frames:
            flaws = _flaws(corpus, scores, frame)
            names, rows = _by_example(corpus, frame)
            at, texts = zip(*(pd.factorize(frame["text"].iloc[own]) for own in rows), strict=True)
            compared = [corpus.task.normalise(text) for own in texts for text in own]
            copied = iter(_copied(training, compared, np.repeat(names, list(map(len, texts))).tolist()))
            yield [
                (
                    Unit(example=name, sample=sample),
                    {"texts": list(own), "copied": [next(copied) for _ in own], "at": places.tolist()},
                    flaws[row],
                )
                for name, own, places, row in zip(names, texts, at, rows, strict=True)
            ]


def _by_example(corpus: Corpus, frame: pd.DataFrame) -> tuple[list[str], NDArray[np.int64]]:
    """The examples of ``frame``, and the rows of each ``[E, C × K]``."""
    number, names = pd.factorize(frame["example_id"])
    if len(set(np.bincount(number))) == 1:
        rows = np.argsort(number, kind="stable").reshape(len(names), -1)
        places = (frame[key].to_numpy()[rows] for key in ("checkpoint", *corpus.study.decoding.axes))
        if all((own == own[0]).all() for own in places):
            return list(names), rows
    raise TangevalError(f"{corpus.run.generations} lacks some settings; run the study again")


def _copied(training: Index, texts: Sequence[str], own: Sequence[str]) -> list[list[dict[str, int]]]:
    """The runs of each text, without its ``own`` example's, that stand in training, as ``CopiedRun`` has them."""
    copied: list[list[dict[str, int]]] = [[] for _ in texts]
    ends = (lengths(texts) + 1).cumsum()
    begins, sizes = runs(reach(training, texts, own), LEAST_RUN)
    owners = np.searchsorted(ends, begins, side="right")
    begins = begins - np.append(0, ends)[owners]
    for text, begin, length in zip(owners.tolist(), begins.tolist(), sizes.tolist(), strict=True):
        copied[text].append({"begin": begin, "length": length})
    return copied


def _scores(corpus: Corpus, sample: int) -> pd.DataFrame:
    """What ``_flaws`` needs of the scores of a sample."""
    keys = ["checkpoint", "example_id", *corpus.study.decoding.axes]
    scores = corpus.run.columns([*keys, *(metric.name for metric in corpus.flaws)], sample=sample)
    return scores[~scores["checkpoint"].isin([RANDOM, REFERENCE])]


def _flaws(corpus: Corpus, scores: pd.DataFrame, frame: pd.DataFrame) -> NDArray[np.uint32]:
    """A bit for each metric that a row of ``frame`` fails, from the scores; what was not measured is no flaw."""
    scores = scores[scores["example_id"].isin(frame["example_id"].unique())]
    if not all(
        np.array_equal(scores[key].to_numpy(), frame[key].to_numpy())
        for key in ("checkpoint", "example_id", *corpus.study.decoding.axes)
    ):
        raise TangevalError(
            f"{corpus.run.scores_file} is not of the generations that are there; "
            f"`tangeval summarize {corpus.run.path}` scores them"
        )
    bits = np.zeros(len(frame), np.uint32)
    for place, metric in enumerate(corpus.flaws):
        values = scores[metric.name].to_numpy(float)
        bits |= (values > 0 if metric.better == "low" else values == 0).astype(np.uint32) << np.uint32(place)
    return bits
