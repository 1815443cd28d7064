"""The engine of this machine: transformers models on its GPUs or its CPU, decoded under common random numbers.

In: a resolved study, and jobs. Out: their rows and likelihoods. Several GPUs, and the cores of a CPU, get a process
each (``workers``); else this one does it all. Knows nothing of results folders.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import psutil
import torch
from pydantic import Field

from tangeval.core.config import Section
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.knobs import WIDE
from tangeval.core.study import Decoding
from tangeval.core.types import Base, Checkpoint, Load
from tangeval.core.words import say
from tangeval.decoding.planning import rotary_change, token_cost
from tangeval.decoding.sampler import Kind, kind_of
from tangeval.decoding.shared_prefix import suits
from tangeval.engines import base
from tangeval.engines.base import Description, Done, Job, OnProgress, asked
from tangeval.engines.constraints import check_constraints
from tangeval.engines.device import Device, texts_of
from tangeval.engines.workers import Workers, visible_gpus
from tangeval.models import loading
from tangeval.models.adapter_kinds import unsupported
from tangeval.models.tokens import encode_prompt, spelling_problem
from tangeval.resolve import ResolvedStudy
from tangeval.results.machine import hardware, versions_of
from tangeval.results.plan import Batch

#: Raised when decoding or noise changes what is written: older batch files are then made again.
VERSION = 4
_CAUTIOUS = 16  # sequences of a batch, where a model's configuration does not tell what one costs
CPU_BUDGET = 2 * 2**30  # bytes for the rows of a batch; the whole process then stays under 4 GiB
_SMALL = 500_000_000  # parameters; a larger model's steps use threads well, and its weights are too large for many processes
_BATCHES = 1024  # of a study on a CPU, about; so many that all cores are busy to the end, and files are few
SMALLEST = 512  # sequences of a batch; half as many take a tenth more time each
_MANY = 10**6  # jobs
#: How a token is drawn, for a manifest.
NOISE = "keyed by seed, example, sample, step, token: shared between settings and checkpoints"
_WORTH = 4  # jobs a process, below which to start it (some seconds) does not pay


class Config(Section):
    """What of this machine is used; no text depends on it."""

    kind: Literal["local"] = "local"
    gpus: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"  #: all that are alike and visible
    processes: Literal["auto"] | Annotated[int, Field(ge=1)] = (
        "auto"  #: of a CPU: its cores, as far as memory goes
    )


class LocalEngine(base.Engine):
    """See ``Engine``. A process for each GPU; on a CPU, small models get a process of one thread for each core."""

    Config: ClassVar[type[Section]] = Config

    def __init__(self, resolved: ResolvedStudy, config: Any) -> None:
        self.resolved, self.config = resolved, config
        self.load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
        self.device = Device(resolved)
        self.workers: Workers | None = None
        self._checked = False

    def __exit__(self, *exception: object) -> None:
        self.device.close()
        Workers.discard()
        if self.workers:
            self.workers.close()

    def check(self) -> None:
        if not self._checked:
            check_study(self.resolved, self.device.tokenizer)
        self._checked = True

    def describe(self) -> Description:
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        processes = max(1, len(self._places(_MANY)))
        place = f"{say('takes.processes', n=processes)}, " if processes > 1 else ""
        settings = self.resolved.study.decoding.settings()
        if others := sum(kind_of(setting) == Kind.OTHER for setting in settings):
            place += f"{others} of {len(settings)} settings have a cut that the GPU's kernel does not make: tensors draw them, "
            place += "and wait for the GPU in each step"
        place = place.removesuffix(", ")
        unused = "; ".join(filter(None, loading.unused_gpu() or ()))
        return Description(self.name, NOISE, True, versions(), hardware(gpu), place, unused, processes)

    @cached_property
    def name(self) -> str:
        return device_name(self.load, self.threads)

    @cached_property
    def threads(self) -> int:
        """The threads of a process. One where a model is small, so that no text depends on the number of cores."""
        return 1 if self.small else torch.get_num_threads()

    @cached_property
    def small(self) -> bool:
        return not torch.cuda.is_available() and is_small(loading.load_config(self.resolved.base))

    def cache_key(self, checkpoint: Checkpoint) -> str:
        return text_key(self.resolved, checkpoint, self.name)

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        # Neither noise nor a ban of n-grams has a part in it.
        return digest(["likelihood", weights_key(self.resolved, checkpoint, self.name)])

    def sequences_per_batch(self) -> int:
        if self.resolved.study.batch_size != "auto":
            return self.resolved.study.batch_size
        most = sequences_that_fit(self.resolved, self.device.tokenizer)
        sequences, checkpoints = _wanted(self.resolved).sequences(), len(self.resolved.checkpoints)
        if self.small:
            return min(most, max(SMALLEST, sequences * checkpoints // _BATCHES))
        gpus = len(self._gpus())
        return min(most, max(1, -(-sequences // gpus))) if gpus and checkpoints % gpus else most

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        lost: set[str] = set()
        for job in jobs:  # before the first is decoded
            path = job.checkpoint.path
            if path and job.checkpoint.name not in lost and (reason := unsupported(path)):
                lost.add(job.checkpoint.name)
                yield Done(job, UnusableError(f"{path}: {reason}"), 0.0)
        left = [job for job in jobs if job.checkpoint.name not in lost]
        if self.workers is None:
            places = self._places(len(left))
            cores = torch.get_num_threads() if torch.cuda.is_available() else 1
            self.workers = Workers.ready(self.resolved, places, max(1, cores // max(1, len(places))))
        if self.workers:
            yield from self.workers.run(left, on_progress)
            return
        with few_threads(self.threads):
            for job in left:  # the last one's checkpoint stays on the model: what runs next may want it
                if job.checkpoint.name not in lost:
                    done = self.device.do(job, on_progress)
                    if isinstance(done.made, UnusableError):
                        lost.add(job.checkpoint.name)
                    yield done

    def _gpus(self) -> list[str]:
        """The visible GPUs that are as the first: on another card the same numbers are others."""
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        known = visible_gpus() or [str(number) for number in range(len(names))]
        alike = [gpu for gpu, name in zip(known, names, strict=False) if name == names[0]]
        return alike[: None if self.config.gpus == "auto" else self.config.gpus]

    def _places(self, jobs: int) -> list[str]:
        """A GPU for each process that so many jobs are worth, or "" for the CPU; none where this process does them all."""
        if torch.cuda.is_available():
            gpus = self._gpus()[:jobs]
            return gpus if len(gpus) > 1 else []
        if not self.small:
            return []
        number = self.config.processes
        if number == "auto":
            weights = _models(self.resolved.study.decoding) * _weights(self.resolved.base)
            room = psutil.virtual_memory().available // (CPU_BUDGET + weights)
            number = min(torch.get_num_threads(), room, jobs // _WORTH)
        return [""] * min(number, jobs) if number > 1 else []


@contextmanager
def few_threads(number: int) -> Iterator[None]:
    """Let PyTorch use so many threads within operations, for the time being."""
    usual = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def is_small(config: Any) -> bool:
    """Return whether a model's steps on a CPU gain nothing by threads, so that one does them."""
    cost = token_cost(config)
    return cost is not None and cost.parameters <= _SMALL


def device_name(load: Load, threads: int) -> str:
    """Return on what texts are computed: device, dtype and, on a CPU, threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} {loading.dtype_of(load)}"
    return f"cpu {loading.dtype_of(load)} {threads} threads"


def versions() -> dict[str, str]:
    """Return the versions that a results folder records."""
    return versions_of("torch", "transformers", "peft", "tokenizers")


def text_key(resolved: ResolvedStudy, checkpoint: Checkpoint, name: str) -> str:
    """Return ``Engine.cache_key`` on the device that ``name`` (``device_name``) stands for."""
    study = resolved.study
    return digest([weights_key(resolved, checkpoint, name), study.seed, study.decoding.wide(WIDE)])


def weights_key(resolved: ResolvedStudy, checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    """Return what decides a reference's likelihood but the example, as plain values."""
    return {
        "engine": [VERSION, name, version("torch"), version("transformers")],
        "base": resolved.base_fingerprint,  # a chat template is part of it
        "checkpoint": resolved.fingerprints[checkpoint.name],
        "load": asdict(resolved.study.loading()),
        "prompt": base.wording(resolved),
    }


def check_study(resolved: ResolvedStudy, tokenizer: Any, config: Any = None) -> None:
    """Refuse texts longer than a model's context or as no constraint can be kept, and warn if no_repeat_ngram_size blocks
    the references' first token.

    The ban counts the prompt's tokens. Where the prompt's last ones stand in it before, and the first of
    a completion after them, every output begins with another token. ``config`` is that of the only model, where it lies
    in no folder.

    Raises:
        TangevalError: with ``decoding.max_length`` and the model's limit; or there is no chat template, or no EOS.
    """
    texts = texts_of(resolved, tokenizer)
    _check_context(resolved, texts, config)
    check_constraints(resolved, tokenizer)
    if problem := spelling_problem(tokenizer, [resolved.task.target(e) for e in base.examples_of(resolved)]):
        warnings.warn(f"base_model: {problem}", stacklevel=2)
    for size in sorted(set(resolved.study.decoding.no_repeat_ngram_size) - {0}):
        _check_ban(size, texts, tokenizer)


def _check_ban(size: int, texts: Sequence[tuple[list[int], list[int]]], tokenizer: Any) -> None:
    forbidden: list[str] = []
    for prompt, reference in texts:
        end = [*prompt[len(prompt) - size + 1 :], reference[0]]
        if any(prompt[i : i + size] == end for i in range(len(prompt) - size + 1)):
            forbidden.append(str(tokenizer.decode(end)))
    if forbidden:
        warnings.warn(
            f"decoding.no_repeat_ngram_size: {size} forbids how the references begin after {len(forbidden)} of "
            f"{len(texts)} prompts, since {forbidden[0]!r} stands in the prompt before; outputs will begin with a stray "
            "token, and form suffers. Use 0 or another size (docs/results.md, a trap)",
            stacklevel=3,
        )


def _check_context(resolved: ResolvedStudy, texts: Sequence[tuple[list[int], list[int]]], only: Any) -> None:
    """Refuse models without keys and values, and texts beyond a model's positions or across a change of them."""
    length, prompt = int(max(resolved.study.decoding.max_length)), max(len(p) for p, _ in texts)
    whole = max(len(p) + len(reference) for p, reference in texts)
    own = () if only else (c for c in resolved.checkpoints if c.kind == "full")
    full = {c.name: Base(c.name, str(c.folders[0])) for c in own}
    models = {full.get(c.name, resolved.base) for c in resolved.checkpoints}
    for model in sorted(models, key=lambda model: model.name):
        try:
            config = only or loading.load_config(model)
        except TangevalError:
            if model == resolved.base:
                raise
            continue  # a checkpoint that cannot be read is refused, or left out, when its turn comes
        token_cost(config)
        limit, change = loading.context_length(config), rotary_change(config)
        if limit is not None and prompt < limit < prompt + length:
            raise TangevalError(
                f"decoding.max_length: {length} tokens after a prompt of {prompt} are more than the context of "
                f"{model.name}, {limit} tokens; set it to {limit - prompt} or less, or take another model"
            )
        if limit is not None and whole > limit:
            raise TangevalError(
                f"data: a prompt and its reference have {whole} tokens, more than the context of {model.name}, {limit}; take "
                "another model, or a shorter prompt"
            )
        across = [len(p) for p, _ in texts if change is not None and len(p) <= change < len(p) + length]
        if change is not None and across:
            raise TangevalError(
                f"decoding.max_length: {model.name} has other rotary frequencies beyond {change} tokens (longrope), and {length} "
                f"tokens after a prompt of {max(across)} cross that; set it to {change - max(across)} or less, or take another model"
            )


def sequences_that_fit(
    resolved: ResolvedStudy, tokenizer: Any, config: Any = None, room: float | None = None
) -> int:
    """Return how many sequences a batch may have, from the memory and the model's sizes: the base model's, unless given.

    A sequence's cost is its tokens' keys and values, the prompt's too where a model does not
    let its rows share them, twice over in the layer at hand, and a few vectors of the size of
    the vocabulary. Where a GPU's memory does not hold that, batches are halved, and what fitted is remembered.
    """
    study, load = resolved.study, resolved.study.loading()
    cost = token_cost(config := config or loading.load_config(resolved.base))
    if cost is None:
        return _CAUTIOUS
    prompt = max(len(encode_prompt(tokenizer, asked(resolved, e))) for e in base.examples_of(resolved))
    length = int(max(study.decoding.max_length))
    tokens: float = prompt + length
    text = config.get_text_config()
    if suits(cost.kind, text, prompt + length):
        tokens = length + prompt / len({setting.sequence for setting in study.decoding.settings()})
    cache, models = (
        (cost.whole + 2 * cost.largest) * loading.dtype_of(load).itemsize * tokens,
        _models(study.decoding),
    )
    room = _budget(resolved.base, load, models) if room is None else room
    return max(1, int(room / (cache + 24 * text.vocab_size) / models))


def _wanted(resolved: ResolvedStudy) -> Batch:
    """All that a study wants of a checkpoint, as if it were one batch."""
    splits = resolved.study.ordered_splits()
    examples = tuple(e.id for split in splits for e in resolved.examples(split))
    samples = max(map(resolved.study.samples_of, splits))
    return Batch("", "", "", examples, tuple(range(samples)), resolved.study.decoding.settings())


def _models(decoding: Decoding) -> int:
    """How many models are held at once, each with rows of its own: two where checkpoints are set against the base."""
    return 2 if max(decoding.contrast) else 1


def _budget(model: Base, load: Load, models: int) -> float:
    """Bytes for the rows of a batch: fixed on a CPU; on a GPU, most of what the weights leave."""
    if not torch.cuda.is_available():
        return CPU_BUDGET
    shrink = 1.0 if load.merge else {"none": 1.0, "int8": 0.55, "nf4": 0.35}[load.quantization]
    weights = _weights(model) * shrink
    weights *= models + (load.merge and loading.stays_on_gpu(int(weights)))
    total = torch.cuda.get_device_properties(loading.device()).total_memory
    return max(0.7 * (total - weights) - 2**30, 2**28)


def _weights(model: Base) -> int:
    """Bytes of a model's weights as they are stored; a GGUF's are few bits each, and become more."""
    files = Path(model.source).glob(model.gguf or "*.safetensors") if model.local else []
    return sum(file.stat().st_size for file in files) * (4 if model.gguf else 1)
