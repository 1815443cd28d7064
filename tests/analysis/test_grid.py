"""Rows are laid out by their keys, and a grid that is not whole is refused by name."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.grid import grid
from tangeval.core.errors import TangevalError

KEYS = ["setting", "example", "sample"]


@pytest.fixture
def rows() -> pd.DataFrame:
    frame = pd.DataFrame(product(["a", "b"], ["test-1", "test-2", "test-3"], range(2)), columns=KEYS)
    return frame.assign(value=np.arange(12.0)).sample(frac=1, random_state=0).reset_index(drop=True)


def laid_out(rows: pd.DataFrame) -> np.ndarray:
    return grid({key: rows[key] for key in KEYS}, "scores of base").array(rows["value"], float)


def test_rows_in_any_order_make_the_array_of_their_keys(rows):
    assert np.array_equal(laid_out(rows), np.arange(12.0).reshape(2, 3, 2))


def test_a_row_that_is_there_twice_is_named(rows):
    with pytest.raises(
        TangevalError, match="scores of base: setting b, example test-2, sample 1 is there twice"
    ):
        laid_out(pd.concat([rows, rows[(rows["value"] == 9)]]))


@pytest.mark.parametrize(
    ("value", "name"),
    [(0, "setting a, example test-1, sample 0"), (11, "setting b, example test-3, sample 1")],
)
def test_a_missing_row_is_named(rows, value, name):
    with pytest.raises(TangevalError, match=f"scores of base: {name} is missing, and 0 rows more"):
        laid_out(rows[rows["value"] != value])


def test_as_many_rows_as_a_whole_grid_has_are_not_yet_one(rows):
    """One row lost and another's sample added: only the count is right."""
    extra = rows[rows["value"] == 8].assign(sample=2)
    with pytest.raises(TangevalError, match="is missing"):
        laid_out(pd.concat([rows[rows["value"] != 3], extra]))
