"""Scores of one checkpoint on one split → each cell's value, and the same under resampling.

In: frames with one row a generation and one a likelihood. Out: arrays over cells. Pure
numpy and pandas; knows nothing of files or pictures.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.metrics.bleu import LENGTHS, MATCH, ORDERS, STRICT, corpus_bleu, ngram_totals
from tangeval.stats import resample_weights

Floats = NDArray[np.float64]
KNOBS = ("temperature", "top_k", "top_p", "max_length")
#: Metrics that are a mean over generations; the others are a corpus's or a checkpoint's.
MEANS = (
    "chrf", "form", "metre", "clause_count", "punctuation", "han_only", "complete", "no_echo", "no_repeat",
    "n_tokens",
)  # fmt: skip
_CHUNK = 64  # cells whose resamples are summed in one matrix product


@dataclass(frozen=True)
class Measured:
    """What was measured on C cells and B resamples of P poems.

    ``knobs`` has C rows (columns ``KNOBS`` and no_repeat_ngram_size); ``value[metric]`` is
    ``[C]``; ``resampled[metric]`` is ``[B, C]``.
    """

    knobs: pd.DataFrame
    poems: int
    samples: int
    value: dict[str, Floats]
    resampled: dict[str, Floats]


@dataclass(frozen=True)
class Group:
    """One checkpoint on one split; ``step`` is missing where no fine-tuning made it."""

    checkpoint: str
    step: Any
    split: str
    measured: Measured


def groups(scores: pd.DataFrame, likelihood: pd.DataFrame, seed: int) -> Iterator[Group]:
    """Yield each checkpoint × split, measured, in the order of ``scores``.

    All groups of a split are resampled with the same draws of poems, so they are paired.
    """
    for (checkpoint, split), part in scores.groupby(["checkpoint", "split"], sort=False):
        nll = likelihood[(likelihood["checkpoint"] == checkpoint) & (likelihood["split"] == split)]
        by_id = nll.set_index("example_id")["reference_nll"] if len(nll) else None
        weights = resample_weights(part["example_id"].nunique(), seed)
        yield Group(str(checkpoint), part["step"].iloc[0], str(split), measure(part, by_id, weights))


def measure(scores: pd.DataFrame, likelihood: pd.Series | None, weights: Floats) -> Measured:
    """Measure every cell of one checkpoint's scores on one split.

    ``scores`` holds every cell × poem × sample once; ``likelihood`` the reference NLL by
    example id, or None; ``weights`` ``[B, P]`` how often each poem is drawn, in the order in
    which the poems first appear.

    Raises:
        ValueError: the rows do not make a full rectangle of cells × poems × samples.
    """
    names = [*KNOBS, "no_repeat_ngram_size"]
    order = {name: place for place, name in enumerate(dict.fromkeys(scores["example_id"]))}
    scores = scores.assign(poem=scores["example_id"].map(order))
    scores = scores.sort_values([*KNOBS, "poem", "sample"], kind="stable")
    knobs = scores[names].drop_duplicates().reset_index(drop=True)
    cells, poems = len(knobs), len(order)
    samples, rest = divmod(len(scores), cells * poems)
    if rest or weights.shape[1] != poems:
        raise ValueError(
            f"{len(scores)} rows are not {cells} cells of {poems} poems and as many samples each"
        )

    def cube(columns: Any) -> Floats:
        return scores[list(columns)].to_numpy(float).reshape(cells, poems, samples, -1)

    once = np.ones((1, poems))
    value: dict[str, Floats] = {}
    resampled: dict[str, Floats] = {}
    counts = np.concatenate([cube(MATCH), cube(STRICT), cube(LENGTHS)], axis=-1)
    for number, metric in enumerate(("bleu", "bleu_strict")):
        value[metric] = _bleu(counts, number, once)[0]
        resampled[metric] = _bleu(counts, number, weights)
    for metric in MEANS:
        by_poem = cube([metric])[..., 0].mean(axis=2).T  # [P, C]
        value[metric] = by_poem.mean(axis=0)
        resampled[metric] = weights @ by_poem / poems
    nll = np.full(poems, np.nan) if likelihood is None else likelihood.loc[list(order)].to_numpy(float)
    value["reference_nll"] = np.full(cells, nll.mean())
    resampled["reference_nll"] = np.repeat((weights @ nll / poems)[:, None], cells, axis=1)
    return Measured(knobs, poems, samples, value, resampled)


def _bleu(counts: Floats, which: int, weights: Floats) -> Floats:
    """Corpus BLEU of each cell ``[B, C]``: a corpus for each sample index, then their mean.

    ``counts`` is ``[C, P, S, 10]``: matches folded, matches strict, both lengths.
    """
    cells, poems, samples, _ = counts.shape
    matches = counts[..., ORDERS * which : ORDERS * (which + 1)]
    lengths = counts[..., -2:]
    columns = np.concatenate([matches, ngram_totals(lengths[..., 0]), lengths], axis=-1)
    parts = []
    for begin in range(0, cells, _CHUNK):
        part = columns[begin : begin + _CHUNK].transpose(1, 0, 2, 3)  # [P, c, S, 10]
        sums = (weights @ part.reshape(poems, -1)).reshape(len(weights), -1, samples, 2 * ORDERS + 2)
        bleu = corpus_bleu(sums[..., :ORDERS], sums[..., ORDERS:-2], sums[..., -2], sums[..., -1])
        parts.append(bleu.mean(axis=2))
    return np.concatenate(parts, axis=1)
