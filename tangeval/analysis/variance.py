"""Where the variance of a grid lies, and what shared noise saves.

In: scores of every checkpoint × setting × poem × sample. Out: for each metric the share of its
variance that belongs to checkpoint, knobs, their interactions, poem and noise (``variance.csv``);
for neighbouring settings the variance of their difference with shared noise ÷ with noise of
their own (``coupling.csv``). Knows nothing of torch or pictures.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.aggregate import Floats
from tangeval.core.knobs import AXES
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics import MEANS
from tangeval.metrics.bleu import LENGTHS, MATCH, ORDERS, corpus_bleu, ngram_totals
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

FACTORS = ("checkpoint", *AXES)
OF_A_POEM = ("bleu", *MEANS)
#: What is left of the variance when checkpoint and knobs, alone and in pairs, have their shares.
REST = ("higher", "poem", "poem × setting", "noise", "noise × setting")
#: Gives some columns of all scores, by their names.
Columns = Callable[[list[str]], pd.DataFrame]
_CHUNK = 250_000  # generations whose BLEU is computed together


def write_variance(run: RunFolder) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write ``variance.csv`` and ``coupling.csv`` into ``folder`` and return both frames.

    ``columns`` gives some columns of ``scores.parquet`` by their names (``store.read_columns``); a
    metric is read when its turn comes, so that one is held at a time. Columns of what is written
    as in docs/statistics.md; where noise was not shared, ``coupling.csv`` has no rows.

    Raises:
        ValueError: a split's rows are not every checkpoint × setting × poem × sample once.
    """
    shares: list[dict[str, Any]] = []
    ratios: list[dict[str, Any]] = []
    shared = run.noise_shared
    columns = run.columns
    keys = columns(["checkpoint", "split", *AXES, "example_id", "sample"])
    for split in keys.loc[~keys["checkpoint"].isin([RANDOM, REFERENCE]), "split"].unique():
        here = (keys["split"] == split) & ~keys["checkpoint"].isin([RANDOM, REFERENCE])
        levels, order = _order(keys[here])
        shape = (*map(len, levels.values()), keys.loc[here, "example_id"].nunique(), -1)
        rows: list[dict[str, Any]] = []
        for metric in OF_A_POEM:
            y = _values(columns, metric, here.to_numpy())[order].reshape(shape)
            shares += [{"split": split, **row} for row in decompose(y, metric, shared)]
            own = list(coupling({metric: y}, levels)) if shared else []
            rows = [row | more for row, more in zip(rows, own, strict=True)] if rows else own
        ratios += [{"split": split, **row} for row in rows]
    variance = pd.DataFrame(shares, columns=["split", "metric", "term", "share", "by_chance"])
    names = ["split", "knob", "from", "to", "checkpoint", *AXES, *OF_A_POEM]
    coupled = pd.DataFrame(ratios, columns=names)
    if len(coupled):
        coupled = coupled.dropna(axis=1, how="all")
    write_csv(run.table("variance"), variance)
    write_csv(run.table("coupling"), coupled)
    return variance, coupled


def _order(keys: pd.DataFrame) -> tuple[dict[str, list[Any]], NDArray[np.int64]]:
    """The factors' levels, and the order that makes rows of keys a full grid ``[*FACTORS, poem, sample]``."""
    names = list(keys["checkpoint"].unique())
    levels = {"checkpoint": names} | {knob: sorted(keys[knob].unique()) for knob in AXES}
    poems = pd.Categorical(keys["example_id"], sorted(keys["example_id"].unique())).codes
    checkpoints = pd.Categorical(keys["checkpoint"], names).codes
    knobs = [keys[knob].to_numpy(float) for knob in reversed(AXES)]
    return levels, np.lexsort((keys["sample"].to_numpy(), poems, *knobs, checkpoints))


def _values(columns: Columns, metric: str, here: NDArray[np.bool_]) -> Floats:
    """A metric of the rows that are ``here``; BLEU is of each generation alone."""
    if metric != "bleu":
        return columns([metric])[metric].to_numpy(float)[here]
    counts = np.stack([columns([n])[n].to_numpy(np.int32)[here] for n in (*MATCH, *LENGTHS)], axis=1)
    bleu = np.empty(len(counts))
    for begin in range(0, len(counts), _CHUNK):
        some = counts[begin : begin + _CHUNK].astype(float)
        own, reference = some[:, ORDERS], some[:, ORDERS + 1]
        bleu[begin : begin + _CHUNK] = corpus_bleu(some[:, :ORDERS], ngram_totals(own), own, reference)
    return bleu


def decompose(y: Floats, metric: str, shared: bool = True) -> list[dict[str, Any]]:
    """Return the shares of the variance of ``y``, ``[checkpoint, knobs…, poem, sample]``, that sum to 1.

    An analysis of variance of the full grid: checkpoint and knobs crossed with each other and
    with poems, samples nested in poems and, noise being ``shared``, crossed with the settings;
    else nested in those too, so that all noise is one term.
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
    poems, noise = squares(poem), squares(poem, sample)
    crossed = squares(*range(settings), poem) - every - poems
    sums = {FACTORS[a]: value for a, value in main.items()}
    sums |= {f"{FACTORS[a]} × {FACTORS[b]}": value for (a, b), value in pairs.items()}
    own, mixed = noise - poems, total - every - noise - crossed
    rest = (every - sum(main.values()) - sum(pairs.values()), poems, crossed)
    sums |= dict(zip(REST, (*rest, own, mixed) if shared else (*rest, own + mixed), strict=shared))
    df = {FACTORS[a]: y.shape[a] - 1 for a in varied}
    df |= {f"{FACTORS[a]} × {FACTORS[b]}": (y.shape[a] - 1) * (y.shape[b] - 1) for a, b in pairs}
    settings = int(np.prod(y.shape[:settings]))
    df["higher"] = settings - 1 - sum(df.values())
    error = crossed / ((settings - 1) * (y.shape[poem] - 1)) if settings > 1 and y.shape[poem] > 1 else np.nan
    return [
        {
            "metric": metric, "term": term, "share": max(value, 0.0) / total,  # rounding alone is below 0
            "by_chance": df[term] * error / total if term in df else np.nan,
        }
        for term, value in sums.items()
    ]  # fmt: skip


def coupling(values: dict[str, Floats], levels: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each two settings that are neighbours in one knob, or checkpoints in the same setting.

    A metric's ratio is the variance, over samples within a poem, of the difference between
    the two ÷ the sum of their own variances, which is what independent draws would give:
    below 1, shared noise makes the difference easier to see. NaN where nothing varies, or
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
