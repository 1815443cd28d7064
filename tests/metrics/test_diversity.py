"""Diversity over samples: self-BLEU against sacrebleu's corpus score, the rest by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from tangeval.metrics import diversity as of_sets

lines = st.text(alphabet="春眠不覺曉a", max_size=24)


def diversity(texts):
    return {name: values[0] for name, values in of_sets.diversity((texts,)).items()}


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(lines, min_size=2, max_size=5))
def test_self_bleu_is_sacrebleus_corpus_score_against_the_others(texts):
    others = [[texts[j] for j in range(len(texts)) if j != i] for i in range(len(texts))]
    expected = BLEU(tokenize="char").corpus_score(texts, list(map(list, zip(*others, strict=True))))
    assert diversity(tuple(texts))["self_bleu"] == pytest.approx(expected.score, abs=1e-9)


def test_distinct_and_unique_by_hand():
    found = diversity(("春眠不覺曉", "春眠不覺曉", "春春"))
    assert found["distinct_1"] == pytest.approx(5 / 12)
    assert found["distinct_2"] == pytest.approx(5 / 9)
    assert found["unique"] == pytest.approx(2 / 3)


def test_one_text_many_times_is_one_text():
    found = diversity(("白日依山盡",) * 4)
    assert found["unique"] == 0.25
    assert found["self_bleu"] == pytest.approx(100)


def test_a_single_sample_says_nothing_of_the_others():
    found = diversity(("白日依山盡",))
    assert np.isnan(found["self_bleu"])
    assert np.isnan(found["unique"])
    assert found["distinct_1"] == 1


def test_nothing_written_is_no_division_by_zero():
    assert diversity(("", "")) == {"distinct_1": 0, "distinct_2": 0, "self_bleu": 0, "unique": 0.5}


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(lines, min_size=1, max_size=4).map(tuple), min_size=1, max_size=5))
def test_many_sets_at_once_equal_one_by_one(sets):
    together = of_sets.diversity(tuple(sets))
    for place, own in enumerate(sets):
        np.testing.assert_equal({name: values[place] for name, values in together.items()}, diversity(own))
