"""Where the variance of a grid lies, and what shared luck saves.

In: scores of every checkpoint × cell × poem × sample. Out: for each metric the share of its
variance that belongs to checkpoint, knobs, their interactions, poem and luck (``variance.csv``);
for neighbouring cells the variance of their difference with shared luck ÷ with luck of
their own (``coupling.csv``). Knows nothing of torch or pictures.
"""

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval.metrics import MEANS
from tangeval.metrics.aggregate import KNOBS, Floats
from tangeval.metrics.bleu import LENGTHS, MATCH, ORDERS, corpus_bleu, ngram_totals
from tangeval.records import FLOOR, REFERENCE
from tangeval.store import shares_luck, write_csv

FACTORS = ("checkpoint", *KNOBS)
OF_A_POEM = ("bleu", *MEANS)
#: What is left of the variance when checkpoint and knobs, alone and in pairs, have their shares.
REST = ("higher", "poem", "poem × setting", "luck", "luck × setting")


def write_variance(scores: pd.DataFrame, folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write ``variance.csv`` and ``coupling.csv`` into ``folder`` and return both frames.

    ``scores`` are ``scores.parquet``'s; columns as in docs/statistics.md. Where luck was not
    shared, ``coupling.csv`` has no rows.
    """
    shares, ratios = [], []
    shared = shares_luck(folder)
    for split, values, levels in _cubes(scores):
        for metric in values:
            shares += [{"split": split, **row} for row in decompose(values[metric], metric, shared)]
        if shared:
            ratios += [{"split": split, **row} for row in coupling(values, levels)]
    variance = pd.DataFrame(shares, columns=["split", "metric", "term", "share", "by_chance"])
    names = ["split", "knob", "from", "to", "checkpoint", *KNOBS, *OF_A_POEM]
    coupled = pd.DataFrame(ratios, columns=names)
    if len(coupled):
        coupled = coupled.dropna(axis=1, how="all")
    write_csv(folder / "variance.csv", variance)
    write_csv(folder / "coupling.csv", coupled)
    return variance, coupled


def _cubes(scores: pd.DataFrame) -> Iterator[tuple[str, dict[str, Floats], dict[str, list[Any]]]]:
    """Each split's metrics as ``[checkpoint, temperature, top_k, top_p, max_length, poem, sample]``, and the levels."""
    runs = scores[~scores["checkpoint"].isin([FLOOR, REFERENCE])]
    for split, part in runs.groupby("split", sort=False):
        names = list(dict.fromkeys(part["checkpoint"]))
        levels = {"checkpoint": names} | {knob: sorted(part[knob].unique()) for knob in KNOBS}
        ordered = part.assign(checkpoint=pd.Categorical(part["checkpoint"], names))
        ordered = ordered.sort_values([*FACTORS, "example_id", "sample"], kind="stable")
        shape = (*map(len, levels.values()), part["example_id"].nunique(), -1)
        values = {name: ordered[name].to_numpy(float).reshape(shape) for name in MEANS}
        counts = ordered[[*MATCH, *LENGTHS]].to_numpy(float)
        own, reference = counts[:, ORDERS], counts[:, ORDERS + 1]
        bleu = corpus_bleu(counts[:, :ORDERS], ngram_totals(own), own, reference)
        yield str(split), {"bleu": bleu.reshape(shape), **values}, levels


def decompose(y: Floats, metric: str, shared: bool = True) -> list[dict[str, Any]]:
    """Return the shares of the variance of ``y``, ``[checkpoint, knobs…, poem, sample]``, that sum to 1.

    An analysis of variance of the full grid: checkpoint and knobs crossed with each other and
    with poems, samples nested in poems and, luck being ``shared``, crossed with the settings;
    else nested in those too, so that all luck is one term.
    ``by_chance`` is the share that a term of as many degrees of freedom would have if it did
    nothing: poems differ in what suits them, so poem × setting is the error it is held against.
    Terms with one level are left out; nothing where the metric never varies or is missing.
    """
    settings, places = len(FACTORS), y.size
    poem, sample = settings, settings + 1
    centred = y - y.mean()
    total = float((centred**2).sum())
    if not total > 0:
        return []

    def squares(*kept: int) -> float:
        """Sum of squares of the means over all axes but ``kept``."""
        means = centred.mean(axis=tuple(a for a in range(y.ndim) if a not in kept))
        return float((means**2).sum() * places / means.size)

    varied = [axis for axis in range(settings) if y.shape[axis] > 1]
    main = {axis: squares(axis) for axis in varied}
    pairs = {(a, b): squares(a, b) - main[a] - main[b] for a, b in combinations(varied, 2)}
    every = squares(*range(settings))
    poems, luck = squares(poem), squares(poem, sample)
    crossed = squares(*range(settings), poem) - every - poems
    sums = {FACTORS[a]: value for a, value in main.items()}
    sums |= {f"{FACTORS[a]} × {FACTORS[b]}": value for (a, b), value in pairs.items()}
    own, mixed = luck - poems, total - every - luck - crossed
    rest = (every - sum(main.values()) - sum(pairs.values()), poems, crossed)
    sums |= dict(zip(REST, (*rest, own, mixed) if shared else (*rest, own + mixed), strict=shared))
    df = {FACTORS[a]: y.shape[a] - 1 for a in varied}
    df |= {f"{FACTORS[a]} × {FACTORS[b]}": (y.shape[a] - 1) * (y.shape[b] - 1) for a, b in pairs}
    cells = int(np.prod(y.shape[:settings]))
    df["higher"] = cells - 1 - sum(df.values())
    error = crossed / ((cells - 1) * (y.shape[poem] - 1)) if cells > 1 and y.shape[poem] > 1 else np.nan
    return [
        {
            "metric": metric, "term": term, "share": max(value, 0.0) / total,  # rounding alone is below 0
            "by_chance": df[term] * error / total if term in df else np.nan,
        }
        for term, value in sums.items()
    ]  # fmt: skip


def coupling(values: dict[str, Floats], levels: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each two cells that are neighbours in one knob, or checkpoints in the same cell.

    A metric's ratio is the variance, over samples within a poem, of the difference between
    the two ÷ the sum of their own variances, which is what independent draws would give:
    below 1, shared luck makes the difference easier to see. NaN where nothing varies, or
    there is one sample.
    """
    some = next(iter(values.values()))
    if some.shape[-1] < 2:
        return
    for axis, knob in enumerate(FACTORS):
        for place in range(some.shape[axis] - 1):
            ratios = {}
            for metric, y in values.items():
                a, b = (y.take(place + step, axis=axis) for step in (0, 1))
                apart = (a.var(axis=-1, ddof=1) + b.var(axis=-1, ddof=1)).sum(axis=-1)
                together = (a - b).var(axis=-1, ddof=1).sum(axis=-1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    ratios[metric] = np.where(apart > 0, together / apart, np.nan)
            others = [name for name in FACTORS if name != knob]
            for at in np.ndindex(next(iter(ratios.values())).shape):
                where = {name: levels[name][i] for name, i in zip(others, at, strict=True)}
                yield {
                    "knob": knob, "from": levels[knob][place], "to": levels[knob][place + 1], **where,
                    **{metric: ratio[at] for metric, ratio in ratios.items()},
                }  # fmt: skip
