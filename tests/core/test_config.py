"""Newcomers' slips, answered with what was meant."""

import copy
import shutil

import pytest
import yaml

from finetune.config import Config
from tangeval.core.config import validated
from tangeval.core.errors import TangevalError
from tangeval.core.study import SHIPPED, Study, load_study
from tangeval.tasks.declared.schema import Declared

SLIPS = [
    ("temperature=0.7", "did you mean decoding.temperature?"),
    ("max_new_tokens=9", "did you mean decoding.max_length?"),
    ("checkpoint=x", "did you mean checkpoints?"),
    ("decoding.temperature=0,7", "a point, not a comma: 0.7"),
    ("decoding.top_k=5, 50", "a list: '[5, 50]'"),
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


WHOLE = {
    Study: {
        "name": "a", "data": {"path": "x"}, "load": {}, "decoding": {}, "engine": {"kind": "local"},
        "select": {"setting": {}, "within": {"form": 1}},
    },
    Config: {"output_dir": "x", "lora": {}, "load": {}},
    Declared: {
        "name": "a", "data": {"train": "x", "test": 1}, "fields": {"prompt": "a", "reference": "b"}, "metrics": ["bleu"],
        "text": {}, "judge": {},
    },
}  # fmt: skip


def keys(section, content, schema):
    """The way to each key of a section, and of those that ``content`` has."""
    for name, value in section["properties"].items():
        yield (name,)
        refs = [kind["$ref"] for kind in (value, *value.get("anyOf", ())) if "$ref" in kind]
        for ref in refs if isinstance(content.get(name), dict) else ():
            inner = keys(schema["$defs"][ref.rpartition("/")[2]], content[name], schema)
            yield from ((name, *way) for way in inner)


@pytest.mark.parametrize("given", [{"odd": [6]}, [["odd"]], None, "odd"])
@pytest.mark.parametrize("model", WHOLE)
def test_a_value_of_another_form_is_answered_with_one_that_is_right(model, given):
    """Every key of every file, and the one that is shown is taken."""
    told = set()
    for way in keys(schema := model.model_json_schema(), WHOLE[model], schema):
        content = copy.deepcopy(WHOLE[model])
        section = content
        for name in way[:-1]:
            section = section[name]
        section[way[-1]] = given
        try:
            validated(model, content, "file.yaml")
        except TangevalError as error:
            said = str(error).splitlines()[0]
            assert said.startswith(f"file.yaml: {'.'.join(way)}"), said
            _, wrong, right = said.partition(" has the wrong form; write it as ")
            if wrong:
                told.add(way)
                section |= yaml.safe_load(right)
                assert validated(model, content, "file.yaml"), said
    assert told


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
