"""Checkpoints → generations and likelihoods.

In: a resolved study and a results folder. Out: one parquet shard a wave, each whole or not
there, and ``likelihood.parquet``. What is there already and still holds is not made again.
What is lacking is cut into jobs, and ``Workers`` make them: ``Here`` in this process, others
elsewhere; the folder is written by this process alone. Knows nothing of metrics.
"""

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedTokenizerBase

from tangeval import model as models
from tangeval.checkpoint import Skipped
from tangeval.decoding.attention import suits
from tangeval.decoding.engine import Stream
from tangeval.decoding.memory import RowCost, UnmeasuredError, decode_in_memory, measure
from tangeval.decoding.rows import Workspace
from tangeval.decoding.sampler import luck_key
from tangeval.likelihood import Likelihood, Surprise, reference_nll
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
from tangeval.prompt import completion_text, encode_completion, encode_prompt
from tangeval.records import Base, Cell, Checkpoint, Example, Load, TangevalError, UnusableError
from tangeval.store import TIMINGS, read_json, record_seconds, sweep, weed, write_json, write_shard

_CPU_BUDGET = 2 * 2**30  # bytes for the rows of a wave; the whole process then stays under 4 GiB


@dataclass(frozen=True)
class Machine:
    """What texts are computed on: as ``engine_name`` says, and how many streams a wave of it may have."""

    engine: str
    rows: int
    versions: dict[str, str]
    hardware: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What one process makes at a time: a wave of a checkpoint, or, without one, its likelihoods of ``examples``."""

    checkpoint: Checkpoint
    wave: Wave | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Done:
    """A job's rows or likelihoods, or why its checkpoint cannot be used."""

    job: Job
    made: pd.DataFrame | list[Surprise] | UnusableError
    seconds: float
    loading: float | None = None  #: seconds, where the base model was loaded for it


class Workers(Protocol):
    """Where jobs are made. All of them compute on machines like ``machine``."""

    @property
    def machine(self) -> Machine: ...

    def trial(self) -> dict[str, float] | None:
        """Measure what a row costs on the GPU: ``fixed``, ``token`` and ``free`` bytes; None if that cannot be told."""
        ...

    def make(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        """Yield each job when it is done; those left of a checkpoint that cannot be used are dropped."""
        ...


class Here:
    """This process: tokenizer and base model are kept, and one checkpoint at a time is on the base."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.load = setup, setup.study.loading(allow_pickle=setup.allow_pickle)
        self.workspace = Workspace(compile=self.load.compile)
        self._base: Any = None
        self._model: Any = None
        self._name, self._on = "", ExitStack()
        self._loading: float | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return models.load_tokenizer(self.setup.base)

    @cached_property
    def machine(self) -> Machine:
        rows, device = self.setup.study.batch_size, models.device()
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        return Machine(
            engine_name(self.load), rows_that_fit(self.setup) if rows == "auto" else rows, versions(), hardware(gpu)
        )  # fmt: skip

    def trial(self) -> dict[str, float] | None:
        return _try_rows(self.setup, self.base(), self.tokenizer)

    def base(self) -> Any:
        """Return the base model, loaded at the first use."""
        if self._base is None:
            self.workspace.clear()
            began = time.perf_counter()
            self._base = models.load_model(self.setup.base, self.load)
            self._loading = time.perf_counter() - began
        return self._base

    def model(self, checkpoint: Checkpoint) -> Any:
        """Return the model with ``checkpoint`` on it, and take the last one off."""
        if checkpoint.name != self._name:
            self.release()
            if checkpoint.kind == "full":
                self._base = None  # two models at a time may be one too many
                self.workspace.clear()
            base = None if checkpoint.kind == "full" else self.base()
            self._model = self._on.enter_context(models.with_checkpoint(base, checkpoint, self.load))
            self._name = checkpoint.name
        return self._model

    def release(self) -> None:
        """Take the checkpoint at hand off the base model."""
        self._model, self._name = None, ""
        self._on.close()

    def make(self, jobs: Iterable[Job], on_progress: OnProgress) -> Iterator[Done]:
        lost: set[str] = set()
        try:
            for job in jobs:
                if job.checkpoint.name not in lost:
                    done = self.do(job, on_progress)
                    if isinstance(done.made, UnusableError):
                        lost.add(job.checkpoint.name)
                    yield done
        finally:
            self.release()

    def do(self, job: Job, on_progress: OnProgress) -> Done:
        """Do one job; its checkpoint stays on the model."""
        made: pd.DataFrame | list[Surprise] | UnusableError
        began = time.perf_counter()
        try:
            model = self.model(job.checkpoint)
            began = time.perf_counter()
            if job.wave is None:
                made = reference_nll(model, self.tokenizer, self.setup, job.examples, self.workspace)
            else:
                made = run_wave(self.setup, job.wave, model, self.tokenizer, self.workspace, on_progress)
        except UnusableError as error:
            self.release()
            # peft leaves on the model what it had loaded before it failed.
            self._base = None
            self.workspace.clear()
            made = UnusableError(str(error))  # the error's own traceback would keep the model
        loading, self._loading = self._loading, None
        return Done(job, made, time.perf_counter() - began, loading)


def plan(setup: Setup, folder: Path, machine: Machine | None = None) -> tuple[list[Wave], dict[str, str]]:
    """Return the study's waves and each checkpoint's context, without loading any weights.

    ``machine`` is what they are to be computed on, this one if None.
    """
    machine = machine or Here(setup).machine
    contexts = {c.name: setup.context(c, machine.engine) for c in setup.checkpoints}
    return make_plan(
        setup, folder, contexts, _rows_by_trial(setup, folder, machine) or machine.rows
    ), contexts


def generate(
    setup: Setup,
    folder: Path,
    on_progress: OnProgress = lambda name, ended, text: None,
    *,
    keep_going: bool = False,
    workers: Workers | None = None,
) -> tuple[Skipped, ...]:
    """Make the generations and likelihoods that ``folder`` lacks, by ``workers`` (this process if None).

    With ``keep_going`` a checkpoint that cannot be used is returned with its reason, and the
    others are made; the folder is whole once it is called again without those.

    Raises:
        TangevalError: a model or an adapter cannot be loaded, or does not give numbers.
    """
    failed: list[Skipped] = []
    workers = workers or Here(setup)
    waves, contexts = _prepare(setup, folder, workers)
    likelihood = Likelihood(setup, folder, contexts)
    check_openings(setup, models.load_tokenizer(setup.base))
    for done in workers.make(_jobs(setup, folder, waves, likelihood), on_progress):
        checkpoint, wave = done.job.checkpoint, done.job.wave
        if done.loading is not None:
            record_seconds(folder, "load", setup.base.name, done.loading)
        if isinstance(done.made, UnusableError):
            if not keep_going:
                raise TangevalError(
                    f"{checkpoint.name}: {done.made}; --keep-going leaves it out"
                ) from done.made
            failed.append(Skipped(checkpoint.path or Path(setup.base.source), str(done.made)))
        elif isinstance(done.made, pd.DataFrame) and wave:
            write_shard(wave.shard(folder), done.made)
            record_seconds(folder, "waves", wave.id, done.seconds)
        elif isinstance(done.made, list):
            likelihood.add(checkpoint, done.job.examples, done.made)
            record_seconds(folder, "likelihood", checkpoint.name, done.seconds)
    if not failed:
        likelihood.write()
    return tuple(failed)


def _jobs(setup: Setup, folder: Path, waves: Sequence[Wave], likelihood: Likelihood) -> list[Job]:
    """What ``folder`` lacks, checkpoint after checkpoint: a model is loaded once where one process does all."""
    jobs = []
    for checkpoint in setup.checkpoints:
        own = (wave for wave in waves if wave.checkpoint == checkpoint.name)
        jobs += [Job(checkpoint, wave) for wave in own if not wave.shard(folder).is_file()]
        lacking = likelihood.lacking(checkpoint)
        jobs += [Job(checkpoint, examples=tuple(lacking))] if lacking else []
    return jobs


def _prepare(setup: Setup, folder: Path, workers: Workers) -> tuple[list[Wave], dict[str, str]]:
    """Clear the folder of what is not whole, plan, and record the plan."""
    sweep(folder)
    weed(folder)
    machine = workers.machine
    waves, contexts = plan(setup, folder, machine)
    if _wants_trial(setup, folder, waves, machine):
        measured = workers.trial()
        if measured:
            timings = read_json(folder / TIMINGS) or {}
            timings.setdefault("rows", {})[_trial_key(setup, machine.engine)] = measured
            write_json(folder / TIMINGS, timings)
        waves, contexts = plan(setup, folder, machine)
    record(setup, folder, waves, manifest(setup, contexts, machine))
    return waves, contexts


def check_openings(setup: Setup, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if no_repeat_ngram_size forbids the token that the poets' own endings begin with.

    It counts the prompt's tokens. Where the prompt's last ones stand in it before, and the
    first of a completion after them, every output begins with a stray one.

    Raises:
        TangevalError: the tokenizer cannot ask, or cannot tell where a poem ends.
    """
    study, size = setup.study, setup.study.decoding.no_repeat_ngram_size
    forbidden: list[str] = []
    examples = [e for split in study.ordered_splits() for e in setup.examples(split)]
    for example in examples:
        prompt = encode_prompt(tokenizer, example, study.prompt)
        first = encode_completion(tokenizer, example, study.prompt, example.reference)[0]
        end = [*prompt[len(prompt) - size + 1 :], first]
        if size and any(prompt[i : i + size] == end for i in range(len(prompt) - size + 1)):
            forbidden.append(str(tokenizer.decode(end)))
    if forbidden:
        warnings.warn(
            f"decoding.no_repeat_ngram_size: {size} forbids how the poets' own endings begin after {len(forbidden)} of "
            f"{len(examples)} prompts, since {forbidden[0]!r} stands in the prompt before; outputs will begin with a stray "
            "token, and form suffers. Use 0 or another size (docs/results.md, a trap)",
            stacklevel=2,
        )


def run_wave(
    setup: Setup,
    wave: Wave,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    workspace: Workspace,
    on_progress: OnProgress,
) -> pd.DataFrame:
    """Decode one wave and return its rows, columns ``GENERATIONS``, in the plan's order."""
    study = setup.study
    examples = [setup.dataset.by_id[name] for name in wave.examples]
    streams, place = _streams(wave, study.seed)
    eos = models.eos_ids(model, tokenizer)
    tokens = decode_in_memory(
        model,
        [encode_prompt(tokenizer, example, study.prompt) for example in examples],
        streams,
        eos=eos,
        no_repeat_ngram_size=study.decoding.no_repeat_ngram_size,
        workspace=workspace,
        on_step=lambda ended: on_progress(wave.checkpoint, ended, ""),
    )
    step = next(c.step for c in setup.checkpoints if c.name == wave.checkpoint)
    texts: dict[tuple[int, ...], str] = {}
    rows = []
    for prompt, example in enumerate(examples):
        for cell in wave.cells:
            for sample in wave.samples:
                ids = tokens[place[_stream_of(prompt, cell, sample)]][: cell.max_length]
                stopped = ids[-1] in eos
                key = tuple(ids)
                if key not in texts:
                    texts[key] = completion_text(tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
                knobs = (cell.temperature, cell.top_k, cell.top_p, cell.max_length)
                rows.append(
                    (wave.checkpoint, step, *knobs, study.decoding.no_repeat_ngram_size, example.split,
                     example.id, sample, texts[key], len(ids), "stop" if stopped else "length")
                )  # fmt: skip
    on_progress(wave.checkpoint, 0, rows[-1][10])
    return pd.DataFrame(rows, columns=list(GENERATIONS)).astype({"step": "Int64"})


def _stream_of(prompt: int, cell: Cell, sample: int) -> tuple[Any, ...]:
    """What decides a stream's tokens; luck plays no part at temperature 0."""
    return (prompt, cell.stream, 0 if cell.temperature == 0 else sample)


def _streams(wave: Wave, seed: int) -> tuple[list[Stream], dict[tuple[Any, ...], int]]:
    """The distinct streams of a wave, each as long as the longest cell wants it, and their places."""
    longest: dict[tuple[Any, ...], int] = {}
    for prompt in range(len(wave.examples)):
        for cell in wave.cells:
            for sample in wave.samples:
                key = _stream_of(prompt, cell, sample)
                longest[key] = max(longest.get(key, 0), cell.max_length)
    streams = [
        Stream(prompt, temperature, top_k, top_p, luck_key(seed, wave.examples[prompt], sample), length)
        for (prompt, (temperature, top_k, top_p), sample), length in longest.items()
    ]
    return streams, {key: index for index, key in enumerate(longest)}


def engine_name(load: Load) -> str:
    """Return on what texts are computed: device, dtype and, on a CPU, threads."""
    device = models.device()
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {models.dtype_of(load)}"
    return f"cpu {models.dtype_of(load)} {torch.get_num_threads()} threads"


def _trial_key(setup: Setup, engine: str) -> str:
    return digest([setup.base_fingerprint, asdict(setup.study.loading()), engine])


def _wants_trial(setup: Setup, folder: Path, waves: Sequence[Wave], machine: Machine) -> bool:
    """Whether a GPU is about to decode waves whose size it was not asked yet."""
    return (
        machine.hardware["gpu"] is not None
        and setup.study.batch_size == "auto"
        and any(c.kind != "full" for c in setup.checkpoints)
        and _trial_key(setup, machine.engine) not in (read_json(folder / TIMINGS) or {}).get("rows", {})
        and any(not wave.shard(folder).is_file() for wave in waves)
    )


def _try_rows(setup: Setup, model: Any, tokenizer: PreTrainedTokenizerBase) -> dict[str, float] | None:
    """Measure what a row costs here; not of a model that shares short prompts alone."""
    examples = [e for split in setup.study.ordered_splits() for e in setup.examples(split)]
    prompt = max((encode_prompt(tokenizer, e, setup.study.prompt) for e in examples), key=len)
    length = len(prompt) + max(setup.study.decoding.max_length)
    if not suits(type(model), model.config.get_text_config(), length):
        return None
    try:
        cost, free = measure(model, prompt)
    except (torch.OutOfMemoryError, UnmeasuredError) as error:
        warnings.warn(
            f"a trial of some hundred short outputs did not tell what a row costs on this GPU ({error}); waves are planned by "
            "the model's sizes instead, and halved until they fit",
            stacklevel=2,
        )
        return None
    return asdict(cost) | {"free": free}


def _rows_by_trial(setup: Setup, folder: Path, machine: Machine) -> int | None:
    """How many streams a wave may have by what was measured and written down; None if nothing was, or is asked for."""
    known = (read_json(folder / TIMINGS) or {}).get("rows", {}).get(_trial_key(setup, machine.engine))
    if known is None or setup.study.batch_size != "auto":
        return None
    cost = RowCost(known["fixed"], known["token"])
    return cost.streams(max(setup.study.decoding.max_length), known["free"])


def rows_that_fit(setup: Setup) -> int:
    """Return how many streams a wave may have, from the declared memory and the model's sizes.

    On a CPU, and on a GPU for the plan of a run that never ran: a GPU is asked by trial.

    A stream's cost is its tokens' keys and values, the prompt's too where a model does not
    let its rows share them, twice over in the layer at hand, and a few vectors of the size of
    the vocabulary. Streams that share a row cost less than is reckoned here.
    """
    base, load, study = setup.base, setup.study.loading(), setup.study
    whole = models.load_config(base)
    config = whole.get_text_config()
    tokenizer = models.load_tokenizer(base)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    examples = [e for split in study.ordered_splits() for e in setup.examples(split)]
    prompt = max(len(encode_prompt(tokenizer, e, study.prompt)) for e in examples)
    length = max(study.decoding.max_length)
    tokens: float = prompt + length
    if suits(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(whole), None), config, prompt + length):
        streams = {cell.stream for cell in study.decoding.cells()}
        tokens = length + prompt / len(streams)
    layers = config.num_hidden_layers
    cache = 2 * (layers + 2) * heads * width * models.dtype_of(load).itemsize * tokens
    return max(1, int(_budget(base, load) / (cache + 24 * config.vocab_size)))


def _budget(base: Base, load: Load) -> float:
    """Bytes for the rows of a wave: fixed on a CPU; on a GPU, most of what the weights leave."""
    device = models.device()
    if device.type != "cuda":
        return _CPU_BUDGET
    files = Path(base.source).glob(base.gguf or "*.safetensors") if base.local else []
    shrink = 1.0 if load.merge else {"none": 1.0, "int8": 0.55, "nf4": 0.35}[load.quantization]
    weights = sum(file.stat().st_size for file in files) * shrink * (4 if base.gguf else 1)
    total = torch.cuda.get_device_properties(device).total_memory
    return max(0.7 * (total - weights) - 2**30, 2**28)


def estimate(setup: Setup, folder: Path, pending: Sequence[Wave], machine: Machine | None = None) -> str:
    """Say what the pending waves will take, from the waves that were timed in ``folder``."""
    if not pending:
        return "nothing to decode: all that the study asks for is there"
    largest = max(w.streams() for w in pending)
    planned = "for the machines of the cluster"
    if _rows_by_trial(setup, folder, machine or Here(setup).machine):
        planned = "by what a row took here"
    elif machine is None:
        memory = _budget(setup.base, setup.study.loading()) / 2**30
        planned = f"for {memory:.1f} GiB beside the weights"
    size = f"waves of up to {largest:,} streams, planned {planned}"
    return f"{size}; {pace(folder, pending)}"


def manifest(setup: Setup, contexts: dict[str, str], machine: Machine) -> dict[str, Any]:
    """Return what a results folder says of its own making; the same run gives the same bytes."""
    return said_of(
        setup,
        contexts,
        engine=machine.engine,
        luck="keyed by seed, example, sample, step, token: shared between cells and checkpoints",
        luck_shared=True,
        versions=machine.versions,
        hardware=machine.hardware,
    )


def versions() -> dict[str, str]:
    """Return the versions that a results folder records."""
    return versions_of("torch", "transformers", "peft", "tokenizers")
