"""What a study's recipes stand for."""

import shutil

import pytest

from tangeval.core.errors import TangevalError
from tangeval.models.checkpoints import discover_runs


@pytest.fixture
def seeds(tiny_run, tmp_path):
    """The folder of three runs of one recipe, and of one run of another."""
    for name in ("hw5-seed1", "hw5-seed2", "hw5-seed10", "default/seed1"):
        shutil.copytree(tiny_run, tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_a_recipes_runs_are_found_by_pattern_and_name_their_checkpoints(seeds):
    found, skipped = discover_runs({"hw5": [f"{seeds}/hw5-seed*"], "default": [f"{seeds}/default/seed1"]})
    assert [(c.name, c.recipe, c.run) for c in found if c.step == 20] == [
        ("hw5-seed1/checkpoint-20", "hw5", "hw5-seed1"), ("hw5-seed2/checkpoint-20", "hw5", "hw5-seed2"),
        ("hw5-seed10/checkpoint-20", "hw5", "hw5-seed10"), ("seed1/checkpoint-20", "default", "seed1"),
    ]  # fmt: skip
    assert (len(found), skipped) == (8, ())
    # A run more renames none.
    alone, _ = discover_runs({"hw5": [f"{seeds}/hw5-seed1"]})
    assert alone == found[:2]


def test_a_recipe_may_name_single_checkpoints(seeds):
    found, _ = discover_runs({"hw5": [f"{seeds}/hw5-seed1/checkpoint-10", f"{seeds}/hw5-seed2"]})
    assert [c.run for c in found] == ["hw5-seed1", "hw5-seed2", "hw5-seed2"]
    assert found[0].name == "hw5-seed1/checkpoint-10"


def test_recipes_that_cannot_be_understood_are_refused(seeds):
    one = [f"{seeds}/hw5-seed1"]
    twice = r"hw5-seed1/checkpoint-10 is in a \(.*\) and b \(.*\); leave one out, or rename its run's folder"
    with pytest.raises(TangevalError, match=twice):
        discover_runs({"a": one, "b": [f"{seeds}/hw5-seed*"]})
    with pytest.raises(TangevalError, match=r"checkpoints: there is no folder .*seed1x\*"):
        discover_runs({"a": [f"{seeds}/hw5-seed1x*"]})
    lone = shutil.copytree(seeds / "hw5-seed2" / "checkpoint-20", seeds / "lone")
    for name, runs in (("lone", [str(lone)]), ("base", one)):
        with pytest.raises(TangevalError, match=f"recipe {name}: the name is taken; rename the recipe"):
            discover_runs({name: runs})
    for save in (seeds / "hw5-seed1").glob("checkpoint-*"):
        (save / "trainer_state.json").write_text("")
    with pytest.raises(TangevalError, match=r"a: .*hw5-seed1 has no whole checkpoint; leave it out"):
        discover_runs({"a": one})
