"""A server's models → generations: the engine for models that this process does not hold.

In: a study with ``engine`` and a results folder. Out: the same shards, plan and manifest as
``generate`` makes, and nothing of likelihood, which a server does not tell. Luck is the server's
own, a seed for each request: cells and checkpoints do not share it, and the manifest says so.
Knows nothing of torch, metrics or weights.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.checkpoint import Skipped
from tangeval.client import in_flight, run
from tangeval.completions import Knobs, Server, Text, opened, settle
from tangeval.plan import (
    GENERATIONS,
    Setup,
    Wave,
    digest,
    hardware,
    make_plan,
    pace,
    record,
    said_of,
    versions_of,
)
from tangeval.progress import OnProgress
from tangeval.prompt import HW5, SYSTEM, poem_text
from tangeval.records import Cell, Example, TangevalError
from tangeval.store import LIKELIHOOD, read_json, record_seconds, sweep, weed, write_shard
from tangeval.study import ServerSection

#: Raised when what is asked of a server changes: older shards are then made again.
SERVER = 1
#: Texts of a shard: what a run that is killed may lose for each shard that was open.
STREAMS = 256


@dataclass(frozen=True)
class Job:
    """One request: a poem at one cell, for some of its samples."""

    book: "Book"
    example: Example
    cell: Cell
    samples: tuple[int, ...]


@dataclass
class Book:
    """The texts of a wave that came so far, by poem, stream and sample, and how many requests are still out."""

    wave: Wave
    texts: dict[tuple[Any, ...], Text] = field(default_factory=dict)
    out: int = 0


def plan(setup: Setup, folder: Path) -> tuple[list[Wave], dict[str, str]]:
    """Return the study's waves and each checkpoint's context; the server is asked what it serves, and for no text."""

    async def ask() -> dict[str, Any]:
        async with opened(setup.study, _engine(setup)) as server:
            return await server.account()

    return _plan(setup, folder, run(ask()))


def generate(
    setup: Setup,
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
    sweep(folder)
    weed(folder)
    run(_generate(setup, folder, on_progress))
    return ()


def estimate(setup: Setup, folder: Path, pending: Sequence[Wave]) -> str:
    """Say what the pending waves will take, from those that were timed in ``folder``."""
    if not pending:
        return "nothing to decode: all that the study asks for is there"
    engine = _engine(setup)
    return f"{engine.concurrency} requests in flight to {engine.host}; {pace(folder, pending)}"


def _engine(setup: Setup) -> ServerSection:
    assert setup.study.engine
    return setup.study.engine


def _plan(setup: Setup, folder: Path, account: dict[str, Any]) -> tuple[list[Wave], dict[str, str]]:
    contexts = {c.name: _context(setup, c.name, account) for c in setup.checkpoints}
    rows = STREAMS if setup.study.batch_size == "auto" else setup.study.batch_size
    return make_plan(setup, folder, contexts, rows, prefixes=False), contexts


def _context(setup: Setup, name: str, account: dict[str, Any]) -> str:
    """The digest of all that decides a text but example, sample and cell, as far as a server tells."""
    study, served = setup.study, _engine(setup).models[name]
    return digest(
        {
            "engine": ["server", SERVER, account["version"]],
            "model": [served, account["models"].get(served)],
            "prompt": [study.prompt, _engine(setup).bos, HW5, SYSTEM],
            "seed": study.seed,
            "no_repeat_ngram_size": study.decoding.no_repeat_ngram_size,
        }
    )


async def _generate(setup: Setup, folder: Path, on_progress: OnProgress) -> None:
    engine = _engine(setup)
    async with opened(setup.study, engine) as server:
        account = await server.account()
        waves, contexts = _plan(setup, folder, account)
        pending = [wave for wave in waves if not wave.shard(folder).is_file()]
        probes = await _probes(server, setup, folder, contexts, {wave.checkpoint for wave in pending})
        record(setup, folder, waves, _manifest(setup, contexts, account, probes))
        (folder / LIKELIHOOD).unlink(missing_ok=True)  # what an engine with the weights left there
        began = time.perf_counter()

        async def work(job: Job) -> None:
            nonlocal began
            wave = job.book.wave
            knobs = _knobs(setup, job)
            served, form = engine.models[wave.checkpoint], probes[wave.checkpoint]["form"]
            texts = await server.ask(served, form, job.example, knobs)
            if len(texts) != knobs.n or any(text.tokens is None for text in texts):
                raise TangevalError(
                    f"engine.server: {engine.server}: {served} gave {len(texts)} texts where {knobs.n} were asked for, or did "
                    "not count their tokens; engine.n=1 asks for one at a time"
                )
            for sample, text in zip(job.samples, texts, strict=True):
                job.book.texts[job.example.id, job.cell.stream, sample] = text
            job.book.out -= 1
            on_progress(wave.checkpoint, len(texts), texts[-1].text)
            if not job.book.out:
                write_shard(wave.shard(folder), _frame(setup, job.book))
                # Waves overlap: each has the time since the last one was whole, so that all sum to the run's.
                record_seconds(folder, "waves", wave.id, time.perf_counter() - began)
                began = time.perf_counter()

        await in_flight(_jobs(setup, pending, probes), work, engine.concurrency)


async def _probes(
    server: Server, setup: Setup, folder: Path, contexts: dict[str, str], pending: set[str]
) -> dict[str, dict[str, Any]]:
    """What each checkpoint honours; asked anew of those that have something to write, else as recorded."""
    recorded = ((read_json(folder / "manifest.json") or {}).get("server") or {}).get("probes", {})
    probes: dict[str, dict[str, Any]] = {}
    for name in setup.names:
        context = contexts[name]
        known = recorded.get(name, {})
        if name not in pending:
            probes |= {name: known} if known else {}
            continue
        example = setup.examples(setup.study.ordered_splits()[0])[0]
        found = await settle(server, setup.study, name, example)
        probes[name] = {"served_as": server.engine.models[name], "context": context, **found}
        if known.get("context") == context and known["greedy_text"] != found["greedy_text"]:
            warnings.warn(
                f"engine.models.{name}: {server.engine.models[name]} writes otherwise at temperature 0 than when this folder "
                "was begun. If other weights are served under its name, give them another, so that all is asked anew",
                stacklevel=2,
            )
    return probes


def _manifest(
    setup: Setup, contexts: dict[str, str], account: dict[str, Any], probes: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    engine = _engine(setup)
    version = f" {account['version']}" if account["version"] else ""
    said = said_of(
        setup, contexts, engine=f"server {engine.host}{version}",
        luck="the server's own, a seed for each request: not shared between cells or checkpoints",
        luck_shared=False, versions=versions_of("openai"), hardware=hardware(None),
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


def _jobs(setup: Setup, pending: Sequence[Wave], probes: dict[str, dict[str, Any]]) -> Iterator[Job]:
    """Every request of the pending waves, poem by poem: requests on one prompt follow each other."""
    for wave in pending:
        book = Book(wave)
        most = _engine(setup).n
        if most == "auto":
            most = len(wave.samples) if probes[wave.checkpoint]["n"] else 1
        jobs = [
            Job(book, setup.dataset.by_id[name], cell, samples)
            for name in wave.examples
            for cell in {cell.stream: cell for cell in wave.cells}.values()
            for samples in _batches(wave.samples if cell.temperature else (0,), most)
        ]
        book.out = len(jobs)
        yield from jobs


def _batches(samples: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    for begin in range(0, len(samples), most):
        yield samples[begin : begin + most]


def _knobs(setup: Setup, job: Job) -> Knobs:
    """A request's knobs; its seed is of checkpoint, poem, cell and first sample, so that no two share luck."""
    temperature, top_k, top_p = job.cell.stream
    own = [setup.study.seed, job.book.wave.checkpoint, job.example.id, *job.cell.stream, job.cell.max_length]
    seed = int(digest([*own, job.samples[0]])[:8], 16) >> 1  # 31 bits: what every server takes
    size = setup.study.decoding.no_repeat_ngram_size
    return Knobs(temperature, top_k, top_p, job.cell.max_length, size, seed, len(job.samples))


def _frame(setup: Setup, book: Book) -> pd.DataFrame:
    """The rows of a wave whose texts are all there, columns ``GENERATIONS``, in the plan's order."""
    wave, size = book.wave, setup.study.decoding.no_repeat_ngram_size
    step = next(c.step for c in setup.checkpoints if c.name == wave.checkpoint)
    rows = []
    for name in wave.examples:
        for cell in wave.cells:
            for sample in wave.samples:
                came = book.texts[name, cell.stream, sample if cell.temperature else 0]
                text = poem_text(came.text, cut=came.finish == "length")
                knobs = (cell.temperature, cell.top_k, cell.top_p, cell.max_length, size)
                split = setup.dataset.by_id[name].split
                rows.append(
                    (wave.checkpoint, step, *knobs, split, name, sample, text, came.tokens, came.finish)
                )
    return pd.DataFrame(rows, columns=list(GENERATIONS)).astype({"step": "Int64"})
