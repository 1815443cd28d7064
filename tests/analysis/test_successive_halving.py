"""Successive halving: what it runs, what it chooses, and that it goes on where it was cut off."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tangeval import generation as generate
from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize
from tangeval.analysis import successive_halving as race
from tangeval.analysis.stats import spent, successive_halving
from tangeval.cli.progress import Decoding, SafeConsole
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.resolve import resolve
from tangeval.results.folder import RunFolder

STUDY = """
name: tiny
base_model: {base}
checkpoints: {run}
data: sample
decoding: {{temperature: [0.3, 0.7, 1.0], top_k: [0, 5], top_p: [0.6, 1.0], max_length: 12}}
samples: {{validation: 4, test: 2}}
select: {{setting: {{by: chrf, require: {{prosody_known: ">= 0.0"}}}}}}
"""


def by_values(values):
    """Rank settings by the mean of the samples that they have: ``values`` is ``[settings, samples]``."""
    return lambda places, have: sorted(places, key=lambda place: -values[place, :have].mean())


def test_settings_halve_and_samples_double_until_all_are_there():
    values = np.random.default_rng(0).normal(size=(90, 8))
    rounds = successive_halving(90, 8, by_values(values))
    assert [(len(r.settings), r.samples, len(r.kept)) for r in rounds] == [
        (90, 1, 45), (45, 2, 23), (23, 4, 12), (12, 8, 1)
    ]  # fmt: skip
    assert spent(rounds) == 90 + 45 + 23 * 2 + 12 * 4


def test_a_setting_that_is_best_in_every_sample_wins():
    values = np.random.default_rng(1).normal(size=(17, 5))
    values[11] += 9
    rounds = successive_halving(17, 5, by_values(values))
    assert rounds[-1].kept == (11,)
    assert rounds[-1].samples <= 5


@pytest.mark.parametrize(("settings", "samples"), [(1, 8), (5, 1), (2, 2)])
def test_few_settings_or_samples_are_a_race_too(settings, samples):
    values = np.arange(settings)[:, None] + np.zeros(samples)
    rounds = successive_halving(settings, samples, by_values(values))
    assert rounds[-1].kept == (settings - 1,)
    assert spent(rounds) <= settings * samples


@pytest.fixture
def study_file(tiny_model, tiny_run, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
    return file


@pytest.fixture
def decoded(monkeypatch):
    """How many outputs of each (checkpoint, split) were decoded."""
    made: Counter[tuple[str, str]] = Counter()
    original = generate.run_batch

    def run(resolved, batch, *rest):
        frame = original(resolved, batch, *rest)
        made.update(zip(frame["checkpoint"], frame["split"], strict=True))
        return frame

    monkeypatch.setattr(generate, "run_batch", run)
    return made


def run(file: Path, folder: Path, *overrides: str):
    return race.race(
        resolve(load_study(file, overrides)),
        folder,
        lambda what, pending: Decoding(SafeConsole(quiet=True), pending.sequences),
    )


def test_a_race_runs_what_it_says_and_a_second_one_nothing(study_file, tmp_path, decoded):
    result = run(study_file, tmp_path / "race")
    assert [tuple(r.values()) for r in result["rounds"]] == [(12, 1), (6, 2), (3, 4)]
    assert (result["spent"], result["whole"]) == (12 + 6 + 3 * 2, 48)
    own = result["checkpoint"]
    assert decoded[own, "validation"] == 30 * (result["spent"] + 1)  # one more setting said which checkpoint
    assert decoded[own, "test"] == 15 * 2
    assert {split for _, split in decoded} == {"validation", "test"}
    assert json.loads((tmp_path / "race" / "race.json").read_text()) == json.loads(json.dumps(result))
    before = (tmp_path / "race" / "race.json").read_bytes()
    decoded.clear()
    run(study_file, tmp_path / "race")
    assert not decoded
    assert (tmp_path / "race" / "race.json").read_bytes() == before


def test_the_winner_is_worth_what_the_whole_grid_says_it_is(study_file, tmp_path):
    result = run(study_file, tmp_path / "race")
    resolved = resolve(load_study(study_file))
    generate.generate(resolved, tmp_path / "whole")
    score.score(resolved.study, resolved.dataset, tmp_path / "whole")
    settings = summarize.summarize(RunFolder(tmp_path / "whole"), resolved.study.seed).settings
    assert (
        select.select(resolved.study, RunFolder(tmp_path / "whole"))["checkpoint"]["checkpoint"]
        == result["checkpoint"]
    )
    own = settings[(settings["checkpoint"] == result["checkpoint"]) & (settings["split"] == "validation")]
    for knob in ("temperature", "top_k", "top_p"):
        own = own[own[knob] == result["setting"][knob]]
    (row,) = own.itertuples()
    assert result["validation"]["chrf"]["value"] == pytest.approx(row.chrf)
    assert result["validation"]["chrf"]["low"] == pytest.approx(row.chrf_low)


def test_settings_that_meet_what_is_required_come_first(study_file, tmp_path):
    result = run(study_file, tmp_path / "a", "select.setting.require={unique: '>= 0.9'}")
    assert result["validation"]["unique"]["value"] >= 0.9
    with pytest.raises(TangevalError, match=r"does not meet .*form.*ask for less"):
        run(study_file, tmp_path / "b", "select.setting.require={form: '> 1'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [("select=null", "nothing to race for"), ("select.checkpoint=bleu", "a race wants reference_nll")],
)
def test_what_cannot_be_raced_for_is_refused(study_file, tmp_path, override, message):
    with pytest.raises(TangevalError, match=message):
        run(study_file, tmp_path / "race", override)


def test_only_points_of_the_grid_can_be_asked_for(study_file):
    chosen = load_study(
        study_file, ["decoding.only=[{temperature: 0.3, top_k: 5, top_p: 1.0, max_length: 12}]"]
    ).decoding.settings()
    assert [(c.temperature, c.top_k) for c in chosen] == [(0.3, 5)]
    with pytest.raises(TangevalError, match=r"only: \[0.4, 5, 1.0, 12\] is no point of the grid"):
        load_study(study_file, ["decoding.only=[{temperature: 0.4, top_k: 5, top_p: 1.0, max_length: 12}]"])
