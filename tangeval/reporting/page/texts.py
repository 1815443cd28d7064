"""The generations that fit on the page, and what is wrong with each.

In: a results folder with scores, its study, data and task. Out: ``Texts``: packed units, each one
example and sample in all checkpoints × settings. Knows nothing of HTML.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.scoring import read_generations
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.metrics.base import Metric
from tangeval.metrics.copying import reach, runs
from tangeval.metrics.ngrams import lengths
from tangeval.reporting.page.packing import escape_surrogates, packed
from tangeval.reporting.page.schema import CopiedRun, Unit, UnitTexts
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset, Task, training_index

#: What stands verbatim in training is marked from this many characters on: shorter runs are common speech.
LEAST_RUN = 4


@dataclass(frozen=True)
class Corpus:
    """What the page's texts are texts of: C checkpoints × K settings, for the examples of the splits."""

    study: Study
    data: Dataset
    task: Task
    run: RunFolder

    @property
    def flaws(self) -> list[Metric]:
        return [metric for metric in self.run.metrics.values() if metric.flaw]

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


def texts_of(corpus: Corpus, room: int) -> Texts:
    """Return units until ``room`` [bytes] is full: sample 0 of every example, then sample 1, …, examples in order."""
    texts = Texts()
    for unit, content, flaws in _units(corpus):
        text = json.dumps(content.model_dump(), ensure_ascii=False, separators=(",", ":"))
        squeezed = packed(escape_surrogates(text).encode())
        room -= len(squeezed) + 1 + len(packed(flaws.tobytes()))
        if room < 0:
            break
        texts.packed.append(squeezed)
        texts.units.append(unit)
        texts.flaws.append(flaws)
        texts.characters.update(*content.texts)
    return texts


def _units(corpus: Corpus) -> Iterator[tuple[Unit, UnitTexts, NDArray[np.uint32]]]:
    training = training_index(corpus.task, corpus.data)
    places = ["checkpoint", *corpus.study.decoding.axes]
    for sample in range(max(map(corpus.study.samples_of, corpus.study.ordered_splits()))):
        frame = read_generations(corpus.study, corpus.run.path, sample)
        frame["flaws"] = _flaws(corpus, sample, frame)
        first: pd.DataFrame | None = None
        for example, own in frame.groupby("example_id", sort=False):
            first = own if first is None else first
            if not np.array_equal(own[places].to_numpy(), first[places].to_numpy()):
                raise TangevalError(f"{corpus.run.generations} lacks some settings; run the study again")
            at, texts = pd.factorize(own["text"])
            compared = [corpus.task.normalise(text) for text in texts]
            copied: list[list[CopiedRun]] = [[] for _ in texts]
            begins = np.append(0, (lengths(compared) + 1).cumsum())
            found = runs(reach(training, compared, [str(example)] * len(texts)), LEAST_RUN)
            owners = np.searchsorted(begins, found[0], side="right") - 1
            for text, begin, length in np.stack(
                [owners, found[0] - begins[owners], found[1]], axis=1
            ).tolist():
                copied[text].append(CopiedRun(begin=begin, length=length))
            content = UnitTexts(texts=list(texts), copied=copied, at=at.tolist())
            yield Unit(example=str(example), sample=sample), content, own["flaws"].to_numpy(np.uint32)


def _flaws(corpus: Corpus, sample: int, frame: pd.DataFrame) -> NDArray[np.uint32]:
    """A bit for each metric that a row of ``frame`` fails, from the scores; what was not measured is no flaw."""
    keys, file = ["checkpoint", "example_id", *corpus.study.decoding.axes], corpus.run.scores_file
    names = [metric.name for metric in corpus.flaws]
    scores = corpus.run.columns([*keys, *names], sample=sample)
    scores = scores[~scores["checkpoint"].isin([RANDOM, REFERENCE])]
    if not all(np.array_equal(scores[key].to_numpy(), frame[key].to_numpy()) for key in keys):
        raise TangevalError(
            f"{file} is not of the generations that are there; `tangeval summarize {corpus.run.path}` scores them"
        )
    bits = np.zeros(len(frame), np.uint32)
    for place, metric in enumerate(corpus.flaws):
        values = scores[metric.name].to_numpy(float)
        bits |= (values > 0 if metric.better == "low" else values == 0).astype(np.uint32) << np.uint32(place)
    return bits
