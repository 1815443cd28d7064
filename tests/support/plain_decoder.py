"""The oracle of the decoding engine: one sequence at a time, by Hugging Face's own processors.

No cache, no batch, no sharing: every step runs the whole text again. Only the noise is
tangeval's own, because it is what makes a draw repeatable.
"""

import torch
from transformers import (
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tangeval.core.knobs import Setting
from tangeval.decoding.decoder import TokenSequence
from tangeval.decoding.noise import gumbel


def processors(sequence: TokenSequence, no_repeat_ngram_size: int) -> LogitsProcessorList:
    """What ``generate`` would apply, in its order."""
    steps = LogitsProcessorList()
    if no_repeat_ngram_size:
        steps.append(NoRepeatNGramLogitsProcessor(no_repeat_ngram_size))
    if sequence.setting.temperature:
        steps.append(TemperatureLogitsWarper(sequence.setting.temperature))
        if sequence.setting.top_k:
            steps.append(TopKLogitsWarper(sequence.setting.top_k))
        if sequence.setting.top_p < 1:
            steps.append(TopPLogitsWarper(sequence.setting.top_p))
    return steps


@torch.inference_mode()
def plain_decode(model, prompt: list[int], sequence: TokenSequence, eos: list[int], size: int) -> list[int]:
    """Return the tokens of one sequence, EOS included."""
    text, warp, written = torch.tensor([prompt]), processors(sequence, size), []
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
    prompt: int, temperature: float, top_k: int, top_p: float, length: int, key: int = 0
) -> TokenSequence:
    """Return a sequence of these knobs."""
    setting = Setting.of(temperature=temperature, top_k=top_k, top_p=top_p, max_length=length)
    return TokenSequence(prompt, setting, key)
