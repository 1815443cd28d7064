"""What ``report.html`` knows beside its tables and texts: the contract between ``build.py`` and the scripts.

``Facts`` reaches the scripts as JSON under the names that stand here (``core.facts``), and
``static/facts.schema.json`` is its JSON Schema; ``python -m tangeval.reporting.page.schema`` writes it.
Values of a setting are strings, as ``summary.csv`` has them. ``{en, zh}`` are a reader's languages.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tangeval.tasks.base import Verse

FILE = Path(__file__).parent / "static" / "facts.schema.json"
Words = dict[str, str]  # by language
SettingText = dict[str, str]  # by knob


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)


class KnobFacts(_Record):
    """An axis of the grid. ``values`` run from what cuts most to what cuts least; ``off`` changes nothing."""

    name: str
    kind: str
    label: Words
    letter: str
    off: str | None
    values: list[str]


class MetricFacts(_Record):
    """A metric, in the order of the tables; ``flaw`` is what is said of a text that fails it."""

    name: str
    label: Words
    better: Literal["high", "low"]
    level: str
    share: bool
    headline: bool
    per_setting: bool
    most: float | None
    flaw: Words | None


class Checkpoint(_Record):
    """``base`` says whether it is the model before fine-tuning; ``seen`` counts training examples by split."""

    name: str
    base: bool
    kind: str
    fingerprint: str | None
    seen: dict[str, int] | None


class Split(_Record):
    name: str
    examples: int
    samples: int


class Example(_Record):
    id: str
    split: str
    input: str
    reference: str


class Unit(_Record):
    """An example and a sample whose texts are on the page, in the order of the packed ``UnitTexts``."""

    example: str
    sample: int


class Run(_Record):
    """How the results were made: ``made`` in words, by what is said."""

    base_model: str
    data: str
    noise_shared: bool
    made: dict[str, str]
    left_out: list[str]


class ExplainedText(_Record):
    """A text of ``tangeval explain``, in the order of the packed files."""

    folder: str
    example: str
    input: str
    checkpoint: str
    follows: Literal["setting", "reference"]


class LeftOut(_Record):
    """A folder under ``explain/`` that is not on the page: of another ``version`` or results, or no ``room``."""

    folder: str
    reason: Literal["version", "foreign", "room"]


class CopiedRun(_Record):
    """Normalised characters of a text that stand in a training text."""

    begin: int
    length: int


class UnitTexts(_Record):
    """The texts of a unit, packed: the distinct ones, their runs, and which has each checkpoint × setting; -1: none."""

    texts: list[str]
    copied: list[list[CopiedRun]]
    at: list[int]


class Meaning(_Record):
    """What a metric or term means, and examples that pass and fail; ``name`` is a term's."""

    name: Words | None = None
    en: str
    zh: str
    yes: str | Words | None = None
    no: str | Words | None = None


class Said(_Record):
    """A claim of ``verdict.json`` in words; ``word`` says its status."""

    question: str
    status: Literal["shown", "not_shown", "no_difference"]
    word: str
    answer: str


class Verdict(_Record):
    """All claims, and what they rest on."""

    said: list[Said]
    basis: str


class Results(_Record):
    """One of several results: ``checkpoints`` and ``baselines`` are the page's names of its own, ``checkpoint`` and ``setting`` what it chose."""

    name: str
    study: str
    yaml: str
    run: Run
    checkpoints: list[str]
    baselines: list[str]
    checkpoint: str | None
    setting: SettingText | None
    saw_test: int
    verdict: dict[str, Verdict]
    compared: bool


class Live(_Record):
    """How far a run is of which the page shows what is whole; it reloads itself ``every`` s, or never: it stopped."""

    done: int
    batches: int
    written: str
    waiting: list[str]
    every: float | None


class Facts(_Record):
    """``carries`` names what views may need: tables by their file's name, ``texts``, ``explained``, ``selection``.

    ``flaw_bits`` are packed 32-bit numbers, unit by unit, checkpoint by checkpoint, setting by setting: a bit for
    each metric with a ``flaw``. ``selection`` is ``selection.json``;
    ``live`` is of a run that goes on; ``several`` are the results of a page of more than one, whose checkpoints are named ``RESULTS: CHECKPOINT``;
    ``place`` is the results folder, relative to where the command ran; ``verdict`` its words by language; ``note`` the author's, as ``note.nodes`` makes it.
    """

    study: str
    place: str = ""
    several: list[Results] = []
    live: Live | None = None
    yaml: str = ""
    carries: list[str]
    baselines: list[str]
    dashes: dict[str, Literal["dotted", "dashed"]]
    knobs: list[KnobFacts]
    metrics: list[MetricFacts] = []
    settings: list[SettingText] = []
    checkpoints: list[Checkpoint] = []
    splits: list[Split] = []
    examples: list[Example] = []
    run: Run | None = None
    selection: dict[str, Any] | None = None
    verdict: dict[str, Verdict] = {}
    glossary: dict[str, Meaning] = {}
    note: list[Any] = []
    signatures: dict[str, str] = {}
    explained: list[ExplainedText] = []
    explained_left_out: list[LeftOut] = []
    units: list[Unit] = []
    flaw_bits: str
    least_run: int
    verse: Verse | None = None


def schema_text() -> str:
    """Return the JSON Schema of ``Facts`` and of what is packed, a definition a line."""
    facts, packed = Facts.model_json_schema(), UnitTexts.model_json_schema()
    parts = facts.pop("$defs") | packed.pop("$defs") | {"UnitTexts": packed, "Facts": facts}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(part)}" for name, part in parts.items())
    return f'{{"$ref": "#/$defs/Facts", "$defs": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    FILE.write_text(schema_text(), "utf-8")
