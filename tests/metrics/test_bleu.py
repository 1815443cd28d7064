"""BLEU and chrF against sacrebleu, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from tangeval.core.types import Example
from tangeval.metrics import bleu, chrf
from tangeval.metrics.base import Texts
from tangeval.metrics.bleu import corpus_bleu

lines = st.text(alphabet="春眠不覺曉處聞啼鳥ab ", max_size=30)


def outputs(*pairs, normalise=str):
    examples = [Example("test-1", "", "", reference, "test") for _, reference in pairs]
    return Texts([text for text, _ in pairs], examples, [None] * len(pairs), normalise)


def characters(text):
    """sacrebleu leaves white space out before it counts; characters must be what it counts."""
    return text.replace(" ", "")


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(lines, lines.filter(characters)), min_size=1, max_size=6))
def test_summed_counts_give_sacrebleus_corpus_score(pairs):
    pairs = [tuple(map(characters, pair)) for pair in pairs]
    expected = BLEU(tokenize="char").corpus_score([h for h, _ in pairs], [[r for _, r in pairs]])
    score = bleu.BLEU.score(bleu.BLEU.compute(outputs(*pairs)).sum(axis=0, dtype=float))
    assert float(score) == pytest.approx(expected.score, abs=1e-9)


@hypothesis_settings(max_examples=300, deadline=None)
@given(lines, lines)
def test_counts_and_chrf_of_a_pair_are_sacrebleus_to_the_last_bit(hypothesis, reference):
    hypothesis, reference = characters(hypothesis), characters(reference)
    theirs = BLEU(tokenize="char", effective_order=True).sentence_score(hypothesis, [reference])
    (ours,) = bleu.BLEU.compute(outputs((hypothesis, reference))).tolist()
    assert list(ours[:4]) == theirs.counts
    assert list(ours[4:8]) == theirs.totals
    assert (ours[4], ours[8]) == (theirs.sys_len, theirs.ref_len)
    expected = CHRF().sentence_score(hypothesis, [reference]).score
    assert chrf.CHRF.compute(outputs((hypothesis, reference))) == expected


def test_texts_are_compared_as_the_task_normalises_them_or_as_the_metric_does():
    pair = outputs(("ABCDE", "abcde"), normalise=str.lower)
    strict = bleu.metric("strict", {"en": "strict"}, normalise=str)
    assert bleu.BLEU.compute(pair)[0, :4].tolist() == [5, 4, 3, 2]
    assert strict.compute(pair)[0, :4].tolist() == [0, 0, 0, 0]
    assert set(strict.counts) & set(bleu.BLEU.counts) == {*bleu.TOTALS, "reference_chars"}


def test_many_corpora_at_once_equal_one_by_one():
    generator = np.random.default_rng(0)
    matches = generator.integers(0, 5, (7, 3, 4)).astype(float)
    totals, lengths = matches + generator.integers(0, 9, (7, 3, 4)), generator.integers(0, 60, (2, 7, 3))
    scores = corpus_bleu(matches, totals, *lengths.astype(float))
    for place in np.ndindex(7, 3):
        expected = BLEU.compute_bleu(
            matches[place].tolist(), totals[place].tolist(), *lengths[(..., *place)].tolist(), "exp"
        )
        assert scores[place] == pytest.approx(expected.score)


def test_signatures_are_sacrebleus():
    assert bleu.signature("BLEU", tokenize="char").startswith(
        "nrefs:1|case:mixed|eff:no|tok:char|smooth:exp|version:"
    )
    assert bleu.signature("CHRF").startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")
