"""Load a tokenizer and a model.

In: a resolved ``Base`` and a ``Load``. Out: transformers objects,
ready for inference. The one place that decides device, dtype and quantisation. Knows
nothing of prompts, settings or results.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.types import Base, Load, user_cache
from tangeval.models.adapter_base import cached
from tangeval.models.checkpoints import digest_of


def device() -> torch.device:
    """Return the device that models are put on: this process's GPU (the first, but for torchrun), or the CPU."""
    gpu = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")


def unused_gpu() -> tuple[str, str] | None:
    """Return why models are not put on a GPU that this machine has, and the remedy; None where they are, or none is seen."""
    if torch.cuda.is_available():
        return None
    if torch.backends.mps.is_available():
        return "an Apple GPU is here, and only NVIDIA's are supported: models run on the CPU", ""
    if not shutil.which("nvidia-smi"):
        return None
    why = (
        f"CUDA {torch.version.cuda} does not start: see nvidia-smi"
        if torch.version.cuda
        else "this torch is built for CPUs"
    )
    return (
        f"there is a driver, and it is not used: {why}",
        "install torch as pytorch.org says for this machine",
    )


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


def stays_on_gpu(weights: int) -> bool:
    """Say whether so many bytes of weights are copied on the GPU, where merging changes them: four times as many fit."""
    return (
        torch.cuda.is_available() and 4 * weights <= torch.cuda.get_device_properties(device()).total_memory
    )


def load_tokenizer(base: Base) -> Tokenizer:
    """Return the base model's tokenizer; every checkpoint is asked with it."""
    tokenizer = _read(AutoTokenizer, base, "tokenizer")
    with _readable(base):  # what is odd in its configuration may only show here
        tokenizer.decode(tokenizer.encode("山", add_special_tokens=False))
    return tokenizer


def load_config(base: Base) -> Any:
    """Return the model's configuration, read without its weights."""
    return _read(AutoConfig, base, "tokenizer")


def _read(kind: Any, base: Base, part: str, **arguments: Any) -> Any:
    """What a class of transformers reads of a model; of a GGUF file, out of ``part`` of what was ``_unpacked``."""
    source = str(_unpacked(base, part)) if base.gguf else base.source
    with _readable(base):
        arguments |= {"cache_dir": base.cache_dir, "local_files_only": cached(base) is not None}
        return kind.from_pretrained(source, trust_remote_code=False, **arguments)


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


def load_model(base: Base, load: Load, *, shared_out: bool = False, mapped: bool = False) -> PreTrainedModel:
    """Return the model's weights on ``device()``, in evaluation mode.

    With ``shared_out`` several processes will share the weights (FSDP): they stay in the machine's
    memory until then, and nf4, which is made on a GPU, is stored as numbers of ``dtype_of(load)``,
    since only floating point can be shared out. With ``mapped`` a CPU's weights stay in the file, so that processes share
    them: whoever writes to it changes them.

    nf4 is the homework's: double quantisation, compute in ``dtype_of(load)``. With ``merge`` its
    weights are written out in that dtype again, the values that nf4 left of them, so that
    adapters can be merged: 16-bit memory and speed, the weights that the adapter was trained on.
    So are those of a model that is stored in 4 bits.

    Raises:
        TangevalError: the model cannot be read, its tensors are not those of its configuration, or it is
            quantised in a way that ``load`` does not suit; the message says what to put where.
    """
    dtype = dtype_of(load)
    own = _quantised(base, load)
    nf4 = {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype, **({"bnb_4bit_quant_storage": dtype} if shared_out else {}),
    }  # fmt: skip
    how = None if own else {"none": None, "nf4": nf4, "int8": {"load_in_8bit": True}}[load.quantization]
    # Whether an adapter lies in a base's repository is asked apart.
    arguments: dict[str, Any] = {
        "dtype": dtype,
        "adapter_kwargs": {"local_files_only": cached(base) is not None},
    }
    arguments |= {} if load.allow_pickle else {"use_safetensors": True}
    arguments |= {} if shared_out and not how else {"device_map": {"": device()}}
    arguments |= {"quantization_config": transformers.BitsAndBytesConfig(**how)} if how else {}
    part = str(dtype).removeprefix("torch.")
    model: PreTrainedModel
    model, found = _read(AutoModelForCausalLM, base, part, output_loading_info=True, **arguments)
    _check_tensors(base, found)
    if load.merge and (own or load.quantization) == "nf4":
        model = model.dequantize()  # in the dtype that nf4 computes in; RoPE's frequencies stay float32
    if model.device.type == "cpu" and not mapped:  # safetensors maps the file
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    return model.eval()


def _quantised(base: Base, load: Load) -> str | None:
    """Return how the model's stored weights are quantised, in ``load``'s words; None where they are not."""
    if base.gguf:
        if load.quantization != "none":
            raise TangevalError("load.quantization: a .gguf base is dequantised when loaded; use none")
        return None
    about = getattr(load_config(base), "quantization_config", None) or {}
    about = about if isinstance(about, dict) else about.to_dict()
    few = "nf4" if about.get("load_in_4bit") else "int8" if about.get("load_in_8bit") else None
    own: str | None = few or about.get("quant_method")
    if own and load.quantization not in ("none", own):
        raise TangevalError(f"load.quantization: {base.source} is quantised already ({own}); use none")
    if own and load.merge and own != "nf4":
        raise TangevalError(
            f"load.merge: {base.source} is quantised ({own}); merging into few bits changes outputs; leave merge out"
        )
    return own


def _check_tensors(base: Base, found: Any) -> None:
    """Refuse tensors that are missing, which transformers draws at random, or unknown; tied and declared ones are neither."""
    odd = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    odd += [f"{name} is not known" for name in sorted(found["unexpected_keys"])]
    if odd:
        raise TangevalError(
            f"{base.source}: its tensors are not those of its config.json: {odd[0]}"
            + (f", and {len(odd) - 1} more are missing or not known" if odd[1:] else "")
            + "; save the model itself with save_pretrained (of one from torch.compile, its _orig_mod), or mend config.json"
        )


def _unpacked(base: Base, part: str) -> Path:
    """Return the folder, written at the first use, of a GGUF file's tokenizer and configuration, or of its weights in a dtype.

    Reading GGUF takes a minute where the same as safetensors takes seconds. The folder is in
    ``user_cache()`` and can be deleted at any time.
    """
    file = Path(base.source) / str(base.gguf)
    folder = user_cache() / "gguf" / f"{file.stem}-{digest_of(file)[:8].hex()}" / part
    if folder.is_dir():
        return folder
    with _readable(base):
        arguments = {"gguf_file": base.gguf, "trust_remote_code": False}
        if part == "tokenizer":
            config = AutoConfig.from_pretrained(base.source, **arguments)
            read = [_plain(AutoTokenizer.from_pretrained(base.source, **arguments), config), config]
        else:
            dequantized = GgufConfig(dequantize=True)
            arguments |= {"quantization_config": dequantized, "dtype": getattr(torch, part)}
            model, found = AutoModelForCausalLM.from_pretrained(
                base.source, output_loading_info=True, **arguments
            )
            _check_tensors(base, found)
            read = [model]
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


def _plain(tokenizer: Any, config: Any) -> Tokenizer:
    """Return a tokenizer read from GGUF as one that is read from its file as it was written.

    A model's own class builds its parts anew when it is read; transformers 5.17 loses the
    merges of Gemma's that way, and spells every word out. It also takes a Llama's BOS for its EOS, so the
    file's own ids are looked up, which the configuration has.
    """
    tokens = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    ids = {name: getattr(config, f"{name}_id", None) for name in tokens}
    tokens |= {name: tokenizer.convert_ids_to_tokens(i) for name, i in ids.items() if isinstance(i, int)}
    parts = {"tokenizer_object": tokenizer.backend_tokenizer, "padding_side": tokenizer.padding_side}
    return transformers.PreTrainedTokenizerFast(**parts, **tokens)


def eos_ids(model: Any, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the token ids that end a text: the model's own and the tokenizer's.

    Raises:
        UnusableError: the model declares something else than token ids.
    """
    declared = model.generation_config.eos_token_id if model.generation_config else None
    several = declared if isinstance(declared, list) else [declared]
    if odd := [i for i in several if i is not None and type(i) is not int]:
        raise UnusableError(f"generation_config.json: eos_token_id: {odd[0]!r} is no token id; give numbers")
    return tuple(sorted({i for i in [*several, tokenizer.eos_token_id] if i is not None}))


def ends_of(base: Base, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return ``eos_ids`` of a model whose weights are not read."""
    declared = transformers.GenerationConfig.from_model_config(load_config(base))
    with _readable(base), suppress(OSError):  # there is no file
        declared = _read_generation(base)
    return eos_ids(SimpleNamespace(generation_config=declared), tokenizer)


def _read_generation(base: Base) -> Any:
    where = {"cache_dir": base.cache_dir, "local_files_only": cached(base) is not None}
    return transformers.GenerationConfig.from_pretrained(base.source, **where)


def declared_ends(base: Base, config: Any, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the ids that end a text by the file that names them; None where it names none."""
    generation: Any = None
    with _readable(base), suppress(OSError):  # there is none
        generation = _read_generation(base)
    named = {"config": config.get_text_config(), "generation_config": generation, "tokenizer": tokenizer}
    return {where: getattr(each, "eos_token_id", None) for where, each in named.items()}


def shapes(base: Base, config: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each of a model's parameters, of which none is made."""
    with _readable(base), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


@contextmanager
def _readable(base: Base) -> Iterator[None]:
    """Turn a library's failure to read a model into what the user can do."""
    try:
        yield
    except TangevalError:
        raise
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
