"""What a study needs that its results folder does not hold yet, cut into batches.

In: a resolved study, and the batches recorded by earlier runs. Out: the batches to keep and those to
make. A batch is a checkpoint × examples × samples × settings, decoded together and kept as one batch
file. The plan is recorded before anything is decoded, and a batch is decoded from its record alone:
a run that was killed makes the same batches when it goes on, and the same bytes. Knows nothing of torch.
"""

import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from typing import Any

import psutil

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, COLUMNS, Setting
from tangeval.core.untrusted import LARGEST, MIB
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import write_json, write_text
from tangeval.results.folder import SCHEMA, RunFolder
from tangeval.tasks.base import Dataset

_BATCH_ID = re.compile(r"\w+")
#: A batch file's columns: what engines make and scores are made of.
GENERATIONS = (
    "checkpoint", "step", *COLUMNS, "split", "example_id", "sample", "text", "n_tokens", "finish_reason",
)  # fmt: skip


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
        """How many texts are decoded: settings that are prefixes of one sequence count once, greedy samples too."""
        distinct = {setting.sequence: setting for setting in self.settings}
        greedy = sum(1 for setting in distinct.values() if setting.temperature == 0)
        return len(self.examples) * ((len(distinct) - greedy) * len(self.samples) + greedy)

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
        TangevalError: the plan is damaged or of another version.
    """
    content = run.read_json(run.plan)
    if content is None:
        return []
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise TangevalError(f"{run.plan}: made by another version of tangeval; use another folder")
    try:
        grids = [
            tuple(Setting.of(**dict(zip(content["axes"], values, strict=True))) for values in grid)
            for grid in content["grids"]
        ]
        batches = [
            Batch(name, checkpoint, key, tuple(b["examples"]), tuple(b["samples"]), grids[b["grid"]])
            for b in content["batches"]
            for name, checkpoint, key in [(b["id"], b["checkpoint"], b["cache_key"])]
        ]
        for batch in batches:  # the name of its file, which lies in the folder and nowhere else
            if not _BATCH_ID.fullmatch(batch.id):
                raise ValueError(f"{batch.id!r} is no batch's id")
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise TangevalError(
            f"{run.plan}: not a plan ({error!r}); delete it, and run the study again"
        ) from None
    return batches


def write_plan(run: RunFolder, batches: Sequence[Batch]) -> None:
    """Record the batches. They have few lists of settings among them, so those stand apart, once each."""
    grids = list(dict.fromkeys(batch.settings for batch in batches))
    place = {grid: number for number, grid in enumerate(grids)}
    kept = ("id", "checkpoint", "cache_key", "examples", "samples")
    listed = [{key: getattr(b, key) for key in kept} | {"grid": place[b.settings]} for b in batches]
    spelt = [[setting.values for setting in grid] for grid in grids]
    content = {"schema": SCHEMA, "axes": AXES, "grids": spelt, "batches": listed}
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
    """Write study, plan and manifest before anything is decoded, and remove what is part of the plan no longer."""
    write_text(run.study_file, resolved.study.to_yaml())
    write_plan(run, batches)
    write_json(run.manifest_file, manifest)
    run.generations.mkdir(exist_ok=True)
    for stale in set(run.generations.glob("*.parquet")) - {run.batch_file(batch.id) for batch in batches}:
        stale.unlink()
    run.tidy_checksums()


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


def estimate_duration(run: RunFolder, pending: Sequence[Batch]) -> str:
    """Say how long the pending batches will take, from the batches that were timed in the folder."""
    timed = run.timings("batches")
    sequences = {batch.id: batch.sequences() for batch in read_plan(run) if batch.id in timed}
    if not sequences:
        return "no batch was timed here yet, so the time is not known"
    rate = sum(timed[name] for name in sequences) / sum(sequences.values())
    seconds = rate * sum(batch.sequences() for batch in pending)
    return f"about {seconds / 60:.1f} min at the {1 / rate:,.0f} sequences a second measured here"


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
        return whole or run.batch_file(batch.id).is_file()

    kept = list(filter(holds, read_plan(run)))
    lengths = dict.fromkeys(setting.max_length for setting in settings)
    parts = [settings] if prefixes else [tuple(s for s in settings if s.max_length == one) for one in lengths]
    asked = [
        Batch("", c.name, cache_keys[c.name], (), (), part) for c in resolved.checkpoints for part in parts
    ]
    new = [cut for each in asked for whole in _missing(resolved, each, kept) for cut in _cut(whole, rows)]
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
    if not known.keys() >= set(batch.examples):
        return ""
    texts = [[e, known[e].instruction, known[e].input, known[e].split] for e in batch.examples]
    settings = [setting.values for setting in batch.settings]
    return digest([batch.cache_key, batch.checkpoint, texts, batch.samples, settings])
