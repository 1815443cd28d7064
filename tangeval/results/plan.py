"""What a study needs that its results folder does not hold yet, cut into batches.

In: a resolved study, and the batches recorded by earlier runs. Out: the batches to keep and those to
make. A batch is a checkpoint × examples × samples × settings, decoded together and kept as one batch
file. The plan is recorded before anything is decoded, and a batch is decoded from its record alone:
a run that was killed makes the same batches when it goes on, and the same bytes. Knows nothing of torch.
"""

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.core.digest import digest
from tangeval.core.errors import DamagedError, TangevalError
from tangeval.core.keeping import aside, listed, present
from tangeval.core.knobs import COMMON_AXES, WIDE, Setting, axes_set, spelt
from tangeval.core.types import BASE
from tangeval.core.untrusted import LARGEST, MIB
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import parquet_about, read_columns, write_json, write_text
from tangeval.results.folder import SCHEMA, RunFolder
from tangeval.tasks.base import Dataset

STALE = "engine, checkpoints, weights, data, prompt, seed, versions or machine are others"
_BATCH_ID = re.compile(r"\w+")
#: What is kept of a batch beside its settings.
_KEPT = ("id", "checkpoint", "cache_key", "examples", "samples")


@dataclass(frozen=True)
class Batch:
    """Outputs that are decoded together; ``cache_key`` is the digest of all else that decides their texts."""

    id: str
    checkpoint: str
    cache_key: str
    examples: tuple[str, ...]
    samples: tuple[int, ...]
    settings: tuple[Setting, ...]

    def sequences(self) -> int:
        """How many texts are decoded: settings that are prefixes of one sequence count once, greedy samples too.

        A search counts once for each of its beams.
        """
        distinct = {setting.sequence: setting for setting in map(self.decoded, self.settings)}
        each = [len(self.samples) if s.temperature else s.num_beams for s in distinct.values()]
        return len(self.examples) * sum(each)

    def decoded(self, setting: Setting) -> Setting:
        """Return the setting whose text is the one of ``setting``: nothing sets the base model against itself."""
        return setting.changed(contrast=0) if self.checkpoint == BASE and setting.contrast else setting

    def contrasted(self) -> int:
        """How many of the sequences run the base model too."""
        return replace(self, settings=tuple(s for s in self.settings if self.decoded(s).contrast)).sequences()

    def outputs(self) -> int:
        return len(self.examples) * len(self.samples) * len(self.settings)


def check_data(dataset: Dataset, run: RunFolder) -> None:
    """Raise a TangevalError if the data are not those that a results folder was made of."""
    if run.manifest["data"]["digest"] != dataset.digest:
        raise TangevalError(
            f"{run.path} was made of other data than {dataset.folder} holds now; give back the data it was made of, "
            "or run the study again"
        )


def read_plan(run: RunFolder) -> list[Batch]:
    """Return the batches recorded in a results folder; none if there is no plan.

    Raises:
        TangevalError: the plan is damaged or of another version, or is missing beside batch files.
    """
    content = run.read_json(run.plan)
    if content is None:
        if any(map(described, run.batch_files())):
            raise DamagedError(
                f"{run.plan} is missing; `tangeval repair {run.path}` makes it anew of the batch files"
            )
        return []
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TangevalError(f"{run.plan}: made by another version of tangeval; use another folder")
    try:
        wide = {} if WIDE in content["axes"] else {WIDE: run.wide()}
        grids = [_grid(content["axes"], grid, wide) for grid in content["grids"]]
        return [_batch(b, grids[b["grid"]]) for b in content["batches"]]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise DamagedError(
            f"{run.plan}: not a plan ({error!r}); `tangeval repair {run.path}` makes it anew of the batch files"
        ) from None


def _batch(record: Mapping[str, Any], settings: tuple[Setting, ...]) -> Batch:
    """A recorded batch; its id is the name of its file, which lies in the folder and nowhere else."""
    if not _BATCH_ID.fullmatch(record["id"]):
        raise ValueError(f"{record['id']!r} is no batch's id")
    examples, samples = tuple(record["examples"]), tuple(record["samples"])
    texts = (record["checkpoint"], record["cache_key"], *examples)
    if not all(isinstance(text, str) for text in texts) or not all(type(sample) is int for sample in samples):
        raise ValueError("checkpoint, cache_key and examples are texts, samples numbers")
    return Batch(record["id"], record["checkpoint"], record["cache_key"], examples, samples, settings)


def _grid(axes: Sequence[str], points: Sequence[Any], wide: Mapping[str, Any]) -> tuple[Setting, ...]:
    """Settings as they are recorded; ``wide`` is what the record leaves out and all of them have."""
    return tuple(Setting.of(**wide, **dict(zip(axes, values, strict=True))) for values in points)


def about(batch: Batch, wide: Any = None) -> dict[str, Any]:
    """Return what a batch file says of itself, in a study with the ``wide`` value of ``WIDE`` (None: several)."""
    axes, settings = spelt(batch.settings, wide)
    kept = {key: getattr(batch, key) for key in _KEPT}
    return {"schema": SCHEMA, "axes": axes, "settings": settings} | kept


def described(file: Path) -> Batch | None:
    """Return the batch that a file says it holds; None where it says nothing, as one of an earlier version does."""
    try:
        told = parquet_about(file)
        own = {} if WIDE in told["axes"] else {WIDE: int(read_columns(file, [WIDE], (), {})[WIDE].iloc[0])}
        batch = _batch(told, _grid(told["axes"], told["settings"], own))
    except (DamagedError, LookupError, TypeError, AttributeError, ValueError):
        return None
    return batch if batch.id == file.stem else None


def check_rows(batch: Batch, frame: pd.DataFrame, file: Path) -> None:
    """Raise a TangevalError if the rows of a file are not each of the batch's once."""
    axes, points = spelt(batch.settings)
    keys = ["example_id", "sample"], list(axes)
    outputs = set(product(batch.examples, batch.samples))
    settings = set(points) if outputs else set()
    there = [set(frame[own].drop_duplicates().itertuples(index=False, name=None)) for own in keys]
    whole = there == [outputs, settings] and len(frame) == len(outputs) * len(settings)
    twice = frame.duplicated(keys[0] + keys[1]).any()
    if not whole or twice or (frame["checkpoint"] != batch.checkpoint).any():
        raise DamagedError(
            f"{file}: its rows are not those that plan.json records; run the study again, which makes it anew"
        )


def _fits(batch: Batch, file: Path) -> bool:
    """Whether a batch file can be read and has its record's rows."""
    try:
        names = ["checkpoint", "example_id", "sample", *axes_set(batch.settings)]
        check_rows(batch, read_columns(file, names, (), {}), file)
    except DamagedError:
        return False
    return True


def set_aside_damaged(run: RunFolder, batches: Sequence[Batch]) -> None:
    """Move aside the batch files that are not as they were written, so that they are made again; warn.

    Raises:
        TangevalError: no file is as its checksum says: then the checksums are suspect.
    """
    there = {path: batch for batch in batches if present(path := run.batch_file(batch.id))}
    damaged = [path for path in run.damaged() if path in there]
    if len(damaged) == len(there) > 1:
        raise TangevalError(
            f"{run.checksums}: none of {len(damaged)} batch files is as it says; put back what was changed, or `tangeval repair "
            f"{run.path}` takes those for whole that hold what they should"
        )
    if unchecked := len(run.unchecked(there)):
        what = f"{unchecked} batch files have no checksum; they get one if their rows are right"
        warnings.warn(f"{run.path}: {what}", stacklevel=2)
    other = [path for path, batch in there.items() if path not in damaged and not _fits(batch, path)]
    for found, what in ((damaged, "were cut short or altered"), (other, "hold other rows than they should")):
        aside(found, run.path, f"{len(found)} batch files of generations {what}, and are made again")


def stale_files(run: RunFolder, batches: Sequence[Batch]) -> list[Path]:
    """Return the batch files of this folder's runs, as its plan or they themselves say, that are no longer wanted."""
    wanted = {batch.id for batch in batches}
    recorded = {batch.id for batch in read_plan(run)}
    own = (file for file in run.batch_files() if file.stem in recorded or described(file))
    return [file for file in own if file.stem not in wanted]


def repair(run: RunFolder) -> tuple[list[Batch], list[Path]]:
    """Make plan and checksums anew of the batch files; return the batches that are there, and the files left alone."""
    try:
        recorded = {batch.id: batch for batch in read_plan(run)}
    except DamagedError:
        recorded = {}
        aside([file for file in [run.plan] if present(file)], run.path, "the plan is not whole")
    told = {file: described(file) or recorded.get(file.stem) for file in run.batch_files()}
    held = {batch.id: batch for file, batch in told.items() if batch and _fits(batch, file)}
    batches = list((recorded | held).values())
    values = {getattr(setting, WIDE) for batch in batches for setting in batch.settings}
    write_plan(run, batches, wide=run.wide() if values == {run.wide()} else None)
    run.tidy_checksums(map(run.batch_file, held), anew=True)
    return list(held.values()), [file for file in told if file.stem not in held]


def write_plan(run: RunFolder, batches: Sequence[Batch], wide: Any = None) -> None:
    """Record the batches of a study with the ``wide`` value of ``WIDE`` (None: several). They have few lists of settings among them, so those stand apart, once each."""
    grids = list(dict.fromkeys(batch.settings for batch in batches))
    place = {grid: number for number, grid in enumerate(grids)}
    records = [{key: getattr(b, key) for key in _KEPT} | {"grid": place[b.settings]} for b in batches]
    axes, _ = spelt({setting for grid in grids for setting in grid}, wide)
    points = [[setting.at(axes) for setting in grid] for grid in grids]
    content = {"schema": SCHEMA, "axes": axes, "grids": points, "batches": records}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace('{"id"', '\n{"id"') + "\n"
    if len(text) > LARGEST:
        raise TangevalError(
            f"{run.plan}: {len(batches):,} batches are more than a plan may list ({LARGEST // MIB} MiB); give a larger "
            "batch_size, or part the study"
        )
    write_text(run.plan, text)


def write_run(
    resolved: ResolvedStudy, run: RunFolder, batches: Sequence[Batch], manifest: Mapping[str, Any]
) -> None:
    """Write study, plan and manifest before anything is decoded; move aside what is part of the plan no longer."""
    stale = stale_files(run, batches)
    aside(stale, run.path, f"{len(stale)} batch files of an earlier run fit no longer ({STALE})")
    write_text(run.study_file, resolved.study.to_yaml())
    write_plan(run, batches, resolved.study.decoding.wide(WIDE))
    write_json(run.manifest_file, manifest)
    run.generations.mkdir(exist_ok=True)
    own = [run.batch_file(batch.id) for batch in batches]
    if strange := ", ".join(file.name for file in listed(run.generations) if file not in own):
        warnings.warn(f"{run.generations}: left alone, as not of this run: {strange}", stacklevel=2)
    run.tidy_checksums(own)


def make_plan(
    resolved: ResolvedStudy,
    run: RunFolder,
    cache_keys: Mapping[str, str],
    rows: int,
    *,
    prefixes: bool = True,
) -> list[Batch]:
    """Return the batches that give the study's outputs: recorded ones that still hold, then new ones.

    ``cache_keys`` are by checkpoint; ``rows`` is the most sequences that a batch may have. A recorded
    batch is kept if its cache key and its examples are still the same, and if it is made already or
    wanted whole. Without ``prefixes`` each max_length is a sequence of its own, and a batch has one.
    """
    study = resolved.study
    wanted = {
        (example.id, sample)
        for split in study.ordered_splits()
        for example in resolved.examples(split)
        for sample in range(study.samples_of(split))
    }
    settings = study.decoding.settings()

    def holds(batch: Batch) -> bool:
        if cache_keys.get(batch.checkpoint) != batch.cache_key or batch.id != _batch_id(resolved, batch):
            return False
        outputs = product(batch.examples, batch.samples)
        whole = wanted.issuperset(outputs) and set(settings).issuperset(batch.settings)
        return whole or present(run.batch_file(batch.id))

    kept = list(filter(holds, read_plan(run)))
    lengths = dict.fromkeys(setting.max_length for setting in settings)
    parts = [settings] if prefixes else [tuple(s for s in settings if s.max_length == one) for one in lengths]
    asked = [
        Batch("", c.name, cache_keys[c.name], (), (), part) for c in resolved.checkpoints for part in parts
    ]
    new = [
        cut
        for each in asked
        for whole in _missing(resolved, each, kept)
        for cut in _cut(whole, rows, prefixes)
    ]
    return kept + [replace(batch, id=_batch_id(resolved, batch)) for batch in new]


def _missing(resolved: ResolvedStudy, wanted: Batch, kept: Sequence[Batch]) -> Iterator[Batch]:
    """Yield what no kept batch covers of all the study's outputs of the checkpoint and settings that are ``wanted``."""
    covered: dict[tuple[str, int], set[Setting]] = {}
    for batch in kept:
        if batch.checkpoint == wanted.checkpoint:
            for output in product(batch.examples, batch.samples):
                covered.setdefault(output, set()).update(batch.settings)
    for split in resolved.study.ordered_splits():
        # Examples that lack the same samples of the same settings make a rectangle.
        rectangles: dict[tuple[tuple[int, ...], tuple[Setting, ...]], list[str]] = {}
        for example in resolved.examples(split):
            lacking: dict[tuple[Setting, ...], list[int]] = {}
            for sample in range(resolved.study.samples_of(split)):
                have = covered.get((example.id, sample), set())
                lacking.setdefault(tuple(s for s in wanted.settings if s not in have), []).append(sample)
            for settings, samples in lacking.items():
                if settings:
                    rectangles.setdefault((tuple(samples), settings), []).append(example.id)
        for (chosen, settings), names in rectangles.items():
            yield replace(wanted, examples=tuple(names), samples=chosen, settings=settings)


def _cut(batch: Batch, rows: int, prefixes: bool) -> Iterator[Batch]:
    """Halve prompts, then samples, then settings, until a batch has at most ``rows`` sequences.

    Prompts go first: what shares a prompt shares rows. Without ``prefixes`` samples go last: a server draws them together.
    """
    if batch.sequences() <= rows:
        yield batch
        return
    for field in ("examples", *(("samples", "settings") if prefixes else ("settings", "samples"))):
        values = getattr(batch, field)
        if len(values) > 1:
            middle = (len(values) + 1) // 2
            for part in (values[:middle], values[middle:]):
                yield from _cut(replace(batch, **{field: part}), rows, prefixes)
            return
    yield batch


def _batch_id(resolved: ResolvedStudy, batch: Batch) -> str:
    """The digest of a batch's content, its examples' texts included; "" if an example is gone."""
    if not (known := resolved.dataset.by_id).keys() >= set(batch.examples):
        return ""
    own = (known[name] for name in batch.examples)
    texts = [[e.id, e.instruction, e.input, e.split, *e.fields] for e in own]
    axes, settings = spelt(batch.settings, resolved.study.decoding.wide(WIDE))
    named = [axes] if axes != COMMON_AXES else []
    return digest([batch.cache_key, batch.checkpoint, texts, batch.samples, settings, *named])
