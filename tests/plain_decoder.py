"""The oracle of the decoding engine: one stream at a time, by Hugging Face's own processors.

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

from tangeval.decoding.engine import Stream
from tangeval.decoding.sampler import gumbel


def processors(stream: Stream, no_repeat_ngram_size: int) -> LogitsProcessorList:
    """What ``generate`` would apply, in its order."""
    steps = LogitsProcessorList()
    if no_repeat_ngram_size:
        steps.append(NoRepeatNGramLogitsProcessor(no_repeat_ngram_size))
    if stream.temperature:
        steps.append(TemperatureLogitsWarper(stream.temperature))
        if stream.top_k:
            steps.append(TopKLogitsWarper(stream.top_k))
        if stream.top_p < 1:
            steps.append(TopPLogitsWarper(stream.top_p))
    return steps


@torch.inference_mode()
def plain_decode(model, prompt: list[int], stream: Stream, eos: list[int], size: int) -> list[int]:
    """Return the tokens of one stream, EOS included."""
    text, warp, written = torch.tensor([prompt]), processors(stream, size), []
    for step in range(stream.max_length):
        scores = warp(text, model(text).logits[:, -1].float())
        if stream.temperature:
            every = torch.arange(scores.shape[1])[None]
            scores = scores + gumbel(torch.tensor([stream.luck]), step, every)
        token = int(scores.argmax())
        written.append(token)
        if token in eos:
            break
        text = torch.cat([text, torch.tensor([[token]])], dim=1)
    return written
