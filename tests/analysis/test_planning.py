"""The size of a study: simulated pilots and studies whose truth is known, and hand formulas."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis import planning
from tangeval.analysis.hypothesis_tests import ERROR, family_tests, poems_needed, power_of, smallest_effect
from tangeval.analysis.planning import Asked, deviation, divisions
from tangeval.analysis.variance import by_poem
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study
from tangeval.results.folder import RunFolder
from tests.support.folders import NAME, make_results

MIXED, NOISE = 0.4**2, 1.0


def scores(
    generator: np.random.Generator, settings: int, poems: int, samples: int, shared: float = 0.7
) -> np.ndarray:
    """Scores ``[settings, poems, samples]``: poems, what they make of a setting, shared noise and noise."""
    shapes = ((1, poems, 1), (settings, poems, 1), (1, poems, samples), (settings, poems, samples))
    drawn = (generator.normal(size=shape) for shape in shapes)
    return sum(sd * values for sd, values in zip((1.5, MIXED**0.5, shared, NOISE**0.5), drawn, strict=True))


#: What a pilot without error says: all poems are alike.
EXACT = (np.full(50, MIXED), np.full(50, NOISE))


def planned(effect: float, poems: int, samples: int, parts=EXACT, **asked) -> dict[str, dict]:
    """The divisions by name; ``poems`` and ``samples`` are the study's."""
    rows = divisions(parts, effect, (poems, samples), 64, Asked({}, **asked))
    return {row["division"]: row for row in rows}


def sd(samples: float) -> float:
    return math.sqrt(2 * (MIXED + NOISE / samples))


@pytest.mark.parametrize("shared", [True, False])
def test_what_poems_differ_by_is_right_on_average(shared):
    generator = np.random.default_rng(0)
    tables = (scores(generator, 5, 15, 3, shared=0.7 * shared) for _ in range(300))
    found = np.mean([by_poem(y, shared) for y in tables], axis=(0, 2))
    assert found == pytest.approx([MIXED, NOISE], abs=0.02)


def test_of_two_settings_it_is_the_variance_of_their_difference():
    y = scores(np.random.default_rng(1), 2, 15, 4)
    mixed, noise = by_poem(y, shared=True)
    means = y.mean(axis=-1)
    assert 2 * (mixed + noise / 4).mean() == pytest.approx((means[0] - means[1]).var(ddof=1))


def test_four_pilots_of_five_are_below_the_limit_of_their_spread():
    generator = np.random.default_rng(2)
    found = [deviation(by_poem(scores(generator, 5, 15, 2), shared=True), 1) for _ in range(400)]
    assert np.mean(np.array(found) >= sd(1)) == pytest.approx(0.8, abs=0.08)


def test_studies_of_the_planned_size_show_the_effect():
    """Each by a pilot of its own: planned, run and tested."""
    generator, shown = np.random.default_rng(3), []
    for _ in range(200):
        parts = by_poem(scores(generator, 6, 30, 2), shared=True)
        cheapest = planned(0.4, 1000, 2, parts)["cheapest"]
        study = scores(generator, 2, cheapest["poems"], cheapest["samples"]).mean(axis=-1)
        shown.append(family_tests([study[1] - study[0] + 0.4], 0).p[0] <= ERROR)
    assert np.mean(shown) >= 0.78


@pytest.mark.parametrize("cost", [0, 2, 4, 16])
def test_the_cheapest_division_is_that_of_the_formula(cost):
    """S* = √(cost × noise / what samples do not lower): Cochran, *Sampling Techniques*, 1977, section 10.6."""
    found = planned(0.02, 10**6, 1, poem_cost=cost)["cheapest"]
    assert found["samples"] == max(1, round(math.sqrt(cost * NOISE / MIXED)))


def test_where_the_split_is_small_samples_take_the_place_of_poems():
    rows = planned(0.2, 120, 2)
    assert list(rows) == ["cheapest", "cheapest in the split", "as declared"]
    cheapest, inside, declared = rows.values()
    assert (cheapest["samples"], cheapest["poems"]) == (1, poems_needed(sd(1), 0.2))
    assert inside["poems"] <= 120 < poems_needed(sd(inside["samples"] - 1), 0.2) < cheapest["poems"]
    assert inside["power"] == pytest.approx(0.8, abs=0.01)
    assert inside["smallest_effect"] <= 0.2
    assert declared["power"] == power_of(sd(2), 0.2, 120)
    assert declared["smallest_effect"] > 0.2


def test_where_no_number_of_samples_suffices_all_poems_are_told():
    found = planned(0.1, 30, 2)["all poems"]
    assert found["poems"] == 30
    assert found["power"] < 0.8
    # More samples would gain 5 % at most, one less would miss more.
    enough = smallest_effect(sd(64), 30) * 1.05
    assert found["smallest_effect"] <= enough < smallest_effect(sd(found["samples"] - 1), 30)


def test_too_few_poems_show_nothing():
    declared = planned(5.0, 4, 2)["as declared"]
    assert (declared["power"], declared["smallest_effect"]) == (0.0, math.inf)


def test_a_family_needs_more():
    assert planned(0.2, 1000, 1, family=10)["cheapest"]["poems"] == poems_needed(sd(1), 0.2, family=10)


CHECKPOINTS = (NAME, "checkpoint-20")
STUDY = {
    "name": "small", "splits": ["validation"], "samples": 2, "select": None,
    "decoding": {"temperature": [0.0, 1.0], "top_p": [0.6, 1.0], "max_length": [18]},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A pilot of base and two checkpoints."""
    folder = tmp_path_factory.mktemp("pilot")
    make_results(folder, names=("base", *CHECKPOINTS), **STUDY)
    return folder


def plan(pilot: Path, effects: dict[str, float], **changes) -> pd.DataFrame:
    return planning.plan(Study.model_validate(STUDY | changes), Asked(effects, pilot))


def test_a_plan_is_of_settings_of_one_checkpoint_and_of_checkpoints_without_base(run):
    frame = plan(run, {"chrf": 5.0, "form": 0.2}, samples=3)
    assert set(zip(frame["metric"], frame["between"], strict=True)) == {
        (metric, between) for metric in ("chrf", "form") for between in ("two settings", "two checkpoints")
    }
    rows = pd.concat(RunFolder(run).scores(split="validation"))
    rows = rows[rows["checkpoint"].isin(CHECKPOINTS)]
    table = rows.pivot_table("chrf", ["checkpoint", "temperature", "top_p"], ["example_id", "sample"])
    y = table.to_numpy().reshape(2, -1, 30, 2)
    declared = frame[(frame["division"] == "as declared") & (frame["metric"] == "chrf")]
    for between, values in (("two settings", y), ("two checkpoints", y.mean(axis=1))):
        (row,) = declared[declared["between"] == between].to_dict("records")
        assert (row["poems"], row["samples"]) == (30, 3)
        assert row["power"] == pytest.approx(power_of(deviation(by_poem(values, shared=True), 3), 5.0, 30))


@pytest.mark.parametrize(
    ("metric", "size", "message"),
    [
        (
            "bleu",
            0.1,
            "--effect bleu: no plan can be made by it: .*near its floor.*; such means are chrf, form",
        ),
        ("unique", 0.1, "--effect unique: no plan"),
        ("reference_nll", 0.1, "--effect reference_nll: no plan"),
        ("blue", 0.1, "--effect blue is no metric; there are bleu"),
        ("form", 0.0, "--effect form=0: give 1e-06 or more"),
    ],
)
def test_an_effect_without_a_plan_is_refused(run, metric, size, message):
    with pytest.raises(TangevalError, match=message):
        plan(run, {metric: size})


def test_a_pilot_that_says_nothing_is_refused(run, tmp_path):
    with pytest.raises(TangevalError, match="on test it has 0 examples"):
        plan(run, {"form": 0.05}, splits=["test"])
    make_results(tmp_path, **STUDY | {"samples": 1})
    with pytest.raises(TangevalError, match=r"30 examples × 1 samples.*; a pilot has 2 examples, 2 samples"):
        plan(tmp_path, {"form": 0.05})
