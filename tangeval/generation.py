"""Checkpoints → generations and likelihoods.

In: a resolved study and a results folder. Out: one parquet batch file a batch, each whole or not
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
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedTokenizerBase

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.knobs import Setting
from tangeval.core.types import Base, Checkpoint, Example, Load
from tangeval.decoding.batch import Workspace
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.memory import RowCost, UnmeasuredError, decode_in_memory, measure
from tangeval.decoding.noise import noise_key
from tangeval.decoding.shared_prefix import suits
from tangeval.engines.base import OnProgress
from tangeval.engines.likelihood import Likelihood, ReferenceNLL, reference_nll
from tangeval.models import loading as models
from tangeval.models.checkpoints import Skipped
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import remove_temp_files
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
from tangeval.tasks.tang.prompt import HW5, SYSTEM, completion_text, encode_completion, encode_prompt

#: Raised when the engine or the noise changes what it writes: older batch files are then made again.
ENGINE = 3
_CPU_BUDGET = 2 * 2**30  # bytes for the rows of a batch; the whole process then stays under 4 GiB


@dataclass(frozen=True)
class Machine:
    """What texts are computed on: as ``engine_name`` says, and how many sequences a batch of it may have."""

    engine: str
    rows: int
    versions: dict[str, str]
    hardware: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What one process makes at a time: a batch of a checkpoint, or, without one, its likelihoods of ``examples``."""

    checkpoint: Checkpoint
    batch: Batch | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Done:
    """A job's rows or likelihoods, or why its checkpoint cannot be used."""

    job: Job
    made: pd.DataFrame | list[ReferenceNLL] | UnusableError
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

    def __init__(self, resolved: ResolvedStudy) -> None:
        self.resolved, self.load = resolved, resolved.study.loading(allow_pickle=resolved.allow_pickle)
        self.workspace = Workspace(compile=self.load.compile)
        self._base: Any = None
        self._model: Any = None
        self._name, self._on = "", ExitStack()
        self._loading: float | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return models.load_tokenizer(self.resolved.base)

    @cached_property
    def machine(self) -> Machine:
        rows, device = self.resolved.study.batch_size, models.device()
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        return Machine(
            engine_name(self.load), rows_that_fit(self.resolved) if rows == "auto" else rows, versions(), hardware(gpu)
        )  # fmt: skip

    def trial(self) -> dict[str, float] | None:
        return _try_rows(self.resolved, self.base(), self.tokenizer)

    def base(self) -> Any:
        """Return the base model, loaded at the first use."""
        if self._base is None:
            self.workspace.clear()
            began = time.perf_counter()
            self._base = models.load_model(self.resolved.base, self.load)
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
        made: pd.DataFrame | list[ReferenceNLL] | UnusableError
        began = time.perf_counter()
        try:
            model = self.model(job.checkpoint)
            began = time.perf_counter()
            if job.batch is None:
                made = reference_nll(model, self.tokenizer, self.resolved, job.examples, self.workspace)
            else:
                made = run_batch(self.resolved, job.batch, model, self.tokenizer, self.workspace, on_progress)
        except UnusableError as error:
            self.release()
            # peft leaves on the model what it had loaded before it failed.
            self._base = None
            self.workspace.clear()
            made = UnusableError(str(error))  # the error's own traceback would keep the model
        loading, self._loading = self._loading, None
        return Done(job, made, time.perf_counter() - began, loading)


def plan(
    resolved: ResolvedStudy, folder: Path, machine: Machine | None = None
) -> tuple[list[Batch], dict[str, str]]:
    """Return the study's batches and each checkpoint's context, without loading any weights.

    ``machine`` is what they are to be computed on, this one if None.
    """
    machine = machine or Here(resolved).machine
    cache_keys = {c.name: cache_key(resolved, c, machine.engine) for c in resolved.checkpoints}
    return make_plan(
        resolved, RunFolder(folder), cache_keys, _rows_by_trial(resolved, folder, machine) or machine.rows
    ), cache_keys


def generate(
    resolved: ResolvedStudy,
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
    workers, run = workers or Here(resolved), RunFolder(folder)
    batches, cache_keys = _prepare(resolved, folder, workers)
    likelihood = Likelihood(resolved, folder, cache_keys)
    check_openings(resolved, models.load_tokenizer(resolved.base))
    for done in workers.make(_jobs(resolved, folder, batches, likelihood), on_progress):
        checkpoint, batch = done.job.checkpoint, done.job.batch
        if done.loading is not None:
            run.record("load", resolved.base.name, done.loading)
        if isinstance(done.made, UnusableError):
            if not keep_going:
                raise TangevalError(
                    f"{checkpoint.name}: {done.made}; --keep-going leaves it out"
                ) from done.made
            failed.append(Skipped(checkpoint.path or Path(resolved.base.source), str(done.made)))
        elif isinstance(done.made, pd.DataFrame) and batch:
            run.write_batch_file(batch.id, done.made)
            run.record("batches", batch.id, done.seconds)
        elif isinstance(done.made, list):
            likelihood.add(checkpoint, done.job.examples, done.made)
            run.record("likelihood", checkpoint.name, done.seconds)
    run.tidy_checksums()
    if not failed:
        likelihood.write()
    return tuple(failed)


def _jobs(
    resolved: ResolvedStudy, folder: Path, batches: Sequence[Batch], likelihood: Likelihood
) -> list[Job]:
    """What ``folder`` lacks, checkpoint after checkpoint: a model is loaded once where one process does all."""
    jobs, run = [], RunFolder(folder)
    for checkpoint in resolved.checkpoints:
        own = (batch for batch in batches if batch.checkpoint == checkpoint.name)
        jobs += [Job(checkpoint, batch) for batch in own if not run.batch_file(batch.id).is_file()]
        lacking = likelihood.lacking(checkpoint)
        jobs += [Job(checkpoint, examples=tuple(lacking))] if lacking else []
    return jobs


def _prepare(resolved: ResolvedStudy, folder: Path, workers: Workers) -> tuple[list[Batch], dict[str, str]]:
    """Clear the folder of what is not whole, plan, and record the plan."""
    run = RunFolder(folder)
    remove_temp_files(folder)
    run.drop_damaged()
    machine = workers.machine
    batches, cache_keys = plan(resolved, folder, machine)
    if _wants_trial(resolved, folder, batches, machine):
        measured = workers.trial()
        if measured:
            run.record("rows", _trial_key(resolved, machine.engine), measured)
        batches, cache_keys = plan(resolved, folder, machine)
    write_run(resolved, run, batches, manifest(resolved, cache_keys, machine))
    return batches, cache_keys


def check_openings(resolved: ResolvedStudy, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if no_repeat_ngram_size forbids the token that the poets' own endings begin with.

    It counts the prompt's tokens. Where the prompt's last ones stand in it before, and the
    first of a completion after them, every output begins with a stray one.

    Raises:
        TangevalError: the tokenizer cannot ask, or cannot tell where a poem ends.
    """
    study, size = resolved.study, resolved.study.decoding.no_repeat_ngram_size
    forbidden: list[str] = []
    examples = [e for split in study.ordered_splits() for e in resolved.examples(split)]
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


def run_batch(
    resolved: ResolvedStudy,
    batch: Batch,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    workspace: Workspace,
    on_progress: OnProgress,
) -> pd.DataFrame:
    """Decode one batch and return its rows, columns ``GENERATIONS``, in the plan's order."""
    study = resolved.study
    examples = [resolved.dataset.by_id[name] for name in batch.examples]
    sequences, place = _sequences(batch, study.seed)
    eos = models.eos_ids(model, tokenizer)
    tokens = decode_in_memory(
        model,
        [encode_prompt(tokenizer, example, study.prompt) for example in examples],
        sequences,
        eos=eos,
        no_repeat_ngram_size=study.decoding.no_repeat_ngram_size,
        workspace=workspace,
        on_step=lambda ended: on_progress(batch.checkpoint, ended, ""),
    )
    step = next(c.step for c in resolved.checkpoints if c.name == batch.checkpoint)
    texts: dict[tuple[int, ...], str] = {}
    rows = []
    for prompt, example in enumerate(examples):
        for setting in batch.settings:
            for sample in batch.samples:
                ids = tokens[place[_sequence_of(prompt, setting, sample)]][: setting.max_length]
                stopped = ids[-1] in eos
                key = tuple(ids)
                if key not in texts:
                    texts[key] = completion_text(tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
                knobs = setting.values
                rows.append(
                    (batch.checkpoint, step, *knobs, study.decoding.no_repeat_ngram_size, example.split,
                     example.id, sample, texts[key], len(ids), "stop" if stopped else "length")
                )  # fmt: skip
    on_progress(batch.checkpoint, 0, rows[-1][10])
    return pd.DataFrame(rows, columns=list(GENERATIONS)).astype({"step": "Int64"})


def _sequence_of(prompt: int, setting: Setting, sample: int) -> tuple[Any, ...]:
    """What decides a sequence's tokens; noise plays no part at temperature 0."""
    return (prompt, setting.sequence, 0 if setting.temperature == 0 else sample)


def _sequences(batch: Batch, seed: int) -> tuple[list[TokenSequence], dict[tuple[Any, ...], int]]:
    """The distinct sequences of a batch, each as long as the longest setting wants it, and their places."""
    longest: dict[tuple[Any, ...], Setting] = {}
    for prompt in range(len(batch.examples)):
        for setting in batch.settings:
            for sample in batch.samples:
                key = _sequence_of(prompt, setting, sample)
                longest[key] = max(longest.get(key, setting), setting, key=lambda s: s.max_length)
    sequences = [
        TokenSequence(prompt, setting, noise_key(seed, batch.examples[prompt], sample))
        for (prompt, _, sample), setting in longest.items()
    ]
    return sequences, {key: index for index, key in enumerate(longest)}


def engine_name(load: Load) -> str:
    """Return on what texts are computed: device, dtype and, on a CPU, threads."""
    device = models.device()
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {models.dtype_of(load)}"
    return f"cpu {models.dtype_of(load)} {torch.get_num_threads()} threads"


def _trial_key(resolved: ResolvedStudy, engine: str) -> str:
    return digest([resolved.base_fingerprint, asdict(resolved.study.loading()), engine])


def _wants_trial(resolved: ResolvedStudy, folder: Path, batches: Sequence[Batch], machine: Machine) -> bool:
    """Whether a GPU is about to decode batches whose size it was not asked yet."""
    return (
        machine.hardware["gpu"] is not None
        and resolved.study.batch_size == "auto"
        and any(c.kind != "full" for c in resolved.checkpoints)
        and _trial_key(resolved, machine.engine) not in RunFolder(folder).timings("rows")
        and any(not RunFolder(folder).batch_file(batch.id).is_file() for batch in batches)
    )


def _try_rows(
    resolved: ResolvedStudy, model: Any, tokenizer: PreTrainedTokenizerBase
) -> dict[str, float] | None:
    """Measure what a row costs here; not of a model that shares short prompts alone."""
    examples = [e for split in resolved.study.ordered_splits() for e in resolved.examples(split)]
    prompt = max((encode_prompt(tokenizer, e, resolved.study.prompt) for e in examples), key=len)
    length = len(prompt) + int(max(resolved.study.decoding.max_length))
    if not suits(type(model), model.config.get_text_config(), length):
        return None
    try:
        cost, free = measure(model, prompt)
    except (torch.OutOfMemoryError, UnmeasuredError) as error:
        warnings.warn(
            f"a trial of some hundred short outputs did not tell what a row costs on this GPU ({error}); batches are planned by "
            "the model's sizes instead, and halved until they fit",
            stacklevel=2,
        )
        return None
    return asdict(cost) | {"free": free}


def _rows_by_trial(resolved: ResolvedStudy, folder: Path, machine: Machine) -> int | None:
    """How many sequences a batch may have by what was measured and written down; None if nothing was, or is asked for."""
    known = RunFolder(folder).timings("rows").get(_trial_key(resolved, machine.engine))
    if known is None or resolved.study.batch_size != "auto":
        return None
    cost = RowCost(known["fixed"], known["token"])
    return cost.sequences(int(max(resolved.study.decoding.max_length)), known["free"])


def rows_that_fit(resolved: ResolvedStudy) -> int:
    """Return how many sequences a batch may have, from the declared memory and the model's sizes.

    On a CPU, and on a GPU for the plan of a run that never ran: a GPU is asked by trial.

    A sequence's cost is its tokens' keys and values, the prompt's too where a model does not
    let its rows share them, twice over in the layer at hand, and a few vectors of the size of
    the vocabulary. Streams that share a row cost less than is reckoned here.
    """
    base, load, study = resolved.base, resolved.study.loading(), resolved.study
    whole = models.load_config(base)
    config = whole.get_text_config()
    tokenizer = models.load_tokenizer(base)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    examples = [e for split in study.ordered_splits() for e in resolved.examples(split)]
    prompt = max(len(encode_prompt(tokenizer, e, study.prompt)) for e in examples)
    length = int(max(study.decoding.max_length))
    tokens: float = prompt + length
    if suits(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(whole), None), config, prompt + length):
        sequences = {setting.sequence for setting in study.decoding.settings()}
        tokens = length + prompt / len(sequences)
    layers = config.num_hidden_layers
    cache = 2 * (layers + 2) * heads * width * models.dtype_of(load).itemsize * tokens
    return max(1, int(_budget(base, load) / (cache + 24 * config.vocab_size)))


def _budget(base: Base, load: Load) -> float:
    """Bytes for the rows of a batch: fixed on a CPU; on a GPU, most of what the weights leave."""
    device = models.device()
    if device.type != "cuda":
        return _CPU_BUDGET
    files = Path(base.source).glob(base.gguf or "*.safetensors") if base.local else []
    shrink = 1.0 if load.merge else {"none": 1.0, "int8": 0.55, "nf4": 0.35}[load.quantization]
    weights = sum(file.stat().st_size for file in files) * shrink * (4 if base.gguf else 1)
    total = torch.cuda.get_device_properties(device).total_memory
    return max(0.7 * (total - weights) - 2**30, 2**28)


def estimate(
    resolved: ResolvedStudy, folder: Path, pending: Sequence[Batch], machine: Machine | None = None
) -> str:
    """Say what the pending batches will take, from the batches that were timed in ``folder``."""
    if not pending:
        return "nothing to decode: all that the study asks for is there"
    largest = max(w.sequences() for w in pending)
    planned = "for the machines of the cluster"
    if _rows_by_trial(resolved, folder, machine or Here(resolved).machine):
        planned = "by what a row took here"
    elif machine is None:
        memory = _budget(resolved.base, resolved.study.loading()) / 2**30
        planned = f"for {memory:.1f} GiB beside the weights"
    size = f"batches of up to {largest:,} sequences, planned {planned}"
    return f"{size}; {estimate_duration(RunFolder(folder), pending)}"


def manifest(resolved: ResolvedStudy, cache_keys: dict[str, str], machine: Machine) -> dict[str, Any]:
    """Return what a results folder says of its own making; the same run gives the same bytes."""
    return build_manifest(
        resolved,
        cache_keys,
        engine=machine.engine,
        noise="keyed by seed, example, sample, step, token: shared between settings and checkpoints",
        noise_shared=True,
        versions=machine.versions,
        hardware=machine.hardware,
    )


def cache_key(resolved: ResolvedStudy, checkpoint: Checkpoint, engine: str) -> str:
    """Return the digest of all that decides a text but example, sample and setting.

    ``engine`` says on what it is computed (device, dtype, threads).
    """
    study = resolved.study
    parts = {
        "engine": [ENGINE, engine, version("torch"), version("transformers")],
        "base": resolved.base_fingerprint,
        "checkpoint": resolved.fingerprints[checkpoint.name],
        "load": asdict(study.loading()),
        "prompt": [study.prompt, HW5, SYSTEM],  # a chat template is part of the base's fingerprint
        "seed": study.seed,
        "no_repeat_ngram_size": study.decoding.no_repeat_ngram_size,
    }
    return digest(parts)


def versions() -> dict[str, str]:
    """Return the versions that a results folder records."""
    return versions_of("torch", "transformers", "peft", "tokenizers")
