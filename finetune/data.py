"""Examples → token ids with labels, and batches of them.

In: examples and a tokenizer. Out: ``datasets`` rows, tensors padded to the longest of a
batch, and the loss on the completions alone. The prompt is ``tangeval.prompt``'s, the same
as in evaluation.
"""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from tangeval.prompt import Template, encode_completion, encode_prompt
from tangeval.records import Example

IGNORED = -100  # the label that torch's cross-entropy leaves out


def tokenize(
    tokenizer: Any, examples: Sequence[Example], template: Template, cutoff: int
) -> tuple[Dataset, int]:
    """Return rows of ``input_ids`` and ``labels``, and how many examples were left out as too long.

    The prompt's labels are ``IGNORED``: the loss is on the completion alone, EOS included. A
    text longer than ``cutoff`` tokens is left out whole: cut, it would teach not to end.
    """
    rows = []
    for example in examples:
        prompt = encode_prompt(tokenizer, example, template)
        answer = encode_completion(tokenizer, example, template, example.reference)
        if len(prompt) + len(answer) <= cutoff:
            rows.append({"input_ids": prompt + answer, "labels": [IGNORED] * len(prompt) + answer})
    return Dataset.from_list(rows), len(examples) - len(rows)


def collate(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, L]``, padded on the right.

    ``logits_to_keep`` ``[K]`` tells the model at which places logits are wanted: those whose
    next token is some row's label. The prompt's are many times as many and of no use.

    What pads the ids has no part in anything, since mask and labels leave it out; so a
    tokenizer needs no padding token, and EOS used as one stays learnable.
    """
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([v + [filler] * (longest - len(v)) for v in values])

    labels = padded([row["labels"] for row in rows], IGNORED)
    return {
        "input_ids": padded([row["input_ids"] for row in rows], 0),
        "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], 0),
        "labels": labels,
        "logits_to_keep": _places(labels),
    }


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a batch's labels in nats, summed: a scalar.

    ``logits`` are ``[B, K, V]``, what the model gives for ``collate``'s ``logits_to_keep``;
    ``labels`` ``[B, L]`` are ``collate``'s.
    """
    wanted = labels[:, _places(labels) + 1]
    return cross_entropy(
        logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _places(labels: torch.Tensor) -> torch.Tensor:
    """The places ``[K]`` whose next token is the label of some row."""
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero().flatten()
