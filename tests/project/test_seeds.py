"""The tables of other seeds in docs/findings.md, from each run's values by poem."""

import pandas as pd
import pytest

from benchmarks import seeds
from tangeval.core.study import load_study


@pytest.fixture
def kept(tmp_path):
    """Three runs of each of two recipes on four poems; runs are 0.1 apart, recipes 0.5, poems 1."""
    rows = [
        {"checkpoint": f"{recipe}-seed{run}/checkpoint-{step}", "split": split, "example_id": str(poem),
         "form": start + 0.1 * run + poem}
        for recipe, step, start in (("hw5", 65, 0.0), ("default", 65, 0.5), ("default", 13, 9.0))
        for run in (1, 2, 3) for poem in range(4) for split in ("validation", "test")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "poems.csv.xz", index=False)
    return seeds.Kept(tmp_path / "poems.csv.xz", "validation")


def test_a_difference_is_over_runs_of_that_step_and_poems(kept):
    what, metric, value, poems, both, _ = seeds.difference(kept, seeds.DEFAULT, seeds.HW5, "form")
    assert (what, metric, value) == ("default@65 less hw5@65", "form", "+0.500")
    assert poems == "[+0.500, +0.500]"
    # Student's t with 4 degrees of freedom on runs 0.1 apart: 0.5 ± 2.776 × 0.1 × √(2 / 3)
    assert both == "[+0.273, +0.727]"


def test_runs_are_apart_and_all_pairs_of_them_told_apart(kept):
    assert seeds.apart(kept, seeds.HW5, "form")[2:4] == ["1.600 to 1.800", "1.700"]
    assert seeds.apart(kept, seeds.HW5, "form")[-1] == "3 of 3"


def test_the_study_has_five_runs_of_each_recipe():
    places = load_study("studies/seeds.yaml").checkpoints
    assert list(places) == ["hw5", "default", "full"]
    assert len({place.split("/")[2] for place in places["full"]}) == 5
