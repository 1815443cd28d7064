"""Load a tokenizer, a base model, and checkpoints on it, one after another.

In: resolved ``Base`` and ``Checkpoint`` records and a ``Load``. Out: transformers objects,
ready for inference. The one place that decides device, dtype and quantisation. Knows
nothing of prompts, settings or results.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.types import ADAPTER, Base, Checkpoint, Load, user_cache


def device() -> torch.device:
    """Return the device that models are put on: this process's GPU (the first, but for torchrun), or the CPU."""
    gpu = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


def has_bfloat16() -> bool:
    """Say whether there is a GPU that computes in bfloat16 by itself; older ones (T4, V100) imitate it slowly."""
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def dtype_of(load: Load) -> torch.dtype:
    """Return the dtype of weights and compute: ``auto`` is bfloat16 where a GPU has it, else float32."""
    if load.dtype != "auto":
        return getattr(torch, load.dtype)  # type: ignore[no-any-return]
    if device().type == "cuda":
        return torch.bfloat16 if has_bfloat16() else torch.float16
    return torch.float32


def load_tokenizer(base: Base) -> Tokenizer:
    """Return the base model's tokenizer; every checkpoint is asked with it."""
    return _read(AutoTokenizer, base, "tokenizer")


def load_config(base: Base) -> Any:
    """Return the model's configuration, read without its weights."""
    return _read(AutoConfig, base, "tokenizer")


def _read(kind: Any, base: Base, part: str, **arguments: Any) -> Any:
    """What a class of transformers reads of a model; of a GGUF file, out of ``part`` of what was ``_unpacked``."""
    source = str(_unpacked(base, part)) if base.gguf else base.source
    with _readable(base):
        return kind.from_pretrained(source, trust_remote_code=False, cache_dir=base.cache_dir, **arguments)


def context_length(config: Any) -> int | None:
    """Return how many tokens a model's positions reach, learned or rotary; None where it declares no limit.

    Where RoPE is scaled, the limit is that of the scaled positions: already in
    ``max_position_embeddings`` for llama3 and longrope, else the original one times the factor (as
    vLLM reads it). A sliding window bounds how far back a token sees, and not where it may stand.
    """
    text = config.get_text_config()
    limit: int | None = getattr(text, "max_position_embeddings", None)
    declared = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    factors = [1.0]
    for rope in declared.values() if all(isinstance(v, dict) for v in declared.values()) else [declared]:
        if rope.get("rope_type", rope.get("type")) in ("linear", "dynamic", "yarn"):
            limit = rope.get("original_max_position_embeddings") or limit
            factors.append(float(rope.get("factor") or 1.0))
    return limit and int(limit * max(factors))


def load_model(base: Base, load: Load, *, shared_out: bool = False) -> PreTrainedModel:
    """Return the model's weights on ``device()``, in evaluation mode.

    With ``shared_out`` several processes will share the weights (FSDP): they stay in the machine's
    memory until then, and nf4, which is made on a GPU, is stored as numbers of ``dtype_of(load)``,
    since only floating point can be shared out.

    nf4 is the homework's: double quantisation, compute in ``dtype_of(load)``. With ``merge`` its
    weights are written out in that dtype again, the values that nf4 left of them, so that
    adapters can be merged: 16-bit memory and speed, the weights that the adapter was trained on.

    Raises:
        TangevalError: the model cannot be read; the message says what to put where.
    """
    dtype = dtype_of(load)
    if load.quantization != "none" and base.gguf:
        raise TangevalError("load.quantization: a .gguf base is dequantised when loaded; use none")
    nf4 = {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype, **({"bnb_4bit_quant_storage": dtype} if shared_out else {}),
    }  # fmt: skip
    how = {"none": None, "nf4": nf4, "int8": {"load_in_8bit": True}}[load.quantization]
    arguments: dict[str, Any] = {"dtype": dtype}
    arguments |= {} if load.allow_pickle else {"use_safetensors": True}
    arguments |= {} if shared_out and not how else {"device_map": {"": device()}}
    arguments |= {"quantization_config": transformers.BitsAndBytesConfig(**how)} if how else {}
    part = str(dtype).removeprefix("torch.")
    model: PreTrainedModel = _read(AutoModelForCausalLM, base, part, **arguments)
    if load.quantization == "nf4" and load.merge:
        model = model.dequantize()  # in the dtype that nf4 computes in; RoPE's frequencies stay float32
    return model.eval()


def _unpacked(base: Base, part: str) -> Path:
    """Return the folder, written at the first use, of a GGUF file's tokenizer and configuration, or of its weights in a dtype.

    Reading GGUF takes a minute where the same as safetensors takes seconds. The folder is in
    ``user_cache()`` and can be deleted at any time.
    """
    file = Path(base.source) / str(base.gguf)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
    folder = user_cache() / "gguf" / f"{file.stem}-{digest}" / part
    if folder.is_dir():
        return folder
    with _readable(base):
        arguments = {"gguf_file": base.gguf, "trust_remote_code": False}
        if part == "tokenizer":
            read = [_plain(AutoTokenizer.from_pretrained(base.source, **arguments))]
            read.append(AutoConfig.from_pretrained(base.source, **arguments))
        else:
            dequantized = GgufConfig(dequantize=True)
            arguments |= {"quantization_config": dequantized, "dtype": getattr(torch, part)}
            read = [AutoModelForCausalLM.from_pretrained(base.source, **arguments)]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, prefix=".unfinished-") as draft:
            for one in read:
                one.save_pretrained(Path(draft, part))
            Path(draft, part).rename(folder)
    except OSError as error:
        if folder.is_dir():  # another process was first
            return folder
        raise TangevalError(
            f"base_model: {base.gguf} cannot be unpacked into {folder}: {error}; free the disk, or set TANGEVAL_CACHE "
            "to a folder with room"
        ) from error
    return folder


def _plain(tokenizer: Any) -> Tokenizer:
    """Return a tokenizer read from GGUF as one that is read from its file as it was written.

    A model's own class builds its parts anew when it is read; transformers 5.17 loses the
    merges of Gemma's that way, and spells every word out.
    """
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    parts = {"tokenizer_object": tokenizer.backend_tokenizer, "padding_side": tokenizer.padding_side}
    return transformers.PreTrainedTokenizerFast(**parts, **tokens)


@contextmanager
def with_checkpoint(
    model: PreTrainedModel | None, checkpoint: Checkpoint, load: Load
) -> Iterator[torch.nn.Module]:
    """Yield ``model`` with an adapter on it, and take it off again; a full model is loaded and wants no ``model``.

    Raises:
        TangevalError: ``load.merge`` and the adapter's weight is tied.
        UnusableError: the adapter does not fit the base model, or it was made for another.
    """
    if checkpoint.kind == "full":
        try:
            whole = load_model(Base(checkpoint.name, str(checkpoint.path)), load)
        except TangevalError as error:
            raise UnusableError(str(error)) from error
        yield whole
        return
    assert model is not None
    if checkpoint.path is None:
        yield model
        return
    # An adapter may have trained biases too, which peft writes into the model itself.
    biases = {n: p.detach().clone() for n, p in model.named_parameters() if n.endswith("bias")}
    adapted = with_adapter(model, checkpoint.path).eval()
    try:
        check_names(adapted, checkpoint.path / ADAPTER)
        with _merged(adapted, checkpoint) if load.merge else nullcontext():
            yield adapted
    finally:
        adapted.delete_adapter("default")  # first, or unload would leave the modules that were trained whole
        adapted.unload()
        model.load_state_dict(biases, strict=False)


@contextmanager
def _merged(adapted: PeftModel, checkpoint: Checkpoint) -> Iterator[None]:
    """Add an adapter into the 16- or 32-bit weights for the time being.

    The weights are put back from a copy in the machine's memory: subtracting what was added would not
    give the same bits. A weight that two modules share is refused: the other one would be changed too.
    """
    layers = [m for m in adapted.modules() if hasattr(m, "base_layer") and hasattr(m, "lora_A")]
    owners: dict[int, set[str]] = {}
    for name, parameter in adapted.named_parameters(remove_duplicate=False):
        owners.setdefault(parameter.data_ptr(), set()).add(name)
    for layer in layers:
        if len(shared := owners[layer.base_layer.weight.data_ptr()]) > 1:
            raise TangevalError(
                f"load.merge: {checkpoint.path} adapts a weight that is tied ({', '.join(sorted(shared))}); leave merge out"
            )
    kept = [layer.base_layer.weight.detach().to("cpu", copy=True) for layer in layers]
    adapted.base_model.merge_adapter()
    try:
        yield
    finally:
        adapted.base_model.unmerge_adapter()
        for layer, weight in zip(layers, kept, strict=True):
            layer.base_layer.weight.data.copy_(weight)


def with_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> Any:
    """Return ``model`` under the adapter in ``folder``.

    Raises:
        TangevalError: it does not fit the model's layers.
    """
    try:
        return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    except (torch.OutOfMemoryError, MemoryError) as error:  # no fault of the adapter's
        raise TangevalError(
            f"{folder}: the memory does not hold the adapter beside its base model ({error}); use load.quantization: nf4, a "
            "smaller batch_size, or a larger machine"
        ) from error
    except Exception as error:  # whatever peft and safetensors make of a stranger's files
        raise UnusableError(
            f"{folder}: the adapter does not fit base model {model.name_or_path}: {error or type(error).__name__}"
        ) from error


def check_names(adapted: Any, file: Path) -> None:
    """Raise ``UnusableError`` for an adapter whose tensors are others than this base model's adapter has.

    peft itself leaves out what it does not find, and only warns of what is missing.
    """
    if not file.is_file():
        return
    with safe_open(file, "pt") as weights:
        stored = {name for name in weights.keys() if "lora_" in name}  # noqa: SIM118
    # Left to choose, peft asks the hub for the model that the adapter says it was trained on.
    state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    wanted = {name for name in state if "lora_" in name}
    if stored != wanted:
        raise UnusableError(
            f"{file.parent}: the adapter was made for another base model than {adapted.get_base_model().name_or_path}: "
            f"{min(stored ^ wanted)} is in one of them alone; set base_model to the one it was trained on"
        )


def eos_ids(model: PreTrainedModel, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the token ids that end a text: the model's own and the tokenizer's."""
    declared = model.generation_config.eos_token_id if model.generation_config else None
    several = declared if isinstance(declared, list) else [declared]
    return tuple(sorted({i for i in [*several, tokenizer.eos_token_id] if i is not None}))


@contextmanager
def _readable(base: Base) -> Iterator[None]:
    """Turn a library's failure to read a model into what the user can do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TangevalError(
            f"base_model: the GPU's memory does not hold {base.source} ({error}); use load.quantization: nf4 without "
            "merge, a smaller model, or a larger GPU"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # tokenizers and safetensors raise no narrower ones of a damaged file
        if base.local:
            raise TangevalError(
                f"base_model: {base.source} cannot be loaded: {error or type(error).__name__}; a model's folder holds "
                "config.json, its weights as safetensors, and its tokenizer, whole and with no code of its own"
            ) from error
        raise base.unreachable(error) from error
