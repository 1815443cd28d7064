"""Scores of one checkpoint on one split → each setting's value, and the same under resampling.

In: frames with one row a generation and one a likelihood, whole or in parts of whole poems. Out:
arrays over settings. What is kept of a part is what the arrays are made of: BLEU's counts and each
poem's means. Pure numpy and pandas; knows nothing of files or pictures.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.stats import LEVEL, bca_interval, mean_interval, rate_interval, resample_weights
from tangeval.core.knobs import AXES, COLUMNS
from tangeval.metrics import BY_NAME, MEANS
from tangeval.metrics.bleu import LENGTHS, MATCH, ORDERS, STRICT, corpus_bleu, ngram_totals

Floats = NDArray[np.float64]
_CHUNK = 256  # settings × samples whose resamples are summed in one matrix product


@dataclass(frozen=True)
class Measured:
    """What was measured on C settings and B resamples of P poems.

    ``knobs`` has C rows (columns ``COLUMNS``); ``examples`` are the poems'
    ids. ``value[metric]`` is ``[C]``; ``by_poem[metric]`` ``[P, C]``, whose mean over poems is the
    value. ``resampled[metric]`` is ``[B, C]``, of what is no mean.

    A poem's part in BLEU, which is no mean, is its jackknife pseudo-value (Tukey, Annals of
    Mathematical Statistics 29, 1958): P times the value less P − 1 times the value without the
    poem. These average to the value but for its bias, and vary as it does.
    """

    knobs: pd.DataFrame
    examples: tuple[str, ...]
    samples: int
    value: dict[str, Floats]
    by_poem: dict[str, Floats]
    resampled: dict[str, Floats]

    @property
    def poems(self) -> int:
        return len(self.examples)


@dataclass(frozen=True)
class Part:
    """What was measured on the settings at ``places``, as one: their mean."""

    measured: Measured
    places: Sequence[int]

    def value(self, metric: str) -> float:
        return float(self._over(self.measured.value[metric]))

    def by_poem(self, metric: str) -> Floats:
        """Each poem's part in the value, ``[P]``, in the order of ``examples``."""
        return self._over(self.measured.by_poem[metric])

    def interval(self, metric: str, level: float = LEVEL) -> tuple[float, float]:
        """Return the value's interval.

        BCa of a bootstrap for BLEU, Wilson's with the variance between poems for shares, else t
        without skewness: docs/statistics.md says why.
        """
        by_poem = self.by_poem(metric)
        if metric in self.measured.resampled:
            resampled = self._over(self.measured.resampled[metric])
            return _corpus_interval(self.value(metric), resampled, by_poem, level)
        if BY_NAME[metric].share:
            low, high = rate_interval(by_poem, self.measured.samples * len(self.places), level)
        else:
            low, high = mean_interval(by_poem, level)
        return float(low), float(high)

    def difference_interval(self, other: "Part", metric: str) -> tuple[float, float]:
        """Return the 95 % interval of the value less that of ``other``.

        Paired: both were measured on the same poems, and resampled with the same draws.
        """
        by_poem = self.by_poem(metric) - other.by_poem(metric)
        if metric in self.measured.resampled:
            resampled, theirs = (x._over(x.measured.resampled[metric]) for x in (self, other))
            return _corpus_interval(self.value(metric) - other.value(metric), resampled - theirs, by_poem)
        low, high = mean_interval(by_poem)
        return float(low), float(high)

    def _over(self, array: Floats) -> Floats:
        mean: Floats = array[..., list(self.places)].mean(axis=-1)
        return mean


def _corpus_interval(
    value: float, resampled: Floats, by_poem: Floats, level: float = LEVEL
) -> tuple[float, float]:
    """BCa; pseudo-values give back the values without each poem."""
    poems = len(by_poem)
    if poems < 2:
        return math.nan, math.nan
    low, high = bca_interval(np.array(value), resampled, (poems * value - by_poem) / (poems - 1), level)
    return float(low), float(high)


@dataclass(frozen=True)
class Group:
    """One checkpoint on one split; ``step`` is missing where no fine-tuning made it."""

    checkpoint: str
    step: Any
    split: str
    measured: Measured


def groups(
    scores: pd.DataFrame | Iterable[pd.DataFrame], likelihood: pd.DataFrame, seed: int
) -> Iterator[Group]:
    """Yield each checkpoint × split, measured, in the order of ``scores``.

    ``scores`` may come in parts of whole poems, a checkpoint × split in parts one after another; then
    no more than one of these is held at a time. All groups of a split are resampled with the same
    draws of poems, so they are paired.

    Raises:
        ValueError: a checkpoint × split comes again after others.
    """
    frames = [scores] if isinstance(scores, pd.DataFrame) else scores
    pieces = (piece for frame in frames for piece in frame.groupby(["checkpoint", "split"], sort=False))
    done = set()
    for (checkpoint, split), same in groupby(pieces, key=itemgetter(0)):
        if (checkpoint, split) in done:
            raise ValueError(f"the scores of {checkpoint} on {split} do not stand together")
        done.add((checkpoint, split))
        nll = likelihood[(likelihood["checkpoint"] == checkpoint) & (likelihood["split"] == split)]
        by_id = nll.set_index("example_id")["reference_nll"] if len(nll) else None
        parts = (part for _, part in same)
        first = next(parts)
        measured = measure(chain([first], parts), by_id, seed)
        yield Group(str(checkpoint), first["step"].iloc[0], str(split), measured)


@dataclass(frozen=True)
class _Sums:
    """What is kept of some poems' scores: ``counts`` ``[C, P, S, 10]``, ``means[metric]`` ``[C, P]``."""

    knobs: pd.DataFrame
    poems: tuple[str, ...]
    counts: NDArray[np.int32]
    means: dict[str, Floats]


def measure(scores: Iterable[pd.DataFrame], likelihood: pd.Series | None, seed: int) -> Measured:
    """Measure every setting of one checkpoint's scores on one split.

    ``scores`` hold, in parts of whole poems, every setting × poem × sample once; ``likelihood`` the
    reference NLL by example id, or None; ``seed`` draws the resamples of the poems. Of a part, 40
    bytes a row and its means over samples are kept.

    Raises:
        ValueError: the rows do not make a full rectangle of settings × poems × samples.
    """
    parts = [_summed(part) for part in scores]
    order = tuple(name for part in parts for name in part.poems)
    poems, knobs = len(order), parts[0].knobs
    same = all(p.knobs.equals(knobs) and p.counts.shape[2] == parts[0].counts.shape[2] for p in parts)
    if not same or len(set(order)) < poems:
        raise ValueError("the parts are not of whole poems with the same settings and as many samples each")
    counts = np.concatenate([part.counts for part in parts], axis=1)
    means = {name: np.concatenate([p.means[name] for p in parts], axis=1) for name in parts[0].means}
    del parts
    value: dict[str, Floats] = {}
    by_poem: dict[str, Floats] = {}
    resampled: dict[str, Floats] = {}
    once, weights = np.ones((1, poems)), resample_weights(poems, seed)
    for number, metric in enumerate(("bleu", "bleu_strict")):
        value[metric] = _bleu(counts, number, once)[0]
        by_poem[metric] = poems * value[metric] - (poems - 1) * _bleu(counts, number, None)
        resampled[metric] = _bleu(counts, number, weights)
    by_poem |= {name: mean.T for name, mean in means.items()}
    nll = np.full(poems, np.nan) if likelihood is None else likelihood.loc[list(order)].to_numpy(float)
    by_poem["reference_nll"] = np.repeat(nll[:, None], len(knobs), axis=1)
    for metric in by_poem.keys() - value.keys():
        value[metric] = by_poem[metric].mean(axis=0)
    return Measured(knobs, order, counts.shape[2], value, by_poem, resampled)


def _summed(scores: pd.DataFrame) -> _Sums:
    """What is kept of the rows of whole poems."""
    names = list(COLUMNS)
    order = {name: place for place, name in enumerate(dict.fromkeys(scores["example_id"]))}
    scores = scores.assign(poem=scores["example_id"].map(order))
    scores = scores.sort_values([*AXES, "poem", "sample"], kind="stable")
    knobs = scores[names].drop_duplicates().reset_index(drop=True)
    settings, poems = len(knobs), len(order)
    samples, rest = divmod(len(scores), settings * poems)
    if rest:
        raise ValueError(
            f"{len(scores)} rows are not {settings} settings of {poems} poems and as many samples each"
        )
    counts = scores[[*MATCH, *STRICT, *LENGTHS]].to_numpy(np.int32).reshape(settings, poems, samples, -1)
    means = {
        metric: scores[metric].to_numpy(float).reshape(settings, poems, samples).mean(axis=2)
        for metric in (*MEANS, "n_tokens")
    }
    return _Sums(knobs, tuple(order), counts, means)


def _bleu(counts: NDArray[np.int32], which: int, weights: Floats | None) -> Floats:
    """Corpus BLEU of each setting ``[B, C]``: a corpus for each sample index, then their mean.

    ``counts`` is ``[C, P, S, 10]``: matches folded, matches strict, both lengths. Without
    ``weights``, each poem is left out once: ``[P, C]``.
    """
    settings, poems, samples, _ = counts.shape
    chunk = max(1, _CHUNK // samples)
    parts = []
    for begin in range(0, settings, chunk):
        some = counts[begin : begin + chunk].astype(np.float64)
        matches, lengths = some[..., ORDERS * which : ORDERS * (which + 1)], some[..., -2:]
        columns = np.concatenate([matches, ngram_totals(lengths[..., 0]), lengths], axis=-1)
        part = columns.transpose(1, 0, 2, 3)  # [P, c, S, 10]
        if weights is None:
            sums = part.sum(axis=0) - part
        else:
            sums = (weights @ part.reshape(poems, -1)).reshape(len(weights), -1, samples, 2 * ORDERS + 2)
        bleu = corpus_bleu(sums[..., :ORDERS], sums[..., ORDERS:-2], sums[..., -2], sums[..., -1])
        parts.append(bleu.mean(axis=2))
    return np.concatenate(parts, axis=1)
