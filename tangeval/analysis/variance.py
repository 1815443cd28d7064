"""Components of variance of a grid: how much checkpoint, knobs, example and noise account for.

In: scores of every checkpoint × setting × example × sample. Out: ``variance.csv``, for each metric and
term its component and its share. Knows nothing of torch or pictures.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.grid import grid
from tangeval.analysis.intervals import Floats
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics.base import Metric, Metrics
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

#: The term of one sample a poem, which cannot tell the two apart.
ONE_SAMPLE = "poem × setting + noise"
_CHUNK = 250_000  # generations whose corpus metrics are computed together


def write_variance(run: RunFolder) -> pd.DataFrame:
    """Write ``variance.csv`` and return it; columns as in docs/statistics.md.

    A metric's scores are read when its turn comes, so that one is held at a time.

    Raises:
        TangevalError: a split's rows are not every checkpoint × setting × example × sample once.
    """
    rows: list[dict[str, Any]] = []
    shared = run.noise_shared
    axes = run.study.decoding.axes
    keys = run.columns(["checkpoint", "split", *axes, "example_id", "sample"])
    generated = ~keys["checkpoint"].isin([RANDOM, REFERENCE])
    for split in keys.loc[generated, "split"].unique():
        here = (generated & (keys["split"] == split)).to_numpy()
        own = keys[here]
        factors = _factors(own, axes)
        whole = grid(factors | {"example": own["example_id"], "sample": own["sample"]}, f"scores on {split}")
        for metric in measured(run.metrics):
            y = whole.array(_values(run, metric, here), float)
            if metric.level == "samples":  # all samples of a poem have one value
                y = y[..., :1]
            rows += [{"split": split, **row} for row in decompose(y, list(factors), metric.name, shared)]
    variance = pd.DataFrame(rows, columns=["split", "metric", "term", "component", "share"])
    write_csv(run.table("variance"), variance)
    return variance


def measured(metrics: Metrics) -> list[Metric]:
    """Return the metrics that one generation has a value of: of texts, and headline ones of a corpus."""
    return [
        m for m in metrics.values() if m.level in ("text", "samples") or (m.level == "corpus" and m.headline)
    ]


def _factors(keys: pd.DataFrame, axes: Sequence[str]) -> dict[str, pd.Series]:
    """The checkpoint and every axis; where ``only`` keeps some points of the grid, the setting as one factor."""
    settings = keys[list(axes)]
    whole = len(settings.drop_duplicates()) == settings.nunique().prod()
    setting = {"setting": settings.groupby(list(axes)).ngroup()}
    return {"checkpoint": keys["checkpoint"], **({a: settings[a] for a in axes} if whole else setting)}


def _values(run: RunFolder, metric: Metric, here: NDArray[np.bool_]) -> Floats:
    """A metric of the rows that are ``here``; a corpus metric is of each generation alone."""
    if metric.level != "corpus":
        return run.columns([metric.name])[metric.name].to_numpy(float)[here]
    counts = np.stack([run.columns([n])[n].to_numpy(np.int32)[here] for n in metric.counts], axis=1)
    begins = range(0, len(counts), _CHUNK)
    return np.concatenate([metric.score(counts[begin : begin + _CHUNK].astype(float)) for begin in begins])


def decompose(y: Floats, factors: Sequence[str], metric: str, shared: bool = True) -> list[dict[str, Any]]:
    """Return a row for each component of variance of ``y``, ``[*factors, example, sample]``, and its share.

    A ``component`` has the metric's unit squared; the shares sum to 1. No rows where the metric never varies
    or is missing, or where nothing was repeated: one example, or one setting with one sample.
    """
    examples = y.shape[-2]
    if not np.ptp(y) > 0 or 1 in (examples, y.size // examples):
        return []
    found = components(y, factors, shared)
    total = sum(found.values())
    names = ("metric", "term", "component", "share")
    return [dict(zip(names, (metric, t, c, c / total), strict=True)) for t, c in found.items()]


def components(y: Floats, factors: Sequence[str], shared: bool = True) -> dict[str, float]:
    """Return the components of variance of ``y``, ``[*factors, example, sample]``, those below 0 as 0.

    By expected mean squares of the balanced table (Searle, Casella & McCulloch, *Variance Components*, 1992,
    chapter 4). Factors are fixed: a component is the mean square of the term's effects on this grid. Examples
    are random, and so are the samples nested in them. ``noise`` that is ``shared`` is what a sample has in
    all settings; else it is nested in them and one term. Factors of one level are left out.
    """
    cells = y.reshape(-1, *y.shape[-2:])
    settings, examples, samples = cells.shape
    shared = shared and min(settings, samples) > 1
    mixed, rest = (float(each.mean()) for each in by_poem(cells, shared))
    poems = cells.mean(axis=0)  # of all settings
    within = float(poems.var(axis=-1, ddof=1).mean()) if shared else rest / settings
    between = float(poems.mean(axis=-1).var(ddof=1)) - within / samples
    found = _fixed(y.mean(axis=(-2, -1)), factors, (mixed + rest / samples) / (settings * examples))
    found["poem"] = between
    if settings > 1:
        found["poem"] -= mixed / settings
        found["poem × setting" if samples > 1 else ONE_SAMPLE] = mixed
    if shared:
        found |= {"noise": within - rest / settings, "noise × setting": rest}
    elif samples > 1:
        found["noise"] = rest
    return {term: max(value, 0.0) for term, value in found.items()}


def by_poem(y: Floats, shared: bool) -> tuple[Floats, Floats]:
    """Return each example's part in the components poem × thing and noise of ``y`` ``[..., T, P, S]``: ``[P]``.

    Averaged over the first axes; the means over examples are unbiased. Noise that is ``shared`` is crossed
    with the T things, so what it does to all of them is no part of it. Of one sample it is 0.
    """
    things, poems, samples = y.shape[-3:]
    means = y.mean(axis=-1)
    apart = means - means.mean(axis=-2, keepdims=True)
    apart -= apart.mean(axis=-1, keepdims=True)
    inner = y - means[..., None]
    inner -= inner.mean(axis=-3, keepdims=True) if shared else 0
    first = tuple(range(y.ndim - 3))
    noise = (inner**2).sum(axis=(-3, -1)).mean(axis=first) / max(samples - 1, 1) / (things - shared)
    mixed = (apart**2).sum(axis=-2).mean(axis=first) / max(things - 1, 1) * poems / (poems - 1)
    return mixed - noise / samples, noise


def _fixed(cells: Floats, factors: Sequence[str], error: float) -> dict[str, float]:
    """The components of factors, their pairs and ``higher`` interactions, ``error`` being what chance adds to a
    mean square of ``cells`` ``[*factors]`` for each degree of freedom."""
    cells = cells - cells.mean()

    def square(*kept: int) -> float:
        """Mean square of the means over all axes but ``kept``."""
        return float((cells.mean(axis=tuple(a for a in range(cells.ndim) if a not in kept)) ** 2).mean())

    free = {axis: size - 1 for axis, size in enumerate(cells.shape) if size > 1}
    squares = {factors[a]: (square(a), free[a]) for a in free}
    for a, b in combinations(free, 2):
        inner = square(a, b) - square(a) - square(b)
        squares[f"{factors[a]} × {factors[b]}"] = (inner, free[a] * free[b])
    if len(free) > 2:
        total, freedom = (sum(each) for each in zip(*squares.values(), strict=True))
        squares["higher"] = (float((cells**2).mean()) - total, cells.size - 1 - freedom)
    return {term: value - freedom * error for term, (value, freedom) in squares.items()}
