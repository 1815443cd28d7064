"""The checks of form on hand-made poems, and on HW5's."""

import numpy as np
import pytest

from tangeval.tasks.tang import form
from tangeval.tasks.tang.form import CHECKS
from tests.support.poems import one

COUPLET = "白日依山盡，黃河入海流。"
GOOD = "欲窮千里目，更上一層樓。"


def check(couplet, text, finish_reason):
    return one(form.check, couplet, text, [finish_reason])


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
    assert {name for name in CHECKS if not result[name]} == fails
    assert result["form"] == float(not fails)


def test_a_cut_off_poem_has_no_form():
    assert check(COUPLET, GOOD, "length")["form"] == 0
    assert check(COUPLET, GOOD, "length")["complete"] == 0


def test_complete_has_no_part_where_nothing_was_generated():
    assert np.isnan(check(COUPLET, GOOD, None)["complete"])
    assert check(COUPLET, GOOD, None)["form"] == 1


def test_human_poems_of_hw5_have_form(hw5):
    """The answers of the 15, punctuated as verse: one has ten clauses. Of training poems nearly all."""
    held = [check(e.input, e.reference, None)["form"] for e in hw5.split("test")]
    assert sum(held) == 14
    training = [check(e.input, e.reference, None)["form"] for e in hw5.split("train")]
    assert np.mean(training) > 0.99
