"""What is chosen on scores whose truth is made up, and how sure it is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from transformers import GenerationConfig

from tangeval.analysis import select
from tangeval.analysis.aggregate import Corpus, Measured, Part, corpus_scores, groups
from tangeval.analysis.hypothesis_tests import family_tests
from tangeval.analysis.intervals import mean_interval, resample_weights
from tangeval.analysis.selection_bias import joint_stretch
from tangeval.core.knobs import Setting
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


def stretch_of(by_poem: np.ndarray, seed: int) -> float:
    """Of settings' values by poem ``[P, C]``."""
    return joint_stretch(resample_weights(len(by_poem), seed) @ by_poem / len(by_poem), by_poem.mean(axis=0))


def test_p_values_of_the_runners_up_are_of_one_family(candidates):
    best, others = select.ranked(candidates, "chrf")
    rows = select.compared(best, others, "chrf")
    own = best.part.by_poem("chrf")
    theirs = family_tests([own - other.part.by_poem("chrf") for other in others], 0)
    for name, expected in (("p", theirs.p), ("p_adjusted", theirs.adjusted), ("difference_low", theirs.low)):
        assert [row[name] for row in rows] == pytest.approx(expected.tolist(), abs=1e-9)
    assert any(row["p_adjusted"] > 1.5 * row["p"] for row in rows)


def test_no_runner_up_that_cannot_be_told_has_a_joint_interval_off_zero():
    """Of 40 settings that differ in luck alone the best was picked: single intervals of many exclude 0."""
    by_poem = np.random.default_rng(2).normal(size=(20, 40))
    knobs, names = pd.DataFrame({"temperature": np.arange(40) / 10}), tuple(map(str, range(20)))
    measured = Measured(TANG.metrics, knobs, names, 1, {"chrf": by_poem.mean(axis=0)}, {"chrf": by_poem}, {})
    own = [select.Candidate({"place": place}, Part(measured, [place])) for place in range(40)]
    rows = select.compared(*select.ranked(own, "chrf"), "chrf")
    assert not any(row["distinguishable"] for row in rows)
    assert sum(row["difference_low"] > 0 for row in rows) == 10
    assert all(row["joint_low"] <= 0 <= row["joint_high"] for row in rows)
    assert all(
        row["joint_high"] - row["joint_low"] > row["difference_high"] - row["difference_low"] for row in rows
    )


def test_the_winners_interval_is_joint_on_the_side_that_noise_helped(candidates):
    best, _ = select.ranked(candidates, "chrf")
    corrected = select._corrected(best, candidates, "chrf", seed=5)
    own = best.part.by_poem("chrf")
    stretch = stretch_of(candidates[0].part.measured.by_poem["chrf"], 5)
    assert stretch > 1.2
    assert corrected["low"] == pytest.approx(max(mean_interval(own, stretch)[0], 0))
    assert corrected["low"] < mean_interval(own)[0]
    assert corrected["high"] == pytest.approx(mean_interval(own)[1])


def lucky(generator: np.random.Generator, settings: int, poems: int) -> Measured:
    """Settings alike by BLEU, near its floor: some poems' 4-grams match by luck."""
    lengths = np.array([20, 19, 18, 17, 20])
    counts = np.zeros((settings, poems, 2, 9), np.int32)
    longest = generator.poisson(
        [2.5, 0.25, 0.02, 0.003], (settings, poems, 2, 4)
    )  # of its n-grams that match
    counts[..., :4] = longest[..., ::-1].cumsum(axis=-1)[..., ::-1]
    counts[..., 4:] = lengths
    metric, own = TANG.metrics["bleu"], list(np.moveaxis(counts, -1, 0))
    corpus = Corpus(own, corpus_scores(metric, own, None))
    value = {"bleu": corpus_scores(metric, own, np.ones((1, poems)))[0]}
    names = tuple(map(str, range(poems)))
    return Measured(
        TANG.metrics, pd.DataFrame({"place": range(settings)}), names, 2, value, {}, {"bleu": corpus}
    )


def test_a_winner_by_bleu_is_worth_what_all_are_where_all_are_alike():
    """Of equal settings the winner's corrected value is their mean, and lies inside its own interval."""
    generator, found = np.random.default_rng(4), []
    for run in range(40):
        measured = lucky(generator, 12, 50)
        candidates = [select.Candidate({}, Part(measured, [place])) for place in range(12)]
        best, _ = select.ranked(candidates, "bleu")
        corrected = select._corrected(best, candidates, "bleu", seed=run)
        found.append([measured.value["bleu"].mean(), best.part.value("bleu"), corrected["value"]])
        if corrected["low"] is not None:
            assert corrected["low"] <= corrected["value"] <= corrected["high"]
    truth, naive, corrected = np.mean(found, axis=0)
    assert naive - truth > 0.2 * truth
    assert abs(corrected - truth) < 0.15 * (naive - truth)


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


def test_a_chosen_search_is_transformers_and_a_contrast_is_said_to_be_lost():
    setting = Setting.of(temperature=0, num_beams=4, length_penalty=2.0, contrast=0.5).as_dict()
    with pytest.warns(UserWarning, match=r"generation_config\.json: transformers has no contrast"):
        config = GenerationConfig(**select.generation_config(setting))
    assert (config.do_sample, config.num_beams, config.length_penalty) == (False, 4, 2.0)


def test_the_chosen_settings_interval_holds_after_selection(folder):
    """The interval in selection.json is the joint one, of all the settings of the chosen checkpoint."""
    selection = choose(folder)
    run = RunFolder(folder)
    name = selection["checkpoint"]["checkpoint"]
    (group,) = groups(run.scores(name, "validation"), run.likelihood(), run.metrics)
    by_poem = group.measured.by_poem["chrf"]
    place = int(group.measured.value["chrf"].argmax())
    stretch = stretch_of(by_poem, run.study.seed)
    low = min(mean_interval(by_poem[:, place], stretch)[0], selection["corrected"]["value"])
    assert selection["corrected"]["low"] == pytest.approx(float(low))
    assert selection["corrected"]["low"] < selection["validation"]["chrf"]["low"]
