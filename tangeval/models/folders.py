"""Say what a folder of a model or an adapter holds, and what keeps it from being whole.

In: a folder as a trainer, a merge or a download left it. Out: None, or the reason in words with what can be
done. Reads JSON and the headers of safetensors files. Knows nothing of studies and of torch.

Unreadable is not incomplete: what cannot be read at the moment is an error, and never a save that was cut off.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.keeping import listed, present, reading
from tangeval.core.types import ADAPTER
from tangeval.core.untrusted import LARGEST, MIB, parsed, read_bytes

ADAPTER_CONFIG = "adapter_config.json"
_INDEX = "model.safetensors.index.json"
#: What libraries read whole, beside the weights.
_READ_WHOLE = (".json", ".jinja", ".model", ".txt")
#: Bytes of a safetensors file's header; a model of 100,000 tensors has as many.
_HEADER = 16 * MIB
#: What Trainer writes between the weights and trainer_state.json, to go on from.
_TO_GO_ON = ("optimizer.*", "scheduler.pt", "rng_state*.pth", "global_step*")
#: What may stand in the place of weights, and what makes weights of it.
_REMEDIES = {
    "zero_to_fp32.py": "DeepSpeed's parts: `python zero_to_fp32.py . . --safe_serialization` there makes weights of them",
    "pytorch_model_fsdp_0": "FSDP's parts: `accelerate merge-weights pytorch_model_fsdp_0 .` there makes weights of them",
    "consolidated*": "weights under their maker's names: convert them with the model's script in transformers",
    "*.gguf": "a GGUF file: give it as base_model",
    "*.pt": "a file of torch's own: load it and save_pretrained() it",
    "*.ckpt": "a file of torch's own: load it and save_pretrained() it",
}


def is_model(folder: Path) -> bool:
    """Return whether something was saved here as an adapter or a full model, whole or not."""
    adapter = present(folder / ADAPTER_CONFIG) or present(folder / ADAPTER)
    return adapter or ((folder / "config.json").is_file() and any(_weights(folder)))


def incomplete(folder: Path, *, allow_pickle: bool = False) -> str | None:
    """Return what keeps ``folder`` from being a whole adapter or model, and what to do; None if nothing does.

    Raises:
        TangevalError: its weights are a pickle, which can run code when it is loaded; or a file
            is larger than any of its kind, or cannot be read.
    """
    check_sizes(folder)
    adapter = present(folder / ADAPTER_CONFIG) or present(folder / ADAPTER)
    config = folder / (ADAPTER_CONFIG if adapter else "config.json")
    about = read_object(config)
    if about is None:
        return f"{config.name} is missing or not whole; expected an adapter or a full model{_instead(folder)}"
    if about.get("peft_type") == "XLORA":
        return f"{config.name} is an X-LoRA's, which takes other adapters from wherever it names; expected a LoRA"
    files = [folder / ADAPTER] if adapter else weight_files(folder)
    if files is None:
        return f"{_INDEX} names no weights, or files that are not beside it"
    pickles = list(folder.glob("adapter_model.bin" if adapter else "pytorch_model*.bin"))
    if pickles and not all(file.is_file() for file in files):
        if allow_pickle:
            return None
        raise TangevalError(
            f"{pickles[0]} is a pickle, which can run code when it is loaded; save it as safetensors "
            "(save_pretrained() of today's transformers and peft does), or give --allow-pickle if you trust its maker"
        )
    found = {file: tensors(file) for file in files}
    for file, held in found.items():
        if held is None:
            link = ", a link to what is not there: download it again" * (
                file.is_symlink() and not file.exists()
            )
            return f"{file.name} is missing or cut short{link or _instead(folder) * (not file.exists())}"
    if not any(found.values()):
        return f"{files[0].name} holds no tensors: the training saved none of what it trained; save the model there again"
    return None


def cut_off(save: Path) -> str | None:
    """Return why a Trainer's ``checkpoint-N`` was not finished; None if it was, or if Trainer's files were left out.

    Trainer writes ``trainer_state.json`` last. Without it and without what training goes on from, the folder
    holds what is needed to evaluate and was never meant to hold more.
    """
    state = save / "trainer_state.json"
    if read_object(state) is not None or not (state.exists() or any(map(any, map(save.glob, _TO_GO_ON)))):
        return None
    return (
        "trainer_state.json, which Trainer writes last, is missing or not whole: the save was cut off; name the "
        "folder itself under checkpoints to take its weights all the same"
    )


def weight_files(folder: Path) -> list[Path] | None:
    """Return a full model's weight files; None if its index names none, or some elsewhere."""
    if not (folder / _INDEX).is_file():
        return [folder / "model.safetensors"]
    weights = (read_object(folder / _INDEX) or {}).get("weight_map")
    names = list(weights.values()) if isinstance(weights, dict) else []
    beside = all(isinstance(n, str) and n == Path(n).name and n.endswith(".safetensors") for n in names)
    return sorted({folder / name for name in names}) if names and beside else None


def _weights(folder: Path) -> Iterator[Path]:
    for pattern in ("*.safetensors", _INDEX, "pytorch_model*.bin"):
        yield from folder.glob(pattern)


def _instead(folder: Path) -> str:
    """What stands there in the place of weights, and the folders in it that hold a model."""
    remedies = [f"{pattern}: {told}" for pattern, told in _REMEDIES.items() if any(folder.glob(pattern))]
    inside = [
        str(f) for f in [*sorted(folder.glob("*/")), *sorted(folder.glob("snapshots/*/"))] if is_model(f)
    ]
    told = [f"there is {remedy}" for remedy in remedies]
    told += [f"models are in {', '.join(inside)}: name those"] * bool(inside)
    return "".join(f"; {each}" for each in told)


def check_sizes(folder: Path) -> None:
    """Refuse what a library would read whole and no machine might hold."""
    for file in listed(folder):
        if file.suffix in _READ_WHOLE and file.is_file() and file.stat().st_size > LARGEST:
            raise TangevalError(f"{file}: larger than {LARGEST // MIB} MiB, which no such file of a model is")


def tensors(file: Path) -> dict[str, Any] | None:
    """Return the tensors of a safetensors file by name, as its header describes them; None if it is not whole.

    It is whole if it is as long as its own header says.
    """
    try:
        with reading(file), file.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            if not 0 < size <= min(file.stat().st_size - 8, _HEADER):
                return None
            header: dict[str, Any] = parsed(stream.read(size))
        held = {name: entry for name, entry in header.items() if name != "__metadata__"}
        ends = [entry["data_offsets"][1] for entry in held.values()]
        return held if 8 + size + max(ends, default=0) == file.stat().st_size else None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def read_object(file: Path) -> dict[str, Any] | None:
    """Return what a JSON file says; None if it is not there, is not whole, or holds no object."""
    try:
        content = parsed(read_bytes(file))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
