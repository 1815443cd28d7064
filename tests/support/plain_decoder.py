"""The oracle of the decoding engine: one sequence at a time, by Hugging Face's own processors.

No cache, no batch, no sharing: every step runs the whole text again. Only the noise is
tangeval's own, because it is what makes a draw repeatable.
"""

import torch
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tangeval.core.knobs import AXES, KNOB, Setting
from tangeval.core.types import Constraint
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.noise import gumbel


def penalised(logits: torch.Tensor, output: list[int], presence: float, frequency: float) -> torch.Tensor:
    """vLLM's definition (``apply_penalties``), token by token."""
    logits = logits.clone()
    for token in set(output):
        logits[:, token] -= frequency * output.count(token)
        logits[:, token] -= presence
    return logits


def held(logits: torch.Tensor, constraint: Constraint, output: list[int], eos: list[int]) -> torch.Tensor:
    """What a constraint leaves after an output, walked through from its start."""
    state = constraint.start
    for token in output:
        state = constraint.advance(state, token)
    allowed = constraint.allowed(state)
    kept = [t for t in range(len(allowed.tokens)) if allowed.tokens[t] and t not in allowed.without]
    kept += eos * allowed.end
    return torch.full_like(logits, -torch.inf).index_copy(1, torch.tensor(kept), logits[:, kept])


def processors(sequence: TokenSequence, prompt: int, eos: list[int]) -> LogitsProcessorList:
    """What ``generate`` would apply after a prompt of so many tokens, in its order; vLLM's penalties after transformers' own."""
    steps, own = LogitsProcessorList(), sequence.setting
    if own.repetition_penalty != 1:
        steps.append(RepetitionPenaltyLogitsProcessor(own.repetition_penalty))
    steps.append(
        lambda ids, logits: penalised(
            logits, ids[0, prompt:].tolist(), own.presence_penalty, own.frequency_penalty
        )
    )
    if own.no_repeat_ngram_size:
        steps.append(NoRepeatNGramLogitsProcessor(own.no_repeat_ngram_size))
    if sequence.constraint:
        steps.append(lambda ids, logits: held(logits, sequence.constraint, ids[0, prompt:].tolist(), eos))
    if sequence.setting.temperature:
        steps.append(TemperatureLogitsWarper(sequence.setting.temperature))
        if sequence.setting.top_k:
            steps.append(TopKLogitsWarper(sequence.setting.top_k))
        if sequence.setting.top_p < 1:
            steps.append(TopPLogitsWarper(sequence.setting.top_p))
    return steps


@torch.inference_mode()
def plain_decode(model, prompt: list[int], sequence: TokenSequence, eos: list[int]) -> list[int]:
    """Return the tokens of one sequence, EOS included."""
    text, warp, written = torch.tensor([prompt]), processors(sequence, len(prompt), eos), []
    for step in range(sequence.setting.max_length):
        scores = warp(text, model(text).logits[:, -1].float())
        if sequence.setting.temperature:
            every = torch.arange(scores.shape[1])[None]
            scores = scores + gumbel(torch.tensor([sequence.key]), step, every)
        token = int(scores.argmax())
        written.append(token)
        if token in eos:
            break
        text = torch.cat([text, torch.tensor([[token]])], dim=1)
    return written


def sequence_of(
    prompt: int, temperature: float, top_k: int, top_p: float, length: int, key: int = 0, **knobs: float
) -> TokenSequence:
    """Return a sequence of these knobs, the others off."""
    off = {name: KNOB[name].off for name in AXES}
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_length": length, **knobs}
    setting = Setting.of(**off | given)
    return TokenSequence(prompt, setting, key)
