"""Newcomers' slips, answered with what was meant."""

import shutil

import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.study import SHIPPED, load_study

SLIPS = [
    ("temperature=0.7", "did you mean decoding.temperature?"),
    ("max_new_tokens=9", "did you mean decoding.max_length?"),
    ("checkpoint=x", "did you mean checkpoints?"),
    ("decoding.temperature=0,7", "a point, not a comma: 0.7"),
    ("decoding.temperature=[0.7, 1.2", "a bracket is missing"),
    ("select.setting.require={form: > 0.5}", """'select.setting.require={form: "> 0.5"}'"""),
    ("name=my study", "such as my-study"),
    ("data.validation=2", "'data={path: sample, validation: 2}'"),
]


@pytest.mark.parametrize(("override", "said"), SLIPS)
def test_a_slip_is_answered_with_what_was_meant_in_one_line(override, said):
    with pytest.raises(TangevalError) as error:
        load_study(SHIPPED / "quickstart.yaml", [override])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_no_samples_is_one_problem():
    with pytest.raises(TangevalError, match=r"^[^\n]*samples: Input should be greater than or equal to 1$"):
        load_study(SHIPPED / "quickstart.yaml", ["samples=0"])


@pytest.mark.parametrize("name", ["quickstart", "quickstart.yaml"])
def test_a_bare_name_is_a_shipped_studys(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert load_study(name).name == "quickstart"


@pytest.mark.parametrize(
    "name", ["studies/quickstart.yml", "studies\\quickstart.yaml", "studies/quikstart.yaml"]
)
def test_a_name_that_is_nearly_right_is_answered_with_the_right_one(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    with pytest.raises(TangevalError, match=r"did you mean \S*quickstart\.yaml\? Looked for in"):
        load_study(name)


def test_a_folder_and_a_fine_tuning_configuration_are_named_as_such(tmp_path):
    with pytest.raises(TangevalError, match="is a folder; give a YAML file"):
        load_study(tmp_path)
    shutil.copy(SHIPPED / "quickstart.yaml", tmp_path / "study.yaml")
    with pytest.raises(TangevalError, match=r"a results folder; its study is \S+study\.yaml"):
        load_study(tmp_path)
    (tmp_path / "demo.yaml").write_text("base_model: tang-mini\noutput_dir: x\n")
    with pytest.raises(TangevalError, match=r"fine-tuning configuration: `python -m finetune"):
        load_study(tmp_path / "demo.yaml")
