"""Both languages say the same things, and what the code says is in both."""

import re
from pathlib import Path
from string import Formatter

import pytest

import tangeval
from tangeval.core.errors import TangevalError
from tangeval.core.words import LANGUAGES, VARIABLE, language, say, sentences, speaking


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
        named |= set(re.findall(r"""\bsay\(\s*"([\w.]+)"[,)]""", file.read_text("utf-8")))
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
