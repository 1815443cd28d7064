"""The mean of several checkpoints' weights, written as a checkpoint.

In: folders of adapters or full models that ``averages`` found alike. Out: a folder of one. Knows nothing of studies.

The weights that a LoRA makes are W + s · B A. Their mean is W + s / n · [B₁ … Bₙ] [A₁; …; Aₙ]: one LoRA of n times the
rank, with the members' own numbers in it. The mean of the A and of the B, each for itself, would be other weights.
"""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tangeval.core.errors import UnusableError
from tangeval.core.types import ADAPTER
from tangeval.models.adapter_kinds import adapter_config
from tangeval.models.averages import FACTOR
from tangeval.models.folders import ADAPTER_CONFIG, tensors, weight_files


def write_average(members: Sequence[Path], folder: Path) -> None:
    """Write the mean of ``members`` into ``folder``: of adapters a LoRA, of full models one in float32, file by file.

    Raises:
        UnusableError: numbers that are no weights, such as counts, differ.
    """
    if (members[0] / ADAPTER_CONFIG).is_file():
        config = _of_all_ranks(adapter_config(members[0]), len(members))
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config), "utf-8")
        save_file(
            dict(_means([[member / ADAPTER] for member in members])), folder / ADAPTER, {"format": "pt"}
        )
        return
    for file in members[0].iterdir():
        if file.suffix == ".json" and file.is_file():
            shutil.copyfile(file, folder / file.name)
    files = [weight_files(member) or [] for member in members]
    for file in files[0]:
        save_file(dict(_means(files, list(tensors(file) or ()))), folder / file.name, {"format": "pt"})


def _of_all_ranks(config: dict[str, Any], count: int) -> dict[str, Any]:
    """The configuration of a LoRA whose ranks are those of ``count`` alike; the scale becomes that of one, divided by ``count``.

    The scale is alpha / rank; with ``use_rslora`` it is alpha / √rank.
    """
    scale = 1 / math.sqrt(count) if config.get("use_rslora") else 1
    alphas = {name: alpha * scale for name, alpha in (config.get("alpha_pattern") or {}).items()}
    ranks = {name: rank * count for name, rank in (config.get("rank_pattern") or {}).items()}
    return config | {
        "r": config["r"] * count, "lora_alpha": config["lora_alpha"] * scale, "rank_pattern": ranks, "alpha_pattern": alphas,
    }  # fmt: skip


def _means(
    members: Sequence[Sequence[Path]], names: Sequence[str] | None = None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor's mean, from the files of every member: of all tensors, or of ``names``."""
    with ExitStack() as stack:
        opened = [[stack.enter_context(safe_open(file, "pt")) for file in files] for files in members]
        places = [{name: file for file in files for name in file.keys()} for files in opened]  # noqa: SIM118
        for name in names or list(places[0]):
            yield name, _mean(name, [where[name].get_tensor(name) for where in places])


def _mean(name: str, own: Sequence[torch.Tensor]) -> torch.Tensor:
    if side := FACTOR.fullmatch(name):
        return torch.cat(list(own), dim=0 if side[1] == "A" else 1).contiguous()
    if not own[0].is_floating_point():
        if any(not torch.equal(own[0], other) for other in own[1:]):
            raise UnusableError(f"{name} has no mean: it is no number of weights, and differs")
        return own[0]
    return torch.stack([tensor.double() for tensor in own]).mean(dim=0).float()
