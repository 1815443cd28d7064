"""Coherence: by likelihoods made up, and by tang-mini on a results folder."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS, Base
from tangeval.judge import coherence
from tangeval.judge.coherence import LocalJudge
from tangeval.models.checkpoints import identity
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tests.support.command import refusal, succeeds
from tests.support.folders import make_results

TANG_MINI = Base("tang-mini", str(ASSETS / "tang-mini"))


@pytest.fixture
def folder(tmp_path):
    """A results folder of 15 test poems; its base is no model of the package."""
    make_results(tmp_path / "small", ("base", "mine"), splits=["test"], select=None)
    return tmp_path


def run(folder, *options):
    settings = [f"--setting={knob}" for knob in ("temperature=0", "top_k=0", "top_p=1", "max_length=18")]
    done = succeeds(folder, "coherence", "small", "--checkpoint", "mine", *settings, *options)
    return done, pd.read_csv(folder / "small" / "coherence.csv")


def test_it_is_the_mean_gain_over_other_inputs_in_nats_a_character():
    data = dataset.load("sample")
    example = data.split("test")[0]
    asked = []

    def nats(pairs):
        asked.extend(pairs)
        return [10.0, *range(14, 22)]

    # Eight others of 14 to 21 nats have the mean 17.5.
    assert coherence.coherence(TANG, data, example, "明月，清泉。", LocalJudge("m", "f", nats)) == 7.5 / 4
    assert asked == [(c, "明月，清泉。") for c in (example.input, *TANG.others(data, example, 8))]
    assert coherence.coherence(TANG, data, example, "no verse", LocalJudge("m", "f", nats)) == 0
    with pytest.raises(TangevalError, match="task: tang has no `others`"):
        coherence.coherence(replace(TANG, others=None), data, example, "明月", LocalJudge("m", "f", nats))


def test_poets_follow_their_couplets_and_random_endings_do_not(folder):
    done, table = run(folder)
    means = table.groupby("checkpoint")["coherence"].mean()
    assert len(table) == 3 * 15
    assert means["reference"] > 0.2 > 0.1 > abs(means["random"])
    assert [row[0] for row in done.table()] == ["mine", "reference", "random"]
    assert [row[1] for row in done.table()] == ["tang-mini"] * 3
    assert not table["own_base"].any()
    assert "own base" not in done.out


def test_the_judges_own_fine_tunings_are_marked(folder, monkeypatch):
    monkeypatch.setattr(coherence, "OTHERS", 1)
    file = folder / "small" / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["base_model"]["fingerprint"] = identity(TANG_MINI)
    file.write_text(json.dumps(manifest))
    done, table = run(folder)
    assert set(table.loc[table["own_base"], "checkpoint"]) == {"mine"}
    assert [row[1] for row in done.table()] == ["its own base", "tang-mini", "tang-mini"]
    assert "tang-mini is these checkpoints' own base: do not rank them by this" in done.out


def test_a_judge_that_is_not_there_is_refused(folder):
    assert "base_model: nothing is not a shipped model" in refusal(
        folder, "coherence", "small", "--by", "nothing"
    )
