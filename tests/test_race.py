"""Successive halving: what it runs, what it chooses, and that it goes on where it was cut off."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tangeval import generate, plan, race, score, select, summarize
from tangeval.progress import Decoding
from tangeval.records import TangevalError
from tangeval.stats import spent, successive_halving
from tangeval.study import load_study

STUDY = """
name: tiny
base_model: {base}
checkpoints: {run}
data: sample
decoding: {{temperature: [0.3, 0.7, 1.0], top_k: [0, 5], top_p: [0.6, 1.0], max_length: 12}}
samples: {{validation: 4, test: 2}}
select: {{cell: {{by: chrf, require: {{prosody_known: ">= 0.0"}}}}}}
"""


def by_values(values):
    """Rank cells by the mean of the samples that they have: ``values`` is ``[cells, samples]``."""
    return lambda places, have: sorted(places, key=lambda place: -values[place, :have].mean())


def test_cells_halve_and_samples_double_until_all_are_there():
    values = np.random.default_rng(0).normal(size=(90, 8))
    rounds = successive_halving(90, 8, by_values(values))
    assert [(len(r.cells), r.samples, len(r.kept)) for r in rounds] == [
        (90, 1, 45), (45, 2, 23), (23, 4, 12), (12, 8, 1)
    ]  # fmt: skip
    assert spent(rounds) == 90 + 45 + 23 * 2 + 12 * 4


def test_a_cell_that_is_best_in_every_sample_wins():
    values = np.random.default_rng(1).normal(size=(17, 5))
    values[11] += 9
    rounds = successive_halving(17, 5, by_values(values))
    assert rounds[-1].kept == (11,)
    assert rounds[-1].samples <= 5


@pytest.mark.parametrize(("cells", "samples"), [(1, 8), (5, 1), (2, 2)])
def test_few_cells_or_samples_are_a_race_too(cells, samples):
    values = np.arange(cells)[:, None] + np.zeros(samples)
    rounds = successive_halving(cells, samples, by_values(values))
    assert rounds[-1].kept == (cells - 1,)
    assert spent(rounds) <= cells * samples


@pytest.fixture
def study_file(tiny_model, tiny_run, tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY.format(base=tiny_model, run=tiny_run))
    return file


@pytest.fixture
def decoded(monkeypatch):
    """How many outputs of each (checkpoint, split) were decoded."""
    made: Counter[tuple[str, str]] = Counter()
    original = generate.run_wave

    def run(setup, wave, *rest):
        frame = original(setup, wave, *rest)
        made.update(zip(frame["checkpoint"], frame["split"], strict=True))
        return frame

    monkeypatch.setattr(generate, "run_wave", run)
    return made


def run(file: Path, folder: Path, *overrides: str):
    return race.race(
        plan.resolve(load_study(file, overrides)), folder, lambda what, n: Decoding(Console(quiet=True), n)
    )


def test_a_race_runs_what_it_says_and_a_second_one_nothing(study_file, tmp_path, decoded):
    result = run(study_file, tmp_path / "race")
    assert [tuple(r.values()) for r in result["rounds"]] == [(12, 1), (6, 2), (3, 4)]
    assert (result["spent"], result["whole"]) == (12 + 6 + 3 * 2, 48)
    own = result["checkpoint"]
    assert decoded[own, "validation"] == 30 * (result["spent"] + 1)  # one more cell said which checkpoint
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
    setup = plan.resolve(load_study(study_file))
    generate.generate(setup, tmp_path / "whole")
    score.score(setup.study, setup.dataset, tmp_path / "whole")
    cells = summarize.summarize(tmp_path / "whole", setup.study.seed).cells
    assert select.select(setup.study, tmp_path / "whole")["checkpoint"]["checkpoint"] == result["checkpoint"]
    own = cells[(cells["checkpoint"] == result["checkpoint"]) & (cells["split"] == "validation")]
    for knob in ("temperature", "top_k", "top_p"):
        own = own[own[knob] == result["cell"][knob]]
    (row,) = own.itertuples()
    assert result["validation"]["chrf"]["value"] == pytest.approx(row.chrf)
    assert result["validation"]["chrf"]["low"] == pytest.approx(row.chrf_low)


def test_cells_that_meet_what_is_required_come_first(study_file, tmp_path):
    result = run(study_file, tmp_path / "a", "select.cell.require={unique: '>= 0.9'}")
    assert result["validation"]["unique"]["value"] >= 0.9
    with pytest.raises(TangevalError, match=r"does not meet .*form.*ask for less"):
        run(study_file, tmp_path / "b", "select.cell.require={form: '> 1'}")


@pytest.mark.parametrize(
    ("override", "message"),
    [("select=null", "nothing to race for"), ("select.checkpoint=bleu", "a race wants reference_nll")],
)
def test_what_cannot_be_raced_for_is_refused(study_file, tmp_path, override, message):
    with pytest.raises(TangevalError, match=message):
        run(study_file, tmp_path / "race", override)


def test_only_points_of_the_grid_can_be_asked_for(study_file):
    chosen = load_study(study_file, ["decoding.only=[[0.3, 5, 1.0, 12]]"]).decoding.cells()
    assert [(c.temperature, c.top_k) for c in chosen] == [(0.3, 5)]
    with pytest.raises(TangevalError, match=r"only: \[0.4, 5, 1.0, 12\] is no point of the grid"):
        load_study(study_file, ["decoding.only=[[0.4, 5, 1.0, 12]]"])
