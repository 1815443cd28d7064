"""The page that is played on: ``report.html``'s own parts over what a desk can do.

In: a desk. Out: HTML. Its widgets are made of ``core.knobs.KNOBS``. Knows nothing of requests.
"""

import math
from typing import Any

from tangeval.core.knobs import COMMON, KNOBS, Knob
from tangeval.core.types import REFERENCE
from tangeval.core.words import glossary
from tangeval.doors.playing.desk import Desk
from tangeval.reporting.page.packing import page
from tangeval.results.explained import Explained

_SCRIPTS = ("core.js", "state.js", "play.js", "main.js")
_EXAMPLES = 500  # of a split that can be picked


def play_page(desk: Desk) -> str:
    """Return the page."""
    study, task, setting = desk.resolved.study, desk.resolved.task, desk.opened.setting
    examples = [e for split in study.ordered_splits() for e in desk.resolved.examples(split)[:_EXAMPLES]]
    choices = ["none", *task.constraints]
    facts: dict[str, Any] = {
        "study": study.name, "verse": task.verse is not None, "reference": REFERENCE,
        "knobs": [_knob(knob, getattr(setting, knob.name), choices) for knob in KNOBS],
        "checkpoints": [{"name": name, "first": name in desk.opened.first} for name in desk.checkpoints],
        "examples": [{"id": e.id, "split": e.split, "input": e.input[:80]} for e in examples],
        "glossary": {knob.name: glossary()[knob.name] for knob in KNOBS if knob.name in glossary()},
        "carries": [], "metrics": [], "baselines": [], "settings": [], "several": [], "selection": None,
    }  # fmt: skip
    return page(study.name, _SCRIPTS, facts, {}, charts=False, beside="the results folder", asks=True)


def explained_page(content: Explained) -> str:
    """Return the page's Explain tab of one text."""
    from tangeval.reporting.page import build

    return build.explained_page([(content.example_id, content.as_json().encode(), content)])


def _knob(knob: Knob, now: Any, choices: list[str]) -> dict[str, Any]:
    """What a widget is made of; a value that no JSON has is None."""
    low, high = (min(knob.low, knob.off), max(knob.high, knob.off)) if knob.type is not str else (None, None)
    numbers = {"low": low, "high": high, "off": knob.off, "now": now}
    return {
        "name": knob.name, "kind": knob.kind, "label": knob.label, "letter": knob.letter, "values": [],
        "whole": knob.type is int, "common": knob.name in COMMON or now != knob.off,
        "choices": choices if knob.type is str else None,
        **{key: None if isinstance(value, float) and math.isinf(value) else value for key, value in numbers.items()},
    }  # fmt: skip
