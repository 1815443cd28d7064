"""Both languages say the same things, and what the code says is in both."""

import json
import re
from pathlib import Path
from string import Formatter

import pytest

import tangeval
from tangeval import tasks
from tangeval.analysis.select import check_selection
from tangeval.api import load_results
from tangeval.core.errors import TangevalError
from tangeval.core.study import Selection, load_study
from tangeval.core.words import LANGUAGES, VARIABLE, language, say, sentences, speaking, translated
from tangeval.doors.hw5 import homework
from tangeval.doors.write import couplet_of, write


def placeholders(sentence):
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("lang", LANGUAGES[1:])
def test_both_languages_have_the_same_keys_and_values(lang):
    english, other = sentences("en"), sentences(lang)
    assert list(english) == list(other)
    differ = [key for key in english if placeholders(english[key]) != placeholders(other[key])]
    assert not differ


def test_every_key_that_the_code_names_is_in_the_files():
    named = set()
    for file in Path(tangeval.__file__).parent.rglob("*.py"):
        named |= set(re.findall(r"""\b(?:say|told)\(\s*"([\w.]+)"[,)]""", file.read_text("utf-8")))
    assert named <= set(sentences("en"))


def test_the_language_is_the_argument_then_the_environment_then_english(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert (language(), language("zh-TW")) == ("en", "zh-TW")
    monkeypatch.setenv(VARIABLE, "zh-TW")
    assert say("shown") == sentences("zh-TW")["shown"] != say("shown", "en")
    with speaking("en"):
        assert language() == "en"
    assert language() == "zh-TW"


def test_an_unknown_language_is_refused_by_what_named_it(monkeypatch):
    with pytest.raises(TangevalError, match=r"--lang: 'fr'.*en, zh-TW"):
        language("fr")
    monkeypatch.setenv(VARIABLE, "zh")
    with pytest.raises(TangevalError, match=VARIABLE):
        say("shown")


ERRORS = json.loads((Path(tangeval.__file__).parent / "words" / "errors.zh-TW.json").read_text("utf-8"))


def test_an_error_is_known_by_what_the_code_says_and_names_the_same_values():
    files = Path(tangeval.__file__).parent.rglob("*.py")
    code = "".join(re.sub(r'"\s*\n\s*f?"', "", file.read_text("utf-8")) for file in files)
    code = re.sub(r'\\"', '"', code)
    for english, other in ERRORS.items():
        assert placeholders(english) == placeholders(other)
        parts = [part.strip("'`;:,.() ") for part in re.split(r"\{\w+\}|[:;] ", english)]
        lacking = [part for part in parts if len(part) > 11 and part not in code]
        assert not lacking, english


def _select(**seen):
    rule = Selection.model_validate({"checkpoint": "bleu", "setting": {"by": "bleu"}})
    check_selection(rule, tasks.load("tang").metrics, {"a": seen["counts"]}, assume_unseen=False)


def _written(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text, "utf-8")
    return tmp_path / "study.yaml"


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (lambda tmp: load_study(tmp / "quikstart.yaml"), "您是不是要找"),
        (lambda tmp: load_study(tmp / "zzz.yaml"), "這個檔案"),
        (lambda tmp: load_study(_written(tmp, "name: a\nsampels: 3\n")), "sampels：沒有這個鍵；您是不是要寫 samples？"),
        (lambda tmp: load_study(_written(tmp, "name: a\nqqqq: 3\n")), "沒有這個鍵；可用的有"),
        (lambda tmp: load_study(_written(tmp, "name: a\n"), ["samples"]), "覆寫要寫成"),
        (lambda tmp: load_results(tmp / "nix"), "這份結果"),
        (lambda tmp: tangeval.run(load_study(_written(tmp, f"name: a\ncheckpoints: {tmp / 'x'}\n"))), "讀不到資料夾"),
        (lambda tmp: tangeval.run(load_study(_written(tmp, "name: a\nbase_model: nix\n"))), "不是附帶的模型"),
        (lambda tmp: tangeval.run(load_study(_written(tmp, f"name: a\ndata: {tmp / 'x'}\n"))), "沒有資料夾"),
        (lambda tmp: load_study(_written(tmp, "name：a\n")), "冒號用半形"),
        (lambda tmp: homework(tmp / "exp"), "沒有這個資料夾"),
        (lambda tmp: homework(tmp), "裡面（和它的子資料夾裡）沒有 checkpoint-N"),
        (lambda tmp: write("床前明月光，疑是地上霜。", tmp), "沒有這份結果"),
        (lambda tmp: couplet_of("hello"), "字元：h e l o；請給一首詩的前兩句"),
        (lambda tmp: couplet_of("床前明月光"), "裡有漢字的共 1 句；"),
        (lambda tmp: couplet_of("山中，山中月"), "兩句各是 2 字與 3 字"),
        (lambda tmp: _select(counts=None), "可能曾用驗證集的題目訓練過"),
        (lambda tmp: _select(counts={"validation": 3}), "每個檢查點都用驗證集的題目訓練過"),
    ],
)  # fmt: skip
def test_the_commonest_errors_are_told_in_chinese(tmp_path, fails, said):
    with pytest.raises(TangevalError) as caught:
        fails(tmp_path)
    assert said in translated(str(caught.value), "zh-TW")
    assert translated(str(caught.value), "en") == str(caught.value)


def test_what_is_in_no_list_stays_english():
    assert translated("qqq\nvalidation", "zh-TW") == "qqq\n驗證集"
