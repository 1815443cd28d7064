"""Keyed rows → whole grids: every combination of their keys once, or an error that names the row.

In: a frame and the names of its keys. Out: each key's levels, and the order of rows that makes an array
of the grid's shape. Whoever reshapes a table comes here first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import WIDE, axes_in
from tangeval.core.types import CLUSTER


def axes_of(frame: pd.DataFrame) -> list[str]:
    """Return the axes that tell a table's settings apart: those that it has, ``WIDE`` where that has several values."""
    return [axis for axis in axes_in(frame) if axis != WIDE or frame[WIDE].nunique() > 1]


@dataclass(frozen=True)
class Grid:
    """``levels`` of each key, and the ``order`` of rows in which they are an array of ``shape``."""

    levels: dict[str, list[Any]]
    order: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.levels.values()))

    def array(self, column: pd.Series | NDArray[Any], kind: type) -> NDArray[Any]:
        """Return a column, which stands in the rows' own order, as an array of ``shape``."""
        return np.asarray(column, kind)[self.order].reshape(self.shape)


def grid(keys: Mapping[str, pd.Series | pd.Categorical | NDArray[Any]], where: str) -> Grid:
    """Return the grid of rows by ``keys``, columns of equal length; ``where`` says what the rows are of.

    Raises:
        TangevalError: a row is there twice, or is missing; the message names it.
    """
    coded = {name: pd.factorize(column, sort=True) for name, column in keys.items()}
    found = {name: list(values) for name, (_, values) in coded.items()}
    shape = tuple(map(len, found.values()))
    flat = np.ravel_multi_index([codes for codes, _ in coded.values()], shape)
    order = np.argsort(flat, kind="stable")
    flat = flat[order]

    def refuse(place: int, what: str) -> TangevalError:
        at = zip(found.items(), np.unravel_index(place, shape), strict=True)
        row = ", ".join(f"{name} {values[code]}".strip() for (name, values), code in at)
        return TangevalError(f"{where}: {row} {what}; run the study again")

    if (twice := np.flatnonzero(flat[1:] == flat[:-1])).size:
        raise refuse(int(flat[twice[0]]), "is there twice")
    if lacking := int(np.prod(shape)) - len(flat):
        other = np.flatnonzero(flat != np.arange(len(flat)))
        first = int(other[0]) if other.size else len(flat)
        raise refuse(first, f"is missing, and {lacking - 1:,} rows more")
    return Grid(found, order)


def clusters_of(scores: pd.DataFrame, examples: Sequence[str]) -> list[str]:
    """Return the cluster of each of the ``examples``, "" where rows of scores name none."""
    if CLUSTER not in scores:
        return [""] * len(examples)
    found = scores.drop_duplicates("example_id").set_index("example_id")[CLUSTER].astype(str)
    return list(found.loc[list(examples)])
