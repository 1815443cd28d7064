"""Metrics of all samples of an example and setting, in each of their rows.

In: rows, which distinct text each has, and these texts as they are compared. Out: columns. Equal sets are measured once.
Knows nothing of files.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.core.knobs import axes_in
from tangeval.tasks.base import Task

#: Distinct texts that are measured together: more would fit no cache.
TEXTS_AT_ONCE = 20_000


def over_samples(
    task: Task, frame: pd.DataFrame, codes: NDArray[np.int64], texts: Sequence[str]
) -> pd.DataFrame:
    """Return each row's metrics of all samples of its example and setting; ``codes`` say which of ``texts`` each row has."""
    metrics = [metric for metric in task.metrics.values() if metric.level == "samples"]
    keys = ["checkpoint", *axes_in(frame), "example_id", *(["set"] if "set" in frame else [])]
    group = frame.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    order = np.lexsort((codes, group))  # the samples in an order of their own: equal sets are measured once
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    sets = [tuple(chosen.tolist()) for chosen in np.split(codes[order], begins[1:])]
    numbers = {own: number for number, own in enumerate(dict.fromkeys(sets))}
    samples = [[texts[code] for code in own] for own in numbers]
    number = np.array([numbers[own] for own in sets])[group]
    size = max(1, TEXTS_AT_ONCE // max(map(len, samples)))
    parts = (samples[begin : begin + size] for begin in range(0, len(samples), size))
    return rows_at([{m.name: np.asarray(m.compute(part), float) for m in metrics} for part in parts], number)


def rows_at(parts: Sequence[Mapping[str, NDArray[np.float64]]], places: NDArray[np.int64]) -> pd.DataFrame:
    """Return the rows at ``places`` of columns that come in parts."""
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts])[places] for name in parts[0]})
