"""References → their negative log-likelihood under a loaded checkpoint, and what cuts keep of them.

In: a model, its tokenizer, and prompts with their references. Out: ``ReferenceNLL``. Knows nothing of
decoding but that its workspace may have to give way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from tangeval.core.errors import NOT_NUMBERS, TangevalError, UnusableError
from tangeval.core.knobs import Setting
from tangeval.core.types import Base, Load
from tangeval.decoding.batch import Workspace, forget
from tangeval.decoding.recall import Kept, kept
from tangeval.engines.base import ReferenceNLL
from tangeval.models import loading
from tangeval.models.tokens import Prompt, decode_completion, encode_completion, encode_prompt

_REFERENCES = 16  # references scored in one batch
#: Returns the characters of a text that likelihood is counted in.
Characters = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Reference:
    """What is asked, and the answer as a model should write it."""

    id: str
    prompt: Prompt
    target: str


def scorer(base: Base) -> Callable[[Sequence[tuple[str, str]]], list[float]]:
    """Return what gives the nats of each text after its prompt, as (prompt, text), under a model in float32."""
    model, tokenizer = loading.load_model(base, Load(dtype="float32")), loading.load_tokenizer(base)

    def nats(pairs: Sequence[tuple[str, str]]) -> list[float]:
        texts = [Reference(f"text {n}", prompt, text) for n, (prompt, text) in enumerate(pairs)]
        return [found.nats for found in reference_nll(model, tokenizer, texts, lambda text: "", Workspace())]

    return nats


def reference_nll(
    model: Any, tokenizer: Any, references: Sequence[Reference], characters: Characters, workspace: Workspace,
    warps: Sequence[Setting] = (),
) -> list[ReferenceNLL]:  # fmt: skip
    """Return the negative log-likelihood of each reference: ``token_nats`` of the completion, its first space and EOS too.

    And what each of ``warps`` keeps of it.

    Raises:
        TangevalError: the GPU's memory does not hold one reference.
        UnusableError: the model does not give numbers.
    """
    prompts = [encode_prompt(tokenizer, r.prompt) for r in references]
    answers = [encode_completion(tokenizer, r.prompt, r.target) for r in references]
    found = zip(references, answers, _scored(model, prompts, answers, workspace, warps), strict=True)
    return [
        ReferenceNLL(sum(own), len(own), by_character(tokenizer, answer, own, r.target, characters), cuts)
        for r, answer, (own, cuts) in found
    ]


def token_nats(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], workspace: Workspace
) -> list[list[float]]:
    """Return the negative log-likelihood of each token of each answer, given its prompt and the tokens before.

    Raw logits at temperature 1. Where memory is short, the ``workspace`` of the decoding is cleared
    and the batch halved; its ``way`` says whether texts are padded.

    Raises:
        TangevalError: the GPU's memory does not hold one text.
        UnusableError: the model does not give numbers.
    """
    return [nats for nats, _ in _scored(model, prompts, answers, workspace, ())]


#: The nats of a text's tokens, and what cuts keep of it.
_Scored = tuple[list[float], dict[str, Kept]]


@torch.inference_mode()
def _scored(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], workspace: Workspace,
    warps: Sequence[Setting],
) -> list[_Scored]:  # fmt: skip
    """``token_nats``, and what each of ``warps`` keeps."""
    results: list[_Scored] = []
    size = _REFERENCES if workspace.way.pads else 1
    while len(results) < len(prompts):
        batch = slice(len(results), len(results) + size)
        try:
            if not workspace.way.pads:
                forget(model, prompts[batch.start])
            results += _batch(model, prompts[batch], answers[batch], warps)
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise TangevalError(
                    f"the GPU's memory does not hold a reference of {len(answers[batch.start])} tokens ({error}); use "
                    "load.quantization: nf4, or a larger GPU"
                ) from error
            size //= 2
            workspace.clear()
    return results


def _batch(
    model: Any, prompts: Sequence[list[int]], answers: Sequence[list[int]], warps: Sequence[Setting]
) -> list[_Scored]:
    """``_scored`` of one batch, padded on the left."""
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
    picked = logits.float().log_softmax(-1).gather(-1, ids[:, -tail:].clamp(min=0)[..., None])[..., 0].cpu()
    nats = [(-row[-len(answer) :].double()).tolist() for row, answer in zip(picked, answers, strict=True)]
    if not all(isfinite(sum(own)) for own in nats):
        raise UnusableError(NOT_NUMBERS)
    places = [(logits[n, -len(answer) :], ids[n, -len(answer) :]) for n, answer in enumerate(answers)]
    return [(own, kept(*at, warps)) for own, at in zip(nats, places, strict=True)]


def by_character(
    tokenizer: Any, tokens: Sequence[int], nats: Sequence[float], target: str, characters: Characters
) -> list[float]:
    """Return the nats of each of the target's ``characters``, which ``tokens`` spell among marks and EOS.

    A token of several characters is shared out evenly; a character of several tokens (byte
    fallback) has their sum. Nats of spaces, marks and EOS are no character's. Empty where the
    tokens spell other characters.
    """
    spelt: list[float] = []
    text, waiting = "", 0.0
    for end, (token, some) in enumerate(zip(tokens, nats, strict=True), 1):
        unknown = token == tokenizer.unk_token_id
        before, text = text, decode_completion(tokenizer, tokens[:end], cut=False)
        new = 1 if unknown else len(characters(text)) - len(characters(before))
        if new > 0:
            spelt += [(waiting + some) / new] * new
        waiting = waiting + some if new <= 0 and text.endswith("\ufffd") else 0.0
    return spelt if len(spelt) == len(characters(target)) else []
