"""Averages of checkpoints: what they are made of, and whether the mean of the weights is exact.

In: the checkpoints that a study found, and its ``Average``s. Out: a ``Checkpoint`` with ``members`` for each. Reads JSON and
the headers of safetensors files. Knows nothing of torch: ``mean_weights`` computes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.places import Average
from tangeval.core.types import ADAPTER, BASE, RANDOM, REFERENCE, Checkpoint
from tangeval.models.adapter_kinds import adapter_config
from tangeval.models.checkpoints import TrainRecord, discover, fingerprint, trained_on
from tangeval.models.folders import read_object, tensors, weight_files

#: The two factors of a LoRA's change of a weight. What else its file holds are weights themselves.
FACTOR = re.compile(r".*\.lora_(?:embedding_)?([AB])(?:\.weight)?")
#: What of two configurations may differ, since it changes no weight.
_NO_MATTER = {"inference_mode", "peft_version", "revision", "auto_mapping", "lora_dropout", "transformers_version",
              "_name_or_path", "dtype", "torch_dtype", "use_cache"}  # fmt: skip
#: With these a LoRA's change is no sum of products, or the base is changed too.
_NOT_LINEAR = ("use_dora", "use_qalora", "use_bdlora", "lora_bias", "target_parameters", "alora_invocation_tokens", "arrow_config")  # fmt: skip


def averaged(
    found: Sequence[Checkpoint], declared: Iterable[Average], *, allow_pickle: bool = False
) -> tuple[Checkpoint, ...]:
    """Return a checkpoint for each average, ``average-360-405`` by its members' steps where it has no name.

    Raises:
        TangevalError: a member is not there, the members differ in more than their weights, or their mean would not be exact.
    """
    known, made = {c.name: c for c in found}, list[Checkpoint]()
    for each in declared:
        members = [known.get(name) or _alone(name, known, allow_pickle) for name in each.average]
        if len({member.path and member.path.resolve() for member in members}) < len(members):
            raise TangevalError(
                f"checkpoints: average: {', '.join(each.average)}: one is named twice; name each once"
            )
        names = [str(member.name if member.step is None else member.step) for member in members]
        name = each.name or "-".join(["average", *(re.sub(r"[^\w.-]", "-", part) for part in names)])
        if name in {*known, BASE, RANDOM, REFERENCE, *(c.name for c in made)}:
            raise TangevalError(f"checkpoints: the name {name} is taken; give the average another: name: …")
        if problem := _problem(members):
            raise TangevalError(f"checkpoints: {name}: {problem}")
        folders = tuple(member.path for member in members if member.path)
        made.append(Checkpoint(name, None, None, members[0].kind, members=folders))
    return tuple(made)


def _alone(name: str, known: Mapping[str, Checkpoint], allow_pickle: bool) -> Checkpoint:
    """The checkpoint in a folder that the study does not run."""
    if not Path(name).exists():
        there = ", ".join(known) or "none"
        raise TangevalError(
            f"checkpoints: average: {name} is no checkpoint of the study ({there}), and there is no such folder"
        )
    found, _ = discover([name], allow_pickle=allow_pickle)
    if len(found) != 1:
        raise TangevalError(f"checkpoints: average: {name} holds {len(found)} whole checkpoints; name one")
    return found[0]


def parts(checkpoint: Checkpoint) -> Iterator[Checkpoint]:
    """Yield the checkpoints that an average is made of; any other is its own."""
    if not checkpoint.members:
        yield checkpoint
    for folder in checkpoint.members:
        yield replace(checkpoint, name=folder.name, path=folder, members=())


def fingerprint_of(checkpoint: Checkpoint) -> str:
    """Return the digest of a checkpoint's files, for an average of its members' digests; empty for the base model."""
    if checkpoint.members:
        return digest(["average", *map(fingerprint, checkpoint.members)])
    return fingerprint(checkpoint.path) if checkpoint.path else ""


def record_of(checkpoint: Checkpoint) -> TrainRecord | None:
    """Return what a checkpoint saw in fine-tuning, an average all that a member saw; None if one keeps no record."""
    whole = TrainRecord()
    for each in parts(checkpoint):
        if (record := trained_on(each)) is None:
            return None
        whole = TrainRecord(whole.texts | record.texts, whole.parts | record.parts)
    return whole


def _problem(members: Sequence[Checkpoint]) -> str | None:
    """Why the mean of these weights cannot be had, or would not be exact; None if nothing is known against it."""
    first, *others = members
    if odd := next((c for c in others if c.kind != first.kind), None):
        return f"{first.name} is of kind {first.kind} and {odd.name} of kind {odd.kind}; average one kind"
    about = [_about(member) for member in members]
    if reason := _not_exact(about[0]):
        return f"the mean of such weights is not known exactly ({reason}); leave the average out"
    if any(held is None for _, held in about):
        return "its members' weights are pickles; save them as safetensors"
    for member, (config, held) in zip(members[1:], about[1:], strict=True):
        for what, ours, theirs in (("configuration", about[0][0], config), ("tensors", about[0][1], held)):
            assert ours is not None
            assert theirs is not None
            if key := next(
                (k for k in sorted(ours.keys() | theirs.keys()) if ours.get(k) != theirs.get(k)), None
            ):
                told = f"{key} is {ours.get(key)} in {first.name} and {theirs.get(key)} in {member.name}"
                return f"its members' {what} differ: {told}; average checkpoints of one training"
    return None


def _about(checkpoint: Checkpoint) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What decides a checkpoint's weights beside their numbers, and the shape of each tensor; None of a pickle."""
    folder = checkpoint.path
    assert folder
    adapter = checkpoint.kind == "adapter"
    config = adapter_config(folder) if adapter else read_object(folder / "config.json") or {}
    files = [tensors(file) for file in ([folder / ADAPTER] if adapter else weight_files(folder) or [])]
    held = {name: entry["shape"] for file in files for name, entry in (file or {}).items()}
    kept = {
        key: sorted(value) if key == "target_modules" and isinstance(value, list) else value
        for key, value in config.items()
        if key not in _NO_MATTER
    }
    return kept, None if None in files or not files else held


def _not_exact(about: tuple[dict[str, Any], dict[str, Any] | None]) -> str | None:
    """What makes a checkpoint one whose weights have no exact mean."""
    config, held = about
    if "quantization_config" in config:
        return "they are quantised"
    if "peft_type" not in config:
        return None
    if config["peft_type"] != "LORA":
        return f"an adapter of kind {config['peft_type']}, not LoRA"
    if on := next((key for key in _NOT_LINEAR if config.get(key)), None):
        return f"{on}: {config[on]}"
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init != "gaussian":
        return f"init_lora_weights: {init} changes the base model"
    return next((name for name in held or () if "lora_" in name and not FACTOR.fullmatch(name)), None)
