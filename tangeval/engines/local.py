"""The engine of this process: transformers models on its GPU or CPU, decoded under common random numbers.

In: a resolved study, and jobs. Out: their rows and likelihoods. The base model is loaded once, and one
checkpoint at a time is on it. Knows nothing of results folders.
"""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import pandas as pd
import torch

from tangeval.core.config import Section
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError, UnusableError, usable
from tangeval.core.knobs import Setting
from tangeval.core.types import Base, Checkpoint, Example, Load
from tangeval.decoding.batch import Way, Workspace
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.memory import decode_in_memory
from tangeval.decoding.noise import noise_key
from tangeval.decoding.planning import rotary_change, token_cost
from tangeval.decoding.self_check import choose_way
from tangeval.decoding.shared_prefix import suits
from tangeval.engines import base
from tangeval.engines.base import Description, Done, Job, OnProgress, ReferenceNLL, asked, sequence_of
from tangeval.engines.likelihood import Reference, reference_nll
from tangeval.models import adapters, loading
from tangeval.models.adapter_kinds import unsupported
from tangeval.models.checkpoints import identity
from tangeval.models.tokens import decode_completion, encode_completion, encode_prompt, spelling_problem
from tangeval.resolve import ResolvedStudy
from tangeval.results.plan import Batch, hardware, versions_of

#: Raised when decoding or noise changes what is written: older batch files are then made again.
VERSION = 4
_CAUTIOUS = 16  # sequences of a batch, where a model's configuration does not tell what one costs
_CPU_BUDGET = 2 * 2**30  # bytes for the rows of a batch; the whole process then stays under 4 GiB


class Config(Section):
    """This process needs no settings: ``load`` says how weights are held."""

    kind: Literal["local"] = "local"


class LocalEngine(base.Engine):
    """See ``Engine``. One process, one device."""

    Config: ClassVar[type[Section]] = Config

    def __init__(self, resolved: ResolvedStudy, config: Any) -> None:
        self.resolved = resolved
        self.load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
        self.workspace = Workspace(compile=self.load.compile)
        self._base: Any = None
        self._checksum: tuple[int, ...] = ()  # the base model's, as it was loaded
        self._model: Any = None
        self._checkpoint: Checkpoint | None = None  # the one on the model
        self._on = ExitStack()  # what takes it off
        self._loading: float | None = None
        self._checked = False
        self._ways: dict[str, Way] = {}  # of checkpoints, by name

    def __exit__(self, *exception: object) -> None:
        self._drop_base()

    @cached_property
    def tokenizer(self) -> Any:
        return loading.load_tokenizer(self.resolved.base)

    def check(self) -> None:
        if not self._checked:
            check_study(self.resolved, self.tokenizer)
        self._checked = True

    def describe(self) -> Description:
        noise = "keyed by seed, example, sample, step, token: shared between settings and checkpoints"
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        return Description(device_name(self.load), noise, True, versions(), hardware(gpu))

    def cache_key(self, checkpoint: Checkpoint) -> str:
        return text_key(self.resolved, checkpoint, self.describe().name)

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        # Neither noise nor a ban of n-grams has a part in it.
        return digest(["likelihood", _weights_key(self.resolved, checkpoint, self.describe().name)])

    def sequences_per_batch(self) -> int:
        size = self.resolved.study.batch_size
        return sequences_that_fit(self.resolved, self.tokenizer) if size == "auto" else size

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        lost: set[str] = set()
        for job in jobs:  # before the first is decoded
            path = job.checkpoint.path
            if path and job.checkpoint.name not in lost and (reason := unsupported(path)):
                lost.add(job.checkpoint.name)
                yield Done(job, UnusableError(f"{path}: {reason}"), 0.0)
        for job in jobs:  # the last one's checkpoint stays on the model: what runs next may want it
            if job.checkpoint.name not in lost:
                done = self.do(job, on_progress)
                if isinstance(done.made, UnusableError):
                    lost.add(job.checkpoint.name)
                yield done

    def do(self, job: Job, on_progress: OnProgress) -> Done:
        """Return one job done; its checkpoint stays on the model."""
        made: pd.DataFrame | list[ReferenceNLL] | UnusableError
        began, before = time.perf_counter(), self.workspace.limit.too_many
        try:
            with usable():
                batch, model = job.batch, self._with(job.checkpoint)
                self.workspace.way = self._way(model, job.checkpoint.name)
                began = time.perf_counter()
                made = self._batch(batch, model, on_progress) if batch else self._nll(job.examples, model)
        except UnusableError as error:
            self._take_off()
            made = UnusableError(str(error))  # the error's own traceback would keep the model
        loading, self._loading, limit = self._loading, None, self.workspace.limit
        fitted = limit.fitted if limit.too_many not in (None, before) else None
        way = self._ways.get(job.checkpoint.name)
        return Done(job, made, time.perf_counter() - began, loading, fitted, way and str(way))

    def _way(self, model: Any, name: str) -> Way:
        """The way to decode with the checkpoint on ``model``: told by the whole study, not by the batch that comes first."""
        if name not in self._ways:
            texts = _texts(self.resolved, self.tokenizer)
            lengths = [*self.resolved.study.decoding.max_length, *(len(reference) for _, reference in texts)]
            self._ways[name] = choose_way(model, [prompt for prompt, _ in texts], int(max(lengths)))
        return self._ways[name]

    def _with(self, checkpoint: Checkpoint) -> Any:
        """The model with ``checkpoint`` on it; the one before is taken off."""
        if checkpoint != self._checkpoint:
            self._take_off()
            if checkpoint.kind == "full":
                self._drop_base()  # two models at a time may be one too many
            elif self._base is None:
                self.workspace.clear()
                began = time.perf_counter()
                source, model = self.resolved.base, loading.load_model(self.resolved.base, self.load)
                if source.local and identity(source) != self.resolved.base_fingerprint:
                    raise TangevalError(f"base_model: {source.source}: {adapters.CHANGED}")
                self._base, self._checksum = model, adapters.checksum(model)
                self._loading = time.perf_counter() - began
            recorded = self.resolved.fingerprints[checkpoint.name]
            on = adapters.with_checkpoint(self._base, checkpoint, self.load, recorded)
            self._model, self._checkpoint = self._on.enter_context(on), checkpoint
        return self._model

    def _take_off(self) -> None:
        last, self._model, self._checkpoint = self._checkpoint, None, None
        try:
            self._on.close()
        except Exception:  # a library's own: what it left on the base model is not known
            self._base = None
        if self._base is not None and adapters.checksum(self._base) != self._checksum:
            warnings.warn(
                f"{last and last.name} left the base model changed; it is loaded anew", stacklevel=2
            )
            self._drop_base()

    def _drop_base(self) -> None:
        self._base = None
        self._take_off()
        self.workspace.clear()

    def _nll(self, examples: Sequence[Example], model: Any) -> list[ReferenceNLL]:
        task = self.resolved.task
        references = [Reference(e.id, asked(self.resolved, e), task.target(e)) for e in examples]
        return reference_nll(model, self.tokenizer, references, task.characters, self.workspace)

    def _batch(self, batch: Batch, model: Any, on_progress: OnProgress) -> pd.DataFrame:
        """Decode one batch and return its rows."""
        examples = [self.resolved.dataset.by_id[name] for name in batch.examples]
        sequences, place = token_sequences(batch, self.resolved.study.seed)
        eos = loading.eos_ids(model, self.tokenizer)
        tokens = decode_in_memory(
            model,
            [encode_prompt(self.tokenizer, asked(self.resolved, example)) for example in examples],
            sequences,
            eos=eos,
            no_repeat_ngram_size=self.resolved.study.decoding.no_repeat_ngram_size,
            workspace=self.workspace,
            on_step=lambda ended: on_progress(batch.checkpoint, ended, ""),
        )
        texts: dict[tuple[int, ...], str] = {}

        def output(example: Example, setting: Setting, sample: int) -> base.Output:
            ids = tuple(tokens[place[(example.id, *sequence_of(setting, sample))]][: setting.max_length])
            stopped = ids[-1] in eos
            if ids not in texts:
                texts[ids] = decode_completion(self.tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
            return base.Output(texts[ids], len(ids), "stop" if stopped else "length")

        frame = base.generations(self.resolved, batch, output)
        on_progress(batch.checkpoint, 0, frame["text"].iloc[-1])
        return frame


def token_sequences(batch: Batch, seed: int) -> tuple[list[TokenSequence], dict[tuple[Any, ...], int]]:
    """Return the distinct sequences of a batch, each as long as its longest setting, and their places.

    A place is known by example, ``sequence_of`` setting and sample.
    """
    longest: dict[tuple[Any, ...], Setting] = {}
    for name in batch.examples:
        for setting in batch.settings:
            for sample in batch.samples:
                key = (name, *sequence_of(setting, sample))
                longest[key] = max(longest.get(key, setting), setting, key=lambda s: s.max_length)
    number = {name: prompt for prompt, name in enumerate(batch.examples)}
    sequences = [
        TokenSequence(number[name], setting, noise_key(seed, name, sample))
        for (name, _, sample), setting in longest.items()
    ]
    return sequences, {key: place for place, key in enumerate(longest)}


def device_name(load: Load) -> str:
    """Return on what texts are computed: device, dtype and, on a CPU, threads."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()} {loading.dtype_of(load)}"
    return f"cpu {loading.dtype_of(load)} {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """Return the versions that a results folder records."""
    return versions_of("torch", "transformers", "peft", "tokenizers")


def text_key(resolved: ResolvedStudy, checkpoint: Checkpoint, name: str) -> str:
    """Return ``Engine.cache_key`` on the device that ``name`` (``device_name``) stands for."""
    study = resolved.study
    return digest([_weights_key(resolved, checkpoint, name), study.seed, study.decoding.no_repeat_ngram_size])


def _weights_key(resolved: ResolvedStudy, checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    return {
        "engine": [VERSION, name, version("torch"), version("transformers")],
        "base": resolved.base_fingerprint,  # a chat template is part of it
        "checkpoint": resolved.fingerprints[checkpoint.name],
        "load": asdict(resolved.study.loading()),
        "prompt": base.wording(resolved),
    }


def check_study(resolved: ResolvedStudy, tokenizer: Any) -> None:
    """Refuse texts longer than a model's context, and warn if no_repeat_ngram_size blocks the references' first token.

    The ban counts the prompt's tokens. Where the prompt's last ones stand in it before, and the first of
    a completion after them, every output begins with another token.

    Raises:
        TangevalError: with ``decoding.max_length`` and the model's limit; or there is no chat template, or no EOS.
    """
    size, texts = resolved.study.decoding.no_repeat_ngram_size, _texts(resolved, tokenizer)
    _check_context(resolved, texts)
    if problem := spelling_problem(tokenizer, [resolved.task.target(e) for e in base.examples_of(resolved)]):
        warnings.warn(f"base_model: {problem}", stacklevel=2)
    forbidden: list[str] = []
    for prompt, reference in texts:
        end = [*prompt[len(prompt) - size + 1 :], reference[0]]
        if size and any(prompt[i : i + size] == end for i in range(len(prompt) - size + 1)):
            forbidden.append(str(tokenizer.decode(end)))
    if forbidden:
        warnings.warn(
            f"decoding.no_repeat_ngram_size: {size} forbids how the poets' own endings begin after {len(forbidden)} of "
            f"{len(texts)} prompts, since {forbidden[0]!r} stands in the prompt before; outputs will begin with a stray "
            "token, and form suffers. Use 0 or another size (docs/results.md, a trap)",
            stacklevel=2,
        )


def _texts(resolved: ResolvedStudy, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Each example's prompt and reference as tokens."""
    asking = [(asked(resolved, e), resolved.task.target(e)) for e in base.examples_of(resolved)]
    return [(encode_prompt(tokenizer, p), encode_completion(tokenizer, p, target)) for p, target in asking]


def _check_context(resolved: ResolvedStudy, texts: Sequence[tuple[list[int], list[int]]]) -> None:
    """Refuse models without keys and values, and texts beyond a model's positions or across a change of them."""
    length, prompt = int(max(resolved.study.decoding.max_length)), max(len(p) for p, _ in texts)
    whole = max(len(p) + len(reference) for p, reference in texts)
    models = {resolved.base if c.kind != "full" else Base(c.name, str(c.path)) for c in resolved.checkpoints}
    for model in sorted(models, key=lambda model: model.name):
        try:
            config = loading.load_config(model)
        except TangevalError:
            if model == resolved.base:
                raise
            continue  # a checkpoint that cannot be read is refused, or left out, when its turn comes
        token_cost(config)
        limit, change = loading.context_length(config), rotary_change(config)
        if limit is not None and prompt + length > limit:
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


def sequences_that_fit(resolved: ResolvedStudy, tokenizer: Any) -> int:
    """Return how many sequences a batch may have, from the memory and the model's sizes.

    A sequence's cost is its tokens' keys and values, the prompt's too where a model does not
    let its rows share them, twice over in the layer at hand, and a few vectors of the size of
    the vocabulary. Where a GPU's memory does not hold that, batches are halved, and what fitted is remembered.
    """
    study, load = resolved.study, resolved.study.loading()
    cost = token_cost(config := loading.load_config(resolved.base))
    if cost is None:
        return _CAUTIOUS
    prompt = max(len(encode_prompt(tokenizer, asked(resolved, e))) for e in base.examples_of(resolved))
    length = int(max(study.decoding.max_length))
    tokens: float = prompt + length
    text = config.get_text_config()
    if suits(cost.kind, text, prompt + length):
        tokens = length + prompt / len({setting.sequence for setting in study.decoding.settings()})
    cache = (cost.whole + 2 * cost.largest) * loading.dtype_of(load).itemsize * tokens
    return max(1, int(_budget(resolved.base, load) / (cache + 24 * text.vocab_size)))


def _budget(model: Base, load: Load) -> float:
    """Bytes for the rows of a batch: fixed on a CPU; on a GPU, most of what the weights leave."""
    if not torch.cuda.is_available():
        return _CPU_BUDGET
    files = Path(model.source).glob(model.gguf or "*.safetensors") if model.local else []
    shrink = 1.0 if load.merge else {"none": 1.0, "int8": 0.55, "nf4": 0.35}[load.quantization]
    weights = sum(file.stat().st_size for file in files) * shrink * (4 if model.gguf else 1)
    total = torch.cuda.get_device_properties(loading.device()).total_memory
    return max(0.7 * (total - weights) - 2**30, 2**28)
