"""Scores of one checkpoint on one split → each setting's value, and its parts by example.

In: frames with one row a generation and one a likelihood, whole or in parts of whole examples, and the
task's metrics. Out: arrays over settings. What is kept of a part is what the arrays are made of: the
counts of corpus metrics and each example's means. Knows nothing of files or pictures.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis import intervals
from tangeval.analysis.grid import Grid, clusters_of, grid
from tangeval.analysis.intervals import Clusters, Floats, linear
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import axes_in
from tangeval.metrics.base import Metric, Metrics

_CHUNK = 256  # settings × samples whose resamples are summed in one matrix product


@dataclass(frozen=True)
class Corpus:
    """A corpus metric of C settings, which is no mean over P examples: its K counts ``[C, P, S]``, and its values
    without each example in turn ``[P, C]``."""

    counts: Sequence[NDArray[np.int32]]
    without: Floats


@dataclass(frozen=True)
class Measured:
    """What was measured on C settings of P examples.

    ``knobs`` has C rows, a column a knob; ``examples`` are the examples' ids. ``value[metric]`` is
    ``[C]``; ``by_poem[metric]`` ``[P, C]``, whose mean over examples is the value; ``corpora`` have the metrics
    that are no means. Where a task names ``clusters``, each is measured as one long example, and P counts clusters.
    """

    metrics: Metrics
    knobs: pd.DataFrame
    examples: tuple[str, ...]
    samples: int
    value: dict[str, Floats]
    by_poem: dict[str, Floats]
    corpora: dict[str, Corpus]
    clusters: Clusters | None = None

    @property
    def poems(self) -> int:
        """How many are resampled: P."""
        return len(self.size)

    @cached_property
    def size(self) -> Floats:
        """How many examples each of the P counts for ``[P]``, 1 on average."""
        return self.clusters.size if self.clusters else np.ones(len(self.examples))

    def folded(self, by_example: Floats) -> Floats:
        """Return values of ``examples`` as each of the P has them."""
        return self.clusters.parts(by_example) if self.clusters else by_example

    @property
    def counted(self) -> dict[str, int]:
        """How many examples there are, in how many clusters where there are any, and samples of each."""
        clusters = {"clusters": self.poems} if self.clusters else {}
        return {"poems": len(self.examples), **clusters, "samples": self.samples}

    def only(self, *metrics: str) -> "Measured":
        """Return what was measured by some metrics."""

        def own(table: dict[str, Any]) -> dict[str, Any]:
            return {name: content for name, content in table.items() if name in metrics}

        return replace(self, value=own(self.value), by_poem=own(self.by_poem), corpora=own(self.corpora))

    def on(self, metric: str, weights: Floats) -> Floats:
        """Return each setting's value ``[n, C]`` on the examples, weighted by ``weights`` ``[n, P]``."""
        if metric in self.corpora:
            return corpus_scores(self.metrics[metric], self.corpora[metric].counts, weights)
        means: Floats = weights @ self.by_poem[metric] / (weights @ self.size)[:, None]
        return means


@dataclass(frozen=True)
class Part:
    """What was measured on the settings at ``places``, as one: their mean."""

    measured: Measured
    places: Sequence[int]

    def value(self, metric: str) -> float:
        return float(self._over(self.measured.value[metric]))

    def on(self, metric: str, weights: Floats) -> Floats:
        """Return the value ``[n]`` on the examples, weighted by ``weights`` ``[n, P]``."""
        return self._over(self.measured.on(metric, weights))

    def by_poem(self, metric: str) -> Floats:
        """Return each example's part in the value, ``[P]``, in the order of ``examples``.

        In a corpus metric, which is no mean, it is the jackknife pseudo-value (Tukey, *Annals of Mathematical
        Statistics* 29, 1958): P times the value less P − 1 times the value without the example. It tells how far
        examples vary, and is too crude for tests.
        """
        if metric not in self.measured.corpora:
            return self._over(self.measured.by_poem[metric])
        poems = self.measured.poems
        return poems * self.value(metric) - (poems - 1) * self.without(metric)

    def linear(self, metric: str) -> Floats:
        """Return ``by_poem`` as independent values ``[P]`` that have the value's mean and variance: pseudo-values are that."""
        own = self.by_poem(metric)
        return own if metric in self.measured.corpora else linear(own, self.measured.size)

    def centred(self, metric: str) -> Floats:
        """``linear``, moved to have the value as its mean, which pseudo-values have nearly."""
        parts = self.linear(metric)
        moved: Floats = parts - parts.mean() + self.value(metric)
        return moved

    def interval(self, metric: str, stretch: float = 1.0) -> tuple[float, float]:
        """Return ``ends`` of this part."""
        return ends([self], metric, stretch)[0]

    def without(self, metric: str) -> Floats:
        """Return a corpus metric's value without each example in turn ``[P]``."""
        return self._over(self.measured.corpora[metric].without)

    def rare(self, metric: str) -> Floats:
        """Return the rare events of each example ``[P]`` that a metric is made of, where few have any: their number, or
        the value where it is one."""
        kind = self.measured.metrics[metric]
        if metric not in self.measured.corpora:
            by_poem = self.by_poem(metric)
            return np.where(by_poem >= kind.rare_from * self.measured.size, by_poem, 0)
        counts = self.measured.corpora[metric].counts[kind.counts.index(kind.rarest)]
        events: Floats = counts[list(self.places)].sum(axis=(0, 2), dtype=np.float64)
        return events

    @property
    def outputs_per_poem(self) -> float:
        measured = self.measured
        return measured.samples * len(self.places) * (len(measured.examples) / measured.poems)

    def counts(self, metric: str) -> Floats:
        """Return each example's counts of a corpus metric ``[P, N, K]`` in N corpora: settings × samples."""
        own = [each[list(self.places)] for each in self.measured.corpora[metric].counts]
        counts = np.stack(own, axis=-1).transpose(1, 0, 2, 3).astype(np.float64)
        return np.reshape(counts, (self.measured.poems, -1, len(own)))

    def _over(self, array: Floats) -> Floats:
        if len(self.places) == 1:
            return array[..., self.places[0]]
        mean: Floats = array[..., list(self.places)].mean(axis=-1)
        return mean


def ends(parts: Sequence[Part], metric: str, stretch: float = 1.0) -> list[tuple[float, float]]:
    """Return the 95 % intervals of a metric's values on parts of one whole.

    Wilson's of a share, the jackknife's of a corpus metric, else Hall's t. NaN where so few examples carry the value
    that no interval can be believed.
    """
    measured = parts[0].measured
    kind, samples = measured.metrics[metric], [part.outputs_per_poem for part in parts]
    if metric in measured.corpora:
        values = ((part.value(metric), part.without(metric), part.rare(metric)) for part in parts)
        found = [intervals.corpus_interval(*each, stretch) for each in values]
        return [(low, min(high, kind.most)) for low, high in found]
    by_poem = np.stack([part.linear(metric) for part in parts]).T  # each part's examples lie side by side
    if kind.share:
        low, high = intervals.rate_interval(by_poem, min(samples), stretch)
    elif kind.rare_from:
        carried = np.array([intervals.carrying(part.rare(metric)) for part in parts])
        low, high = intervals.rate_interval(by_poem / kind.most, min(samples), stretch, carried)
        low, high = low * kind.most, high * kind.most
    else:
        low, high = intervals.mean_interval(by_poem, stretch)
        if kind.most < np.inf or kind.level == "reference":  # what no mean can be is not in the interval
            low, high = np.maximum(low, 0), np.minimum(high, kind.most)
    return list(zip(low.tolist(), high.tolist(), strict=True))


@dataclass(frozen=True)
class Group:
    """One checkpoint on one split; ``step`` is missing where no fine-tuning made it."""

    checkpoint: str
    step: Any
    split: str
    measured: Measured


def groups(
    scores: pd.DataFrame | Iterable[pd.DataFrame], likelihood: pd.DataFrame, metrics: Metrics
) -> Iterator[Group]:
    """Yield each checkpoint × split, measured, in the order of ``scores``.

    ``scores`` may come in parts of whole examples, a checkpoint × split in parts one after another, of which
    one is held at a time.

    Raises:
        TangevalError: a checkpoint × split comes again after others, or its rows are no whole grid.
    """
    frames = [scores] if isinstance(scores, pd.DataFrame) else scores
    pieces = (piece for frame in frames for piece in frame.groupby(["checkpoint", "split"], sort=False))
    done = set()
    for (checkpoint, split), same in groupby(pieces, key=itemgetter(0)):
        where = f"scores of {checkpoint} on {split}"
        if where in done:
            raise TangevalError(f"{where}: they do not stand together; run `tangeval summarize` again")
        done.add(where)
        nll = likelihood[(likelihood["checkpoint"] == checkpoint) & (likelihood["split"] == split)]
        parts = (part for _, part in same)
        first = next(parts)
        measured = measure(chain([first], parts), nll, metrics, where)
        yield Group(checkpoint, first["step"].iloc[0], split, measured)


@dataclass(frozen=True)
class _Sums:
    """What is kept of some examples' scores: ``counts[column]`` ``[C, P, S]``, ``means[metric]`` ``[C, P]``."""

    knobs: pd.DataFrame
    examples: list[str]
    samples: list[int]
    counts: dict[str, NDArray[np.int32]]
    means: dict[str, Floats]
    clusters: list[str]


def measure(
    scores: Iterable[pd.DataFrame], likelihood: pd.DataFrame, metrics: Metrics, where: str
) -> Measured:
    """Measure every setting of one checkpoint's scores on one split.

    ``scores`` hold, in parts of whole examples, every setting × example × sample once; ``likelihood`` has no
    rows or one an example. ``where`` is for messages.

    Raises:
        TangevalError: the rows are no whole grid of settings × examples × samples, or a likelihood is missing.
    """
    parts = [_summed(part, metrics, where) for part in scores]
    first, order = parts[0], tuple(name for part in parts for name in part.examples)
    if not all(part.knobs.equals(first.knobs) and part.samples == first.samples for part in parts):
        raise TangevalError(f"{where}: examples differ in their settings or samples; score the folder anew")
    grid({"example": np.array(order, dtype=object)}, where)
    names, settings = [name for part in parts for name in part.clusters], len(first.knobs)
    counts = {name: np.concatenate([p.counts[name] for p in parts], axis=1) for name in first.counts}
    by_poem = {name: np.concatenate([p.means[name] for p in parts], axis=1).T for name in first.means}
    del parts
    for metric in of_level(metrics, "reference"):
        of_references = _of_references(likelihood, metric, order, where)
        by_poem[metric.name] = np.repeat(of_references, settings, axis=1)
    clusters = Clusters.named(names) if any(names) else None
    return gathered(metrics, first.knobs, order, len(first.samples), by_poem, counts, clusters)


def gathered(
    metrics: Metrics, knobs: pd.DataFrame, examples: tuple[str, ...], samples: int, by_example: Mapping[str, Floats],
    counts: Mapping[str, NDArray[np.int32]], clusters: Clusters | None,
) -> Measured:  # fmt: skip
    """Return values ``[P, C]`` and counts ``[C, P, S]`` by example as what was measured: by cluster, where there are any."""
    value = {name: each.mean(axis=0) for name, each in by_example.items()}
    corpora = dict[str, Corpus]()
    for metric in of_level(metrics, "corpus") if counts else ():
        own = [counts[name] for name in metric.counts]
        own = [clusters.sums(each.swapaxes(0, 1)).swapaxes(0, 1) for each in own] if clusters else own
        value[metric.name] = corpus_scores(metric, own, np.ones((1, own[0].shape[1])))[0]
        corpora[metric.name] = Corpus(own, corpus_scores(metric, own, None))
    found = Measured(metrics, knobs, examples, samples, value, {}, corpora, clusters)
    found.by_poem.update({name: found.folded(each) for name, each in by_example.items()})
    return found


def of_level(metrics: Metrics, *levels: str) -> list[Metric]:
    """Return the metrics of some levels."""
    return [metric for metric in metrics.values() if metric.level in levels]


def _of_references(likelihood: pd.DataFrame, metric: Metric, order: Sequence[str], where: str) -> Floats:
    """A reference's value of each example ``[P, 1]``; NaN where the checkpoint was not asked."""
    if not len(likelihood):
        return np.full((len(order), 1), np.nan)
    count = likelihood["example_id"].value_counts()
    for example in order:
        if (found := count.get(example, 0)) != 1:
            what = "more than one" if found else "no"
            raise TangevalError(f"{where}: {example} has {what} likelihood; run the study again")
    own = likelihood.set_index("example_id").loc[list(order)]
    value = own[metric.counts[0]] / own[metric.counts[1]] if metric.counts else own[metric.name]
    return value.to_numpy(float)[:, None]


def outputs_grid(rows: pd.DataFrame, where: str) -> tuple[pd.DataFrame, Grid]:
    """Return each setting's knobs, a column each, and the grid settings × examples × samples of whole examples.

    Raises:
        TangevalError: a row is there twice, or is missing; ``where`` says what the rows are of.
    """
    columns = axes_in(rows)
    setting = rows.groupby(columns, dropna=False, sort=True).ngroup()
    knobs = rows.loc[setting.drop_duplicates().sort_values().index, columns].reset_index(drop=True)
    names = [", ".join(f"{name} {value}" for name, value in row.items()) for row in knobs.to_dict("records")]
    keys: dict[str, Any] = {
        "": pd.Categorical.from_codes(setting, pd.Index(names)),
        "example": pd.Categorical(rows["example_id"], rows["example_id"].unique()),
        "sample": rows["sample"],
    }
    return knobs, grid(keys, where)


def _summed(scores: pd.DataFrame, metrics: Metrics, where: str) -> _Sums:
    """What is kept of the rows of whole examples."""
    knobs, whole = outputs_grid(scores, where)
    of_corpus = {name for metric in of_level(metrics, "corpus") for name in metric.counts}
    of_texts = (*(metric.name for metric in of_level(metrics, "text", "samples")), "n_tokens")
    counts = {name: whole.array(scores[name], np.int32) for name in of_corpus}
    means = {name: whole.array(scores[name], float).mean(axis=2) for name in of_texts}
    examples = whole.levels["example"]
    return _Sums(knobs, examples, whole.levels["sample"], counts, means, clusters_of(scores, examples))


def corpus_scores(metric: Metric, counts: Sequence[NDArray[np.int32]], weights: Floats | None) -> Floats:
    """Return each setting's value ``[B, C]``: of a corpus for each sample index, then their mean.

    ``counts`` are ``[C, P, S]``. Without ``weights`` ``[B, P]``, each example is left out once: ``[P, C]``.
    """
    settings, poems, samples = counts[0].shape
    chunk = max(1, _CHUNK // samples)
    parts = []
    for begin in range(0, settings, chunk):
        some = np.stack([each[begin : begin + chunk] for each in counts], axis=-1).astype(np.float64)
        part = some.transpose(1, 0, 2, 3)  # [P, c, S, counts]
        if weights is None:
            sums = part.sum(axis=0) - part
        else:
            sums = (weights @ part.reshape(poems, -1)).reshape(len(weights), -1, samples, len(counts))
        parts.append(metric.score(sums).mean(axis=2))
    return np.concatenate(parts, axis=1)
