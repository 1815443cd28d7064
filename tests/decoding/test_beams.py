"""Beam search against transformers' own ``generate``, token for token."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tangeval.core.errors import TangevalError
from tangeval.core.types import Allowed
from tangeval.decoding.batch import Way, Workspace
from tangeval.decoding.decoder import decode
from tangeval.decoding.memory import decode_in_memory
from tests.support.architectures import PROMPTS, tiny_config, tiny_model
from tests.support.plain_decoder import sequence_of

LENGTH = 14


def search(prompt, beams, length=LENGTH, **knobs):
    return sequence_of(prompt, 0, 0, 1.0, length, num_beams=beams, **knobs)


def generated(model, sequence, eos, **more):
    """What transformers writes, EOS included."""
    setting, ids = sequence.setting, torch.tensor([PROMPTS[sequence.prompt]])
    tokens = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, num_beams=setting.num_beams, pad_token_id=0,
        length_penalty=setting.length_penalty, max_new_tokens=setting.max_length, eos_token_id=eos,
        no_repeat_ngram_size=setting.no_repeat_ngram_size, repetition_penalty=setting.repetition_penalty,
        early_stopping=False, forced_eos_token_id=None, **more,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    ends = [place for place, token in enumerate(tokens, 1) if token in eos]
    return tokens[: ends[0]] if ends else tokens


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma3_text", "qwen2", "mistral", "phi"])
def model(request):
    return tiny_model(tiny_config(request.param))


@pytest.fixture(scope="module")
def llama():
    return tiny_model(tiny_config("llama"))


def test_every_search_equals_generate(model):
    """Beams of all widths and penalties on the same rows, with one end of a text and with many, some of them early."""
    points = zip(range(2, 7), itertools.cycle([0.5, 1.0, 2.0, -1.0]), itertools.cycle([0, 2, 1]))
    every = [
        search(p, n, length_penalty=penalty, no_repeat_ngram_size=size)
        for p, (n, penalty, size) in itertools.product(range(3), list(points))
    ]
    lengths = set()
    for eos in ([63], list(range(40, 52))):
        made = decode(model, PROMPTS, every, eos=eos).tokens
        assert made == [generated(model, sequence, eos) for sequence in every]
        lengths |= set(map(len, made))
    assert len(lengths) > 3


def test_a_length_cuts_a_search_as_generate_does(llama):
    """It is no prefix of a longer one: what is best depends on where the search ends."""
    every = [search(0, n, length) for n in (2, 5) for length in range(1, 9)]
    made = decode(llama, PROMPTS, every, eos=[63]).tokens
    assert made == [generated(llama, sequence, [63]) for sequence in every]
    assert any(short != longer[: len(short)] for short, longer in itertools.pairwise(made))
    assert len({sequence.setting.sequence for sequence in every}) == len(every)


def test_a_repetition_penalty_is_of_the_log_probabilities(llama):
    """As in transformers, whose processors read logits where a text is drawn and log-probabilities in a search."""
    every = [search(p, n, repetition_penalty=1.3) for p in range(3) for n in (2, 4)]
    made = decode(llama, PROMPTS, every, eos=[63]).tokens
    assert made == [generated(llama, sequence, [63]) for sequence in every]


class Rhythm:
    """Every second token is 7 or 9; the eighth ends the text."""

    start, length = 0, (8, 8)

    def allowed(self, state):
        free = np.ones(64, bool) if state % 2 == 0 else np.isin(np.arange(64), (7, 9))
        return Allowed(free if state < 7 else np.zeros(64, bool), (), state == 7)

    def advance(self, state, token):
        assert token == 63 if state == 7 else token in (7, 9) or state % 2 == 0
        return state + 1


@pytest.mark.parametrize("beams", [2, 5])
def test_a_search_under_a_constraint_equals_generate(llama, beams):
    """Fewer tokens than beams may follow; no beam takes one that is forbidden."""
    rhythm, every = Rhythm(), [search(p, beams) for p in range(3)]
    held = [replace(sequence, constraint=rhythm) for sequence in every]
    free = [list(range(63)), [7, 9]]

    def may_follow(batch, ids, begin):
        return free[(len(ids) - begin) % 2] if len(ids) - begin < 7 else [63]

    expected = [
        generated(
            llama, each, [63], prefix_allowed_tokens_fn=partial(may_follow, begin=len(PROMPTS[each.prompt]))
        )
        for each in every
    ]
    assert decode(llama, PROMPTS, [*held, *every], eos=[63]).tokens[:3] == expected
    assert all(tokens[7] == 63 for tokens in expected)


@pytest.mark.parametrize("way", [Way(), Way(shares=False), Way(pads=False)])
def test_a_search_among_other_sequences_is_the_search_alone(llama, way):
    every = [
        *(search(p, n, no_repeat_ngram_size=size) for p in range(3) for n in (2, 3) for size in (0, 2)),
        *(sequence_of(p, t, k, 0.9, LENGTH, key=p) for p in range(3) for t in (0, 0.7, 1.5) for k in (0, 5)),
    ]
    mixed = every[::2] + every[1::2]
    eos = list(range(40, 52))
    alone = [decode(llama, PROMPTS, [sequence], eos=eos).tokens[0] for sequence in mixed]
    assert decode_in_memory(llama, PROMPTS, mixed, eos=eos, workspace=Workspace(way=way)) == alone
    assert decode(llama, PROMPTS, mixed, eos=eos, share=False).tokens == alone


def test_beams_take_at_most_twice_the_rows_of_as_many_samples(llama):
    beams, samples = [search(p, 4) for p in range(3)], [
        sequence_of(p, 0.7, 0, 1.0, LENGTH, key=10 * p + sample) for p in range(3) for sample in range(4)
    ]  # fmt: skip
    told: list[int] = []
    searched = decode(llama, PROMPTS, beams, eos=[63], on_step=lambda ended, tokens: told.append(ended))
    assert sum(searched.rows) <= 2 * sum(decode(llama, PROMPTS, samples, eos=[63]).rows)
    assert sum(told) == 12  # a beam counts as a sequence
    wide = decode(llama, PROMPTS, [*beams, *(search(p, 4, length_penalty=2.0) for p in range(3))], eos=[63])
    assert sum(wide.rows) < 2 * sum(searched.rows)  # searches share rows


def test_a_search_is_tried_whole_where_memory_ran_out_for_less(llama, monkeypatch):
    def nothing_fits(*arguments, **options):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr("tangeval.decoding.memory.decode", nothing_fits)
    with pytest.raises(TangevalError, match="does not hold one output"):
        decode_in_memory(llama, PROMPTS, [search(0, 2), search(1, 6)], eos=[63], workspace=Workspace())
