"""The engine of a model that is being trained: its weights as they are now, in this process, left as they were.

In: the model, and a study whose newest checkpoint it is. Out: that checkpoint's rows and likelihoods. What was written by
earlier steps cannot be made again. Knows nothing of trainers and of files.
"""

import copy
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from tangeval.core.config import Section
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.types import Checkpoint
from tangeval.engines import base, local
from tangeval.engines.base import Description, Done, Job, OnProgress
from tangeval.engines.device import Device
from tangeval.models import adapters, loading
from tangeval.resolve import ResolvedStudy
from tangeval.results.machine import hardware

_LEAST = 2.0**28  # bytes for the rows of a batch on a GPU, before training has shown what it needs itself


def digest_of(model: Any) -> str:
    """Return what tells the model's tensors, adapters among them, from any others."""
    return digest(adapters.checksum(model))


@contextmanager
def lent(model: Any, *, merge: bool = False, bare: bool = False) -> Iterator[Any]:
    """Yield the model to evaluate; afterwards it is bit for bit what it was, and so are this process's random numbers.

    It computes in the dtype of its weights: mixed precision is the training's. With ``merge`` adapters are added into the
    weights meanwhile; ``bare`` is without adapters: one that was trained earlier is no part of the base model.

    Raises:
        UnusableError: they cannot be merged.
    """
    with _random_kept(model), _attributes_kept(model):
        if "_original_forward" in vars(model):  # accelerate's mixed precision stands before it
            model.forward = model._original_forward
        model.eval()
        for layer in model.modules():
            if type(layer).__name__ == "Linear4bit":  # in evaluation mode a CPU's are packed, for good
                layer.train()
        bare = bare and not _begun_from_weights(model)
        for layer in model.modules() if bare else ():
            if hasattr(layer, "_disable_adapters"):
                layer._disable_adapters = True
        with adapters.merged(model, Path("the model"), {}) if merge and not bare else nullcontext():
            yield model


def _begun_from_weights(model: Any) -> bool:
    """Whether an adapter took a part out of the base's weights as it began (PiSSA, OLoRA …): the base is both together."""
    configs = [vars(config) for config in getattr(model, "peft_config", {}).values()]
    return any(isinstance(own[key], str) for own in configs for key in own if key.startswith("init_"))


@contextmanager
def _random_kept(model: Any) -> Iterator[None]:
    """Let Python, numpy and torch draw afterwards what they would have drawn now."""
    python, numpy = random.getstate(), np.random.get_state()
    gpus = list(range(torch.cuda.device_count())) if model.device.type == "cuda" else []
    with torch.random.fork_rng(gpus):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


@contextmanager
def _attributes_kept(model: Any) -> Iterator[None]:
    """Give each module the attributes that it had: modes, buffers, what adapters remember.

    The objects stay the same ones, since hooks and optimizers point at them.
    """
    had = [
        (own, dict(own), [(each, copy.copy(each)) for each in own.values() if isinstance(each, dict | list)])
        for own in (module.__dict__ for module in model.modules())
    ]
    try:
        yield
    finally:
        for own, before, inner in had:
            own.clear()
            own.update(before)
            for each, content in inner:
                each.clear()
                (each.update if isinstance(each, dict) else each.extend)(content)


class LiveEngine(base.Engine):
    """See ``Engine``. One process and device: the model's own."""

    Config: ClassVar[type[Section]] = Section

    def __init__(
        self, resolved: ResolvedStudy, model: Any, tokenizer: Any, newest: Checkpoint | None = None
    ) -> None:
        """``newest`` is the checkpoint that the model's weights are; without it none is decoded with."""
        self.resolved, self.model, self.newest = resolved, model, newest
        self.device = Device(resolved, live=model)
        self.device.tokenizer = tokenizer

    def __exit__(self, *exception: object) -> None:
        self.device.close()
        if self.on_gpu:
            torch.cuda.empty_cache()

    @property
    def on_gpu(self) -> bool:
        return bool(self.model.device.type == "cuda")

    def check(self) -> None:
        """Nothing: ``local.check_study`` was asked once, before the first step."""

    def describe(self) -> Description:
        gpu = torch.cuda.get_device_name(self.model.device) if self.on_gpu else None
        return Description(self.name, local.NOISE, True, local.versions(), hardware(gpu))

    @cached_property
    def threads(self) -> int:
        """As many as a run on the saved checkpoint would have."""
        small = not self.on_gpu and local.is_small(self.model.config)
        return 1 if small else torch.get_num_threads()

    @cached_property
    def name(self) -> str:
        if self.on_gpu:
            return f"{torch.cuda.get_device_name(self.model.device)} {self.model.dtype}"
        return f"cpu {self.model.dtype} {self.threads} threads"

    def cache_key(self, checkpoint: Checkpoint) -> str:
        return local.text_key(self.resolved, checkpoint, self.name)

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        return digest(["likelihood", local.weights_key(self.resolved, checkpoint, self.name)])

    def sequences_per_batch(self) -> int:
        if self.resolved.study.batch_size != "auto":
            return self.resolved.study.batch_size
        room = float(local.CPU_BUDGET)
        if self.on_gpu:  # no more than training itself took
            own = torch.cuda.max_memory_allocated(self.model.device)
            room = max(_LEAST, own - torch.cuda.memory_allocated(self.model.device))
        # A run's dtype is the one whose sizes are added up there; training's may be another.
        room *= loading.dtype_of(self.device.load).itemsize / self.model.dtype.itemsize
        most = local.sequences_that_fit(self.resolved, self.device.tokenizer, self.model.config, room)
        return most if self.on_gpu else min(most, local.SMALLEST)

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        with local.few_threads(self.threads):
            for job in jobs:
                if job.checkpoint == self.newest:
                    yield self.device.do(job, on_progress)
                else:
                    gone = "its texts are not there, and its weights are gone: training has moved on"
                    yield Done(job, UnusableError(gone), 0.0)


def refuse_shared_out(model: Any, fsdp: bool) -> None:
    """Raise ``TangevalError`` for a model of which each process holds a part (FSDP, DeepSpeed's stage 3, tensor parallel)."""
    parts = (
        hasattr(p, "ds_id") or type(p).__name__ in ("DTensor", "FlatParameter") for p in model.parameters()
    )
    if len({p.device for p in model.parameters()}) > 1:
        raise TangevalError(
            "evaluating while training: the model lies on several devices; load it on one (no device_map), or run the study "
            "on the saved checkpoints"
        )
    if fsdp or any(parts):
        raise TangevalError(
            "evaluating while training: each process holds a part of the weights (FSDP, DeepSpeed stage 3 or tensor "
            "parallel), and decoding wants them whole; train with DDP or DeepSpeed stage 1 or 2, or run the study on the "
            "saved checkpoints"
        )
