"""What cuts keep of the references, and whether that tells the order of settings.

In: a results folder whose likelihoods have cuts, and its scores. Out: frames, written as ``recall.csv`` (a row a
checkpoint, split, temperature and cuts) and ``recall_orders.csv`` (how far recall and risk order the settings by each
metric). Knows nothing of models or pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Group, groups
from tangeval.analysis.intervals import LEVEL, Clusters, Floats, rate_interval, resample_weights
from tangeval.core.knobs import Setting, warp_name
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder

#: What is known of a cut: of each reference ``[P]``, a mean over its tokens.
MEASURES = ("recall", "mass", "risk")
#: What foretells the order: each alone, and all three, fitted on other settings.
FITTED = "fitted"
_KEYS = ["checkpoint", "step", "split"]
_PARTS, _RESAMPLES, _FEWEST = 5, 200, 4


def write_recall(run: RunFolder) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write both tables and return them; nothing where no likelihood has cuts, as a server's or an earlier version's."""
    likelihood = run.likelihood()
    names = ("recall", "recall_orders")
    for name in names:
        run.table(name).unlink(missing_ok=True)
    if "cuts" not in likelihood or not likelihood["cuts"].map(len).all() or not len(likelihood):
        return pd.DataFrame(), pd.DataFrame()
    clusters = run.clusters()
    kept, orders = list[dict[str, Any]](), list[dict[str, Any]]()
    for keys, own in likelihood.groupby(_KEYS, sort=False, dropna=False):
        label: dict[str, Any] = dict(zip(_KEYS, keys, strict=True))
        table = by_example(own)
        kept += _rows(table, label, clusters)
        for group in groups(run.scores(label["checkpoint"], label["split"]), likelihood, run.metrics):
            orders += [label | row for row in _orders(group, table)]
    frames = [pd.DataFrame(rows) for rows in (kept, orders)]
    frames = [frame.astype({"step": "Int64"}) if len(frame) else frame for frame in frames]
    for name, frame in zip(names, frames, strict=True):
        write_csv(run.table(name), frame)
    return frames[0], frames[1]


def by_example(likelihood: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return each measure of one checkpoint and split: a row a reference (its id), a column a temperature and cuts."""
    found = {}
    for measure in MEASURES:
        rows = [
            dict(zip(cuts, values, strict=True))
            for cuts, values in zip(likelihood["cuts"], likelihood[f"cut_{measure}"], strict=True)
        ]
        found[measure] = pd.DataFrame(rows, index=likelihood["example_id"])
    return found


def _rows(
    table: dict[str, pd.DataFrame], label: dict[str, Any], clusters: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """A row for each temperature and cuts, with intervals over references."""
    names = [str(name) for name in table["recall"]]
    of = Clusters.named([clusters.get(example, "") for example in table["recall"].index])
    ends = {m: np.stack(rate_interval(of.linear(each.to_numpy(float)), 2)) for m, each in table.items()}
    for place, name in enumerate(names):
        row = label | {"cut": name, "poems": len(table["recall"])}
        for measure, each in table.items():
            low, high = ends[measure][:, place]
            row |= {measure: each[name].mean(), f"{measure}_low": low, f"{measure}_high": high}
        yield row


def _orders(group: Group, table: dict[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """How far each measure, and all together, order the settings by each headline metric: rank correlations.

    Settings that differ in other knobs alone count as one, by their mean. Intervals are over poems, which are drawn anew for
    scores and references alike.
    """
    measured = group.measured
    cuts = [warp_name(Setting.from_row(row)) for row in measured.knobs.to_dict("records")]
    names = [name for name in dict.fromkeys(cuts) if name in table["recall"]]
    if len(names) < max(_FEWEST, _PARTS):
        return
    same = np.array([[cut == name for cut in cuts] for name in names], float)
    same /= same.sum(axis=1, keepdims=True)
    weights = np.concatenate([np.ones((1, measured.poems)), resample_weights(measured.poems, 0, _RESAMPLES)])
    total = (weights @ measured.size)[:, None]
    told = {
        measure: weights @ measured.folded(each.loc[list(measured.examples), names].to_numpy(float)) / total
        for measure, each in table.items()
    }
    for metric in measured.metrics.values():
        if not (metric.headline and metric.per_setting) or np.isnan(measured.value[metric.name]).any():
            continue
        values = measured.on(metric.name, weights) @ same.T
        for name, predicted in (told | {FITTED: _fitted(list(told.values()), values)}).items():
            rho, tail = _rank_correlation(predicted, values), (1 - LEVEL) / 2
            known = rho[1:][np.isfinite(rho[1:])]
            low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (np.nan, np.nan)
            yield {
                "metric": metric.name, "by": name, "settings": len(names), "rank_correlation": rho[0], "low": low,
                "high": high,
            }  # fmt: skip


def _fitted(told: Sequence[Floats], values: Floats) -> Floats:
    """What a line through the ranks of the measures of other settings says of the ranks of each setting ``[n, C]``."""
    part = np.random.default_rng(0).permutation(values.shape[1]) % _PARTS
    ranks = np.stack([np.ones_like(values), *map(_ranks, told)], axis=2)
    wanted, found = _ranks(values), np.empty_like(values)
    for number in range(_PARTS):
        held = part == number
        line = np.linalg.pinv(ranks[:, ~held]) @ wanted[:, ~held, None]
        found[:, held] = (ranks[:, held] @ line)[..., 0]
    return found


def _ranks(values: Floats) -> Floats:
    """The ranks of each row, those that tie having their mean."""
    return pd.DataFrame(values).rank(axis=1).to_numpy()


def _rank_correlation(first: Floats, second: Floats) -> Floats:
    """Spearman's of each row ``[n]`` of values ``[n, C]``; NaN where one does not vary."""
    sides = [_ranks(np.round(side, 9)) for side in (first, second)]
    apart = [side - side.mean(axis=1, keepdims=True) for side in sides]
    size = np.sqrt(np.prod([(side**2).sum(axis=1) for side in apart], axis=0))
    found: Floats = (apart[0] * apart[1]).sum(axis=1) / np.where(size > 0, size, np.nan)
    return found
