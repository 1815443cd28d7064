"""The processors against transformers' own, and against vLLM's definition."""

import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from transformers import NoRepeatNGramLogitsProcessor, RepetitionPenaltyLogitsProcessor

from tangeval.core.knobs import KNOBS
from tangeval.decoding.processors import PROCESSORS, History
from tests.support.plain_decoder import penalised

VOCABULARY = 7
texts = st.lists(st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=12), min_size=1, max_size=4)


def rows(texts: list[list[int]], written: int) -> tuple[torch.Tensor, History]:
    """Random logits, of both signs, and the texts padded on the left."""
    longest = max(map(len, texts))
    tokens = torch.tensor([[-1] * (longest - len(text)) + text for text in texts])
    return torch.randn(len(texts), VOCABULARY, generator=torch.Generator().manual_seed(3)), History(
        tokens, written
    )


def test_there_is_a_processor_for_each_knob_of_the_history():
    kinds = ("history", "constraint")
    assert set(PROCESSORS) == {knob.name for knob in KNOBS if knob.kind in kinds and knob.type is not str}


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
@given(texts=texts, size=st.integers(1, 4), penalty=st.sampled_from([0.5, 1.0, 1.3]))
def test_transformers_processors(texts, size, penalty):
    logits, history = rows(texts, 1)
    for name, value, processor in (
        ("no_repeat_ngram_size", size, NoRepeatNGramLogitsProcessor(size)),
        ("repetition_penalty", penalty, RepetitionPenaltyLogitsProcessor(penalty)),
    ):
        found = logits.clone()
        PROCESSORS[name](found, history, value)
        for row, text in enumerate(texts):
            assert torch.equal(found[row], processor(torch.tensor([text]), logits[row : row + 1].clone())[0])


@hypothesis_settings(max_examples=60, deadline=None, derandomize=True)
@given(texts=texts, written=st.integers(0, 2), presence=st.floats(-2, 2), frequency=st.floats(-2, 2))
def test_the_penalties_of_vllm_count_the_output_alone(texts, written, presence, frequency):
    logits, history = rows(texts, written)
    found = logits.clone()
    PROCESSORS["presence_penalty"](found, history, presence)
    PROCESSORS["frequency_penalty"](found, history, frequency)
    for row, text in enumerate(texts):
        output = text[len(text) - written :]
        expected = penalised(logits[row : row + 1], output, presence, frequency)
        assert torch.allclose(found[row], expected[0], rtol=0, atol=1e-6)
