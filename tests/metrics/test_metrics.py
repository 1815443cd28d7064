"""BLEU against sacrebleu's own corpus score; the checks of form on hand-made poems."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from tangeval.metrics import METRICS
from tangeval.metrics.bleu import COLUMNS, corpus_bleu, ngram_totals, pair_statistics, signatures
from tangeval.tasks.tang.form import CHECKS, check
from tangeval.tasks.tang.text import fold, han

lines = st.text(alphabet="春眠不覺曉處聞啼鳥，。", max_size=30)


def corpus(pairs, columns):
    table = np.array([pair_statistics(h, r) for h, r in pairs])
    part = table[:, [COLUMNS.index(c) for c in columns]].sum(axis=0)
    lengths = table[:, COLUMNS.index("hypothesis_chars")]
    references = table[:, COLUMNS.index("reference_chars")].sum()
    return corpus_bleu(part, ngram_totals(lengths).sum(axis=0), lengths.sum(), references)


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(lines, lines.filter(han)), min_size=1, max_size=6))
def test_summed_statistics_equal_sacrebleus_corpus_score(pairs):
    expected = BLEU(tokenize="char").corpus_score(
        [fold(han(h)) for h, _ in pairs], [[fold(han(r)) for _, r in pairs]]
    )
    assert corpus(pairs, [f"bleu_match_{n}" for n in range(1, 5)]) == pytest.approx(expected.score, abs=1e-9)


def test_folding_and_marks_decide_nothing_in_bleu_and_folding_alone_in_strict():
    pairs = [("慨然撫長劒，濟世豈邀名。", "慨然撫長劍\t濟世豈邀名")]
    assert corpus(pairs, [f"bleu_match_{n}" for n in range(1, 5)]) == pytest.approx(100)
    assert corpus(pairs, [f"bleu_strict_match_{n}" for n in range(1, 5)]) < 90


@hypothesis_settings(max_examples=300, deadline=None)
@given(lines, lines)
def test_statistics_of_a_pair_are_sacrebleus_to_the_last_bit(hypothesis, reference):
    both = han(hypothesis), han(reference)
    folded, other = map(fold, both)
    bleu = BLEU(tokenize="char", effective_order=True)
    matches = bleu.sentence_score(folded, [other]).counts
    strict = bleu.sentence_score(both[0], [both[1]]).counts
    chrf = CHRF().sentence_score(folded, [other]).score
    expected = (*matches, *strict, len(folded), len(other), chrf)
    assert pair_statistics(hypothesis, reference) == expected


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


def test_signature_is_sacrebleus():
    assert signatures()["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:char|smooth:exp|version:")


COUPLET = "白日依山盡，黃河入海流。"
GOOD = "欲窮千里目，更上一層樓。"


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        (GOOD, set()),
        ("欲窮千里目？更上一層樓！", set()),
        ("欲窮千里目，更上一層樓。一二三四五，六七八九十。甲乙丙丁戊，己庚辛壬癸。", set()),
        ("欲窮千里目，更上層樓。", {"line_length"}),
        ("欲窮千里目，更上一層樓。一二三四五，六七八九十。", {"clause_count"}),
        ("欲窮千里目。更上一層樓，", {"punctuation"}),
        ("欲窮千里目，更上一層樓", {"punctuation"}),
        ("欲窮千里目，，更上一層樓。", {"punctuation"}),
        ("欲窮千里目，更上一層樓。ok", {"punctuation", "han_only"}),
        ("欲窮千里目， 更上一層樓。", {"punctuation", "han_only"}),
        ("黃河入海流，更上一層樓。", {"no_echo"}),
        ("黄河入海流，更上一層樓。", {"no_echo"}),
        ("更上一層樓，更上一層樓。", {"no_repeat"}),
        ("", {"line_length", "clause_count", "punctuation", "han_only"}),
        ("，。", {"line_length", "clause_count", "punctuation", "han_only"}),
    ],
)
def test_each_check_fails_on_what_it_is_for(text, fails):
    result = check(COUPLET, text, "stop")
    assert {name for name, _ in CHECKS if not result[name]} == fails
    assert result["form"] == float(not fails)


def test_a_cut_off_poem_has_no_form():
    assert check(COUPLET, GOOD, "length")["form"] == 0
    assert check(COUPLET, GOOD, "length")["complete"] == 0


def test_complete_has_no_part_where_nothing_was_generated():
    assert check(COUPLET, GOOD, None)["complete"] is None
    assert check(COUPLET, GOOD, None)["form"] == 1


def test_human_poems_of_hw5_have_form(hw5):
    """The answers of the 15, punctuated as verse: one has ten clauses. Of training poems nearly all."""
    held = [check(e.input, e.reference, None)["form"] for e in hw5.split("test")]
    assert sum(held) == 14
    training = [check(e.input, e.reference, None)["form"] for e in hw5.split("train")]
    assert np.mean(training) > 0.99


def test_every_metric_has_a_name_of_its_own():
    assert len({metric.name for metric in METRICS}) == len(METRICS)
