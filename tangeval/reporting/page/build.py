"""A results folder → ``report.html``: one page that a reader opens with a double click.

In: a results folder that was summarised, its study, and its data. Out: one HTML file that holds
the folder's CSV files and some ``explain.json`` byte for byte, what its making recorded, and as
many texts as fit under ``LIMIT``; style, scripts and the chart library are inside, and a policy in the page forbids any
request. The same folder gives the same bytes. Knows nothing of torch, and computes no number:
what the page shows is looked up in the CSV files by the scripts under ``assets/report/``, or
computed by them from the logits in ``explain.json``.

Texts and paths are data. They reach the page as JSON or as packed bytes, and its scripts put
them there as text, never as markup.
"""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from tangeval import tasks
from tangeval.analysis.scoring import read_generations
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES
from tangeval.core.study import Study
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.explain import figures as lessons
from tangeval.metrics import METRICS
from tangeval.metrics.copying import runs
from tangeval.reporting import tables
from tangeval.results.files import read_json, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import check_data
from tangeval.tasks.base import Dataset, training_index
from tangeval.tasks.tang.prosody import rhyme_groups
from tangeval.tasks.tang.text import HAN, fold

PAGE = "report.html"
#: Bytes of the page: what mail and a phone still take. Numbers go in whole; texts have what is left.
LIMIT = 11_500_000
#: Poems of `tangeval explain` that are taken along, and the most bytes of all: texts have what they leave.
LESSONS, LESSONS_LIMIT = 6, 2_000_000
#: What stands verbatim in training is marked from this many characters on: shorter runs are common speech.
LEAST_RUN = 4
#: CSV files without which there is no page, and those that are taken along where they are.
NEEDED = ("summary.csv", "effects.csv", "checkpoints.csv")
ALSO = ("likelihood_curve.csv", "variance.csv", "coupling.csv", "judge.csv", "tables/best_settings.csv")
#: What can be wrong with a text, a bit each: the column of the scores that says so.
FLAWS = (
    "line_length", "complete", "no_echo", "no_repeat", "copied_clauses", "rhyme", "clause_count", "punctuation",
    "han_only", "length_match",
)  # fmt: skip

_ASSETS = Path(__file__).parent / "static"
_SCRIPTS = (
    "page.js", "state.js", "charts.js", "knobs.js", "poems.js", "distribution.js", "explain.js", "pictures.js", "main.js",
)  # fmt: skip
#: Control, format (bidi too) and separator characters, surrogates, and what could end a script's element.
_ACTIVE = re.compile(
    "[<>&\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\ufff9-\ufffb\U000e0001-\U000e007f]"
)
_Strings = NDArray[np.object_]


@dataclass(frozen=True)
class Corpus:
    """What the page's texts are texts of: C checkpoints × K settings, for the poems of the splits."""

    study: Study
    data: Dataset
    folder: Path

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(e for split in self.study.ordered_splits() for e in self.data.split(split))

    def samples(self) -> Iterator[int]:
        return iter(range(max(map(self.study.samples_of, self.study.splits))))

    def noise(self) -> int:
        """How many pairs of a poem and a sample there are."""
        return sum(len(self.data.split(s)) * self.study.samples_of(s) for s in self.study.ordered_splits())


@dataclass
class Texts:
    """The texts that fit: a unit is one poem and sample, in all checkpoints × settings."""

    units: list[str] = field(default_factory=list)  #: packed JSON, see ``_unit``
    places: list[tuple[str, int]] = field(default_factory=list)  #: the example and sample of each
    flaws: list[NDArray[np.uint16]] = field(default_factory=list)  #: ``[C × K]`` of each
    characters: set[str] = field(default_factory=set)


@dataclass
class Lessons:
    """The poems of ``tangeval explain`` that the page takes along."""

    packed: list[str] = field(default_factory=list)  #: each ``explain.json``
    facts: list[dict[str, Any]] = field(
        default_factory=list
    )  #: what the page says of each before it is unpacked
    left_out: list[tuple[str, str]] = field(
        default_factory=list
    )  #: folder, and why: see ``_foreign``, or ``room``


def write(study: Study, data: Dataset, folder: Path, out: Path | None = None) -> tuple[Path, str]:
    """Write the page (default: ``report.html`` in ``folder``); return its path and what to say of it.

    Raises:
        TangevalError: the folder was not summarised, a batch file is missing, the scores are of other
            generations, or the data are not the run's.
    """
    run = RunFolder(folder)
    needed = [*NEEDED, *[run.scores_file.name] * _has_texts(folder)]
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise TangevalError(f"{folder / missing[0]} is missing; `tangeval summarize {folder}` makes it")
    check_data(data, run)
    corpus = Corpus(study, data, folder)
    csv = {
        name: packed(run.csv_bytes(folder / name)) for name in (*NEEDED, *ALSO) if (folder / name).is_file()
    }
    taken = _lessons(corpus)
    facts = _facts(corpus) | {"lessons": taken.facts, "lessons_left": taken.left_out, "lessons_most": LESSONS}
    fixed = _render(facts, csv, taken, Texts(), corpus)
    texts = _texts(corpus, LIMIT - len(fixed.encode()) - 100_000) if _has_texts(folder) else Texts()
    page = _render(facts, csv, taken, texts, corpus)
    path = out or folder / PAGE
    write_text(path, page)
    share = len(texts.units) / corpus.noise()
    carried = "all texts" if share == 1 else f"{share:.0%} of the texts" if texts.units else "no texts"
    explained = f", {len(taken.facts)} explained" * bool(taken.facts) + (
        f", {len(taken.left_out)} under explain/ left out" * bool(taken.left_out)
    )
    return path, f"{len(page.encode()) / 1e6:.1f} MB, all numbers, {carried}{explained}"


def packed(content: bytes) -> str:
    """Return ``content`` deflated (raw) and in base64, as the page's scripts unpack it."""
    squeezed = zlib.compressobj(9, wbits=-15)
    return base64.b64encode(squeezed.compress(content) + squeezed.flush()).decode()


def inert(content: Any) -> Markup:
    """Return JSON that can stand in a script's element: nothing in it is markup or unseen."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return Markup(_ACTIVE.sub(_escaped, text))


def _escaped(match: re.Match[str]) -> str:
    """A character as JSON's escape: one of UTF-16, or two."""
    return json.dumps(match[0])[1:-1] if ord(match[0]) > 127 else f"\\u{ord(match[0]):04x}"


def _render(facts: dict[str, Any], csv: dict[str, str], taken: Lessons, texts: Texts, corpus: Corpus) -> str:
    style = (_ASSETS / "report.css").read_text("utf-8")
    library = (_ASSETS / "vendor" / "echarts.min.js").read_text("utf-8")
    script = "".join((_ASSETS / name).read_text("utf-8") for name in _SCRIPTS)
    environment = Environment(
        loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("template.html").render(
        title=f"{facts['study']} · tangeval",
        policy=_policy(library, script),
        style=Markup(style),
        library=Markup(library),
        script=Markup(script),
        strings=inert(read_json(_ASSETS / "strings.json")),
        facts=inert(facts | _about(texts, corpus)),
        tables=inert(csv),
        lessons="\n".join(taken.packed),
        units="\n".join(texts.units),
    )


def _policy(*scripts: str) -> str:
    """Nothing is loaded, and nothing runs but these scripts."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def _facts(corpus: Corpus) -> dict[str, Any]:
    """What the page knows before any text: study, grid, metrics, choice, and how all was made."""
    study, folder = corpus.study, corpus.folder
    manifest = RunFolder(folder).manifest
    manifest.pop("server", None)  # its address, and names that may be paths
    # A reader of the page needs no folders of the machine that made it.
    manifest["checkpoints"] = [_without_path(record) for record in manifest["checkpoints"]]
    selection = RunFolder(folder).selection
    if selection:
        selection["checkpoint"] = _without_path(selection["checkpoint"])
    settings = [[f"{value:.9g}" for value in c.values]
             for c in study.decoding.settings()]  # fmt: skip
    return {
        "study": study.name, "yaml": study.to_yaml(), "manifest": manifest, "selection": selection,
        "signatures": read_json(RunFolder(folder).signatures) or {},
        "splits": study.ordered_splits(), "samples": {s: study.samples_of(s) for s in study.ordered_splits()},
        "checkpoints": [record["name"] for record in manifest["checkpoints"]],
        "baselines": [RANDOM, REFERENCE], "knobs": AXES, "settings": settings, "shown": tables.SHOWN,
        "metrics": [
            {"name": m.name, "label": m.label, "better": m.better, "share": m.share, "per_setting": m.per_setting}
            for m in METRICS
        ],
        "examples": [[e.id, e.split, e.input, e.reference] for e in corpus.examples],
        "han": HAN, "least_run": LEAST_RUN, "flaws": FLAWS,
    }  # fmt: skip


def _without_path(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "path"}


def _about(texts: Texts, corpus: Corpus) -> dict[str, Any]:
    """What the page has to know to read its texts: whose they are, variants, rhymes."""
    number = {example.id: place for place, example in enumerate(corpus.examples)}
    written = {c for e in corpus.examples for c in e.input + e.reference}
    characters = sorted(texts.characters | written)
    groups: dict[str, str] = {}
    for character in characters:
        for group in sorted(rhyme_groups(character)):
            groups[group] = groups.get(group, "") + character
    flaws = np.concatenate([np.empty(0, np.uint16), *texts.flaws])
    return {
        "places": [[number[example], sample] for example, sample in texts.places],
        "noise": corpus.noise(), "has_texts": _has_texts(corpus.folder),
        "flaw_bits": packed(flaws.astype("<u2").tobytes()),
        "variants": "".join(c + fold(c) for c in characters if fold(c) != c), "groups": groups,
    }  # fmt: skip


def _lessons(corpus: Corpus) -> Lessons:
    """Take what is under ``explain/``, in the order of splits and poems, as far as it is of these results and fits."""
    taken, room = Lessons(), LESSONS_LIMIT
    manifest = RunFolder(corpus.folder).manifest
    places = {example.id: place for place, example in enumerate(corpus.examples)}
    found = []
    for file in sorted((corpus.folder / "explain").glob(f"*/{lessons.FILE}")):
        content = _lesson(file)
        reason = _foreign(content, manifest, places)
        if reason:
            taken.left_out.append((file.parent.name, reason))
        else:
            found.append((places[content["example_id"]], file, content))
    for _, file, content in sorted(found, key=lambda each: each[:2]):
        squeezed = packed(file.read_bytes())
        room -= len(squeezed) + 1
        if room < 0 or len(taken.packed) == LESSONS:
            taken.left_out.append((file.parent.name, "room"))
            continue
        taken.packed.append(squeezed)
        taken.facts.append(
            {"folder": file.parent.name, "example": content["example_id"], "couplet": content["couplet"],
             "checkpoint": content["checkpoint"]["name"], "sample": content["sample"], "follows": content["follows"],
             "steps": len(content["steps"])}
        )  # fmt: skip
    return taken


def _lesson(file: Path) -> dict[str, Any]:
    """An ``explain.json``; empty where this version cannot read it."""
    try:
        return lessons.read(file)
    except (TangevalError, ValueError):
        return {}


def _foreign(content: dict[str, Any], manifest: dict[str, Any], places: dict[str, int]) -> str:
    """Why an ``explain.json`` is not of these results; nothing where it is."""
    if not content:
        return "version"
    weights = {(record["name"], record["fingerprint"]) for record in manifest["checkpoints"]}
    checkpoint = content["checkpoint"]
    own = (
        (checkpoint["name"], checkpoint["fingerprint"]) in weights
        and content["base_model"]["fingerprint"] == manifest["base_model"]["fingerprint"]
        and content["seed"] == manifest["seed"]
        and content["example_id"] in places
    )
    return "" if own else "foreign"


def _has_texts(folder: Path) -> bool:
    """Generations are often left out of what is published."""
    return any((folder / "generations").glob("*.parquet"))


def _texts(corpus: Corpus, room: int) -> Texts:
    """Take units until ``room`` [bytes] is full: sample 0 of every poem, then sample 1, …, poems in order."""
    texts = Texts()
    for unit, place, flaws, characters in _units(corpus):
        room -= len(unit) + 1 + len(packed(flaws.tobytes()))
        if room < 0:
            break
        texts.units.append(unit)
        texts.places.append(place)
        texts.flaws.append(flaws)
        texts.characters |= characters
    return texts


def _units(corpus: Corpus) -> Iterator[tuple[str, tuple[str, int], NDArray[np.uint16], set[str]]]:
    task = tasks.load(corpus.study.task)
    training = training_index(task, corpus.data)
    width = len(corpus.study.decoding.settings())
    for sample in corpus.samples():
        frame = read_generations(corpus.study, corpus.folder, sample)
        flaws = _flaws(corpus.folder, sample, frame)
        checkpoints = frame["checkpoint"].nunique()
        if len(frame) % (checkpoints * width):
            raise TangevalError(f"{corpus.folder / 'generations'} lacks some settings; run the study again")
        shape = (checkpoints, -1, width)
        written: _Strings = frame["text"].to_numpy(object).reshape(shape)
        names = frame["example_id"].to_numpy(object).reshape(shape)[0, :, 0]
        bits = flaws.reshape(shape)
        for place, name in enumerate(names):
            own = written[:, place].ravel().tolist()
            copied = {
                text: runs(training, task.normalise(text), LEAST_RUN, name) for text in dict.fromkeys(own)
            }
            yield packed(_unit(own, copied)), (name, sample), bits[:, place].ravel(), set("".join(copied))


def _unit(texts: Iterable[str], copied: dict[str, list[tuple[int, int]]]) -> bytes:
    """``[texts, runs, at]``: distinct texts by first appearance, their runs, and which each place has."""
    codes = {text: code for code, text in enumerate(copied)}
    flat = [[number for run in each for number in run] for each in copied.values()]
    content = [list(copied), flat, [codes[text] for text in texts]]
    # JSON's own escapes keep lone surrogates, which UTF-8 cannot.
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[\ud800-\udfff]", _escaped, text).encode()


def _flaws(folder: Path, sample: int, frame: pd.DataFrame) -> NDArray[np.uint16]:
    """``FLAWS`` of each row of ``frame`` as bits, from the scores; what was not measured is no flaw."""
    keys = ["checkpoint", "example_id", *AXES]
    scores = RunFolder(folder).columns([*keys, *FLAWS], sample=sample)
    scores = scores[~scores["checkpoint"].isin([RANDOM, REFERENCE])]
    same = len(scores) == len(frame) and all(
        np.array_equal(scores[key].to_numpy(), frame[key].to_numpy()) for key in keys
    )
    if not same:
        raise TangevalError(
            f"{RunFolder(folder).scores_file} is not of the generations that are there; `tangeval summarize {folder}` "
            "scores them"
        )
    wrong = [(scores[f] > 0) if f == "copied_clauses" else (scores[f] == 0) for f in FLAWS]
    return np.asarray(sum(each.to_numpy(np.uint16) << bit for bit, each in enumerate(wrong)), np.uint16)
