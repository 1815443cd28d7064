"""The folder that the homework's notebook leaves → a study of it.

In: a folder as it lies there: checkpoints by step, adapters, ``results.txt``, ``results.json``. Out: ``Homework``. Reads
JSON and the names of files; loads no weights, and asks no hub.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tangeval import tasks
from tangeval.core.config import Dumper
from tangeval.core.errors import TangevalError
from tangeval.core.types import Checkpoint
from tangeval.models.adapter_base import hub_cache, in_hub_cache, trained_from
from tangeval.models.checkpoints import discover, named, trained_on
from tangeval.models.folders import is_model, read_object, weight_files

#: The records that the notebook trains on (its num_train_data) and those of a step.
RECORDS, BATCH = 1040, 16
#: Models that the notebook takes from a folder of its own machine, and what the hub calls them.
_ON_THE_HUB = {"TAIDE-LX-7B-Chat": "taide/TAIDE-LX-7B-Chat"}
_LARGE = 4 * 2**30  # bytes of weights from which on they are held in 4 bits, as the notebook holds them
_HEAD = """\
# Made by `tangeval hw5`. Change it as you like and run it again: `tangeval hw5` takes it as it is then.
# The homework's own setting is temperature 0.1, top_p 0.3, top_k unset (which transformers takes for 50).
"""


@dataclass(frozen=True)
class Homework:
    """A study of a notebook's folder as keys and values, and whether ``records`` was assumed."""

    content: dict[str, Any]
    records: int | None
    assumed: bool

    def to_yaml(self) -> str:
        """Return the study as a file for people to edit."""
        return _HEAD + yaml.dump(self.content, Dumper=Dumper, sort_keys=False, allow_unicode=True)


def homework(
    folder: str | Path, base: str | None = None, data: str = "hw5", trained_records: int | None = None,
    *, allow_pickle: bool = False,
) -> Homework:  # fmt: skip
    """Return the study of what the notebook left in ``folder``, or in the folders in it.

    ``base`` is where its base model lies (default: as ``found_base``). ``trained_records`` is how many records of the
    training file it was trained on: by default 1,040, or what the number of steps tells.

    Raises:
        TangevalError: there are no checkpoints, of several base models, or the base model is not on this machine.
    """
    folder = Path(folder)
    places = _places(folder)
    found, _ = discover([str(place) for place in places], allow_pickle=allow_pickle)
    if not found:
        raise TangevalError(f"{folder}: none of its checkpoints is whole; `tangeval checkpoints` says why")
    bases = list(dict.fromkeys(trained_from(c) or "" for c in found if c.kind == "adapter"))
    if len(bases) > 1 and not base:
        raise TangevalError(
            f"{folder}: its adapters were trained on {' and '.join(bases)}; give one of its folders, or --base"
        )
    model = found_base(bases[0] if bases else "", folder) if base is None else {"base_model": base}
    recorded = all(trained_on(checkpoint) for checkpoint in found)
    records = trained_records or (None if recorded else min(_records(found), _in_file(data)))
    content = {
        "name": study_name(folder), **model, "checkpoints": [str(place) for place in places],
        **({"trained_records": records} if records else {}),
        **({"load": {"quantization": "nf4"}} if _is_large(model) else {}),
        "data": data, "splits": ["validation", "test"], "samples": {"validation": 1, "test": 4},
        "decoding": {"temperature": [0.1, 0.7, 1.0], "top_k": 50, "top_p": [0.3, 0.9], "max_length": 128},
        "select": {"split": "validation", "checkpoint": "reference_nll", "setting": {"by": "bleu"}},
    }  # fmt: skip
    return Homework(content, records, not trained_records and not recorded)


def study_name(folder: str | Path) -> str:
    """Return what the study of a notebook's folder is called."""
    name = re.sub(r"[^\w.-]+", "-", Path(folder).resolve().name).strip(".-")
    return f"hw5-{name or 'folder'}"


def found_base(name: str, folder: Path) -> dict[str, str]:
    """Return the study's keys for the base model that an adapter names: here, beside ``folder``, or in a hub's cache.

    The notebook keeps a cache of its own (``./cache``), which is looked into as well.

    Raises:
        TangevalError: it is nowhere; the message says what to download and where it is looked for.
    """
    last = name.rstrip("/\\").replace("\\", "/").rpartition("/")[2]
    if last in named():
        return {"base_model": last}
    if name and (Path(name) / "config.json").is_file():
        return {"base_model": name}
    on_hub = _ON_THE_HUB.get(last, name)
    for cache in (None, folder / "cache", folder.parent / "cache"):
        if in_hub_cache(on_hub, hub_cache(cache)):
            return {"base_model": on_hub, **({"cache_dir": str(cache)} if cache else {})}
    for place in (folder / last, folder.parent / last):
        if last and (place / "config.json").is_file():
            return {"base_model": str(place)}
    if not name:
        raise TangevalError(
            f"{folder}: its checkpoints name no base model; give --base, a folder or a hub id"
        )
    raise TangevalError(
        f"{folder}: its base model, {name}, is not on this machine: neither in the hub's cache ({hub_cache()}) nor as "
        f"{folder.parent / last}. `hf download {on_hub}` puts it into the cache (a 7B model has some 15 GB; gated ones "
        "want `hf auth login` first); or give --base FOLDER, where a copy of it lies"
    )


def _places(folder: Path) -> list[Path]:
    """The folders of checkpoints: this one, or those in it."""
    if not folder.is_dir():
        raise TangevalError(f"{folder.absolute()}: there is no such folder")
    found = [each for each in (folder, *sorted(folder.iterdir())) if each.is_dir() and _has_checkpoints(each)]
    if not found:
        raise TangevalError(
            f"{folder}: no checkpoint-N folder and no adapter in it, nor in the folders in it; give what the notebook "
            "calls ckpt_dir (exp1), or the folder that it is in"
        )
    return found[:1] if found[0] == folder else found


def _has_checkpoints(folder: Path) -> bool:
    return (is_model(folder) and (folder / "adapter_config.json").is_file()) or any(
        folder.glob("checkpoint-*/adapter_config.json")
    )


def _records(found: Sequence[Checkpoint]) -> int:
    """How many records were trained on: the notebook's, or as many as its steps take in an epoch if those are more."""
    told = [RECORDS]
    for checkpoint in found:
        state = (checkpoint.path and read_object(checkpoint.path / "trainer_state.json")) or {}
        steps, epochs = state.get("max_steps"), state.get("num_train_epochs")
        if isinstance(steps, int) and isinstance(epochs, int) and steps > 0 and epochs > 0:
            told.append(-(-steps // epochs) * BATCH)
    return max(told)


def _in_file(data: str) -> int:
    """How many records the training file has."""
    return sum(example.id.startswith("train-") for example in tasks.load("tang").load(data, None).examples)


def _is_large(model: dict[str, str]) -> bool:
    """Whether a base model is one to be held in 4 bits; a hub's, by its copy in the cache."""
    name, path = model["base_model"], Path(model["base_model"])
    folder = path if path.is_dir() else in_hub_cache(name, hub_cache(model.get("cache_dir")))
    files = (weight_files(folder) or []) if folder else []
    return sum(file.stat().st_size for file in files if file.is_file()) > _LARGE


def texts_in(folder: Path) -> Iterator[Path]:
    """Yield what the notebook wrote: beside its checkpoints, or in the folder ``output``; of two of a kind the first."""
    beside = Path(os.path.normpath(folder / ".." / "output"))  # ``parent`` of "." is "."
    for place in dict.fromkeys((folder, *sorted(folder.glob("*/")), beside)):
        if files := [file for name in ("results.json", "results.txt") if (file := place / name).is_file()]:
            yield files[0]
