"""What a results folder lacks of a study → an engine → the folder.

In: a resolved study, a results folder and an engine. Out: one batch file a batch, each whole or not
there, ``likelihood.parquet``, plan, manifest and times. What is there already and still holds is not
made again. Only this process writes the folder. Knows nothing of torch, servers and metrics.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import __version__
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.keeping import aside, present
from tangeval.core.knobs import WIDE, warp_name, warps
from tangeval.core.types import Checkpoint, Example
from tangeval.core.words import say
from tangeval.engines import make
from tangeval.engines.base import Description, Done, Engine, Job, OnProgress, ReferenceNLL
from tangeval.models.checkpoints import Skipped
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import read_parquet, remove_temp_files, write_json
from tangeval.results.folder import SCHEMA, RunFolder
from tangeval.results.plan import STALE, Batch, about, make_plan, read_plan

from tangeval.results.plan import set_aside_damaged, stale_files, write_run  # isort: skip

#: What only an engine that was asked for texts says of itself: kept where it is not asked again.
_PROBED = ("noise", "noise_shared", "noise_measured")


@dataclass(frozen=True)
class Pending:
    """What is still to be decoded: all batches of the study, those without a batch file, and batch files that fit no longer."""

    batches: Sequence[Batch]
    waiting: Sequence[Batch]
    stale: Sequence[Path]

    @property
    def sequences(self) -> int:
        return sum(batch.sequences() for batch in self.waiting)

    @property
    def outputs(self) -> int:
        return sum(batch.outputs() for batch in self.batches)


def pending(resolved: ResolvedStudy, folder: Path, engine: Engine, *, overwrite: bool = False) -> Pending:
    """Return what ``decode`` would make; writes nothing.

    Raises:
        TangevalError: the engine refuses the study; or nothing in the folder fits it, and ``overwrite``
            was not given.
    """
    engine.check()
    run = RunFolder(folder)
    batches, _ = _plan(resolved, run, engine)
    waiting = [batch for batch in batches if not present(run.batch_file(batch.id))]
    stale = stale_files(run, batches)
    if stale and len(waiting) == len(batches) and not overwrite:
        raise TangevalError(
            f"{folder}: none of its {len(stale)} batch files of generations fits this study any longer ({STALE}); give "
            "--overwrite to move them aside, or another folder with --out"
        )
    return Pending(batches, waiting, stale)


def estimate(folder: Path, engine: Engine, batches: Sequence[Batch], base: str) -> str:
    """Return, for a reader, how large the batches are, where they go, and what they will take.

    ``base`` is the fingerprint of the base model, "" of a server's: results beside ``folder`` that have it tell where it was
    not timed.
    """
    if not batches:
        return say("takes.nothing")
    largest, two = (max(b.sequences() for b in batches), sum(b.contrasted() for b in batches))
    contrast = say("takes.contrast", n=f"{two:,}") if two else ""
    told = engine.describe()
    where = say("takes.where", place=told.place) if told.place else ""
    same = {"engine": told.name, "hardware": dict(told.hardware)}
    others = [RunFolder(file.parent) for file in sorted(folder.parent.glob("*/manifest.json"))]
    made = [(run, run.read_json(run.manifest_file) or {}) for run in others if run.path != folder]
    beside = [
        run for run, said in made
        if base and said.get("base_model", {}).get("fingerprint") == base and {k: said.get(k) for k in same} == same
    ]  # fmt: skip
    time = estimate_duration(RunFolder(folder), batches, told.processes, beside)
    return say("takes.batches", largest=f"{largest:,}", where=where, time=time, contrast=contrast)


def estimate_duration(
    run: RunFolder, pending: Sequence[Batch], processes: int = 1, beside: Sequence[RunFolder] = ()
) -> str:
    """Say how long so many processes will take for the pending batches, from those that were timed in the folder.

    Where none was, those of folders ``beside`` it tell, of the same base model on the same machine.
    """
    for folder in (run, *beside):
        timed = folder.timings("batches")
        sequences = {batch.id: batch.sequences() for batch in read_plan(folder) if batch.id in timed}
        took, made = sum(timed[name] for name in sequences), sum(sequences.values())
        if took > 0 and made > 0:
            took /= min(processes, len(pending)) or 1
            seconds, each = took / made * sum(batch.sequences() for batch in pending), made / took
            rate, where = (
                f"{each:,.{0 if each > 1 else 2}f}",
                say("takes.here") if folder is run else say("takes.beside", folder=folder.path),
            )
            return say("takes.time", minutes=f"{seconds / 60:.1f}", rate=rate, where=where)
    return say("takes.unknown")


def decode(
    resolved: ResolvedStudy,
    folder: Path,
    on_progress: OnProgress = lambda name, ended, text: None,
    *,
    keep_going: bool = False,
    engine: Engine | None = None,
    after_write: Callable[[], None] = lambda: None,
) -> tuple[Skipped, ...]:
    """Make the generations and likelihoods that ``folder`` lacks, and return the checkpoints left out.

    ``engine`` is one that is open already and stays so; without it the study's own is made.
    ``after_write`` is called whenever something was written, which may take its time to be sent. With
    ``keep_going`` a checkpoint that cannot be used is left out, and the folder's record is of the others.

    Raises:
        TangevalError: the engine refuses the study; or a checkpoint cannot be used.
    """
    with nullcontext(engine) if engine else make(resolved) as engine:
        run = RunFolder(folder)
        failed = _decode(resolved, run, engine, on_progress, after_write, keep_going=keep_going)
        if failed:
            _decode(resolved.without(failed), run, engine, on_progress, after_write, keep_going=False)
    return failed


def _decode(
    resolved: ResolvedStudy, run: RunFolder, engine: Engine, on_progress: OnProgress, after_write: Callable[[], None],
    *, keep_going: bool,
) -> tuple[Skipped, ...]:  # fmt: skip
    """``decode`` of all checkpoints; those that failed are still in the folder's record."""
    engine.check()
    remove_temp_files(run.path)
    set_aside_damaged(run, read_plan(run))
    batches, cache_keys = _plan(resolved, run, engine)
    before = run.read_json(run.manifest_file) or {}
    if wanting := any(not present(run.batch_file(batch.id)) for batch in batches):
        engine.probe()
    checked = before.get("self_check", {})
    checked = {name: each for name, each in checked.items() if each.get("cache_key") == cache_keys.get(name)}
    manifest = _manifest(resolved, cache_keys, engine.describe()) | (
        {"self_check": checked} if checked else {}
    )
    manifest |= {} if wanting else {key: before[key] for key in _PROBED if key in before}
    write_run(resolved, run, batches, manifest)
    table = LikelihoodTable(resolved, run, engine)
    failed: list[Skipped] = []
    for done in engine.run(_jobs(resolved, run, batches, table), on_progress):
        if done.self_check and (name := done.job.checkpoint.name) not in checked:
            checked[name] = {"cache_key": cache_keys[name], "way": done.self_check}
            write_json(run.manifest_file, manifest | {"self_check": dict(sorted(checked.items()))})
        if not isinstance(done.made, UnusableError):
            _write(run, done, table)
            after_write()
        elif keep_going:
            failed.append(Skipped(resolved.place(done.job.checkpoint), str(done.made)))
        else:
            name = done.job.checkpoint.name
            raise TangevalError(f"{name}: {done.made}; --keep-going leaves it out") from done.made
    if not failed:
        table.finish()
    run.tidy_checksums(run.batch_file(batch.id) for batch in batches)
    return tuple(failed)


def _manifest(resolved: ResolvedStudy, cache_keys: dict[str, str], engine: Description) -> dict[str, Any]:
    """What was run, on what, by which versions."""
    study, data, base = resolved.study, resolved.dataset, resolved.base
    # Where and by whom it is made is left out: what of it counts is in the cache keys.
    asked = {
        key: value for key, value in study.content().items() if key not in ("engine", "cache_dir", "note")
    }
    checkpoints = [
        {
            "name": c.name,
            "step": c.step,
            "kind": c.kind,
            "path": str(c.path) if c.path else None,
            "fingerprint": resolved.fingerprints[c.name],
            "seen": resolved.seen(c),
            **({"recipe": c.recipe, "run": c.run} if c.recipe else {}),
            **({"average": [str(folder) for folder in c.members]} if c.members else {}),
        }
        for c in resolved.checkpoints
    ]
    return {
        "schema": SCHEMA,
        "tangeval": __version__,
        "study": study.name,
        "seed": study.seed,
        "signature": digest([asked, cache_keys, data.digest, *filter(None, [resolved.task.digest])]),
        "engine": engine.name,
        "noise": engine.noise,
        "noise_shared": engine.noise_shared,
        "data": {"name": data.name, "digest": data.digest},
        "base_model": {"name": base.name, "fingerprint": resolved.base_fingerprint},
        "checkpoints": checkpoints,
        "left_out": [{"path": str(s.path), "reason": s.reason} for s in resolved.skipped],
        "versions": dict(engine.versions),
        "hardware": dict(engine.hardware),
    } | dict(engine.more)


def _plan(resolved: ResolvedStudy, run: RunFolder, engine: Engine) -> tuple[list[Batch], dict[str, str]]:
    """The study's batches, and each checkpoint's cache key; nothing is loaded."""
    keys = {c.name: engine.cache_key(c) for c in resolved.checkpoints}
    fitted = run.timings("fitted")
    size = min([engine.sequences_per_batch(), *(int(fitted[key]) for key in keys.values() if key in fitted)])
    return make_plan(resolved, run, keys, size, prefixes=engine.shares_prefixes), keys


def _jobs(
    resolved: ResolvedStudy, run: RunFolder, batches: Sequence[Batch], table: "LikelihoodTable"
) -> list[Job]:
    """What ``folder`` lacks, checkpoint after checkpoint: a model is loaded once where one process does all."""
    jobs = []
    for checkpoint in resolved.checkpoints:
        own = (batch for batch in batches if batch.checkpoint == checkpoint.name)
        jobs += [Job(checkpoint, batch) for batch in own if not present(run.batch_file(batch.id))]
        lacking = table.lacking(checkpoint)
        jobs += [Job(checkpoint, examples=tuple(lacking))] if lacking else []
    return jobs


def _write(run: RunFolder, done: Done, table: "LikelihoodTable") -> None:
    """Write what a job made, and what it took."""
    checkpoint, batch = done.job.checkpoint, done.job.batch
    if done.loading is not None:
        run.record("load", checkpoint.name, done.loading)
    if done.checking is not None:
        run.record("self_check", checkpoint.name, done.checking)
    if batch and isinstance(done.made, pd.DataFrame):
        run.write_batch_file(batch.id, done.made, about(batch, table.resolved.study.decoding.wide(WIDE)))
        run.record("batches", batch.id, done.seconds)
        if done.fitted:
            run.record("fitted", batch.cache_key, done.fitted)
    elif isinstance(done.made, list):
        table.add(checkpoint, done.job.examples, done.made)
        run.record("likelihood", checkpoint.name, done.seconds)


class LikelihoodTable:
    """``likelihood.parquet``: one row a checkpoint and example, kept while its key holds."""

    def __init__(self, resolved: ResolvedStudy, run: RunFolder, engine: Engine) -> None:
        self.resolved, self.run, file = resolved, run, run.likelihood_file
        if not engine.gives_likelihood and present(file):
            aside([file], run.path, "another engine's likelihoods fit no longer")
        if run.damaged(file):
            aside([file], run.path, "likelihoods are not as they were written, and are made again")
        given = resolved.checkpoints if engine.gives_likelihood else ()
        self.keys = {c.name: engine.likelihood_key(c) for c in given}
        self.examples = [e for split in resolved.study.ordered_splits() for e in resolved.examples(split)]
        self.frame = read_parquet(file) if present(file) else pd.DataFrame()
        if "by_character" not in self.frame:  # rows of an earlier version
            self.frame = pd.DataFrame()

    def _key(self, checkpoint: Checkpoint, example: Example) -> str:
        texts = [example.instruction, example.input, example.reference, *example.fields]
        return digest([self.keys[checkpoint.name], checkpoint.name, example.id, example.split, *texts])

    def lacking(self, checkpoint: Checkpoint) -> list[Example]:
        """Return the examples that have no row under the checkpoint's key; none where no engine gives any."""
        have = set(self.frame.get("key", ()))
        if (
            "cuts" in self.frame
        ):  # and what the study's temperatures and cuts keep; an earlier version did not ask
            asked = set(map(warp_name, warps(self.resolved.study.decoding.settings())))
            known = (not len(cuts) or asked.issubset(cuts) for cuts in self.frame["cuts"])
            have = set(self.frame["key"][list(known)])
        wanted = self.examples if checkpoint.name in self.keys else []
        return [e for e in wanted if self._key(checkpoint, e) not in have]

    def add(
        self, checkpoint: Checkpoint, examples: Sequence[Example], values: Sequence[ReferenceNLL]
    ) -> None:
        """Write a row for each of ``examples``."""
        task = self.resolved.task
        counted = [len(task.characters(task.target(e))) for e in examples]
        rows = [
            {
                "checkpoint": checkpoint.name, "step": checkpoint.step, "split": e.split, "example_id": e.id,
                "group": str(task.group(e)), "nll_sum": value.nats, "chars": chars, "tokens": value.tokens,
                "reference_nll": value.nats / chars, "by_character": value.characters,
                "cuts": list(value.cuts), "cut_recall": [cut[0] for cut in value.cuts.values()],
                "cut_mass": [cut[1] for cut in value.cuts.values()],
                "cut_risk": [cut[2] for cut in value.cuts.values()], "key": self._key(checkpoint, e),
            }
            for e, value, chars in zip(examples, values, counted, strict=True)
        ]  # fmt: skip
        self.frame = pd.concat([self.frame, pd.DataFrame(rows).astype({"step": "Int64"})])
        self.frame = self.frame.drop_duplicates("key", keep="last")
        self.run.write_likelihood(self.frame)

    def finish(self) -> None:
        """Keep what the study asks for, in its order."""
        if self.keys:
            order = [self._key(c, e) for c in self.resolved.checkpoints for e in self.examples]
            self.run.write_likelihood(self.frame.set_index("key").loc[order].reset_index())
