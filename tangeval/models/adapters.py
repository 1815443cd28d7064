"""One checkpoint on the base model for the time being; afterwards the base is bit for bit what it was.

In: a loaded base model, a ``Checkpoint`` and a ``Load``. Out: the model with the checkpoint on it. What an adapter may
change is put back by modules and tensors, never by the adapter's type. Knows nothing of prompts, settings or results.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.libraries import needs
from tangeval.core.types import ADAPTER, Base, Checkpoint, Load
from tangeval.models.adapter_kinds import adapter_config, unsupported
from tangeval.models.averages import fingerprint_of
from tangeval.models.loading import load_model, stays_on_gpu
from tangeval.models.mean_weights import write_average

#: Numbers of a base model's tensors as they were loaded, by the tensor's ``id``: they hold as long as the model is there.
Copies = dict[int, torch.Tensor]
#: What is said of files that are others than when their fingerprint was taken.
CHANGED = "its files have changed since the run began; start it again"


@contextmanager
def with_checkpoint(
    model: PreTrainedModel | None,
    checkpoint: Checkpoint,
    load: Load,
    recorded: str | None = None,
    copies: "Copies | None" = None,
) -> Iterator[torch.nn.Module]:
    """Yield ``model`` with an adapter on it, and take it off again; a full model is loaded and wants no ``model``.

    ``copies`` are what earlier calls left of the same ``model``: they need not be made again.

    Raises:
        UnusableError: the adapter is of a kind that cannot be evaluated, or merged; it does not fit the base model, or
            was made for another; the full model cannot be read; the files are not those of the ``recorded`` fingerprint.
    """
    copies = {} if copies is None else copies
    with folder_of(checkpoint) as folder:
        if checkpoint.kind == "full":
            try:
                whole = load_model(Base(checkpoint.name, str(folder)), load)
            except TangevalError as error:
                raise UnusableError(str(error)) from error
            _check_same(checkpoint, recorded)
            yield whole
            return
        assert model is not None
        with _put_back(model):
            if folder is None:
                yield model
                return
            if reason := unsupported(folder):
                raise UnusableError(f"{folder}: {reason}")
            with _contents_kept(_written_at_loading(model, folder), copies):
                adapted = with_adapter(model, folder).eval()
                _check_same(checkpoint, recorded)
                with merged(adapted, folder, copies) if load.merge else nullcontext():
                    yield adapted


@contextmanager
def folder_of(checkpoint: Checkpoint) -> Iterator[Path | None]:
    """Yield where a checkpoint's weights lie; an average is written into a folder for the time being."""
    if not checkpoint.members:
        yield checkpoint.path
        return
    with TemporaryDirectory(prefix=f"{checkpoint.name}-", ignore_cleanup_errors=True) as folder:
        write_average(checkpoint.members, Path(folder))
        yield Path(folder)


def _check_same(checkpoint: Checkpoint, recorded: str | None) -> None:
    """Refuse weights that are others than were recorded; asked after they were read."""
    if recorded and checkpoint.folders and fingerprint_of(checkpoint) != recorded:
        raise UnusableError(f"{checkpoint.path or checkpoint.name}: {CHANGED}")


def checksum(model: torch.nn.Module) -> tuple[int, ...]:
    """Return a sum of the bits of each of the model's tensors; a second for some gigabytes on a CPU, milliseconds on a GPU."""
    sums = []
    for tensor in (*model.parameters(), *model.buffers()):
        octets = tensor.detach().contiguous().flatten().view(torch.uint8)
        octets = octets.clone() if octets.storage_offset() % 8 else octets
        width = 8 * max(1, octets.numel() // 8 // 4096)
        whole = octets.numel() // width * width
        # Of words of 8 bytes: no copy is made, and the sum wraps around. Odd factors lose no bit.
        rows = octets[:whole].view(torch.int64).view(-1, width // 8).sum(1)
        odd = 2 * torch.arange(len(rows), device=rows.device) + 1  # none for a tensor of less than a word
        sums.append((rows * odd).sum() + octets[whole:].sum())
    return tuple(torch.stack(sums).tolist())


@contextmanager
def _put_back(model: PreTrainedModel) -> Iterator[None]:
    """Give modules, tensors and what they hold (configurations, quantisation) the attributes that they had, and tensors their memory."""
    tensors = [*model.parameters(), *model.buffers()]
    owners: dict[int, Any] = {id(owner): owner for owner in (*model.modules(), *tensors)}
    for value in [value for owner in owners.values() for value in vars(owner).values()]:
        # Changed in place: bitsandbytes moves weights into an object of its own at the first step.
        if isinstance(value, PretrainedConfig) or type(value).__module__.startswith("bitsandbytes"):
            owners[id(value)] = value
    had = [
        (owner, {k: copy.copy(v) if isinstance(v, dict) else v for k, v in vars(owner).items()})
        for owner in owners.values()
    ]
    lay = [(tensor, tensor.data) for tensor in tensors]
    try:
        yield
    finally:
        for owner, attributes in had:
            vars(owner).clear()
            vars(owner).update(attributes)
        for tensor, data in lay:
            tensor.data = data


@contextmanager
def _contents_kept(tensors: list[torch.Tensor], copies: Copies) -> Iterator[None]:
    """Write the numbers that tensors have now into them again: copies, since to subtract would not give the same bits."""
    beside = stays_on_gpu(sum(tensor.nbytes for tensor in tensors))
    for tensor in tensors:
        if id(tensor) not in copies:
            copies[id(tensor)] = _copy(tensor.detach(), beside=beside)
    kept = [(tensor.data, copies[id(tensor)]) for tensor in tensors]
    try:
        yield
    finally:
        for memory, numbers in kept:
            memory.copy_(numbers, non_blocking=True)


def _copy(tensor: torch.Tensor, *, beside: bool) -> torch.Tensor:
    """A copy beside the tensor; or, of one on a GPU, in memory of the machine's that the GPU reads fast."""
    if beside or not tensor.is_cuda:
        return tensor.clone()
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)


def _written_at_loading(model: PreTrainedModel, folder: Path) -> list[torch.Tensor]:
    """The base model's own tensors that loading an adapter writes into.

    They are those that its file brings and, where training began from the base's own weights (OLoRA, PiSSA, LoftQ …),
    those of every layer that it adapts. What else may be written shows in the checksum.
    """
    if not (folder / ADAPTER).is_file():
        return []
    try:
        with safe_open(folder / ADAPTER, "pt") as weights:
            names = list(weights.keys())
    except SafetensorError as error:
        raise UnusableError(f"{folder}: the adapter's {ADAPTER} is damaged: {error}") from error
    stored = {name.removeprefix("base_model.model.").replace(".base_layer.", ".") for name in names}
    begun = any(isinstance(v, str) for k, v in adapter_config(folder).items() if k.startswith("init_"))
    adapted = {name[:end] for name in stored for end, dot in enumerate(name) if begun and dot == "."}
    tensors = model.named_parameters(remove_duplicate=False)
    return [t for name, t in tensors if name in stored or name.rpartition(".")[0] in adapted]


@contextmanager
def merged(adapted: Any, folder: Path, copies: Copies) -> Iterator[None]:
    """Add an adapter into the weights for the time being; afterwards these are bit for bit what they were.

    The adapter's layers still take it for merged then. One of a weight that two modules share is refused: both would change.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [m for m in adapted.modules() if isinstance(m, BaseTunerLayer)]
    owners: dict[int, set[str]] = {}
    for name, parameter in adapted.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), set()).add(name)
    touched = {id(p): p for layer in layers for p in layer.get_base_layer().parameters()}
    for parameter in touched.values():
        shared = owners[parameter.data_ptr()]
        # New tokens' rows are the same in both, and peft writes them into both.
        if len(shared) > 1 and not any("token_adapter" in name for name in shared):
            raise UnusableError(
                f"load.merge: {folder} adapts a weight that is tied ({', '.join(sorted(shared))}); leave merge out"
            )
    with _contents_kept(list(touched.values()), copies):
        try:
            adapted.base_model.merge_adapter()
            apart = [layer for layer in layers if not layer.merged]
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # each type of adapter has its own
            raise UnusableError(f"load.merge: {folder} cannot be merged: {error}; leave merge out") from error
        if apart:
            kind = type(apart[0]).__name__
            raise UnusableError(f"load.merge: {folder}: {kind} cannot be merged; leave merge out")
        yield


def with_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> Any:
    """Return ``model`` under the adapter in ``folder``, which is the same each time.

    Raises:
        TangevalError: the memory does not hold it.
        UnusableError: it does not fit the model's layers, or it was made for another base model.
    """
    with needs(
        "an adapter"
    ):  # seconds, which a base model and the process that deals out the jobs need not take
        from peft import MODEL_TYPE_TO_PEFT_MODEL_MAPPING, PeftConfig, PeftModel
    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = not trainable
        mapping = getattr(model, "_checkpoint_conversion_mapping", {})
        kind = MODEL_TYPE_TO_PEFT_MODEL_MAPPING.get(config.task_type, PeftModel)
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(0)  # some types draw what their file does not hold
            adapted = kind(model, config)
            result = adapted.load_adapter(str(folder), "default", trainable, key_mapping=mapping)
    except (torch.OutOfMemoryError, MemoryError) as error:  # no fault of the adapter's
        raise TangevalError(
            f"{folder}: the memory does not hold the adapter beside its base model ({error}); use load.quantization: nf4, a "
            "smaller batch_size, or a larger machine"
        ) from error
    except Exception as error:  # whatever peft and safetensors make of a stranger's files
        said, *others = [line.strip() for line in str(error).splitlines() if "mismatch" in line] or [
            " ".join(str(error).split())[:300] or type(error).__name__
        ]
        more = f" (and {len(others)} more)" * bool(others)
        whose = adapter_config(folder).get("base_model_name_or_path")
        raise UnusableError(
            f"{folder}: the adapter, trained on {whose}, does not fit base model {model.name_or_path}: {said}{more}"
        ) from error
    # peft leaves out what it does not find; the vector bank lies with the model, and each layer points at it.
    missing = {name for name in result.missing_keys if "vblora_vector_bank" not in name}
    if odd := missing | set(result.unexpected_keys):
        raise UnusableError(
            f"{folder}: the adapter was made for another base model than {model.name_or_path}: {min(odd)} is in one of them "
            "alone; set base_model to the one it was trained on"
        )
    return adapted
