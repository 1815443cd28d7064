import subprocess
from pathlib import Path

import pytest
import yaml

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, KNOB, Setting
from tangeval.core.study import SHIPPED, load_study
from tangeval.core.types import linked

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def study_file(tmp_path, text):
    file = tmp_path / "study.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_each_declared_study_is_valid_and_named_as_its_file(file):
    assert load_study(file).name == file.stem


def test_a_missing_study_is_answered_with_those_that_come_along():
    with pytest.raises(TangevalError, match=r"there is no file studies/nowhere\.yaml; .*grid\.yaml") as error:
        load_study(Path("studies/nowhere.yaml"))
    assert str(SHIPPED) in str(error.value)
    assert {file.name for file in SHIPPED.glob("*.yaml")} == {file.name for file in STUDIES}


def test_a_link_that_git_wrote_as_text_leads_to_the_studies(tmp_path):
    """As on Windows, unless developer mode is on."""
    root, link = Path(__file__).parents[2], "tangeval/assets/studies"
    if not (root / ".git").exists():
        pytest.skip("no clone")
    command = ["git", "-c", "core.symlinks=false", "checkout-index", f"--prefix={tmp_path}/", link]
    subprocess.run(command, cwd=root, check=True)
    assert (tmp_path / link).is_file()
    assert linked(tmp_path / link).resolve() == tmp_path / "studies"
    assert linked(root / link).samefile(root / "studies")


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("name: a\ncheckpoint: x", "checkpoint", "did you mean checkpoints?"),
        ("name: a\ndecoding: {temprature: 1}", "decoding.temprature", "did you mean temperature?"),
        ("name: a\ndecoding: {top_k: []}", "decoding.top_k", "at least 1 item"),
        ("name: a\ndecoding: {temperature: [-1]}", "decoding.temperature.0", "give 0.001 to 100, or 0"),
        ("name: a\ndecoding: {top_p: 0}", "decoding.top_p.0", "out of range; give 1e-06 to 1"),
        ("name: a\ndecoding: {top_p: 1.5}", "decoding.top_p.0", "out of range; give 1e-06 to 1"),
        ("name: a\ndecoding: {max_length: 0}", "decoding.max_length.0", "out of range; give 1 to 4096"),
        ("name: a\ndecoding: {temperature: .nan}", "decoding.temperature.0", "finite number"),
        (
            "name: a\ndecoding: {temperature: [0, 0.5], num_beams: [1, 4]}",
            "decoding",
            "beams with temperature: a search draws nothing; give temperature: 0, or name in only",
        ),
        ("name: a\ndecoding: {length_penalty: 2}", "decoding", "give num_beams: 2 or more, or leave it out"),
        ("name: a\ndecoding: {only: [{top_k: []}]}", "decoding.only.0.top_k", "at least 1 item"),
        ("name: a\ndecoding: {num_beams: 65}", "decoding.num_beams.0", "give 1 to 64"),
        ("name: a\ndecoding: {contrast: -0.5}", "decoding.contrast.0", "give 0 to 10"),
        ("name: a\nload: {quantization: nf3}", "load.quantization", "'none', 'nf4' or 'int8'"),
        ("name: a\nload: {quantization: int8, merge: true}", "load", "use quantization: nf4"),
        ("name: a\nsplits: [train]", "splits.0", "'validation' or 'test'"),
        ("name: a\nsplits: [test]", "", "select.split: validation is not among splits"),
        ("name: a\ndata: {path: x, validation: 0}", "", "0 leaves no validation split; say splits: [test]"),
        ("name: ../a", "name", "letters, digits"),
        ("name: a\ninclude_base: false", "", "there is nothing to run"),
        (
            "name: a\nselect: {setting: {require: {form: high}}}",
            "select.setting",
            "a comparison like '>= 0.5'",
        ),
        ("name: a\ncheckpoints: {hw5: []}", "checkpoints", "recipe hw5: a recipe is named by letters"),
        ("name: a\ncheckpoints: {'a:b': x}", "checkpoints", "recipe a:b: a recipe is named by letters"),
        ("name: a\ncheckpoints: {hw5: {a: x}}", "checkpoints.hw5", "write it as checkpoints: [runs/a, "),
        ("name: a\nsamples: {test: 2}", "", "one for each of splits"),
        ("[1, 2]", "", "expected a mapping"),
        ("name: [", "", "not a readable YAML"),
        ("base_model: x", "name", "required"),
    ],
)
def test_what_is_wrong_is_named_with_file_key_and_remedy(tmp_path, text, key, remedy):
    file = study_file(tmp_path, text)
    with pytest.raises(TangevalError) as error:
        load_study(file)
    assert f"{file}: {key}: " in str(error.value) if key else str(file) in str(error.value)
    assert remedy in str(error.value)


def test_a_scalar_stands_for_a_list_of_one(tmp_path):
    study = load_study(
        study_file(tmp_path, "name: a\ncheckpoints: x\ndecoding: {temperature: 0.5, top_k: 3}")
    )
    assert study.checkpoints == ["x"]
    recipes = load_study(study_file(tmp_path, "name: a\ncheckpoints: {hw5: x}"))
    assert recipes.checkpoints == {"hw5": ["x"]}
    assert study.decoding.settings() == (Setting.of(temperature=0.5, top_k=3, top_p=1.0, max_length=128),)


def test_the_grid_is_every_combination_once(tmp_path):
    study = load_study(study_file(tmp_path, "name: a\ndecoding: {temperature: [1, 0.5, 1.0], top_k: [0, 5]}"))
    settings = [(c.temperature, c.top_k) for c in study.decoding.settings()]
    assert settings == [(0.5, 0), (0.5, 5), (1, 0), (1, 5)]


def test_overrides_reach_into_sections_and_are_checked_like_the_file(tmp_path):
    file = study_file(tmp_path, "name: a\ndecoding: {temperature: [0.1, 0.2]}")
    study = load_study(file, ["decoding.temperature=0.9", "samples={validation: 2, test: 8}", "select=null"])
    assert study.decoding.temperature == [0.9]
    assert (study.samples_of("validation"), study.samples_of("test")) == (2, 8)
    with pytest.raises(TangevalError, match="key=value"):
        load_study(file, ["temperature"])
    with pytest.raises(TangevalError, match=r"^'decodin\.temperature=1': decodin: unknown key"):
        load_study(file, ["decodin.temperature=1"])
    with pytest.raises(TangevalError, match=r"^\S+study\.yaml: decoding\.top_q: unknown key"):
        load_study(study_file(tmp_path, "name: a\ndecoding: {top_q: 1}"), ["decoding.temperature=1"])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: a\nseed: 1\nseed: 2\n", 3),
        ("name: a\ndecoding:\n  top_k: 1\n  temperature: 1\n  top_k: 2\n", 5),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(tmp_path, text, line):
    with pytest.raises(TangevalError, match=rf"(seed|top_k) is given twice[\s\S]*line {line}"):
        load_study(study_file(tmp_path, text))


@pytest.mark.parametrize("word", ["yes", "on", "Off", "010", "1_000", "1:30", "0x1F", "0b1"])
def test_what_yaml_1_1_reads_otherwise_is_refused_with_its_line(tmp_path, word):
    with pytest.raises(TangevalError, match=rf"{word} is another value in YAML 1.1[\s\S]*line 2"):
        load_study(study_file(tmp_path, f"name: a\nseed: {word}\n"))
    with pytest.raises(TangevalError, match=r"another value in YAML 1\.1"):
        load_study(study_file(tmp_path, "name: a"), [f"seed={word}"])
    assert load_study(study_file(tmp_path, f"name: a\ncache_dir: '{word}'")).cache_dir == word


@pytest.mark.parametrize(
    "text",
    ["seed: true", "decoding: {temperature: [true]}", "decoding: {top_k: false}", "samples: {test: true}",
     "decoding: {temperature: [0.5, 1.0], only: [{temperature: true}]}"],
)  # fmt: skip
def test_truth_is_no_number(tmp_path, text):
    with pytest.raises(TangevalError, match="true and false are no numbers"):
        load_study(study_file(tmp_path, f"name: a\n{text}\n"))
    assert load_study(study_file(tmp_path, "name: a\nload: {merge: true}\n")).load.merge


def test_numbers_are_those_of_yaml_1_2(tmp_path):
    study = load_study(study_file(tmp_path, "name: '1e3'\ndecoding: {temperature: [1e-3, 1E0, .5, 2]}"))
    assert study.decoding.temperature == [1e-3, 1, 0.5, 2]
    assert load_study(study_file(tmp_path, study.to_yaml())).content() == study.content()


def test_a_study_written_out_reads_back_the_same(tmp_path):
    study = load_study(STUDIES[0])
    assert load_study(study_file(tmp_path, study.to_yaml())).content() == study.content()
    assert yaml.safe_load(study.to_yaml())["seed"] == 42


def test_beams_and_draws_are_named_in_one_study(tmp_path):
    points = "[{temperature: 0, num_beams: 4}, {temperature: 0.7, num_beams: 1}]"
    text = f"name: a\ndecoding: {{temperature: [0, 0.7], num_beams: [1, 4], only: {points}}}"
    settings = load_study(study_file(tmp_path, text)).decoding.settings()
    assert [(setting.temperature, setting.num_beams) for setting in settings] == [(0, 4), (0.7, 1)]


def test_a_point_may_name_a_regular_expression_as_its_axis_does(tmp_path):
    points = "[{constrain: {regex: '[A-Z]'}}, {constrain: [none, {regex: '[A-Z]'}]}]"
    text = f"name: a\ndecoding: {{constrain: [none, {{regex: '[A-Z]'}}], only: {points}}}"
    study = load_study(study_file(tmp_path, text))
    assert [setting.constrain for setting in study.decoding.settings()] == ["none", "regex:[A-Z]"]
    assert load_study(study_file(tmp_path, study.to_yaml())).decoding.settings() == study.decoding.settings()


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_values_of_a_setting_have_their_knobs_types(file):
    """A search of 2.0 beams is none that can be decoded."""
    for setting in load_study(file).decoding.settings():
        assert [type(value) for value in setting.values] == [KNOB[name].type for name in AXES]


def test_greedy_settings_are_one_sequence():
    cuts = [{"top_k": 5, "top_p": 0.3, "max_length": 10}, {"top_k": 0, "top_p": 1.0, "max_length": 20}]
    assert len({Setting.of(temperature=0, **each).sequence for each in cuts}) == 1
    assert len({Setting.of(temperature=1, **each).sequence for each in cuts}) == 2


def test_a_point_may_have_lists_and_an_axis_that_it_leaves_out_is_off(tmp_path):
    """So a study of samplers names in each point the one that is on."""
    file = study_file(
        tmp_path,
        "name: x\nbase_model: tang-mini\ndecoding: {temperature: [0.5, 1.0], top_k: [0, 5], top_p: [0.9, 1.0], "
        "only: [{temperature: [1.0, 0.5], top_k: [5]}, {temperature: 1.0}, {temperature: 0.5, top_p: 0.9}]}\n",
    )
    found = [(s.temperature, s.top_k, s.top_p) for s in load_study(file).decoding.settings()]
    assert sorted(found) == [(0.5, 0, 0.9), (0.5, 5, 1.0), (1.0, 0, 1.0), (1.0, 5, 1.0)]


def test_an_unknown_key_is_named_whatever_its_letters(tmp_path):
    for text, where in {"Foo-Bar: 1": "Foo-Bar", "decoding: {top-k: 5}": "decoding.top-k"}.items():
        file = study_file(tmp_path, f"name: a\n{text}\n")
        with pytest.raises(TangevalError, match=rf"study\.yaml: {where}: unknown key"):
            load_study(file)


def test_a_study_of_another_encoding_is_named_as_such(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_bytes("name: a\nnote: 唐詩\n".encode("cp950"))
    with pytest.raises(TangevalError, match=r"study\.yaml: line 2: not UTF-8, perhaps Big5"):
        load_study(file)
    file.write_text("name: a\n", "utf-16")  # as Windows' shells write
    assert load_study(file).name == "a"
