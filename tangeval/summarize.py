"""Scores → summary: each checkpoint × cell × split with intervals, and the grid's margins.

In: ``scores.parquet`` and ``likelihood.parquet``. Out: three frames, written as
``summary.csv`` (a row a cell), ``effects.csv`` (each value of each knob, averaged over the
other knobs) and ``checkpoints.csv`` (averaged over all cells). Intervals are percentiles of
a bootstrap over poems; an average over cells is resampled as a whole. Knows nothing of
torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval.metrics import METRICS
from tangeval.metrics.aggregate import KNOBS, Group, groups
from tangeval.stats import interval
from tangeval.store import read_scores, write_csv

MEASURES = tuple(column for m in METRICS for column in (m.name, f"{m.name}_low", f"{m.name}_high"))


@dataclass(frozen=True)
class Summary:
    """The three frames; columns as in docs/results.md."""

    cells: pd.DataFrame
    effects: pd.DataFrame
    checkpoints: pd.DataFrame


def summarize(folder: Path, seed: int) -> Summary:
    """Summarise ``folder``'s scores, write the three CSV files and return them.

    Raises:
        TangevalError: the folder holds no scores.
    """
    cells, effects, checkpoints = [], [], []
    for group in groups(*read_scores(folder), seed):
        measured = group.measured
        every = np.arange(len(measured.knobs))
        cells += [_row(group, np.array([c]), measured.knobs.loc[c].to_dict()) for c in every]
        checkpoints.append(_row(group, every, {}))
        varied = [knob for knob in KNOBS if measured.knobs[knob].nunique() > 1]
        for knob in varied:
            for value, places in measured.knobs.groupby(knob).indices.items():
                effects.append(_row(group, places, {"knob": knob, "value": value}))
        if measured.knobs["temperature"].isna().all():
            effects.append(_row(group, every, {}))
    first = ["checkpoint", "step"]
    counts = ["poems", "samples", *MEASURES, "n_tokens"]
    summary = Summary(
        _frame(cells, [*first, *KNOBS, "no_repeat_ngram_size", "split", *counts]),
        _frame(effects, [*first, "split", "knob", "value", *counts]),
        _frame(checkpoints, [*first, "split", *counts]),
    )
    write_csv(folder / "summary.csv", summary.cells)
    write_csv(folder / "effects.csv", summary.effects)
    write_csv(folder / "checkpoints.csv", summary.checkpoints)
    return summary


def overall(measured: Iterable[Group]) -> pd.DataFrame:
    """Return one row a group, averaged over all of its cells."""
    rows = [_row(group, np.arange(len(group.measured.knobs)), {}) for group in measured]
    return _frame(rows, ["checkpoint", "step", "split", "poems", "samples", *MEASURES, "n_tokens"])


def _row(group: Group, places: Any, labels: dict[Any, Any]) -> dict[str, Any]:
    """One row: the mean over the cells at ``places``, with its interval."""
    measured = group.measured
    row: dict[str, Any] = {
        "checkpoint": group.checkpoint, "step": group.step, "split": group.split, **labels,
        "poems": measured.poems, "samples": measured.samples,
        "n_tokens": measured.value["n_tokens"][places].mean(),
    }  # fmt: skip
    for metric in METRICS:
        row[metric.name] = measured.value[metric.name][places].mean()
        low, high = interval(measured.resampled[metric.name][:, places].mean(axis=1))
        row[f"{metric.name}_low"], row[f"{metric.name}_high"] = low, high
    return row


def _frame(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows).reindex(columns=columns)
    whole = [c for c in ("step", "top_k", "max_length", "no_repeat_ngram_size") if c in columns]
    return frame.astype(dict.fromkeys(whole, "Int64"))
