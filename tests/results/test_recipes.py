"""A study of recipes, from its file to what is said of them."""

import shutil

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.aggregate import Part, groups
from tangeval.analysis.compare import compare, measure_all
from tangeval.analysis.hypothesis_tests import holm
from tangeval.analysis.recipes import estimate
from tangeval.core.errors import TangevalError
from tangeval.results.folder import RunFolder
from tests.support.study import evaluate, write_study
from tests.support.tiny import make_adapter


@pytest.fixture(scope="module")
def folder(tiny_model, tiny_run, tmp_path_factory):
    """Results of a recipe of three runs, each with two checkpoints, and of one of a single run."""
    root = tmp_path_factory.mktemp("recipes")
    for seed in (1, 2, 3, 10):
        run = shutil.copytree(tiny_run, root / f"hw5-seed{seed}" if seed < 10 else root / "solo")
        make_adapter(tiny_model, run / "checkpoint-20", seed=100 + seed)
    recipes = {"hw5": f"{root}/hw5-seed*", "solo": [f"{root}/solo"]}
    evaluate(write_study(root, tiny_model, checkpoints=recipes), root / "out")
    return root / "out"


def values(folder, *names):
    """``reference_nll`` of checkpoints on each poem."""
    run = RunFolder(folder)
    found = {g.checkpoint: g.measured for g in groups(run.scores(), run.likelihood(), run.metrics)}
    return np.stack([Part(found[name], [0, 1]).by_poem("reference_nll") for name in names])


def test_each_checkpoint_says_which_training_made_it(folder):
    frame = pd.read_csv(folder / "checkpoints.csv").set_index("checkpoint")
    assert frame.loc["hw5-seed3/checkpoint-20", ["recipe", "run", "step"]].tolist() == [
        "hw5",
        "hw5-seed3",
        20,
    ]
    assert frame.loc[["base", "random"], ["recipe", "run"]].isna().all(axis=None)
    records = RunFolder(folder).manifest["checkpoints"]
    assert [record.get("run") for record in records[:3]] == [None, "hw5-seed1", "hw5-seed1"]


def test_a_recipe_is_its_runs_last_checkpoints_over_poems_and_runs(folder):
    frame = pd.read_csv(folder / "recipes.csv").set_index("recipe")
    assert frame["runs"].to_dict() == {"hw5": 3, "solo": 1}
    last = values(folder, *(f"hw5-seed{seed}/checkpoint-20" for seed in (1, 2, 3)))
    expected, row = estimate(last), frame.loc["hw5"]
    assert row["reference_nll"] == pytest.approx(last.mean())
    assert (row["reference_nll_low"], row["reference_nll_high"]) == pytest.approx(
        (expected.low, expected.high)
    )
    assert row["reference_nll_tau_low"] <= row["reference_nll_tau"] <= row["reference_nll_tau_high"]
    assert frame.loc["solo", ["reference_nll_tau", "bleu_tau_high"]].isna().all()
    assert frame[[c for c in frame if c.startswith("form")]].loc["hw5"].between(0, 1).all()
    assert (
        frame.loc["hw5", "form_high"] > 0.1
    )  # no output had form, which three runs of 15 poems do not settle


def test_the_table_of_recipes_goes_with_the_recipes(folder, tiny_model, tiny_run, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "out")
    evaluate(write_study(tmp_path, tiny_model, tiny_run), copied)
    assert not (copied / "recipes.csv").exists()
    assert "recipe" not in pd.read_csv(copied / "checkpoints.csv")


def test_recipes_are_compared_over_poems_and_runs(folder):
    items = measure_all([f"{folder}:hw5", f"{folder}:base"], "test")
    row = compare(items, ["reference_nll"], {"reference_nll": 0.5}).iloc[0]
    expected = estimate(
        values(folder, *(f"hw5-seed{s}/checkpoint-20" for s in (1, 2, 3))), values(folder, "base")[0]
    )
    assert (row["difference"], row["low"], row["high"], row["p"]) == pytest.approx(expected[:4])
    assert (row["over"], row["p_adjusted"]) == ("poems, 3 runs", row["p"])
    assert row["runs_needed"] >= 2
    early = compare(measure_all([f"{folder}:hw5@10", f"{folder}:base"], "test"), ["reference_nll"]).iloc[0]
    assert early["value_a"] == pytest.approx(
        values(folder, *["hw5-seed1/checkpoint-10"]).mean()
    )  # all runs' are one


def test_one_run_is_said_to_be_one(folder):
    whole = f"{folder}:solo/checkpoint-20"
    recipe, checkpoint = (
        compare(measure_all([name, f"{folder}:base"], "test"), ["reference_nll"]).iloc[0]
        for name in (f"{folder}:solo", whole)
    )
    assert (recipe["over"], checkpoint["over"]) == ("poems, one run each", "poems")
    assert (
        recipe[["difference", "low", "high", "p"]].tolist()
        == checkpoint[["difference", "low", "high", "p"]].tolist()
    )


def test_beside_recipes_all_comparisons_are_holms(folder):
    items = measure_all([f"{folder}:{name}" for name in ("hw5", "solo", "base")], "test")
    frame = compare(items, ["reference_nll", "chrf"])
    assert set(frame["over"]) == {"poems, 3 + 1 runs", "poems, 3 runs", "poems, one run each"}
    adjusted = holm(frame["p"].to_numpy())
    assert frame["p_adjusted"].tolist() == adjusted.tolist()
    assert (adjusted >= frame["p"]).all()


def test_a_step_that_not_all_runs_have_is_refused(folder):
    with pytest.raises(
        TangevalError, match="hw5-seed1 has no checkpoint of that step; name one that all have"
    ):
        measure_all([f"{folder}:hw5@15"], "test")
    with pytest.raises(TangevalError, match="it has no checkpoint hw6; it has hw5, solo, base, hw5-seed1/"):
        measure_all([f"{folder}:hw6"], "test")
