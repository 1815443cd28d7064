"""What a user is told, in English and in Chinese: a sentence a key, from ``tangeval/words/en.json`` and ``zh-TW.json``.

In: a key and the values that its sentence names in braces. Out: the sentence. Knows nothing of what is said.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from tangeval.core.errors import TangevalError

#: The languages that there is a file of; the first is spoken where none is chosen.
LANGUAGES = ("en", "zh-TW")
#: The variable of the environment that chooses one; ``--lang`` sets it for one command and its processes.
VARIABLE = "TANGEVAL_LANG"


def language(lang: str | None = None) -> str:
    """Return ``lang``, else what ``TANGEVAL_LANG`` names, else ``en``.

    Raises:
        TangevalError: it is none of ``LANGUAGES``.
    """
    chosen = lang or os.environ.get(VARIABLE) or LANGUAGES[0]
    if chosen not in LANGUAGES:
        raise TangevalError(
            f"{'--lang' if lang else VARIABLE}: {chosen!r} is no language here; known: {', '.join(LANGUAGES)}"
        )
    return chosen


def label(labels: Mapping[str, str], lang: str | None = None) -> str:
    """Return a metric's or knob's label of a language (see ``language``): theirs are ``en`` and ``zh``."""
    return labels["en" if language(lang) == "en" else "zh"]


def say(key: str, lang: str | None = None, **values: object) -> str:
    """Return the sentence of ``key`` in a language (see ``language``), with ``values`` in its braces.

    Raises:
        KeyError: no such key, or a value that the sentence names is missing.
    """
    return sentences(language(lang))[key].format(**values)


def translated(message: str, lang: str | None = None) -> str:
    """Return an error's message in a language, line by line; English where ``errors.LANG.json`` has no such line.

    As gettext has it the key is what the code says in English, with names in braces for what differs; these are looked up
    too.
    """
    if (lang := language(lang)) == LANGUAGES[0]:
        return message
    return "\n".join(_line(line, lang) for line in message.split("\n"))


def _line(line: str, lang: str) -> str:
    for known, told in _errors(lang):
        if found := known.fullmatch(line):
            return told.format(**{name: _line(value, lang) for name, value in found.groupdict().items()})
    return line


@cache
def _errors(lang: str) -> list[tuple[re.Pattern[str], str]]:
    content = json.loads((files("tangeval") / "words" / f"errors.{lang}.json").read_text("utf-8"))
    place = re.compile(r"\\\{(\w+)\\\}")
    return [(re.compile(place.sub(r"(?P<\1>.*?)", re.escape(key))), told) for key, told in content.items()]


@contextmanager
def speaking(lang: str | None = None) -> Iterator[None]:
    """Return a context in which ``lang`` is the language where none is named; None leaves it as it is.

    A ``TangevalError`` that leaves it is told in that language.
    """
    before = os.environ.get(VARIABLE)
    if lang:
        os.environ[VARIABLE] = language(lang)
    try:
        yield
    except TangevalError as error:
        error.args = (translated(str(error)),)
        raise
    finally:
        if lang:
            os.environ.pop(VARIABLE)
            os.environ.update({VARIABLE: before} if before is not None else {})


@cache
def sentences(lang: str) -> Mapping[str, str]:
    """Return all sentences of a language by their keys."""
    found: dict[str, str] = json.loads((files("tangeval") / "words" / f"{lang}.json").read_text("utf-8"))
    return found


@cache
def glossary() -> Mapping[str, Mapping[str, Any]]:
    """Return what metrics and terms mean: ``en`` and ``zh``, two sentences each; as it has them ``name`` by language,
    and ``yes`` and ``no``: an example that passes and one that fails, a verse or by language."""
    found: dict[str, dict[str, Any]] = json.loads(
        (files("tangeval") / "words" / "glossary.json").read_text("utf-8")
    )
    return found
