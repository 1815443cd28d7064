"""References → how likely a checkpoint finds them.

In: a loaded checkpoint and a study's poems. Out: ``likelihood.parquet``, one row a checkpoint
and poem; rows that still hold are not made again. Knows nothing of decoding but that its
workspace may have to give way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedTokenizerBase

from tangeval.core.digest import digest
from tangeval.core.errors import NOT_NUMBERS, TangevalError, UnusableError
from tangeval.core.types import Checkpoint, Example
from tangeval.decoding.batch import Workspace
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import read_parquet, write_parquet
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang.prompt import completion_text, encode_completion, encode_prompt
from tangeval.tasks.tang.text import as_verse, han, line_length

_REFERENCES = 16  # references scored in one batch


@dataclass(frozen=True, slots=True)
class ReferenceNLL:
    """How unexpected a reference was: nats in all, tokens, and nats of each Han character in order.

    ``characters`` is empty where the tokenizer does not spell the reference as it stands.
    """

    nats: float
    tokens: int
    characters: list[float]


class Likelihood:
    """``likelihood.parquet``: one row a checkpoint and poem, kept while its context holds."""

    def __init__(self, resolved: ResolvedStudy, folder: Path, cache_keys: dict[str, str]) -> None:
        self.resolved, self.file, self.cache_keys = resolved, RunFolder(folder).likelihood_file, cache_keys
        self.examples = [e for split in resolved.study.ordered_splits() for e in resolved.examples(split)]
        self.frame = read_parquet(self.file) if self.file.is_file() else pd.DataFrame()
        if "by_character" not in self.frame:  # rows of an earlier version
            self.frame = pd.DataFrame()

    def _key(self, checkpoint: Checkpoint, example: Example) -> str:
        texts = [example.instruction, example.input, example.reference]
        return digest([self.cache_keys[checkpoint.name], checkpoint.name, example.id, example.split, *texts])

    def lacking(self, checkpoint: Checkpoint) -> list[Example]:
        """Return the poems that have no row under the checkpoint's context."""
        have = set(self.frame["key"]) if len(self.frame) else set()
        return [e for e in self.examples if self._key(checkpoint, e) not in have]

    def add(
        self, checkpoint: Checkpoint, examples: Sequence[Example], values: Sequence[ReferenceNLL]
    ) -> None:
        """Write a row for each of ``examples``; ``values`` are as ``reference_nll`` gives them."""
        rows = [
            {
                "checkpoint": checkpoint.name, "step": checkpoint.step, "split": e.split, "example_id": e.id,
                "line_length": line_length(e.input), "nll_sum": value.nats, "chars": len(han(e.reference)), "tokens": value.tokens,
                "reference_nll": value.nats / len(han(e.reference)), "by_character": value.characters,
                "key": self._key(checkpoint, e),
            }
            for e, value in zip(examples, values, strict=True)
        ]  # fmt: skip
        if rows:
            self.frame = pd.concat([self.frame, pd.DataFrame(rows).astype({"step": "Int64"})])
            write_parquet(self.file, self.frame)

    def write(self) -> None:
        """Keep what the study asks for, in its order."""
        order = [self._key(c, e) for c in self.resolved.checkpoints for e in self.examples]
        write_parquet(self.file, self.frame.set_index("key").loc[order].reset_index())


@torch.inference_mode()
def reference_nll(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    resolved: ResolvedStudy,
    examples: Sequence[Example],
    workspace: Workspace,
) -> list[ReferenceNLL]:
    """Return, for each example, the reference's negative log-likelihood.

    Raw logits at temperature 1. The sum runs over the completion's tokens: the first space,
    characters and marks (the reference punctuated as verse) and EOS, given the prompt. Where
    memory is short, the ``workspace`` of the decoding is cleared and the batch halved.
    """
    results: list[ReferenceNLL] = []
    size = _REFERENCES
    while len(results) < len(examples):
        batch = examples[len(results) : len(results) + size]
        try:
            results += _nll(model, tokenizer, resolved, batch)
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise TangevalError(
                    f"the GPU's memory does not hold the reference of {batch[0].id} ({error}); use "
                    "load.quantization: nf4, or a larger GPU"
                ) from error
            size //= 2
            workspace.clear()
    return results


def _nll(
    model: Any, tokenizer: PreTrainedTokenizerBase, resolved: ResolvedStudy, batch: Sequence[Example]
) -> list[ReferenceNLL]:
    """``reference_nll`` of one batch."""
    prompts = [encode_prompt(tokenizer, e, resolved.study.prompt) for e in batch]
    answers = [encode_completion(tokenizer, e, resolved.study.prompt, as_verse(e.reference)) for e in batch]
    longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    padded = [[-1] * (longest - len(p) - len(a)) + p + a for p, a in zip(prompts, answers, strict=True)]
    ids = torch.tensor(padded, device=model.device)
    mask = (ids >= 0).long()
    tail = max(map(len, answers))
    logits = model(
        input_ids=ids.clamp(min=0),
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=tail + 1,
    ).logits[:, -tail - 1 : -1]
    if logits.isnan().any():
        raise UnusableError(NOT_NUMBERS)
    picked = logits.float().log_softmax(-1).gather(-1, ids[:, -tail:].clamp(min=0)[..., None])[..., 0]
    nats = [
        (-row[-len(answer) :].double()).tolist() for row, answer in zip(picked.cpu(), answers, strict=True)
    ]
    spelt = [
        by_character(tokenizer, a, n, han(e.reference)) for e, a, n in zip(batch, answers, nats, strict=True)
    ]
    return [ReferenceNLL(sum(n), len(n), c) for n, c in zip(nats, spelt, strict=True)]


def by_character(
    tokenizer: Any, tokens: Sequence[int], nats: Sequence[float], characters: str
) -> list[float]:
    """Return the nats of each of ``characters``, which ``tokens`` spell among marks and EOS.

    A token of several characters is shared out evenly; a character of several tokens (byte
    fallback) has their sum. Nats of spaces, marks and EOS are no character's. Empty where the
    tokens spell other characters.
    """
    spelt: list[float] = []
    text, waiting = "", 0.0
    for end, (token, some) in enumerate(zip(tokens, nats, strict=True), 1):
        unknown = token == tokenizer.unk_token_id
        before, text = text, completion_text(tokenizer, list(tokens[:end]), cut=False)
        new = 1 if unknown else len(han(text)) - len(han(before))
        if new > 0:
            spelt += [(waiting + some) / new] * new
        waiting = waiting + some if new <= 0 and text.endswith("\ufffd") else 0.0
    return spelt if len(spelt) == len(characters) else []
