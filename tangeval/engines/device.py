"""One model on one device, and the jobs that it does: texts and likelihoods, under common random numbers.

In: a resolved study, and jobs. Out: their rows, or why a checkpoint cannot be used. The base model is loaded once, and one
checkpoint at a time is on it. Knows nothing of other processes and of results folders.
"""

import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import pandas as pd

from tangeval.core.errors import TangevalError, UnusableError, usable
from tangeval.core.knobs import Setting, warps
from tangeval.core.types import BASE, Checkpoint, Example
from tangeval.decoding.batch import Way, Workspace
from tangeval.decoding.contrast import Reader
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.memory import decode_in_memory
from tangeval.decoding.noise import noise_key
from tangeval.decoding.self_check import choose_way
from tangeval.engines import base
from tangeval.engines.base import Done, Job, OnProgress, ReferenceNLL, asked, sequence_of
from tangeval.engines.constraints import Constraints, constraints_of
from tangeval.engines.likelihood import Reference, reference_nll
from tangeval.models import adapters, loading
from tangeval.models.checkpoints import Stamp, identity, stamps
from tangeval.models.tokens import decode_completion, encode_completion, encode_prompt
from tangeval.resolve import ResolvedStudy
from tangeval.results.plan import Batch


class Device:
    """The model, and what is kept between jobs; to be closed."""

    def __init__(self, resolved: ResolvedStudy, *, mapped: bool = False, live: Any = None) -> None:
        """``mapped``: a CPU's weights stay in their file, which other processes share. ``live``: the model of every job."""
        self.resolved, self.mapped = resolved, mapped
        self.live = live
        self.load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
        self.workspace = Workspace(compile=self.load.compile)
        self._base: Any = None
        self._checksum: tuple[int, ...] = ()  # the base model's, as it was loaded
        self._read: list[Stamp] = []  # its files as they were before, until they are compared
        self._model: Any = None
        self._checkpoint: Checkpoint | None = None  # the one on the model
        self._on = ExitStack()  # what takes it off
        self._copies: adapters.Copies = {}  # of the base model's
        self._loading: float | None = None  # seconds, for the job at hand; the self-check's likewise
        self._checking: float | None = None
        self._ways: dict[str, Way] = {}  # of checkpoints, by name
        self._other: Reader | None = None  # the base model beside, that checkpoints are set against

    @cached_property
    def tokenizer(self) -> Any:
        return loading.load_tokenizer(self.resolved.base)

    @cached_property
    def _texts(self) -> list[tuple[list[int], list[int]]]:
        return texts_of(self.resolved, self.tokenizer)

    @cached_property
    def _constraints(self) -> Constraints:
        return constraints_of(self.resolved, self.tokenizer)

    def close(self) -> None:
        """Give the memory back."""
        self._drop_base()
        self._other = None

    def do(self, job: Job, on_progress: OnProgress) -> Done:
        """Return one job done; its checkpoint stays on the model."""
        made: pd.DataFrame | list[ReferenceNLL] | UnusableError
        began, before = time.perf_counter(), self.workspace.limit.too_many
        try:
            with usable():
                batch, model = job.batch, self.ready(job.checkpoint)
                began = time.perf_counter()
                made = self._batch(batch, model, on_progress) if batch else self._nll(job.examples, model)
                if self.mapped:
                    self._check_files()
        except UnusableError as error:
            self._take_off()
            made = UnusableError(str(error))  # the error's own traceback would keep the model
        loading, checking, limit = self._loading, self._checking, self.workspace.limit
        self._loading = self._checking = None
        fitted = limit.fitted if limit.too_many not in (None, before) else None
        way = self._ways.get(job.checkpoint.name)
        return Done(job, made, time.perf_counter() - began, loading, fitted, way and str(way), checking)

    def ready(self, checkpoint: Checkpoint) -> Any:
        """Return the model with ``checkpoint`` on it; the workspace keeps its rows as is right for it."""
        model = self._with(checkpoint)
        self.workspace.way = self._way(model, checkpoint.name)
        return model

    def _way(self, model: Any, name: str) -> Way:
        """The way to decode with the checkpoint on ``model``: told by the whole study, not by the batch that comes first."""
        if name not in self._ways:
            began = time.perf_counter()
            lengths = [
                *self.resolved.study.decoding.max_length,
                *(len(reference) for _, reference in self._texts),
            ]
            self._ways[name] = choose_way(model, [prompt for prompt, _ in self._texts], int(max(lengths)))
            self._checking = time.perf_counter() - began
        return self._ways[name]

    def _with(self, checkpoint: Checkpoint) -> Any:
        """The model with ``checkpoint`` on it; the one before is taken off."""
        if self.live is not None:
            return self.live
        if checkpoint != self._checkpoint:
            self._take_off()
            if checkpoint.kind == "full":
                self._drop_base()  # two models at a time may be one too many
            else:
                self.load_base()
                if self._read:
                    self._check_files()
            recorded = self.resolved.fingerprints[checkpoint.name]
            on = adapters.with_checkpoint(self._base, checkpoint, self.load, recorded, self._copies)
            self._model, self._checkpoint = self._on.enter_context(on), checkpoint
        return self._model

    def load_base(self) -> None:
        """Load the base model unless it is there; its files are compared with the study's before a job is done."""
        if self._base is not None:
            return
        self.workspace.clear()
        began = time.perf_counter()
        self._read = stamps(self.resolved.base)
        model = loading.load_model(self.resolved.base, self.load, mapped=self.mapped)
        self._base, self._checksum = model, adapters.checksum(model)
        self._loading = time.perf_counter() - began

    def beside(self) -> Reader:
        """The base model once more: a checkpoint may be written into the weights of the one that it is on."""
        if self._other is None:
            model = loading.load_model(self.resolved.base, self.load, mapped=self.mapped)
            self._check_files()
            self._other = Reader(model, Workspace(compile=self.load.compile, way=self._way(model, BASE)))
        return self._other

    def _check_files(self) -> None:
        """Refuse a base model whose files are others than when the run began; asked after they were read."""
        base, before = self.resolved.base, self._read
        self._read = []
        if base.local and (
            before not in ([], stamps(base)) or identity(base) != self.resolved.base_fingerprint
        ):
            raise TangevalError(f"base_model: {base.source}: {adapters.CHANGED}")

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
        self._copies.clear()
        self.workspace.clear()

    def _nll(self, examples: Sequence[Example], model: Any) -> list[ReferenceNLL]:
        task = self.resolved.task
        references = [Reference(e.id, asked(self.resolved, e), task.target(e)) for e in examples]
        own = warps(self.resolved.study.decoding.settings())
        return reference_nll(model, self.tokenizer, references, task.characters, self.workspace, own)

    def _batch(self, batch: Batch, model: Any, on_progress: OnProgress) -> pd.DataFrame:
        """Decode one batch and return its rows."""
        examples = [self.resolved.dataset.by_id[name] for name in batch.examples]
        sequences, place = token_sequences(batch, self.resolved.study.seed, examples, self._constraints)
        eos = loading.eos_ids(model, self.tokenizer)
        prompts = [encode_prompt(self.tokenizer, asked(self.resolved, example)) for example in examples]
        tokens: dict[int, list[int]] = {}
        # Apart: those with contrast alone run the base model too.
        for contrast in sorted({sequence.setting.contrast > 0 for sequence in sequences}):
            own = {n: s for n, s in enumerate(sequences) if (s.setting.contrast > 0) == contrast}
            found = decode_in_memory(
                model,
                prompts,
                list(own.values()),
                eos=eos,
                workspace=self.workspace,
                other=self.beside() if contrast else None,
                on_step=lambda ended: on_progress(batch.checkpoint, ended, ""),
            )
            tokens |= zip(own, found, strict=True)
        texts: dict[tuple[int, ...], str] = {}

        def output(example: Example, setting: Setting, sample: int) -> base.Output:
            key = (example.id, *sequence_of(batch.decoded(setting), sample))
            ids = tuple(tokens[place[key]][: setting.max_length])
            stopped = ids[-1] in eos
            if ids not in texts:
                texts[ids] = decode_completion(self.tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
            return base.Output(texts[ids], len(ids), "stop" if stopped else "length")

        frame = base.generations(self.resolved, batch, output)
        on_progress(batch.checkpoint, 0, frame["text"].iloc[-1])
        return frame


def token_sequences(
    batch: Batch, seed: int, examples: Sequence[Example], constraints: Constraints
) -> tuple[list[TokenSequence], dict[tuple[Any, ...], int]]:
    """Return the distinct sequences of a batch of ``examples``, each as long as its longest setting, and their places.

    A place is known by example, ``sequence_of`` setting and sample.
    """
    longest: dict[tuple[Any, ...], Setting] = {}
    for name in batch.examples:
        for setting in map(batch.decoded, batch.settings):
            for sample in batch.samples:
                key = (name, *sequence_of(setting, sample))
                longest[key] = max(longest.get(key, setting), setting, key=lambda s: s.max_length)
    number = {name: prompt for prompt, name in enumerate(batch.examples)}
    sequences = [
        TokenSequence(
            number[name],
            setting,
            noise_key(seed, name, sample),
            constraints(setting.constrain, examples[number[name]]),
        )
        for (name, _, sample), setting in longest.items()
    ]
    return sequences, {key: place for place, key in enumerate(longest)}


def texts_of(resolved: ResolvedStudy, tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Return each example's prompt and reference as tokens."""
    asking = [(asked(resolved, e), resolved.task.target(e)) for e in base.examples_of(resolved)]
    return [(encode_prompt(tokenizer, p), encode_completion(tokenizer, p, target)) for p, target in asking]
