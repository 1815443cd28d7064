"""Every knob of the list reaches all that is made of settings; one that is off leaves no trace."""

import json
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tangeval import api
from tangeval.analysis.select import generation_config
from tangeval.core.config import validated
from tangeval.core.knobs import AXES, COMMON, COMMON_AXES, KNOB, KNOBS, WIDE, Setting, axes_set, spelt
from tangeval.core.study import Decoding, load_study
from tangeval.decoding import sampler
from tangeval.engines.completions import DIALECTS
from tangeval.explain.subject import Asked
from tests.support.study import MIXED, write_study

#: A value of each knob that changes something.
ON = {
    "top_n_sigma": 1.0, "top_h": 0.4, "top_h_whole": 0.5, "min_p": 0.1, "typical_p": 0.5, "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01, "p_less": 1, "repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5,
}  # fmt: skip
CUTS = [name for name in ON if KNOB[name].kind == "cut"]


@pytest.mark.parametrize(
    "knob", [knob for knob in KNOBS if knob.name not in COMMON], ids=lambda knob: knob.name
)
def test_a_knob_that_is_off_is_in_no_file(knob):
    assert knob.default == knob.off
    off, none = (
        validated(Decoding, content, Path("study.yaml")) for content in ({knob.name: [knob.off]}, {})
    )
    assert off.model_dump() == none.model_dump()
    assert off.axes == COMMON_AXES
    assert axes_set(off.settings()) == COMMON


@pytest.mark.parametrize("name", ON)
def test_a_knob_reaches_study_plan_and_servers(name):
    grid = validated(Decoding, {name: [KNOB[name].off, ON[name]], "temperature": 0.7}, Path("study.yaml"))
    assert grid.model_dump()[name] == [KNOB[name].off, ON[name]]
    axes, points = spelt(grid.settings(), grid.wide(WIDE))
    assert axes == tuple(axis for axis in AXES if axis in (*COMMON_AXES, name)) == grid.axes
    again = [Setting.of(**dict(zip(axes, point, strict=True))) for point in points]
    assert (
        tuple(again)
        == grid.settings()
        == tuple(map(Setting.from_row, (s.as_dict(grid.columns) for s in again)))
    )
    (on,) = (setting for setting in again if getattr(setting, name) == ON[name])
    with nullcontext() if KNOB[name].hf else pytest.warns(UserWarning, match=f"transformers has no {name}"):
        config = generation_config(on.as_dict(grid.columns))
    assert config.get(KNOB[name].hf) == (ON[name] if KNOB[name].hf else None)
    for dialect in DIALECTS.values():
        body = dialect.body(on.as_dict(), 1, 1)
        own = json.loads(body.get("generation_config", "{}"))
        assert (ON[name] in (body.get(KNOB[name].openai), own.get(KNOB[name].hf))) == (name in dialect.takes)


def test_a_dry_run_on_a_gpu_says_what_its_kernel_does_not_draw(monkeypatch):
    monkeypatch.setattr(sampler, "SUPPORTS", [name for name in CUTS if name != "typical_p"])
    _, _, takes = api.dry_run(
        "studies/quickstart.yaml", "checkpoints=[]", "decoding.temperature=0.7", "decoding.typical_p=[1,0.9]",
        "decoding.top_k=0", "decoding.top_p=1.0", "decoding.max_length=8",
    )  # fmt: skip
    assert "1 of 2 settings have a cut that the GPU's kernel does not make" in takes


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A study with a setting for each cut, decoded by the base model."""
    points = [{name: KNOB[name].off for name in CUTS} | {"temperature": 0.7}]
    points += [points[0] | {name: ON[name]} for name in CUTS]
    folder = tmp_path_factory.mktemp("knobs")
    content = yaml.safe_load(load_study("studies/quickstart.yaml").to_yaml())
    content |= {"name": "knobs", "checkpoints": [], "samples": 1, "splits": ["validation", "test"]}
    content["decoding"] = {name: [KNOB[name].off, ON[name]] for name in CUTS}
    content["decoding"] |= {"temperature": [0.7], "max_length": [8], "only": points}
    content["select"] = {"checkpoint": "reference_nll", "setting": {"by": "chrf"}}
    file = folder / "knobs.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True))
    options = api.Options(out=str(folder / "made"))
    results = api.run(file, options=options)
    asked = Asked("1", knobs=("temperature=0.7", "max_length=4"))
    return results, api.explain(file, asked=asked, options=api.Options(out=str(folder / "made")))[1]


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_reaches_tables_pictures_page_and_explain(name, made):
    results, explained = made
    run = results.run
    for table in ("summary", "effects"):
        assert name in run.table(table).read_text()
    summary = pd.read_csv(run.table("summary"))
    assert set(summary[name].dropna()) == {KNOB[name].off, ON[name]}
    assert name in (run.tables / "best_settings.md").read_text()
    assert (run.figures / f"{name}_validation.png").is_file()
    assert name in run.selection["setting"]
    assert f'"name": "{name}"' in run.page.read_text() or f'"name":"{name}"' in run.page.read_text()
    (turn,) = [turn for turn in explained.knobs if turn.name == name]
    assert {explained.settings[place].knobs[name] for place in turn.settings} == {KNOB[name].off, ON[name]}


@pytest.fixture(scope="module")
def mixed(tiny_model, tmp_path_factory):
    """A study of these, of two poems; what is chosen must hold the form."""
    return write_study(
        tmp_path_factory.mktemp("mixed"), tiny_model, data={"path": "sample", "validation": 2}, checkpoints=[],
        splits=["validation"], decoding=MIXED,
        select={"checkpoint": "reference_nll", "setting": {"by": "chrf", "require": {"form": "> 0.9"}}},
    )  # fmt: skip


def test_knobs_of_all_kinds_are_summarised_apart_and_chosen_together(mixed, tmp_path):
    with pytest.warns(UserWarning, match="transformers has no constrain"):
        run = api.run(mixed, options=api.Options(out=str(tmp_path / "made"))).run
    summary = pd.read_csv(run.table("summary")).query("checkpoint == 'base'")
    assert len(summary) == 9
    assert (summary.form == (summary.constrain == "form")).all()  # a random model holds none by itself
    effects = pd.read_csv(run.table("effects")).query("checkpoint == 'base'").set_index(["knob", "value"])
    for name in ("min_p", "repetition_penalty", "num_beams", "constrain"):
        own = effects.loc[name].form
        assert {KNOB[name].type(value) for value in own.index} == set(MIXED[name])
        for value, form in own.items():
            assert form == summary[summary[name] == KNOB[name].type(value)].form.mean()
    variance = pd.read_csv(run.table("variance")).query("metric == 'form'").set_index("term").share
    assert variance["setting"] > 0.9
    chosen = run.selection["setting"]
    assert chosen["constrain"] == "form"
    config = json.loads(run.generation_config.read_text())
    assert config.get("num_beams", 1) == chosen["num_beams"]
    assert config.get("repetition_penalty", 1.0) == chosen["repetition_penalty"]


def test_knobs_of_all_kinds_are_halved(mixed, tmp_path):
    with pytest.warns(UserWarning, match="transformers has no constrain"):
        result, folder = api.halving(mixed, options=api.Options(out=str(tmp_path)))
    assert [(each["settings"], each["samples"]) for each in result["rounds"]] == [(9, 1), (5, 2)]
    assert result["setting"]["constrain"] == "form"
    config = json.loads((folder / "generation_config.json").read_text())
    assert config.get("repetition_penalty", 1.0) == result["setting"]["repetition_penalty"]
