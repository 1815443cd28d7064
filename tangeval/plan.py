"""What a study needs that its results folder does not hold yet, cut into waves.

In: a study with every name resolved, and the waves recorded by earlier runs. Out: the waves
to keep and those to make. A wave is a checkpoint × some prompts × some samples × some
cells, decoded together and kept as one shard of ``generations/``. Knows nothing of torch.

The plan is recorded before anything is decoded, and a wave is decoded from its record
alone. So a run that was cut off makes the same batches when it goes on, and the same bytes.
"""

import hashlib
import json
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tangeval import __version__
from tangeval import checkpoint as checkpoints_on_disk
from tangeval import dataset as datasets
from tangeval.checkpoint import Skipped
from tangeval.dataset import Dataset
from tangeval.foreign import LARGEST, MIB
from tangeval.prompt import HW5, SYSTEM
from tangeval.records import BASE, Base, Cell, Checkpoint, Example, TangevalError
from tangeval.store import TIMINGS, read_json, write_json, write_text
from tangeval.study import Study

SCHEMA = 2
#: Raised when the engine or the noise changes what it writes: older shards are then made again.
ENGINE = 3
PLAN = "plan.json"
_WAVE_ID = re.compile(r"\w+")
#: A shard's columns: what engines make and scores are made of.
GENERATIONS = (
    "checkpoint", "step", "temperature", "top_k", "top_p", "max_length", "no_repeat_ngram_size",
    "split", "example_id", "sample", "text", "n_tokens", "finish_reason",
)  # fmt: skip


@dataclass(frozen=True)
class Wave:
    """One batch and one shard. ``context`` stands for all that decides its texts but this."""

    id: str
    checkpoint: str
    context: str
    examples: tuple[str, ...]
    samples: tuple[int, ...]
    cells: tuple[Cell, ...]

    def shard(self, folder: Path) -> Path:
        return folder / "generations" / f"{self.id}.parquet"

    def streams(self) -> int:
        """How many outputs are decoded: cells that are prefixes of one stream count once."""
        distinct = {cell.stream for cell in self.cells}
        greedy = sum(1 for stream in distinct if stream[0] == 0)
        return len(self.examples) * ((len(distinct) - greedy) * len(self.samples) + greedy)

    def outputs(self) -> int:
        return len(self.examples) * len(self.samples) * len(self.cells)


@dataclass(frozen=True)
class Setup:
    """A study whose names are resolved."""

    study: Study
    base: Base
    checkpoints: tuple[Checkpoint, ...]
    skipped: tuple[Skipped, ...]
    dataset: Dataset
    allow_pickle: bool = False

    def examples(self, split: str) -> tuple[Example, ...]:
        return tuple(e for e in self.dataset.examples if e.split == split)

    @property
    def names(self) -> list[str]:
        """The checkpoints' names, in the order they are run."""
        return [checkpoint.name for checkpoint in self.checkpoints]

    def without(self, failed: Sequence[Skipped]) -> "Setup":
        """The same without checkpoints that could not be used, which are then among those skipped.

        Raises:
            TangevalError: none is left.
        """
        lost = {skipped.path for skipped in failed}
        left = tuple(c for c in self.checkpoints if (c.path or Path(self.base.source)) not in lost)
        if not left:
            raise TangevalError("checkpoints: none can be used: " + "; ".join(s.reason for s in failed))
        return replace(self, checkpoints=left, skipped=(*self.skipped, *failed))

    @cached_property
    def base_fingerprint(self) -> str:
        """What tells the base model from others; empty where a server holds it."""
        return "" if self.study.engine else checkpoints_on_disk.identity(self.base)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Each checkpoint's digest, by name; the base model's own is empty."""
        return {c.name: checkpoints_on_disk.fingerprint(c.path) if c.path else "" for c in self.checkpoints}

    def seen(self, checkpoint: Checkpoint) -> dict[str, int] | None:
        """How many poems of each split a checkpoint was fine-tuned on; None if it keeps no record."""
        hashes = checkpoints_on_disk.trained_on(checkpoint)
        if hashes is None:
            return None
        splits = self.study.ordered_splits()
        return {s: sum(datasets.poem_hash(e) in hashes for e in self.examples(s)) for s in splits}

    def context(self, checkpoint: Checkpoint, engine: str) -> str:
        """Return the digest of all that decides a text but example, sample and cell.

        ``engine`` says on what it is computed (device, dtype, threads).
        """
        study = self.study
        parts = {
            "engine": [ENGINE, engine, version("torch"), version("transformers")],
            "base": self.base_fingerprint,
            "checkpoint": self.fingerprints[checkpoint.name],
            "load": asdict(study.loading()),
            "prompt": [study.prompt, HW5, SYSTEM],  # a chat template is part of the base's fingerprint
            "seed": study.seed,
            "no_repeat_ngram_size": study.decoding.no_repeat_ngram_size,
        }
        return digest(parts)

    def needs_weights(self, command: str) -> None:
        """Refuse a command that looks into the model itself, where a server holds it.

        Raises:
            TangevalError: the study has an ``engine``.
        """
        if self.study.engine:
            raise TangevalError(
                f"engine: `tangeval {command}` wants logits, which {self.study.engine.server} does not give; use a study "
                "without engine, whose base_model and checkpoints are here"
            )


def digest(content: Any) -> str:
    """Return a short blake2b digest of JSON-like content."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def resolve(study: Study, *, allow_pickle: bool = False) -> Setup:
    """Resolve the study's names: base model, checkpoints, data.

    Raises:
        TangevalError: one of them does not exist or cannot be used.
    """
    data = datasets.load(study.data_name, study.validation_size)
    if study.engine:
        if allow_pickle:
            raise TangevalError(
                "--allow-pickle: with a server (engine) no weights are read here; leave it out"
            )
        base = Base(study.engine.host, study.engine.server)
        return Setup(study, base, checkpoints_on_disk.served(study.engine.models), (), data)
    base = checkpoints_on_disk.resolve_base(study.base_model, study.cache_dir)
    found, skipped = checkpoints_on_disk.discover(study.checkpoints, allow_pickle=allow_pickle)
    if study.include_base:
        found = (Checkpoint(BASE, None, None, "base"), *found)
    if not found:
        raise TangevalError(
            f"checkpoints: no whole checkpoint in {', '.join(study.checkpoints)}: "
            + "; ".join(f"{s.path.name}: {s.reason}" for s in skipped)
        )
    for checkpoint in found:
        checkpoints_on_disk.check_tokenizer(base, checkpoint)
    return Setup(study, base, found, skipped, data, allow_pickle)


def check_data(dataset: Dataset, folder: Path) -> None:
    """Refuse data that are not those that a results folder was made of.

    Raises:
        TangevalError: naming both.
    """
    manifest = read_json(folder / "manifest.json")
    if manifest is None or manifest["data"]["digest"] != dataset.digest:
        raise TangevalError(
            f"{folder} was made of other data than {dataset.folder} holds now; give back the data it was made of, "
            "or run the study again"
        )


def read_plan(folder: Path) -> list[Wave]:
    """Return the waves recorded in a results folder; none if there is no plan."""
    content = read_json(folder / PLAN)
    if content is None:
        return []
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TangevalError(
            f"{folder / PLAN}: made by another version of tangeval, which can go on from it and read it; with this one, use another folder"
        )
    try:
        grids = [tuple(Cell(*cell) for cell in grid) for grid in content["grids"]]
        waves = [
            Wave(w["id"], w["checkpoint"], w["context"], tuple(w["examples"]), tuple(w["samples"]), grids[w["grid"]])
            for w in content["waves"]
        ]  # fmt: skip
        strange = [wave.id for wave in waves if not _WAVE_ID.fullmatch(wave.id)]
    except (LookupError, TypeError, AttributeError) as error:
        raise TangevalError(
            f"{folder / PLAN}: not a plan ({error!r}); delete it, and run the study again"
        ) from None
    if strange:  # the name of its shard, which lies in the folder and nowhere else
        raise TangevalError(
            f"{folder / PLAN}: {strange[0]!r} is no wave's id; delete the file, and run the study again"
        )
    return waves


def write_plan(folder: Path, waves: Sequence[Wave]) -> None:
    """Record the waves. They have few lists of cells among them, so those stand apart, once each."""
    grids = list(dict.fromkeys(wave.cells for wave in waves))
    place = {grid: number for number, grid in enumerate(grids)}
    content = {
        "schema": SCHEMA,
        "grids": [[[c.temperature, c.top_k, c.top_p, c.max_length] for c in grid] for grid in grids],
        "waves": [
            {"id": w.id, "checkpoint": w.checkpoint, "context": w.context, "examples": w.examples,
             "samples": w.samples, "grid": place[w.cells]}
            for w in waves
        ],
    }  # fmt: skip
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace('{"id"', '\n{"id"') + "\n"
    if len(text) > LARGEST:
        raise TangevalError(
            f"{folder / PLAN}: {len(waves):,} waves are more than a plan may list ({LARGEST // MIB} MiB); give a larger "
            "batch_size, or part the study"
        )
    write_text(folder / PLAN, text)


def record(setup: Setup, folder: Path, waves: Sequence[Wave], manifest: dict[str, Any]) -> None:
    """Write down what is about to be made, and remove the shards that are part of it no longer."""
    write_text(folder / "study.yaml", setup.study.to_yaml())
    write_plan(folder, waves)
    write_json(folder / "manifest.json", manifest)
    (folder / "generations").mkdir(exist_ok=True)
    for stale in set((folder / "generations").glob("*.parquet")) - {w.shard(folder) for w in waves}:
        stale.unlink()


def said_of(
    setup: Setup, contexts: dict[str, str], *, engine: str, luck: str, luck_shared: bool, versions: dict[str, str],
    hardware: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return what a results folder says of its own making, whatever the engine."""
    asked = setup.study.content()
    for key in ("ray", "cache_dir"):  # where and by how many it is made is no part of what is made
        asked.pop(key, None)
    for key in ("server", "concurrency", "api_key_env", "timeout", "retries"):
        (asked.get("engine") or {}).pop(key, None)
    return {
        "schema": SCHEMA,
        "tangeval": __version__,
        "study": setup.study.name,
        "seed": setup.study.seed,
        "signature": digest([asked, contexts, setup.dataset.digest]),
        "engine": engine,
        "luck": luck,
        "luck_shared": luck_shared,
        "data": {"name": setup.dataset.name, "digest": setup.dataset.digest},
        "base_model": {"name": setup.base.name, "fingerprint": setup.base_fingerprint},
        "checkpoints": [
            {
                "name": c.name,
                "step": c.step,
                "kind": c.kind,
                "path": str(c.path) if c.path else None,
                "fingerprint": setup.fingerprints[c.name],
                "seen": setup.seen(c),
            }
            for c in setup.checkpoints
        ],
        "left_out": [{"path": str(s.path), "reason": s.reason} for s in setup.skipped],
        "versions": versions,
        "hardware": hardware,
    }


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions that a results folder records: of Python, of an engine's ``packages``, of what scores."""
    names = (*packages, "sacrebleu", "opencc", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def hardware(gpu: str | None) -> dict[str, Any]:
    """Return what a results folder records of this machine."""
    return {
        "machine": platform.machine(), "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1), "gpu": gpu,
    }  # fmt: skip


def pace(folder: Path, pending: Sequence[Wave]) -> str:
    """Say how long the pending waves will take, from the waves that were timed in ``folder``."""
    timed = (read_json(folder / TIMINGS) or {}).get("waves", {})
    streams = {w.id: w.streams() for w in read_plan(folder) if w.id in timed}
    if not streams:
        return "no wave was timed here yet, so the time is not known"
    rate = sum(timed[name] for name in streams) / sum(streams.values())
    seconds = rate * sum(w.streams() for w in pending)
    return f"about {seconds / 60:.1f} min at the {1 / rate:,.0f} streams a second measured here"


def make_plan(
    setup: Setup, folder: Path, contexts: dict[str, str], rows: int, *, prefixes: bool = True
) -> list[Wave]:
    """Return the waves that give the study's outputs: recorded ones that still hold, then new ones.

    ``contexts`` holds each checkpoint's ``Setup.context``; ``rows`` is the most streams that a
    wave may have. A recorded wave is kept if its context and its examples are still the same,
    and if it is made already or wanted whole. Without ``prefixes`` each max_length is a stream of
    its own, and a wave has one.
    """
    study = setup.study
    wanted = {
        (example.id, sample)
        for split in study.ordered_splits()
        for example in setup.examples(split)
        for sample in range(study.samples_of(split))
    }
    cells = set(study.decoding.cells())
    kept = []
    for wave in read_plan(folder):
        same = contexts.get(wave.checkpoint) == wave.context and wave.id == _wave_id(setup, wave)
        whole = cells.issuperset(wave.cells) and all(
            (example, sample) in wanted for example in wave.examples for sample in wave.samples
        )
        if same and (wave.shard(folder).is_file() or whole):
            kept.append(wave)
    lengths = [study.decoding.max_length] if prefixes else [[length] for length in study.decoding.max_length]
    new = [
        wave
        for c in setup.checkpoints
        for some in lengths
        for wave in _missing(setup, c.name, contexts[c.name], kept, rows, some)
    ]
    return kept + new


def _missing(
    setup: Setup, checkpoint: str, context: str, kept: Sequence[Wave], rows: int, lengths: Sequence[int]
) -> Iterator[Wave]:
    """New waves of cells of these ``lengths`` for what no kept wave of ``checkpoint`` covers."""
    covered: dict[tuple[str, int], set[Cell]] = {}
    for wave in kept:
        if wave.checkpoint == checkpoint:
            for name in wave.examples:
                for sample in wave.samples:
                    covered.setdefault((name, sample), set()).update(wave.cells)
    every = [cell for cell in setup.study.decoding.cells() if cell.max_length in lengths]
    for split in setup.study.ordered_splits():
        # Examples that lack the same samples of the same cells make a rectangle.
        rectangles: dict[tuple[tuple[int, ...], tuple[Cell, ...]], list[str]] = {}
        for example in setup.examples(split):
            lacking: dict[tuple[Cell, ...], list[int]] = {}
            for sample in range(setup.study.samples_of(split)):
                have = covered.get((example.id, sample), set())
                lacking.setdefault(tuple(cell for cell in every if cell not in have), []).append(sample)
            for cells, samples in lacking.items():
                if cells:
                    rectangles.setdefault((tuple(samples), cells), []).append(example.id)
        for (chosen, cells), names in rectangles.items():
            for wave in _cut(Wave("", checkpoint, context, tuple(names), chosen, cells), rows):
                yield replace(wave, id=_wave_id(setup, wave))


def _cut(wave: Wave, rows: int) -> Iterator[Wave]:
    """Halve prompts, then samples, then cells, until a wave has at most ``rows`` streams.

    Prompts go first: what shares a prompt shares rows.
    """
    if wave.streams() <= rows:
        yield wave
        return
    for field in ("examples", "samples", "cells"):
        values = getattr(wave, field)
        if len(values) > 1:
            middle = (len(values) + 1) // 2
            for part in (values[:middle], values[middle:]):
                yield from _cut(replace(wave, **{field: part}), rows)
            return
    yield wave


def _wave_id(setup: Setup, wave: Wave) -> str:
    """The digest of a wave's content, its examples' texts included; "" if an example is gone."""
    known = setup.dataset.by_id
    if not all(example in known for example in wave.examples):
        return ""
    texts = [[e, known[e].instruction, known[e].couplet, known[e].split] for e in wave.examples]
    cells = [[c.temperature, c.top_k, c.top_p, c.max_length] for c in wave.cells]
    return digest([wave.context, wave.checkpoint, texts, wave.samples, cells])
