"""Successive halving: what it runs, what it chooses, and that it goes on where it was cut off."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tangeval import generation as generate
from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize
from tangeval.analysis.race import spent, successive_halving
from tangeval.analysis.successive_halving import halve
from tangeval.core.errors import TangevalError
from tangeval.core.study import Decoding, load_study
from tangeval.engines import ENGINES
from tangeval.engines.base import Done, Job, OnProgress
from tangeval.engines.local import LocalEngine
from tangeval.models import adapters
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
def test_few_settings_or_samples_are_halved_too(settings, samples):
    values = np.arange(settings)[:, None] + np.zeros(samples)
    rounds = successive_halving(settings, samples, by_values(values))
    assert rounds[-1].kept == (settings - 1,)
    assert spent(rounds) <= settings * samples


@pytest.fixture
def study_file(tiny_model, tiny_run, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
    return file


class Counting(LocalEngine):
    """The local engine, which keeps what it did."""

    done: ClassVar[list[Done]] = []

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        for done in super().run(jobs, on_progress):
            self.done.append(done)
            yield done


@pytest.fixture
def done(monkeypatch):
    """What engines did, job by job."""
    monkeypatch.setitem(ENGINES, "local", f"{__name__}:Counting")
    Counting.done.clear()
    return Counting.done


def outputs(done: list[Done]) -> Counter[tuple[str, str]]:
    """How many outputs of each (checkpoint, split) were decoded."""
    frames = [each.made for each in done if each.job.batch]
    return Counter(pair for frame in frames for pair in zip(frame["checkpoint"], frame["split"], strict=True))


def run(file: Path, folder: Path, *overrides: str):
    return halve(
        resolve(load_study(file, overrides)), folder, lambda what, pending: nullcontext(lambda *_: None)
    )


def test_it_runs_what_it_says_and_a_second_one_nothing(study_file, tmp_path, done):
    result = run(study_file, tmp_path / "halving")
    assert [tuple(r.values()) for r in result["rounds"]] == [(12, 1), (6, 2), (3, 4)]
    assert (result["spent"], result["whole"]) == (12 + 6 + 3 * 2, 48)
    own, decoded = result["checkpoint"], outputs(done)
    assert result["spent_on_correction"] > 0
    # Nothing for the choice of the checkpoint.
    assert decoded[own, "validation"] == 30 * (result["spent"] + result["spent_on_correction"])
    assert decoded[own, "test"] == 15 * 2
    assert set(decoded) == {(own, "validation"), (own, "test")}
    assert sum(each.loading is not None for each in done) == 1  # one engine, one base model for all rounds
    assert json.loads((tmp_path / "halving" / "halving.json").read_text()) == json.loads(json.dumps(result))
    before = (tmp_path / "halving" / "halving.json").read_bytes()
    done.clear()
    run(study_file, tmp_path / "halving")
    assert not outputs(done)
    assert (tmp_path / "halving" / "halving.json").read_bytes() == before


def test_the_winner_is_worth_what_the_whole_grid_says_it_is(study_file, tmp_path):
    result = run(study_file, tmp_path / "halving")
    resolved = resolve(load_study(study_file))
    generate.decode(resolved, tmp_path / "whole")
    score.score(resolved.study, resolved.dataset, tmp_path / "whole")
    settings = summarize.summarize(RunFolder(tmp_path / "whole")).settings
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


def test_a_full_model_that_wins_is_loaded_once(tiny_model, tmp_path, monkeypatch):
    """As the base model is for adapters; each round and the test split loaded it anew."""
    loaded, load = [], adapters.load_model
    monkeypatch.setattr(adapters, "load_model", lambda base, how: loaded.append(base.name) or load(base, how))
    file = tmp_path / "full.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_model) + "include_base: false\n")
    result = run(file, tmp_path / "halving")
    assert len(result["rounds"]) > 1
    assert loaded == [result["checkpoint"]]


def test_the_corrected_value_lies_in_its_interval(study_file, tmp_path):
    result = run(study_file, tmp_path / "halving")
    found = result["corrected"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["low"] < result["validation"]["chrf"]["low"]  # it holds after selection


def test_settings_that_meet_what_is_required_come_first(study_file, tmp_path):
    result = run(study_file, tmp_path / "a", "select.setting.require={unique: '>= 0.9'}")
    assert result["validation"]["unique"]["value"] >= 0.9
    with pytest.raises(TangevalError, match=r"does not meet .*form.*ask for less"):
        run(study_file, tmp_path / "b", "select.setting.require={form: '> 1'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select=null", "nothing to look for"),
        ("select.checkpoint=bleu", "successive halving wants reference_nll"),
    ],
)
def test_what_takes_the_whole_grid_is_refused(study_file, tmp_path, override, message):
    with pytest.raises(TangevalError, match=message):
        run(study_file, tmp_path / "halving", override)


def test_only_points_of_the_grid_can_be_asked_for(study_file):
    chosen = load_study(
        study_file, ["decoding.only=[{temperature: 0.3, top_k: 5, top_p: 1.0, max_length: 12}]"]
    ).decoding.settings()
    assert [(c.temperature, c.top_k) for c in chosen] == [(0.3, 5)]
    with pytest.raises(TangevalError, match=r"only: .*'temperature': 0.4.* is no point of the grid"):
        load_study(study_file, ["decoding.only=[{temperature: 0.4, top_k: 5, top_p: 1.0, max_length: 12}]"])


def test_many_points_of_a_grid_are_checked_at_once():
    """As many as the study of a halving's first round has."""
    axes = {
        "temperature": [n / 50 for n in range(1, 51)],
        "top_k": list(range(10)),
        "top_p": [n / 10 for n in range(1, 11)],
    }
    points = [dict(zip(axes, point, strict=True)) for point in product(*axes.values())]
    began = time.perf_counter()
    decoding = Decoding(**axes, only=points)
    assert len(decoding.settings()) == 5000
    assert time.perf_counter() - began < 3
