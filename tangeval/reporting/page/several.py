"""Several results folders → one page: what is said of each, and their checkpoints and texts beside each other.

In: results folders of one task and the same splits, summarised. Out: one HTML file, made as ``build`` makes
one of a single folder. A checkpoint is named ``RESULTS: CHECKPOINT``; its rows have the very strings of the
folders' tables. The grid has every setting of any of them, and what was not run at one is left empty. What
was chosen is compared by ``analysis.compare`` where examples and data are the same. Computes no number.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.compare import Item, compare, measure_all
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting, axes_in, axes_set
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.core.words import say
from tangeval.reporting.looks import DASHES
from tangeval.reporting.page import build, schema
from tangeval.reporting.page.packing import packed
from tangeval.reporting.page.schema import Unit
from tangeval.reporting.page.texts import Corpus, UnitParts, parts
from tangeval.results.files import csv_text, write_text

#: The views of such a page, in their order; the last without texts.
VIEWS = (
    "several", "note", "knobs", "numbers", "poems", "sheet", "curves", "heat", "training", "pareto", "trust",
)  # fmt: skip
_OF_TEXTS = ("poems", "sheet")
_UNITS = 64  # packed together
_BASELINES = (RANDOM, REFERENCE)


def write(corpora: Sequence[Corpus], out: Path | None = None) -> tuple[Path, str]:
    """Write the page (default: ``A+B.html`` in the working folder); return its path and what to say of it.

    Raises:
        TangevalError: other tasks or splits, a folder that was not summarised, or ``out`` is one's own page.
    """
    names = _names(corpora)
    path = out or Path(f"{'+'.join(names)}.html")
    _check(corpora, path)
    common = set.intersection(*(set(corpus.run.metrics) for corpus in corpora))
    corpora = [replace(corpus, only=common) for corpus in corpora]
    grid = list(dict.fromkeys(setting for corpus in corpora for setting in corpus.study.decoding.settings()))
    axes = axes_set(grid)
    tables = {name: _table(corpora, names, name, axes) for name in ("summary", "checkpoints")}
    same = set(_BASELINES) <= set(tables["summary"]["checkpoint"])
    baselines = [[each if same else f"{name}: {each}" for each in _BASELINES] for name in names]
    examples = _common(corpora)
    paired = _paired(corpora, names, [metric for metric in corpora[0].metrics if metric in common])
    facts = _facts(corpora, names, baselines, grid, examples, set(paired["a"]) | set(paired["b"]))
    tables |= {"paired": paired} if len(paired) else {}
    csv = {name: packed(csv_text(frame).encode()) for name, frame in tables.items()}
    told = bool(examples) and all(corpus.has_texts() for corpus in corpora)
    facts["carries"] = [*csv, "several", *["texts"] * told, *["note"] * bool(facts["note"])]
    views = [view for view in VIEWS if told or view not in _OF_TEXTS]
    found = _merged_units(corpora, grid, examples) if told else ()
    content, texts = build.whole(facts, csv, build.Taken(), corpora[0], found, views)
    write_text(path, content)
    count = len({unit.example for unit in texts.units})
    carried = say("page.examples", n=count) if told else say("page.none")
    size = f"{len(content.encode()) / 1e6:.1f}"
    return path, say("page.several", mb=size, n=len(corpora), carried=carried)


def _names(corpora: Sequence[Corpus]) -> list[str]:
    """What each is called: its folder's name, numbered where two have the same."""
    names = [corpus.run.path.resolve().name for corpus in corpora]
    count = Counter(names)
    return [f"{place} {name}" if count[name] > 1 else name for place, name in enumerate(names, 1)]


def _check(corpora: Sequence[Corpus], out: Path) -> None:
    first = corpora[0]
    for corpus in corpora:
        build.check(corpus)
        where = f"{first.run.path} and {corpus.run.path} cannot stand on one page"
        if (corpus.task.name, corpus.task.digest) != (first.task.name, first.task.digest):
            raise TangevalError(
                f"{where}: they are of other tasks ({first.study.task} and {corpus.study.task})"
            )
        own, others = (" and ".join(each.study.ordered_splits()) for each in (first, corpus))
        if own != others:
            raise TangevalError(f"{where}: their splits are {own}, and {others}; run both on the same splits")
        if out.resolve() == corpus.run.page.resolve():
            raise TangevalError(
                f"--out {out} is the page of {corpus.run.path} alone; give another file, or leave --out out"
            )
    if len({corpus.run.path.resolve() for corpus in corpora}) < len(corpora):
        raise TangevalError("a results folder was given twice; give each once")


def _table(corpora: Sequence[Corpus], names: Sequence[str], name: str, axes: Sequence[str]) -> pd.DataFrame:
    """A table of all, its checkpoints named for the page; the baselines too, unless they are the same in all."""
    files = [BytesIO(corpus.run.csv_bytes(corpus.run.table(name))) for corpus in corpora]
    frames = [
        pd.read_csv(file, dtype=str, keep_default_na=False).assign(checkpoint=corpus.run.read_table(name)["checkpoint"])
        for corpus, file in zip(corpora, files, strict=True)
    ]  # fmt: skip
    shared = [column for column in frames[0] if all(column in frame for frame in frames)]
    own = [frame.loc[frame["checkpoint"].isin(_BASELINES), shared].to_numpy().tolist() for frame in frames]
    same = all(each == own[0] for each in own)
    made = []
    for corpus, frame, called in zip(corpora, frames, names, strict=True):
        baseline = frame["checkpoint"].isin(_BASELINES)
        checkpoint = frame["checkpoint"].where(baseline & same, f"{called}: " + frame["checkpoint"])
        setting = corpus.study.decoding.settings()[0]  # an axis that is not there has one value in all
        lacking = [axis for axis in axes if name == "summary" and axis not in frame]
        values = {axis: np.where(baseline, "", build.spelt(getattr(setting, axis))) for axis in lacking}
        kept = [*shared, *(axis for axis in axes_in(frame) if axis not in shared)]
        made.append(frame[kept].assign(checkpoint=checkpoint, **values))
    whole = pd.concat(made, ignore_index=True).drop_duplicates()
    return whole.sort_values("checkpoint", key=lambda names: names.isin(_BASELINES), kind="stable")


def _common(corpora: Sequence[Corpus]) -> list[Example]:
    """The examples that all have, input and reference alike."""
    others = [{each.id: each for each in corpus.examples} for corpus in corpora[1:]]
    kept = ("id", "split", "input", "reference")
    return [
        example for example in corpora[0].examples
        if all(example.id in other and all(getattr(other[example.id], key) == getattr(example, key) for key in kept) for other in others)
    ]  # fmt: skip


def _paired(corpora: Sequence[Corpus], names: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """The paired differences between what was chosen, by split, of those whose data and examples are the same."""
    shown = [metric for metric in metrics if corpora[0].metrics[metric].headline]
    frames = [pd.DataFrame(columns=["split", "a", "b"])]
    for split in corpora[0].study.ordered_splits():
        alike: dict[Any, list[Item]] = {}
        for corpus, name in zip(corpora, names, strict=True):
            if not (corpus.run.selection or {}).get("setting"):
                continue
            item = replace(measure_all([str(corpus.run.path)], split)[0], name=name)
            alike.setdefault((item.data, *item.part.measured.examples), []).append(item)
        frames += [compare(items, shown).assign(split=split) for items in alike.values() if len(items) > 1]
    return pd.concat(frames, ignore_index=True)


def _facts(
    corpora: Sequence[Corpus], names: Sequence[str], baselines: Sequence[Sequence[str]], grid: Sequence[Setting],
    examples: Sequence[Example], compared: set[str],
) -> dict[str, Any]:  # fmt: skip
    each = [build.facts_of(corpus) for corpus in corpora]
    runs: list[schema.Run] = [facts["run"] for facts in each]
    axes, first, study = axes_set(grid), each[0], corpora[0].study
    made = [
        _results(corpus, facts, name, own, axes, name in compared)
        for corpus, facts, name, own in zip(corpora, each, names, baselines, strict=True)
    ]
    seeds = {corpus.study.seed for corpus in corpora}
    run = schema.Run(
        base_model=", ".join(dict.fromkeys(run.base_model for run in runs)),
        data=", ".join(dict.fromkeys(run.data for run in runs)), made={},
        noise_shared=all(run.noise_shared for run in runs) and len(seeds) == 1,
        left_out=[f"{name}: {left}" for name, run in zip(names, runs, strict=True) for left in run.left_out],
    )  # fmt: skip
    signed = [facts["signatures"] for facts in each]
    signatures = {
        (key if all(own.get(key) == said for own in signed) else f"{name}: {key}"): said
        for name, own in zip(names, signed, strict=True) for key, said in own.items()
    }  # fmt: skip
    known = list(dict.fromkeys(name for own in baselines for name in own))
    notes = [(name, facts["note"]) for name, facts in zip(names, each, strict=True) if facts["note"]]
    return first | {
        "study": " · ".join(names), "place": "", "yaml": "", "selection": None, "verdict": {}, "several": made,
        "settings": [_setting(setting, axes) for setting in grid], "knobs": build.knobs_of(axes, grid), "run": run,
        "checkpoints": [
            checkpoint.model_copy(update={"name": f"{name}: {checkpoint.name}"})
            for name, facts in zip(names, each, strict=True) for checkpoint in facts["checkpoints"]
        ],
        "splits": [
            schema.Split(name=split, examples=sum(example.split == split for example in examples),
                         samples=min(corpus.study.samples_of(split) for corpus in corpora))
            for split in study.ordered_splits()
        ],
        "examples": [schema.Example.model_validate(example) for example in examples],
        "note": [node for name, note in notes for node in (["h3", name], *note)], "signatures": signatures,
        "baselines": known, "dashes": {name: DASHES[name.rpartition(": ")[2]] for name in known},
    }  # fmt: skip


def _results(
    corpus: Corpus, facts: Mapping[str, Any], name: str, baselines: Sequence[str], axes: Sequence[str], compared: bool,
) -> schema.Results:  # fmt: skip
    """What is said of one of them."""
    selection = facts["selection"]
    chosen = (selection["setting"] or selection["nearest"][0]) if selection else None
    alike = (
        setting for setting in corpus.study.decoding.settings()
        if chosen and all(getattr(setting, axis) == chosen[axis] for axis in axes_in(chosen))
    )  # fmt: skip
    setting = next(alike, None)
    return schema.Results(
        name=name, study=facts["study"], yaml=facts["yaml"], run=facts["run"], baselines=list(baselines),
        checkpoints=[f"{name}: {checkpoint.name}" for checkpoint in facts["checkpoints"]],
        checkpoint=f"{name}: {selection['checkpoint']['checkpoint']}" if selection else None,
        setting=_setting(setting, axes) if setting else None, saw_test=selection["saw_test"] if selection else 0, verdict=facts["verdict"], compared=compared,
    )  # fmt: skip


def _setting(setting: Setting, axes: Sequence[str]) -> dict[str, str]:
    return {axis: build.spelt(value) for axis, value in setting.as_dict(axes).items()}


def _merged_units(
    corpora: Sequence[Corpus], grid: Sequence[Setting], examples: Sequence[Example]
) -> Iterator[list[UnitParts]]:
    """The units of the ``examples`` in samples that all have, each with the texts of all checkpoints."""
    places = {setting: place for place, setting in enumerate(grid)}
    columns = [[places[setting] for setting in corpus.study.decoding.settings()] for corpus in corpora]
    splits = {example.id: example.split for example in examples}
    least = {split: min(c.study.samples_of(split) for c in corpora) for split in set(splits.values())}

    def own(corpus: Corpus) -> Iterator[UnitParts]:
        for some in parts(corpus):
            yield from (
                each for each in some
                if each[0].example in splits and each[0].sample < least[splits[each[0].example]]
            )  # fmt: skip

    units = (_merged(each, columns, len(grid)) for each in zip(*map(own, corpora), strict=True))
    while some := list(islice(units, _UNITS)):
        yield some


def _merged(each: Sequence[UnitParts], columns: Sequence[Sequence[int]], settings: int) -> UnitParts:
    """One unit of several results: -1 in ``at`` where a setting was not run."""
    (unit,) = {(unit.example, unit.sample) for unit, _, _ in each}  # all data have the examples in one order
    texts: list[str] = []
    copied: list[Any] = []
    at, bits = [], []
    for (_, content, flaws), places in zip(each, columns, strict=True):
        own = np.asarray(content["at"]).reshape(-1, len(places))
        held, marks = np.full((len(own), settings), -1), np.zeros((len(own), settings), np.uint32)
        held[:, places], marks[:, places] = own + len(texts), flaws.reshape(own.shape)
        texts += content["texts"]
        copied += content["copied"]
        at.append(held.ravel())
        bits.append(marks.ravel())
    content = {"texts": texts, "copied": copied, "at": np.concatenate(at).tolist()}
    return Unit(example=unit[0], sample=unit[1]), content, np.concatenate(bits)
