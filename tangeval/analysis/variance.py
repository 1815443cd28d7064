"""Analysis of variance of a grid: how much checkpoint, knobs, example and noise account for.

In: scores of every checkpoint × setting × example × sample. Out: ``variance.csv``, for each metric and
term its share of the variance. Knows nothing of torch or pictures.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.grid import grid
from tangeval.analysis.intervals import Floats
from tangeval.core.knobs import AXES
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics.base import Metric, Metrics
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

#: The terms besides checkpoint and knobs, alone and in pairs.
REST = ("higher", "poem", "poem × setting", "noise", "noise × setting")
_CHUNK = 250_000  # generations whose corpus metrics are computed together


def write_variance(run: RunFolder) -> pd.DataFrame:
    """Write ``variance.csv`` and return it; columns as in docs/statistics.md.

    A metric's scores are read when its turn comes, so that one is held at a time.

    Raises:
        TangevalError: a split's rows are not every checkpoint × setting × example × sample once.
    """
    rows: list[dict[str, Any]] = []
    shared = run.noise_shared
    keys = run.columns(["checkpoint", "split", *AXES, "example_id", "sample"])
    generated = ~keys["checkpoint"].isin([RANDOM, REFERENCE])
    for split in keys.loc[generated, "split"].unique():
        here = (generated & (keys["split"] == split)).to_numpy()
        own = keys[here]
        factors = _factors(own)
        whole = grid(factors | {"example": own["example_id"], "sample": own["sample"]}, f"scores on {split}")
        for metric in measured(run.metrics):
            y = whole.array(_values(run, metric, here), float)
            rows += [{"split": split, **row} for row in decompose(y, list(factors), metric.name, shared)]
    variance = pd.DataFrame(rows, columns=["split", "metric", "term", "share", "by_chance"])
    write_csv(run.table("variance"), variance)
    return variance


def measured(metrics: Metrics) -> list[Metric]:
    """Return the metrics that one generation has a value of: of texts, and headline ones of a corpus."""
    return [
        m for m in metrics.values() if m.level in ("text", "samples") or (m.level == "corpus" and m.headline)
    ]


def _factors(keys: pd.DataFrame) -> dict[str, pd.Series]:
    """The checkpoint and every axis; where ``only`` keeps some points of the grid, the setting as one factor."""
    settings = keys[list(AXES)]
    whole = len(settings.drop_duplicates()) == settings.nunique().prod()
    setting = {"setting": settings.groupby(list(AXES)).ngroup()}
    return {"checkpoint": keys["checkpoint"], **({a: settings[a] for a in AXES} if whole else setting)}


def _values(run: RunFolder, metric: Metric, here: NDArray[np.bool_]) -> Floats:
    """A metric of the rows that are ``here``; a corpus metric is of each generation alone."""
    if metric.level != "corpus":
        return run.columns([metric.name])[metric.name].to_numpy(float)[here]
    counts = np.stack([run.columns([n])[n].to_numpy(np.int32)[here] for n in metric.counts], axis=1)
    begins = range(0, len(counts), _CHUNK)
    return np.concatenate([metric.score(counts[begin : begin + _CHUNK].astype(float)) for begin in begins])


def decompose(y: Floats, factors: Sequence[str], metric: str, shared: bool = True) -> list[dict[str, Any]]:
    """Return the shares of the variance of ``y``, ``[*factors, example, sample]``, that sum to 1.

    Factors crossed with each other and with examples, samples nested in examples and, noise being ``shared``,
    crossed with the settings; else nested in those too, so that all noise is one term. ``by_chance`` is the
    share of a term of as many degrees of freedom that does nothing, poem × setting being the error term.
    Terms with one level are left out; nothing where the metric never varies or is missing.
    """
    centred = y - y.mean()
    total = float((centred**2).sum())
    if not total > 0:
        return []
    sums = _sums_of_squares(centred, factors, shared)
    settings, examples = math.prod(y.shape[:-2]), y.shape[-2]
    levels = {name: size - 1 for name, size in zip(factors, y.shape, strict=False)}
    freedom = {term: math.prod(levels[n] for n in term.split(" × ")) for term in sums if term not in REST}
    freedom["higher"] = settings - 1 - sum(freedom.values())
    of_error = (settings - 1) * (examples - 1)
    error = sums["poem × setting"] / of_error if of_error else np.nan
    chance = {term: free * error / total for term, free in freedom.items()}
    shares = {term: max(value, 0.0) / total for term, value in sums.items()}  # rounding alone is below 0
    names = ("metric", "term", "share", "by_chance")
    rows = ((metric, term, share, chance.get(term, np.nan)) for term, share in shares.items())
    return [dict(zip(names, row, strict=True)) for row in rows]


def _sums_of_squares(centred: Floats, factors: Sequence[str], shared: bool) -> dict[str, float]:
    """Each term's sum of squares: factors, their pairs, and ``REST``."""
    *crossed, example, sample = range(centred.ndim)

    def squares(*kept: int) -> float:
        """Sum of squares of the means over all axes but ``kept``."""
        means = centred.mean(axis=tuple(axis for axis in range(centred.ndim) if axis not in kept))
        return float((means**2).sum() * centred.size / means.size)

    varied = [axis for axis in crossed if centred.shape[axis] > 1]
    main = {axis: squares(axis) for axis in varied}
    sums = {factors[axis]: value for axis, value in main.items()}
    for a, b in combinations(varied, 2):
        sums[f"{factors[a]} × {factors[b]}"] = squares(a, b) - main[a] - main[b]
    settings, examples = squares(*crossed), squares(example)
    by_setting = squares(*crossed, example) - settings - examples
    noise = squares(example, sample) - examples
    mixed = float((centred**2).sum()) - settings - examples - noise - by_setting
    rest = (settings - sum(sums.values()), examples, by_setting)
    values = (*rest, noise, mixed) if shared else (*rest, noise + mixed)
    return sums | dict(zip(REST, values, strict=shared))
