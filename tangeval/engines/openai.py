"""A server's models → generations: the engine for models that this process does not hold.

In: a study with ``engine`` and a results folder. Out: the same batch files, plan and manifest as
``generate`` makes, and nothing of likelihood, which a server does not tell. Noise is the server's
own, a seed for each request: settings and checkpoints do not share it, and the manifest says so.
Knows nothing of torch, metrics or weights.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.core.config import validated
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.core.types import Example
from tangeval.engines.base import OnProgress
from tangeval.engines.client import in_flight, run
from tangeval.engines.completions import Knobs, Server, ServerSection, Text, opened, settle
from tangeval.models.checkpoints import Skipped
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import read_json, remove_temp_files
from tangeval.results.folder import RunFolder
from tangeval.results.plan import (
    GENERATIONS,
    Batch,
    build_manifest,
    estimate_duration,
    hardware,
    make_plan,
    versions_of,
    write_run,
)
from tangeval.tasks.tang.prompt import HW5, SYSTEM, poem_text

#: Raised when what is asked of a server changes: older batch files are then made again.
SERVER = 1
#: Texts of a batch file: what a run that is killed may lose for each batch file that was open.
SEQUENCES = 256


@dataclass(frozen=True)
class Job:
    """One request: a poem at one setting, for some of its samples."""

    book: "Book"
    example: Example
    setting: Setting
    samples: tuple[int, ...]


@dataclass
class Book:
    """The texts of a batch that came so far, by poem, sequence and sample, and how many requests are still out."""

    batch: Batch
    texts: dict[tuple[Any, ...], Text] = field(default_factory=dict)
    out: int = 0


def plan(resolved: ResolvedStudy, folder: Path) -> tuple[list[Batch], dict[str, str]]:
    """Return the study's batches and each checkpoint's context; the server is asked what it serves, and for no text."""

    async def ask() -> dict[str, Any]:
        async with opened(resolved.study, _engine(resolved)) as server:
            return await server.account()

    return _plan(resolved, folder, run(ask()))


def generate(
    resolved: ResolvedStudy,
    folder: Path,
    on_progress: OnProgress = lambda name, ended, text: None,
    *,
    keep_going: bool = False,
) -> tuple[Skipped, ...]:
    """Make the generations that ``folder`` lacks; never leaves a checkpoint out.

    Raises:
        TangevalError: the server is not there, serves another model, does not do what the study
            asks for, or fails for good.
    """
    if keep_going:
        raise TangevalError("--keep-going: with a server, leave a model out of engine.models instead")
    remove_temp_files(folder)
    RunFolder(folder).drop_damaged()
    run(_generate(resolved, folder, on_progress))
    return ()


def estimate(resolved: ResolvedStudy, folder: Path, pending: Sequence[Batch]) -> str:
    """Say what the pending batches will take, from those that were timed in ``folder``."""
    if not pending:
        return "nothing to decode: all that the study asks for is there"
    engine = _engine(resolved)
    return f"{engine.concurrency} requests in flight to {engine.host}; {estimate_duration(RunFolder(folder), pending)}"


def _engine(resolved: ResolvedStudy) -> ServerSection:
    assert resolved.study.engine
    section = resolved.study.engine.model_dump(exclude_none=True)
    return validated(ServerSection, section, resolved.study.file, "engine")


def _plan(
    resolved: ResolvedStudy, folder: Path, account: dict[str, Any]
) -> tuple[list[Batch], dict[str, str]]:
    cache_keys = {c.name: _context(resolved, c.name, account) for c in resolved.checkpoints}
    rows = SEQUENCES if resolved.study.batch_size == "auto" else resolved.study.batch_size
    return make_plan(resolved, RunFolder(folder), cache_keys, rows, prefixes=False), cache_keys


def _context(resolved: ResolvedStudy, name: str, account: dict[str, Any]) -> str:
    """The digest of all that decides a text but example, sample and setting, as far as a server tells."""
    study, served = resolved.study, _engine(resolved).models[name]
    return digest(
        {
            "engine": ["server", SERVER, account["version"]],
            "model": [served, account["models"].get(served)],
            "prompt": [study.prompt, _engine(resolved).bos, HW5, SYSTEM],
            "seed": study.seed,
            "no_repeat_ngram_size": study.decoding.no_repeat_ngram_size,
        }
    )


async def _generate(resolved: ResolvedStudy, folder: Path, on_progress: OnProgress) -> None:
    engine, run_folder = _engine(resolved), RunFolder(folder)
    async with opened(resolved.study, engine) as server:
        account = await server.account()
        batches, cache_keys = _plan(resolved, folder, account)
        pending = [batch for batch in batches if not run_folder.batch_file(batch.id).is_file()]
        probes = await _probes(server, resolved, folder, cache_keys, {batch.checkpoint for batch in pending})
        write_run(resolved, run_folder, batches, _manifest(resolved, cache_keys, account, probes))
        run_folder.likelihood_file.unlink(missing_ok=True)  # what an engine with the weights left there
        began = time.perf_counter()

        async def work(job: Job) -> None:
            nonlocal began
            batch = job.book.batch
            knobs = _knobs(resolved, job)
            served, form = engine.models[batch.checkpoint], probes[batch.checkpoint]["form"]
            texts = await server.ask(served, form, job.example, knobs)
            if len(texts) != knobs.n or any(text.tokens is None for text in texts):
                raise TangevalError(
                    f"engine.server: {engine.server}: {served} gave {len(texts)} texts where {knobs.n} were asked for, or did "
                    "not count their tokens; engine.n=1 asks for one at a time"
                )
            for sample, text in zip(job.samples, texts, strict=True):
                job.book.texts[job.example.id, job.setting.sequence, sample] = text
            job.book.out -= 1
            on_progress(batch.checkpoint, len(texts), texts[-1].text)
            if not job.book.out:
                run_folder.write_batch_file(batch.id, _frame(resolved, job.book))
                # Batches overlap: each has the time since the last one was whole, so that all sum to the run's.
                run_folder.record("batches", batch.id, time.perf_counter() - began)
                began = time.perf_counter()

        await in_flight(_jobs(resolved, pending, probes), work, engine.concurrency)
        run_folder.tidy_checksums()


async def _probes(
    server: Server, resolved: ResolvedStudy, folder: Path, cache_keys: dict[str, str], pending: set[str]
) -> dict[str, dict[str, Any]]:
    """What each checkpoint honours; asked anew of those that have something to write, else as recorded."""
    recorded = ((read_json(RunFolder(folder).manifest_file) or {}).get("server") or {}).get("probes", {})
    probes: dict[str, dict[str, Any]] = {}
    for name in resolved.names:
        cache_key = cache_keys[name]
        known = recorded.get(name, {})
        if name not in pending:
            probes |= {name: known} if known else {}
            continue
        example = resolved.examples(resolved.study.ordered_splits()[0])[0]
        found = await settle(server, resolved.study, name, example)
        probes[name] = {"served_as": server.engine.models[name], "context": cache_key, **found}
        if known.get("context") == cache_key and known["greedy_text"] != found["greedy_text"]:
            warnings.warn(
                f"engine.models.{name}: {server.engine.models[name]} writes otherwise at temperature 0 than when this folder "
                "was begun. If other weights are served under its name, give them another, so that all is asked anew",
                stacklevel=2,
            )
    return probes


def _manifest(
    resolved: ResolvedStudy,
    cache_keys: dict[str, str],
    account: dict[str, Any],
    probes: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    engine = _engine(resolved)
    version = f" {account['version']}" if account["version"] else ""
    said = build_manifest(
        resolved, cache_keys, engine=f"server {engine.host}{version}",
        noise="the server's own, a seed for each request: not shared between settings or checkpoints",
        noise_shared=False, versions=versions_of("openai"), hardware=hardware(None),
    )  # fmt: skip
    return said | {
        "server": {
            "url": engine.server,
            "version": account["version"],
            "models": engine.models,
            "listed": account["models"],
            "probes": probes,
        }
    }


def _jobs(
    resolved: ResolvedStudy, pending: Sequence[Batch], probes: dict[str, dict[str, Any]]
) -> Iterator[Job]:
    """Every request of the pending batches, poem by poem: requests on one prompt follow each other."""
    for batch in pending:
        book = Book(batch)
        most = _engine(resolved).n
        if most == "auto":
            most = len(batch.samples) if probes[batch.checkpoint]["n"] else 1
        jobs = [
            Job(book, resolved.dataset.by_id[name], setting, samples)
            for name in batch.examples
            for setting in {setting.sequence: setting for setting in batch.settings}.values()
            for samples in _batches(batch.samples if setting.temperature else (0,), most)
        ]
        book.out = len(jobs)
        yield from jobs


def _batches(samples: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    for begin in range(0, len(samples), most):
        yield samples[begin : begin + most]


def _knobs(resolved: ResolvedStudy, job: Job) -> Knobs:
    """A request's knobs; its seed is of checkpoint, poem, setting and first sample, so that no two share noise."""
    temperature, top_k, top_p = job.setting.sequence[:3]
    own = [
        resolved.study.seed,
        job.book.batch.checkpoint,
        job.example.id,
        *job.setting.sequence,
        job.setting.max_length,
    ]
    seed = int(digest([*own, job.samples[0]])[:8], 16) >> 1  # 31 bits: what every server takes
    size = resolved.study.decoding.no_repeat_ngram_size
    return Knobs(temperature, int(top_k), top_p, job.setting.max_length, size, seed, len(job.samples))


def _frame(resolved: ResolvedStudy, book: Book) -> pd.DataFrame:
    """The rows of a batch whose texts are all there, columns ``GENERATIONS``, in the plan's order."""
    batch, size = book.batch, resolved.study.decoding.no_repeat_ngram_size
    step = next(c.step for c in resolved.checkpoints if c.name == batch.checkpoint)
    rows = []
    for name in batch.examples:
        for setting in batch.settings:
            for sample in batch.samples:
                came = book.texts[name, setting.sequence, sample if setting.temperature else 0]
                text = poem_text(came.text, cut=came.finish == "length")
                knobs = (*setting.values, size)
                split = resolved.dataset.by_id[name].split
                rows.append(
                    (batch.checkpoint, step, *knobs, split, name, sample, text, came.tokens, came.finish)
                )
    return pd.DataFrame(rows, columns=list(GENERATIONS)).astype({"step": "Int64"})
