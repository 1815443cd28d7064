"""Which base model an adapter was trained on, by what its files say.

In: an adapter's folder, and a base model as the study resolves it. Out: the base's name, and why the two do not go
together. Reads JSON and the headers of safetensors files. Knows nothing of torch, and loads no weights.
"""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from functools import cache as kept
from pathlib import Path
from urllib.parse import urlsplit

from tangeval.core.errors import TangevalError
from tangeval.core.types import ADAPTER, Base, Checkpoint
from tangeval.models.adapter_kinds import adapter_config
from tangeval.models.folders import incomplete, read_object, tensors, weight_files

#: A tensor of a LoRA: the module beside which it stands, and its side.
_LORA = re.compile(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.\w+)?\.weight")


def trained_from(checkpoint: Checkpoint) -> str | None:
    """Return the base model that an adapter's configuration names: a hub id, or a path of the machine that trained it."""
    if checkpoint.kind != "adapter" or not checkpoint.folders:
        return None
    named = adapter_config(checkpoint.folders[0]).get("base_model_name_or_path")
    return named if isinstance(named, str) and named else None


def hub_cache(cache_dir: str | Path | None = None) -> Path:
    """Return the folder where the hub's library keeps models, by its own rule and without importing it."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{caches}/huggingface"
    named = os.environ.get("HF_HUB_CACHE") or f"{home}/hub"
    return Path(cache_dir or os.path.expandvars(Path(named).expanduser()))


def in_hub_cache(name: str, cache: Path) -> Path | None:
    """Return the folder of a hub model's newest copy in a cache; None if there is none."""
    copies = [f.parent for f in cache.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json")]
    return max(copies, key=lambda folder: folder.stat().st_mtime, default=None)


@kept
def cached(base: Base) -> Path | None:
    """Return where a hub model lies whole in its cache, as last downloaded: the hub need not be asked for it then.

    Raises:
        TangevalError: nothing of it is there, and this machine has no network: the hub's library would try for a minute.
    """
    if base.local:
        return None
    cache = hub_cache(base.cache_dir)
    folder = cache / f"models--{base.source.replace('/', '--')}"
    try:
        copy = folder / "snapshots" / (folder / "refs" / "main").read_text("utf-8").strip()
        # Whether a pickle may be read is asked where it is read.
        if [*copy.glob("tokenizer*"), *copy.glob("vocab*")] and not incomplete(copy, allow_pickle=True):
            return copy
    except (OSError, ValueError, TangevalError):
        pass  # it is not whole, and the hub's library says in words what is amiss
    address = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    proxies = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    if not in_hub_cache(base.source, cache) and not any(map(os.environ.get, proxies)):
        try:
            socket.getaddrinfo(address, 443)
        except OSError as error:
            raise base.unreachable(error) from error
    return None


def base_shapes(base: Base) -> dict[str, Sequence[int]]:
    """Return the shapes of a base model's tensors by name; none where no header on this machine has them."""
    folder = Path(base.source) if base.local else in_hub_cache(base.source, hub_cache(base.cache_dir))
    about = folder and not base.gguf and read_object(folder / "config.json")
    if (
        not folder or not about or "quantization_config" in about
    ):  # numbers of few bits are stored in other shapes
        return {}
    found = [tensors(file) or {} for file in weight_files(folder) or []]
    return {name: entry["shape"] for held in found for name, entry in held.items()}


def misfit(checkpoint: Checkpoint, shapes: Mapping[str, Sequence[int]]) -> str | None:
    """Return the first tensor of a LoRA that cannot stand beside the base's weights, in words; None if nothing is known.

    A tensor ``[r, in]`` or ``[out, r]`` must have a size of the weight beside it. A layer that the base does not have
    is one whose weight would be known by another number.
    """
    if checkpoint.kind != "adapter" or not checkpoint.folders:
        return None
    kinds = {_numberless(name) for name in shapes}
    for name, entry in (tensors(checkpoint.folders[0] / ADAPTER) or {}).items():
        if not (found := _LORA.fullmatch(name)) or len(entry["shape"]) != 2:
            continue
        weight, outer = f"{found[1]}.weight", entry["shape"][1 if found[2] == "A" else 0]
        if weight not in shapes and _numberless(weight) in kinds:
            return f"it has no {found[1]}"
        if outer not in shapes.get(weight, [outer]):
            return f"{found[1]} is {' × '.join(map(str, shapes[weight]))} there, {outer} in the adapter"
    return None


def _numberless(name: str) -> str:
    return re.sub(r"\d+", "#", name)
