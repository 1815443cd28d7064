"""Texts one after another in a row: no padding, and what all of them begin with only once.

In: rows of token ids and labels, and a model's configuration. Out: one row, and the attention mask that
keeps the texts in it apart. Knows nothing of weights, tokenizers and training.

A prompt's system message is the same in every text, and causal attention gives its tokens the same states in
each. So it is computed once for all texts of a row; gradients reach it from all of them.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from tangeval.core.errors import TangevalError

IGNORED = -100  # the label that torch's cross-entropy leaves out
REMEDY = "set padding: longest"  # where a model does not keep texts apart


def pack(rows: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
    """Return ``input_ids``, ``labels``, ``position_ids`` and ``text``, each ``[1, L]``.

    What all rows begin with stands first, then the rest of each. ``text`` is 0 in the first and n in the nth rest;
    positions of each rest go on where the first ends. Its last place predicts what differs, so no label may follow
    it: the common part ends before the place that predicts a row's first label.
    """
    unlabelled = [list(takewhile(lambda label: label == IGNORED, row["labels"])) for row in rows]
    alike = takewhile(
        lambda column: len(set(column)) == 1, zip(*(row["input_ids"] for row in rows), strict=False)
    )
    first = max(0, min(len(list(alike)), *(len(labels) - 1 for labels in unlabelled)))
    ids, labels = list(rows[0]["input_ids"][:first]), [IGNORED] * first
    positions, text = list(range(first)), [0] * first
    for number, row in enumerate(rows, 1):
        ids += row["input_ids"][first:]
        labels += [IGNORED, *row["labels"][first + 1 :]]  # the place before belongs to another text
        positions += range(first, len(row["input_ids"]))
        text += [number] * (len(row["input_ids"]) - first)
    found = {"input_ids": ids, "labels": labels, "position_ids": positions, "text": text}
    return {name: torch.tensor([values]) for name, values in found.items()}


def keep_apart(batch: dict[str, Tensor], config: Any) -> dict[str, Any]:
    """Return a batch as the model of ``config`` takes it: the ``text`` of a packed one is its ``attention_mask`` then.

    A token sees its own text and the common part, up to its own position, in layers with a sliding window as far back as
    that reaches. The mask is what transformers makes for the model itself: ``[1, 1, L, L]``, where layers are of
    several types one for each.

    Raises:
        TangevalError: the model has layers that are no attention over all or the last tokens.
    """
    if "text" not in batch:
        return batch
    batch, config = dict(batch), config.get_text_config()
    text, position = batch.pop("text")[0], batch["position_ids"][0]
    back = position[:, None] - position
    full = (back >= 0) & ((text == text[:, None]) | (text == 0))
    window = getattr(config, "sliding_window", None)
    near = full & (back < window) if window else full
    if config._attn_implementation == "eager":  # adds its mask to the scores
        full, near = ((~seen).float() * torch.finfo(torch.float32).min for seen in (full, near))
    masks = {"full_attention": full[None, None], "sliding_attention": near[None, None]}
    types = getattr(config, "layer_types", None)
    if odd := set(types or ()) - set(masks):
        raise TangevalError(
            f"padding: packed: the model has layers of type {', '.join(sorted(odd))}; {REMEDY}"
        )
    mask = {name: masks[name] for name in set(types)} if types else masks["sliding_attention"]
    return batch | {"attention_mask": mask}
