"""The rows of a batch: one forward step of a model for many texts at once.

In: prompts as token ids; then, step by step, which places of the batch are copied where and
each place's new token. Out: the next token's logits. Knows nothing of sequences and knobs.

Rows lie at places 0, 1, … of the batch. ``Shared`` rows keep each prompt's keys and values
once; ``Copied`` rows, for models that tangeval's attention does not suit, have all in
transformers' own cache.
"""

import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tangeval.core.errors import TangevalError
from tangeval.decoding.cuda.compile import Fused
from tangeval.decoding.planning import cache_of, keys_and_values
from tangeval.decoding.shared_prefix import Shape, Store, attending, bare, fits, make_store

_COARSE = 256  # places; below, a step's size hardly changes what it costs


class Way(NamedTuple):
    """How a model's rows are kept, where it ``fits``: the fastest, unless its logits are others then."""

    shares: bool = True  #: rows share their prompts' keys and values
    pads: bool = True  #: prompts of different lengths are run together

    def __str__(self) -> str:
        rows, prompts = "shared" if self.shares else "copied", "together" if self.pads else "one at a time"
        return f"rows {rows}, prompts {prompts}"


_FASTEST = Way()


class Rows(ABC):
    """R rows at the first places of a batch.

    ``sizes`` are the numbers of places that a step may have; None if any will do.
    """

    sizes: Tensor | None = None

    def __init__(self, history: Tensor, places: int, room: int) -> None:
        """``history`` ``[P, L]`` are the prompts' tokens, -1 where padded on the left."""
        prompts, self.longest = history.shape
        self.history = history.new_zeros(places, self.longest + room)
        self.history[:prompts, : self.longest] = history
        self.written = 0

    def texts(self, size: int) -> Tensor:
        """The tokens at the first ``size`` places so far, -1 where padded: ``[size, L + written]``."""
        return self.history[:size, : self.longest + self.written]

    def advance(self, size: int, source: Tensor, target: Tensor, place: Tensor, token: Tensor) -> Tensor:
        """Copy rows to other places, add a token to each row, and return the next logits ``[size, V]``.

        ``source`` and ``target`` ``[M]`` have no place in common; ``place`` and ``token`` ``[R]``
        name each row's place, all below ``size``, and its new token. Places that no row
        lies at have logits too, of no meaning.
        """
        self.history[target] = self.history[source]
        self.history[place, self.longest + self.written] = token
        logits = self._step(size, source, target, place, token)
        self.written += 1
        return logits

    @abstractmethod
    def _step(self, size: int, source: Tensor, target: Tensor, place: Tensor, token: Tensor) -> Tensor:
        """``advance``, for what the model itself needs."""


class Shared(Rows):
    """Rows that share their prompts' keys and values."""

    def __init__(
        self, model: Any, history: Tensor, cache: Any, room: int, most: Sequence[int], workspace: "Workspace"
    ) -> None:
        places = max(sum(most), len(history))
        super().__init__(history, places, room)
        mask = history >= 0
        length = mask.sum(dim=1)
        shape = Shape(len(history), int(length.sum()), self.longest, places, room, max(most))
        self.buffers = workspace.take(model, cache, shape)
        store = self.buffers.store
        store.hold([x.keys for x in cache.layers], [x.values for x in cache.layers], mask)
        store.prompt.zero_()
        store.prompt[: len(history)] = torch.arange(len(history), device=history.device)
        store.wrote(0)
        self.buffers.length[: len(history)] = length
        self.sizes = self.buffers.sizes

    def _step(self, size: int, source: Tensor, target: Tensor, place: Tensor, token: Tensor) -> Tensor:
        buffers = self.buffers
        buffers.store.move(source, target)
        buffers.token[place] = token
        logits = buffers.run(size)
        buffers.store.wrote(self.written + 1)
        return logits


class Copied(Rows):
    """Rows with a cache of their own each, the prompt's copy included."""

    def __init__(self, model: Any, history: Tensor, name: str, cache: Any, room: int, places: int) -> None:
        super().__init__(history, max(places, len(history)), room)
        self.model, self.name, self.cache = model, name, cache

    def _step(self, size: int, source: Tensor, target: Tensor, place: Tensor, token: Tensor) -> Tensor:
        origin = torch.arange(size, device=source.device)
        origin[target] = source
        self.cache.reorder_cache(origin)
        mask = (self.history[:size, : self.longest + self.written + 1] >= 0).long()
        return self.model(  # type: ignore[no-any-return]
            input_ids=self.history[:size, self.longest + self.written, None],
            position_ids=mask.sum(dim=1, keepdim=True) - 1,
            attention_mask=mask,
            use_cache=True,
            **{self.name: self.cache},
        ).logits[:, -1]


def prefill(
    model: Any, prompts: Sequence[Sequence[int]], room: int, most: Sequence[int], workspace: "Workspace"
) -> tuple[Tensor, Rows]:
    """Run each prompt once, padded on the left, with ``room`` for as many tokens after it.

    ``most`` ``[P]`` says how many rows may ever lie on each prompt. Returns the next token's
    logits ``[P, V]`` and the prompts as rows.

    Raises:
        TangevalError: the model keeps no keys and values (but a state, as Mamba does), or is to be
            compiled and tangeval's attention does not suit it.
    """
    if not workspace.way.pads:
        forget(model, prompts[0])
    longest = max(map(len, prompts))
    history = torch.tensor([[-1] * (longest - len(p)) + list(p) for p in prompts], device=model.device)
    mask = history >= 0
    result = model(
        input_ids=history.clamp(min=0),
        attention_mask=mask.long(),
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=True,
        logits_to_keep=1,
    )
    name, cache = cache_of(result)
    keys_and_values(model, cache)
    logits = result.logits[:, -1]
    if workspace.way.shares and fits(model, cache, longest + room):
        return logits, Shared(model, history, cache, room, most, workspace)
    if workspace.compile:
        raise TangevalError(
            f"load.compile: {type(bare(model)).__name__} has an attention of its own, and its steps are not compiled; leave "
            "compile out"
        )
    return logits, Copied(model, history, name, cache, room, sum(most))


def forget(model: Any, text: Sequence[int]) -> None:
    """Let a model whose rotary frequencies grow with what it reads (dynamic NTK) begin anew, by a text of one token."""
    model(input_ids=torch.tensor([text[:1]], device=model.device), use_cache=False)


@dataclass
class Limit:
    """How many sequences memory holds at once, as far as it ran out.

    What was too many is tried again after 2, 4, 8 … calls in which nothing failed: another process
    may have held the memory.
    """

    too_many: int | None = None  #: the smallest number that memory did not hold
    fitted: int | None = None  #: the largest number that it held since
    failures: int = 0
    wait: int = 0

    def begin(self) -> None:
        """Count a call."""
        self.wait -= 1
        if self.wait < 0:
            self.too_many = self.fitted = None

    def failed(self, sequences: int) -> None:
        self.failures += self.too_many is None
        self.too_many, self.fitted, self.wait = sequences, None, 2**self.failures


class Workspace:
    """Buffers and recorded steps that one decode leaves for the next of its shape.

    With ``compile`` the model's layers are compiled (``fused``). ``way`` is the loaded checkpoint's.
    """

    def __init__(self, *, compile: bool = False, way: Way = _FASTEST) -> None:
        self.compile, self.way = compile, way
        self._buffers: _Buffers | None = None
        self.limit = Limit()

    def take(self, model: Any, cache: Any, shape: Shape) -> "_Buffers":
        """Return buffers that hold at least this much: the last decode's, or new ones."""
        keys = [layer.keys for layer in cache.layers]
        kind = (len(keys), keys[0].shape[1], keys[0].shape[3], keys[0].dtype, keys[0].device)
        old = self._buffers
        if old and old.kind == kind and all(a <= b for a, b in zip(shape, old.shape, strict=True)):
            old.use(model)
            return old
        if old:  # Prompts take little room; so that batches over other prompts fit here, it never shrinks.
            shape = Shape(*map(max, shape, old.shape))._replace(places=shape.places, room=shape.room)
        del old
        self.clear()
        self._buffers = _Buffers(model, make_store(keys, shape), shape, kind, self.compile)
        return self._buffers

    def clear(self) -> None:
        """Give the memory back."""
        self._buffers = None


class _Buffers:
    """A store, what else a step reads, and on a GPU the steps recorded as CUDA graphs.

    A recorded step is the same kernels on the same addresses without Python between them
    (PyTorch's CUDA graphs). So it serves as long as the weights stay where they were.
    """

    def __init__(self, model: Any, store: Store, shape: Shape, kind: tuple[Any, ...], compile: bool) -> None:
        self.store, self.shape, self.kind, self.compile = store, shape, kind, compile
        self.token = torch.zeros(shape.places, dtype=torch.int64, device=store.own.device)
        self.length = torch.zeros(shape.prompts, dtype=torch.int64, device=store.own.device)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.logits: Tensor | None = None
        self.weights: tuple[Any, ...] | None = None
        self.sizes: Tensor | None = None
        self.recorded: list[int] = []
        if store.records:
            sizes = _sizes(shape.places)
            self.sizes = torch.tensor(sizes, device=store.own.device)
            # bitsandbytes' int8 layers wait for the device in their midst.
            if not any(type(module).__name__ == "Linear8bitLt" for module in model.modules()):
                self.recorded = sizes
            self.stream = torch.cuda.Stream()
        self.use(model)

    def use(self, model: Any) -> None:
        """Step with ``model`` from now on."""
        self.model = model
        self.fused = Fused(model) if self.compile else None
        weights = _addresses(model)
        if weights != self.weights:
            self.graphs.clear()
            if self.store.records:
                self.pool = torch.cuda.graph_pool_handle()  # a pool dies with its last graph
        self.weights = weights

    def run(self, size: int) -> Tensor:
        """Run the newest token at the first ``size`` places; returns the next one's logits ``[size, V]``."""
        if size not in self.recorded:
            return self._forward(size)
        if size not in self.graphs:
            try:
                self._record(size)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                warnings.warn(
                    f"{type(self.model).__name__} cannot be recorded as a CUDA graph, and decodes more slowly "
                    f"without: {error}",
                    stacklevel=2,
                )
                self.recorded = []
                return self._forward(size)
        self.graphs[size].replay()
        assert self.logits is not None
        return self.logits[:size]

    def _forward(self, size: int) -> Tensor:
        store = self.store
        with attending(self.model, store), self.fused.running() if self.fused else nullcontext():
            store.lay_out(size)
            position = self.length[store.prompt[:size]] + store.position
            return self.model(  # type: ignore[no-any-return]
                input_ids=self.token[:size, None],
                position_ids=position[:, None],
                attention_mask=None,
                use_cache=False,
            ).logits[:, -1]

    def _record(self, size: int) -> None:
        if self.logits is None:
            # The first step of a model does what must not be recorded (libraries wake up), and tells the shape.
            first = self._forward(size)
            self.logits = first.new_empty(self.recorded[-1], first.shape[1])
        # The largest first: what it took of the graphs' memory serves all others.
        for some in (size,) if self.graphs else sorted({self.recorded[-1], size}, reverse=True):
            if self.fused:
                self._forward(some)  # what a size may want compiled yet must not be recorded
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                self.logits[:some] = self._forward(some)
            self.graphs[some] = graph


def _sizes(places: int) -> list[int]:
    """The sizes that a step may have: powers of 2, then eight to an octave."""
    sizes, size = [], 16
    while size < places:
        sizes.append(size)
        size += size if size < _COARSE else 2 ** (size.bit_length() - 4)
    return [*sizes, places]


def _addresses(model: Any) -> tuple[Any, ...]:
    """What a recorded step relies on: the model, and where its weights lie.

    Merged adapters are not read. Unmerged ones are, and scaled by numbers that no address tells.
    """
    layers = [module for module in model.modules() if hasattr(module, "merged")]
    merged = {
        id(p) for layer in layers if layer.merged for name, p in layer.named_parameters() if "lora_" in name
    }
    whole = bare(model) if all(layer.merged for layer in layers) else model
    tensors = [p for p in (*model.parameters(), *model.buffers()) if id(p) not in merged]
    return weakref.ref(whole), *((t.data_ptr(), t.shape, t.dtype) for t in tensors)
