"""What is chosen on scores whose truth is made up, and how sure it is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis import select
from tangeval.analysis.aggregate import Measured, Part, groups
from tangeval.analysis.hypothesis_tests import holm
from tangeval.analysis.intervals import mean_interval
from tangeval.analysis.selection_bias import joint_level
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG
from tests.support.folders import make_results

POEMS, SETTINGS = 60, 8


@pytest.fixture
def candidates() -> list[select.Candidate]:
    """Settings that differ in luck alone."""
    by_poem = np.random.default_rng(3).normal(size=(POEMS, SETTINGS))
    knobs = pd.DataFrame({"temperature": np.arange(SETTINGS) / 10})
    names = tuple(f"test-{n}" for n in range(POEMS))
    measured = Measured(TANG.metrics, knobs, names, 1, {"chrf": by_poem.mean(axis=0)}, {"chrf": by_poem}, {})
    return [select.Candidate({"place": place}, Part(measured, [place])) for place in range(SETTINGS)]


def test_p_values_of_the_runners_up_are_holms(candidates):
    best, others = select.ranked(candidates, "chrf")
    rows = select.compared(best, others, "chrf")
    p = np.array([row["p"] for row in rows])
    assert [row["p_holm"] for row in rows] == pytest.approx(holm(p).tolist())
    assert any(row["p_holm"] > 1.5 * row["p"] for row in rows)


def test_the_winners_interval_is_joint_on_the_side_that_noise_helped(candidates):
    best, _ = select.ranked(candidates, "chrf")
    corrected = select._corrected(best, candidates, "chrf", seed=5)
    own = best.part.by_poem("chrf")
    level = joint_level(np.stack([c.part.by_poem("chrf") for c in candidates]), 5)
    assert level > 0.98
    assert corrected["low"] == pytest.approx(mean_interval(own, level)[0])
    assert corrected["low"] < mean_interval(own)[0]
    assert corrected["high"] == pytest.approx(mean_interval(own)[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("chosen")
    make_results(place, select={"checkpoint": "bleu", "setting": {"by": "chrf"}})
    return place


def choose(folder: Path, **seen: int) -> dict:
    """Choose where every checkpoint saw as many examples of a split as ``seen`` says."""
    run = RunFolder(folder)
    manifest = run.manifest
    for record in manifest["checkpoints"]:
        record["seen"] = {"validation": 0, "test": 0} | (seen if record["name"] != "base" else {"test": 4})
    write_json(run.manifest_file, manifest)
    return select.select(run.study, run)


def test_test_examples_that_the_winner_was_trained_on_are_counted(folder):
    selection = choose(folder, test=4)
    assert selection["saw_test"] == 4
    assert json.loads(RunFolder(folder).selection_file.read_text("utf-8"))["saw_test"] == 4


def test_a_checkpoint_that_saw_the_split_is_not_chosen(folder):
    selection = choose(folder, validation=1)
    assert selection["checkpoint"]["checkpoint"] == "base"
    assert len(selection["refused"]) == 1


def test_the_chosen_settings_interval_holds_after_selection(folder):
    """The interval in selection.json is the joint one, of all the settings of the chosen checkpoint."""
    selection = choose(folder)
    run = RunFolder(folder)
    name = selection["checkpoint"]["checkpoint"]
    (group,) = groups(run.scores(name, "validation"), run.likelihood(), run.metrics, run.study.seed)
    by_poem = group.measured.by_poem["chrf"]
    place = int(group.measured.value["chrf"].argmax())
    level = joint_level(by_poem.T, run.study.seed)
    low = min(mean_interval(by_poem[:, place], level)[0], selection["corrected"]["value"])
    assert selection["corrected"]["low"] == pytest.approx(float(low))
    assert selection["corrected"]["low"] < selection["validation"]["chrf"]["low"]
