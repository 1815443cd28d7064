"""A results folder → ``report.html``: one page that a reader opens with a double click.

In: a results folder that was summarised, its study and data; or files of ``tangeval explain`` alone.
Out: one HTML file that holds the folder's CSV files and some ``explain.json`` byte for byte, what its
making recorded (``schema.Facts``), and as many texts as fit under ``LIMIT``; style, scripts and the chart
library are inside, and a policy in the page forbids any request. The same folder gives the same bytes.
Knows nothing of torch, and computes no number: the scripts under ``static/`` look up what they show.

Texts and paths are data. They reach the page as JSON or as packed bytes, and its scripts put them
there as text, never as markup.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tangeval import tasks
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, WIDE, Setting, axes_in
from tangeval.core.study import Study
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.core.words import glossary, say
from tangeval.metrics.base import Metrics
from tangeval.reporting.looks import DASHES
from tangeval.reporting.page import schema
from tangeval.reporting.page.note import nodes
from tangeval.reporting.page.packing import packed, page
from tangeval.reporting.page.texts import LEAST_RUN, Corpus, Texts, UnitParts, parts, texts_of
from tangeval.reporting.verdict import Speaker
from tangeval.results import explained
from tangeval.results.explained import Explained
from tangeval.results.files import write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import check_data
from tangeval.tasks.base import Dataset, Verse

#: Bytes of the page: what mail and a phone still take. Numbers go in whole; texts have what is left.
LIMIT = 11_500_000
#: Texts of `tangeval explain` that are taken along, and the most bytes of all.
EXPLAINED, EXPLAINED_LIMIT = 6, 2_000_000
#: Tables without which there is no page, and those that are taken along where they are.
NEEDED = ("summary", "effects", "checkpoints")
ALSO = (
    "likelihood_curve", "variance", "front", "best_of", "reranked", "oracle", "families", "family_differences", "judge",
    "recall", "recall_orders",
)  # fmt: skip
#: The views under ``static/views``, in the order in which they stand on the page.
VIEWS = (
    "live", "verdict", "note", "glance", "standing", "hero", "knobs", "numbers", "poems", "sheet", "curves", "heat", "explain", "effects", "training",
    "pareto", "ties", "trust",
)  # fmt: skip
_CORE = ("core.js", "state.js", "charts.js", "texts.js")


@dataclass
class Taken:
    """The files of ``tangeval explain`` that the page takes along, packed, and those that it does not."""

    packed: list[str] = field(default_factory=list)
    facts: list[schema.ExplainedText] = field(default_factory=list)
    left_out: list[schema.LeftOut] = field(default_factory=list)

    def add(self, folder: str, data: bytes, content: Explained) -> None:
        """Take a file of a ``folder`` as far as there is room."""
        squeezed = packed(data)
        if len(self.packed) == EXPLAINED or sum(map(len, self.packed)) + len(squeezed) > EXPLAINED_LIMIT:
            self.left_out.append(schema.LeftOut(folder=folder, reason="room"))
            return
        self.packed.append(squeezed)
        said = content.model_dump(include={"input", "follows"})
        named = {"folder": folder, "example": content.example_id, "checkpoint": content.checkpoint.name}
        self.facts.append(schema.ExplainedText.model_validate(said | named))


def write(study: Study, data: Dataset, folder: Path, out: Path | None = None) -> tuple[Path, str]:
    """Write the page (default: ``report.html`` in ``folder``); return its path and what to say of it.

    Raises:
        TangevalError: the folder was not summarised, a batch file is missing, the scores are of other
            generations, or the data are not the run's.
    """
    corpus = Corpus(study, data, tasks.load(study.task), RunFolder(folder))
    check(corpus)
    run = corpus.run
    files = {name: run.table(name) for name in (*NEEDED, *ALSO)}
    files |= {"best_settings": run.tables / "best_settings.csv"}
    csv = {name: packed(run.csv_bytes(file)) for name, file in files.items() if file.is_file()}
    taken, facts = _explained(corpus), facts_of(corpus)
    facts["carries"] += [*csv, *["texts"] * corpus.has_texts(), *["selection"] * bool(facts["selection"])]
    facts["carries"] += [name for name in ("verdict", "note") if facts[name]]
    content, texts = whole(facts, csv, taken, corpus, parts(corpus) if corpus.has_texts() else ())
    path = out or run.page
    write_text(path, content)
    share = len(texts.units) / corpus.units()
    key = "page.all" if share == 1 else "page.some" if texts.units else "page.none"
    size = f"{len(content.encode()) / 1e6:.1f}"
    said = [say("page.whole", mb=size, carried=say(key, share=f"{share:.0%}"))]
    said += [say("page.explained", n=len(taken.facts))] * bool(taken.facts)
    said += [say("page.left", n=len(taken.left_out))] * bool(taken.left_out)
    return path, "".join(said)


def check(corpus: Corpus) -> None:
    """Raise ``TangevalError`` where a folder was not summarised, or the data are not the run's."""
    run = corpus.run
    needed = [*map(run.table, NEEDED), *[run.scores_file] * corpus.has_texts()]
    if missing := [file for file in needed if not file.is_file()]:
        raise TangevalError(f"{missing[0]} is missing; `tangeval summarize {run.path}` makes it")
    check_data(corpus.data, run)


def write_explained(files: Sequence[Path], out: Path) -> Path:
    """Write a page with the Explain tab alone, of some ``explain.json``; return its path.

    Raises:
        TangevalError: a file is none, or of another version.
    """
    found = [(file.parent.name, file.read_bytes(), explained.read_explained(file)) for file in files]
    write_text(out, explained_page(found))
    return out


def explained_page(found: Sequence[tuple[str, bytes, Explained]]) -> str:
    """Return a page with the Explain tab alone: of each text its name, its ``explain.json``, and what that says."""
    taken, contents = Taken(), [content for _, _, content in found]
    for each in found:
        taken.add(*each)
    facts = {
        "study": contents[0].study,
        "knobs": knobs_of({axis for each in contents for axis in axes_in(each.setting)} - {WIDE}, []),
        "carries": [],
    }
    return rendered(facts, {}, taken, Texts())


def whole(
    facts: dict[str, Any], csv: dict[str, str], taken: Taken, corpus: Corpus,
    found: Iterable[Sequence[UnitParts]], views: Sequence[str] = VIEWS,
) -> tuple[str, Texts]:  # fmt: skip
    """Return a page, and those of the texts ``found`` that fit on it."""
    fixed = rendered(facts, csv, taken, Texts(), corpus, views)
    texts = texts_of(found, LIMIT - len(fixed.encode()) - 100_000)
    return rendered(facts, csv, taken, texts, corpus, views), texts


def rendered(
    facts: dict[str, Any], csv: dict[str, str], taken: Taken, texts: Texts, corpus: Corpus | None = None,
    views: Sequence[str] = VIEWS,
) -> str:  # fmt: skip
    carries = [*facts["carries"], *["explained"] * bool(taken.facts)]
    made: dict[str, Any] = {
        "explained": taken.facts,
        "explained_left_out": taken.left_out,
        "units": texts.units,
    }
    made |= {
        "flaw_bits": texts.flaw_bits(),
        "least_run": LEAST_RUN,
        "baselines": [RANDOM, REFERENCE],
        "dashes": DASHES,
    }
    verse = _verse(corpus, texts) if corpus else None
    content = schema.Facts(**made | facts | {"carries": carries, "verse": verse})
    scripts = [*_CORE, *(f"views/{name}.js" for name in views), "main.js"]
    return page(
        content.study,
        scripts,
        content.model_dump(),
        csv,
        texts={"explained": "\n".join(taken.packed), "units": "\n".join(texts.packed)},
    )


def facts_of(corpus: Corpus) -> dict[str, Any]:
    """What the page knows before any text: study, grid, metrics, choice, and how all was made."""
    study, run = corpus.study, corpus.run
    manifest, selection = run.manifest, run.selection
    if selection:  # a reader of the page needs no folders of the machine that made it
        selection["checkpoint"].pop("path", None)
    axes, grid = study.decoding.axes, study.decoding.settings()
    settings = [{axis: spelt(value) for axis, value in setting.as_dict(axes).items()} for setting in grid]
    return {
        "carries": [], "study": study.name, "place": _place(run.path), "yaml": study.to_yaml(), "selection": selection, "settings": settings,
        "knobs": knobs_of(axes, grid), "metrics": _metrics(corpus.metrics), "run": _run(manifest),
        "checkpoints": [
            schema.Checkpoint(
                base=record["name"] == BASE, **{key: record.get(key) for key in ("name", "kind", "fingerprint", "seen")}
            )
            for record in manifest["checkpoints"]
        ],
        "splits": [
            schema.Split(name=split, examples=len(corpus.data.split(split)), samples=study.samples_of(split))
            for split in study.ordered_splits()
        ],
        "examples": [schema.Example.model_validate(example) for example in corpus.examples],
        "verdict": _verdict(corpus), "note": nodes(study.note or ""), "glossary": _glossary(corpus.metrics, declared=corpus.task.verse is None),
        "signatures": {name: _words(text) for name, text in (run.read_json(run.signatures) or {}).items()},
    }  # fmt: skip


def _place(folder: Path) -> str:
    """The results folder as a path that was typed here; FOLDER where it is elsewhere: the machine's paths are left out."""
    here, whole = Path.cwd(), folder.absolute()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else "FOLDER"


def _metrics(metrics: Metrics) -> list[schema.MetricFacts]:
    """The metrics; one without an upper end has none in JSON either."""
    fields = [name for name in schema.MetricFacts.model_fields if name != "most"]
    return [
        schema.MetricFacts(
            **{name: getattr(metric, name) for name in fields},
            most=metric.most if metric.most < math.inf else None,
        )
        for metric in metrics.values()
    ]


def _glossary(metrics: Metrics, *, declared: bool) -> dict[str, Any]:
    """What the task's metrics and the terms mean; the meaning of a metric of one's own is its author's.

    Of a declared task some words mean another thing (``task.form``), and verse is no example.
    """
    entries = glossary()
    found = {word: entry for word, entry in entries.items() if "name" in entry or word in metrics}
    if not declared:
        return found
    found |= {
        word: {**found.get(word, {}), **own}
        for word in (*found, *metrics)
        if (own := entries.get(f"task.{word}"))
    }
    verse = {word for word, entry in found.items() if isinstance(entry.get("yes"), str)}
    sides = ("yes", "no")
    return found | {w: {k: v for k, v in found[w].items() if k not in sides} for w in verse}


def _verdict(corpus: Corpus) -> dict[str, schema.Verdict]:
    """The verdict in both languages of the page; nothing where there is none yet."""
    found = corpus.run.read_json(corpus.run.verdict_file)
    speakers = {
        lang: Speaker(corpus.task.metrics, corpus.task.verse is not None, spoken)
        for lang, spoken in (("en", "en"), ("zh", "zh-TW"))
    }
    return {
        lang: schema.Verdict(
            said=list(map(schema.Said.model_validate, speaker.all(found))), basis=speaker.basis(found)
        )
        for lang, speaker in speakers.items()
        if found
    }


def spelt(value: Any) -> str:
    """A knob's value as ``summary.csv`` has it."""
    return value if isinstance(value, str) else f"{value:.9g}"


def knobs_of(axes: Container[str], settings: Sequence[Setting]) -> list[schema.KnobFacts]:
    facts = []
    for knob in map(KNOB.__getitem__, axes_in(axes)):
        values = knob.by_strength({getattr(setting, knob.name) for setting in settings})
        said = {key: getattr(knob, key) for key in ("name", "kind", "label", "letter")}
        off = None if knob.kind in ("scale", "length") else spelt(knob.off)
        facts.append(schema.KnobFacts(**said, off=off, values=list(map(spelt, values))))
    return facts


def _run(manifest: dict[str, Any]) -> schema.Run:
    data, base = manifest["data"], manifest["base_model"]
    return schema.Run(
        base_model=base["name"], data=data["name"], noise_shared=manifest.get("noise_shared", True),
        left_out=[f"{Path(each['path']).name}: {each['reason']}" for each in manifest["left_out"]],
        made={
            "signature": manifest["signature"], "data": f"{data['name']}: {data['digest']}",
            "base_model": f"{base['name']}: {base['fingerprint'] or '–'}", "engine": _words(manifest["engine"]),
            "hardware": _words(manifest["hardware"]),
            "versions": _words({"tangeval": manifest["tangeval"], **manifest["versions"]}),
            "seed": str(manifest["seed"]), "noise": manifest["noise"],
        },
    )  # fmt: skip


def _words(content: Any) -> str:
    """A record as words: its keys and values."""
    if isinstance(content, Mapping):
        return ", ".join(f"{key} {_words(value)}" for key, value in content.items())
    return str(content)


def _verse(corpus: Corpus, texts: Texts) -> Verse | None:
    """How the task's verse is read, for the characters that are on the page."""
    if corpus.task.verse is None:
        return None
    given = "".join(example.input + example.reference for example in corpus.examples)
    return corpus.task.verse(sorted({*given} | texts.characters))


def _explained(corpus: Corpus) -> Taken:
    """Take what is under ``explain/``, in the order of splits and examples, as far as it is of these results and fits."""
    taken, found, manifest = Taken(), [], corpus.run.manifest
    shown = [example.id for example in corpus.examples]
    for file in sorted(corpus.run.explain.glob(f"*/{explained.FILE}")):
        try:
            content = explained.read_explained(file)
        except (TangevalError, ValueError):
            taken.left_out.append(schema.LeftOut(folder=file.parent.name, reason="version"))
            continue
        if content.example_id in shown and _is_of(content, manifest, set(corpus.study.decoding.axes)):
            found.append((shown.index(content.example_id), file, content))
        else:
            taken.left_out.append(schema.LeftOut(folder=file.parent.name, reason="foreign"))
    for _, file, content in sorted(found, key=lambda each: each[:2]):
        taken.add(file.parent.name, file.read_bytes(), content)
    return taken


def _is_of(content: Explained, manifest: dict[str, Any], axes: set[str]) -> bool:
    base, weights = manifest["base_model"], {(c["name"], c["fingerprint"]) for c in manifest["checkpoints"]}
    same = content.base_model.fingerprint == base["fingerprint"] and content.seed == manifest["seed"]
    same &= set(axes_in(content.setting)) - {WIDE} <= axes
    return same and (content.checkpoint.name, content.checkpoint.fingerprint) in weights
