"""Examples → token ids with labels, and batches of them.

In: examples and a tokenizer. Out: ``datasets`` rows, tensors of a batch packed or padded, and the loss
on the completions alone. The prompt is the task's, the same as in evaluation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from tangeval.core.types import Example
from tangeval.models.tokens import Prompt, encode_completion, encode_prompt
from tangeval.tasks.tang.prompt import asked

from .config import Config
from .packing import IGNORED, pack


@dataclass(frozen=True)
class Layout:
    """How texts become the rows of a batch; ``finetune.config.Config`` says what the words mean.

    ``on_the_left`` is the side that ``filler`` pads; it matters only where the mask is all ones.
    """

    cutoff: int = 256
    loss_on: str = "completion"
    eos: str = "once"
    padding: str = "longest"
    attention_mask: str = "real"
    overflow: str = "leave_out"
    filler: int = 0
    on_the_left: bool = False


def padding_of(config: Config) -> str:
    """Return a configuration's padding; ``auto`` is what is faster: on a GPU one long row is not (docs/finetune.md)."""
    faster = "longest" if torch.cuda.is_available() else "packed"
    return faster if config.padding == "auto" else config.padding


def layout_of(config: Config, tokenizer: Any) -> Layout:
    """Return a configuration's layout for a tokenizer.

    The homework pads with id 0, on the side of the tokenizer's own, or with EOS where that
    is also its padding token: then EOS is not learnt, being taken for padding.
    """
    plain = config.attention_mask == "real"
    return Layout(
        config.cutoff, config.loss_on, config.eos, padding_of(config), config.attention_mask, config.overflow,
        filler=tokenizer.eos_token_id if config.eos == "masked" else 0,
        on_the_left=not plain and getattr(tokenizer, "padding_side", "right") == "left",
    )  # fmt: skip


def tokenize(
    tokenizer: Any,
    examples: Sequence[Example],
    template: str,
    layout: Layout,
    prompt: Callable[[Example, str], Prompt] = asked,
) -> tuple[Dataset, int]:
    """Return rows of ``input_ids`` and ``labels``, and how many examples were left out as too long.

    Labels that the loss is not on are ``IGNORED``: by default the prompt's, so that it is on
    the completion alone, EOS included. A text longer than the cutoff is left out whole: cut,
    as the homework cuts it, it would teach not to end.
    """
    rows = []
    for example in examples:
        question = prompt(example, template)
        asking = encode_prompt(tokenizer, question)
        answer = encode_completion(tokenizer, question, example.reference)
        if layout.eos == "twice":
            answer = [*answer, answer[-1]]
        if len(asking) + len(answer) > layout.cutoff and layout.overflow == "leave_out":
            continue
        ids = (asking + answer)[: layout.cutoff]
        labels = ids if layout.loss_on == "all" else ([IGNORED] * len(asking) + answer)[: layout.cutoff]
        if layout.eos == "masked":
            labels = [IGNORED if label == answer[-1] else label for label in labels]
        rows.append({"input_ids": ids, "labels": labels})
    return Dataset.from_list(rows), len(examples) - len(rows)


def collate(rows: Sequence[dict[str, list[int]]], layout: Layout = Layout()) -> dict[str, torch.Tensor]:
    """Return ``input_ids``, ``attention_mask`` and ``labels``, each ``[B, L]``, padded to one length, or ``pack``'s row.

    ``logits_to_keep`` ``[K]`` tells the model at which places logits are wanted: those whose
    next token is some row's label. The prompt's are many times as many and of no use. Where all
    tokens are supervised, logits are computed everywhere, as the homework's are.

    What pads the ids has no part in anything where the mask is real, since mask and labels
    leave it out; so a tokenizer needs no padding token, and EOS used as one stays learnable.
    """
    if layout.padding == "packed":
        packed = pack(rows)
        return packed | {"logits_to_keep": _places(packed["labels"])}
    longest = max(len(row["input_ids"]) for row in rows)
    if layout.padding == "cutoff":
        longest = max(longest, layout.cutoff)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        pads = [[filler] * (longest - len(v)) for v in values]
        pairs = zip(pads, values, strict=True)
        return torch.tensor([p + v if layout.on_the_left else v + p for p, v in pairs])

    labels = padded([row["labels"] for row in rows], IGNORED)
    seen = int(layout.attention_mask == "ones")
    return {
        "input_ids": padded([row["input_ids"] for row in rows], layout.filler),
        "attention_mask": padded([[1] * len(row["input_ids"]) for row in rows], seen),
        "labels": labels,
        "logits_to_keep": torch.arange(longest - 1) if layout.loss_on == "all" else _places(labels),
    }


def summed_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of a batch's labels in nats, summed: a scalar.

    ``logits`` are ``[B, K, V]``, what the model gives for ``collate``'s ``logits_to_keep``;
    ``labels`` ``[B, L]`` are ``collate``'s.
    """
    everywhere = logits.shape[1] == labels.shape[1] - 1
    wanted = labels[:, 1:] if everywhere else labels[:, _places(labels) + 1]
    return cross_entropy(
        logits.float().flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum"
    )


def _places(labels: torch.Tensor) -> torch.Tensor:
    """The places ``[K]`` whose next token is the label of some row."""
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero().flatten()
