"""What a study needs that its results folder does not hold yet, cut into batches.

In: a study with every name resolved, and the batches recorded by earlier runs. Out: the batches
to keep and those to make. A batch is a checkpoint × some prompts × some samples × some
settings, decoded together and kept as one batch file of ``generations/``. Knows nothing of torch.

The plan is recorded before anything is decoded, and a batch is decoded from its record
alone. So a run that was cut off makes the same batches when it goes on, and the same bytes.
"""

import json
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tangeval import __version__
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, COLUMNS, Setting
from tangeval.core.untrusted import LARGEST, MIB
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import TIMINGS, read_json, write_json, write_text
from tangeval.tasks.base import Dataset

SCHEMA = 3
PLAN = "plan.json"
_BATCH_ID = re.compile(r"\w+")
#: A batch file's columns: what engines make and scores are made of.
GENERATIONS = (
    "checkpoint", "step", *COLUMNS, "split", "example_id", "sample", "text", "n_tokens", "finish_reason",
)  # fmt: skip


@dataclass(frozen=True)
class Batch:
    """One batch and one batch file. ``context`` stands for all that decides its texts but this."""

    id: str
    checkpoint: str
    cache_key: str
    examples: tuple[str, ...]
    samples: tuple[int, ...]
    settings: tuple[Setting, ...]

    def batch_file(self, folder: Path) -> Path:
        return folder / "generations" / f"{self.id}.parquet"

    def sequences(self) -> int:
        """How many outputs are decoded: settings that are prefixes of one sequence count once."""
        distinct = {setting.sequence for setting in self.settings}
        greedy = sum(1 for sequence in distinct if sequence[0] == 0)
        return len(self.examples) * ((len(distinct) - greedy) * len(self.samples) + greedy)

    def outputs(self) -> int:
        return len(self.examples) * len(self.samples) * len(self.settings)


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


def read_plan(folder: Path) -> list[Batch]:
    """Return the batches recorded in a results folder; none if there is no plan."""
    content = read_json(folder / PLAN)
    if content is None:
        return []
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TangevalError(
            f"{folder / PLAN}: made by another version of tangeval, which can go on from it and read it; with this one, use another folder"
        )
    try:
        grids = [tuple(Setting(tuple(values)) for values in grid) for grid in content["grids"]]
        batches = [
            Batch(w["id"], w["checkpoint"], w["context"], tuple(w["examples"]), tuple(w["samples"]), grids[w["grid"]])
            for w in content["batches"]
        ]  # fmt: skip
        strange = [batch.id for batch in batches if not _BATCH_ID.fullmatch(batch.id)]
    except (LookupError, TypeError, AttributeError) as error:
        raise TangevalError(
            f"{folder / PLAN}: not a plan ({error!r}); delete it, and run the study again"
        ) from None
    if strange:  # the name of its batch file, which lies in the folder and nowhere else
        raise TangevalError(
            f"{folder / PLAN}: {strange[0]!r} is no batch's id; delete the file, and run the study again"
        )
    return batches


def write_plan(folder: Path, batches: Sequence[Batch]) -> None:
    """Record the batches. They have few lists of settings among them, so those stand apart, once each."""
    grids = list(dict.fromkeys(batch.settings for batch in batches))
    place = {grid: number for number, grid in enumerate(grids)}
    content = {
        "schema": SCHEMA,
        "axes": AXES,
        "grids": [[setting.values for setting in grid] for grid in grids],
        "batches": [
            {"id": w.id, "checkpoint": w.checkpoint, "context": w.cache_key, "examples": w.examples,
             "samples": w.samples, "grid": place[w.settings]}
            for w in batches
        ],
    }  # fmt: skip
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace('{"id"', '\n{"id"') + "\n"
    if len(text) > LARGEST:
        raise TangevalError(
            f"{folder / PLAN}: {len(batches):,} batches are more than a plan may list ({LARGEST // MIB} MiB); give a larger "
            "batch_size, or part the study"
        )
    write_text(folder / PLAN, text)


def record(resolved: ResolvedStudy, folder: Path, batches: Sequence[Batch], manifest: dict[str, Any]) -> None:
    """Write down what is about to be made, and remove the batch files that are part of it no longer."""
    write_text(folder / "study.yaml", resolved.study.to_yaml())
    write_plan(folder, batches)
    write_json(folder / "manifest.json", manifest)
    (folder / "generations").mkdir(exist_ok=True)
    for stale in set((folder / "generations").glob("*.parquet")) - {w.batch_file(folder) for w in batches}:
        stale.unlink()


def said_of(
    resolved: ResolvedStudy, cache_keys: dict[str, str], *, engine: str, noise: str, noise_shared: bool, versions: dict[str, str],
    hardware: dict[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """Return what a results folder says of its own making, whatever the engine."""
    asked = resolved.study.content()
    for key in (
        "engine",
        "cache_dir",
    ):  # where and by whom it is made: what of it counts is in the cache keys
        asked.pop(key, None)
    return {
        "schema": SCHEMA,
        "tangeval": __version__,
        "study": resolved.study.name,
        "seed": resolved.study.seed,
        "signature": digest([asked, cache_keys, resolved.dataset.digest]),
        "engine": engine,
        "noise": noise,
        "noise_shared": noise_shared,
        "data": {"name": resolved.dataset.name, "digest": resolved.dataset.digest},
        "base_model": {"name": resolved.base.name, "fingerprint": resolved.base_fingerprint},
        "checkpoints": [
            {
                "name": c.name,
                "step": c.step,
                "kind": c.kind,
                "path": str(c.path) if c.path else None,
                "fingerprint": resolved.fingerprints[c.name],
                "seen": resolved.seen(c),
            }
            for c in resolved.checkpoints
        ],
        "left_out": [{"path": str(s.path), "reason": s.reason} for s in resolved.skipped],
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


def pace(folder: Path, pending: Sequence[Batch]) -> str:
    """Say how long the pending batches will take, from the batches that were timed in ``folder``."""
    timed = (read_json(folder / TIMINGS) or {}).get("batches", {})
    sequences = {w.id: w.sequences() for w in read_plan(folder) if w.id in timed}
    if not sequences:
        return "no batch was timed here yet, so the time is not known"
    rate = sum(timed[name] for name in sequences) / sum(sequences.values())
    seconds = rate * sum(w.sequences() for w in pending)
    return f"about {seconds / 60:.1f} min at the {1 / rate:,.0f} sequences a second measured here"


def make_plan(
    resolved: ResolvedStudy, folder: Path, cache_keys: dict[str, str], rows: int, *, prefixes: bool = True
) -> list[Batch]:
    """Return the batches that give the study's outputs: recorded ones that still hold, then new ones.

    ``contexts`` holds each checkpoint's ``Setup.context``; ``rows`` is the most sequences that a
    batch may have. A recorded batch is kept if its context and its examples are still the same,
    and if it is made already or wanted whole. Without ``prefixes`` each max_length is a sequence of
    its own, and a batch has one.
    """
    study = resolved.study
    wanted = {
        (example.id, sample)
        for split in study.ordered_splits()
        for example in resolved.examples(split)
        for sample in range(study.samples_of(split))
    }
    settings = set(study.decoding.settings())
    kept = []
    for batch in read_plan(folder):
        same = cache_keys.get(batch.checkpoint) == batch.cache_key and batch.id == _batch_id(resolved, batch)
        whole = settings.issuperset(batch.settings) and all(
            (example, sample) in wanted for example in batch.examples for sample in batch.samples
        )
        if same and (batch.batch_file(folder).is_file() or whole):
            kept.append(batch)
    lengths = [study.decoding.max_length] if prefixes else [[length] for length in study.decoding.max_length]
    new = [
        batch
        for c in resolved.checkpoints
        for some in lengths
        for batch in _missing(resolved, c.name, cache_keys[c.name], kept, rows, some)
    ]
    return kept + new


def _missing(
    resolved: ResolvedStudy,
    checkpoint: str,
    cache_key: str,
    kept: Sequence[Batch],
    rows: int,
    lengths: Sequence[int],
) -> Iterator[Batch]:
    """New batches of settings of these ``lengths`` for what no kept batch of ``checkpoint`` covers."""
    covered: dict[tuple[str, int], set[Setting]] = {}
    for batch in kept:
        if batch.checkpoint == checkpoint:
            for name in batch.examples:
                for sample in batch.samples:
                    covered.setdefault((name, sample), set()).update(batch.settings)
    every = [setting for setting in resolved.study.decoding.settings() if setting.max_length in lengths]
    for split in resolved.study.ordered_splits():
        # Examples that lack the same samples of the same settings make a rectangle.
        rectangles: dict[tuple[tuple[int, ...], tuple[Setting, ...]], list[str]] = {}
        for example in resolved.examples(split):
            lacking: dict[tuple[Setting, ...], list[int]] = {}
            for sample in range(resolved.study.samples_of(split)):
                have = covered.get((example.id, sample), set())
                lacking.setdefault(tuple(setting for setting in every if setting not in have), []).append(
                    sample
                )
            for settings, samples in lacking.items():
                if settings:
                    rectangles.setdefault((tuple(samples), settings), []).append(example.id)
        for (chosen, settings), names in rectangles.items():
            for batch in _cut(Batch("", checkpoint, cache_key, tuple(names), chosen, settings), rows):
                yield replace(batch, id=_batch_id(resolved, batch))


def _cut(batch: Batch, rows: int) -> Iterator[Batch]:
    """Halve prompts, then samples, then settings, until a batch has at most ``rows`` sequences.

    Prompts go first: what shares a prompt shares rows.
    """
    if batch.sequences() <= rows:
        yield batch
        return
    for field in ("examples", "samples", "settings"):
        values = getattr(batch, field)
        if len(values) > 1:
            middle = (len(values) + 1) // 2
            for part in (values[:middle], values[middle:]):
                yield from _cut(replace(batch, **{field: part}), rows)
            return
    yield batch


def _batch_id(resolved: ResolvedStudy, batch: Batch) -> str:
    """The digest of a batch's content, its examples' texts included; "" if an example is gone."""
    known = resolved.dataset.by_id
    if not all(example in known for example in batch.examples):
        return ""
    texts = [[e, known[e].instruction, known[e].input, known[e].split] for e in batch.examples]
    settings = [setting.values for setting in batch.settings]
    return digest([batch.cache_key, batch.checkpoint, texts, batch.samples, settings])
