"""Rhyme and tones on poems judged by hand, by properties, and on what poets wrote."""

import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.baseline import baseline
from tangeval.tasks.tang.prosody import (
    GUANGYUN,
    PINGSHUI,
    groups,
    read_table,
    rhyme_groups,
    shared_groups,
    tones,
)
from tangeval.tasks.tang.prosody import prosody as measured
from tangeval.tasks.tang.text import as_verse, clauses, fold, line_length
from tests.support.poems import one

prosody = partial(one, measured)

TOWER = "白日依山盡，黃河入海流。"
verse = st.text(alphabet="白日依山盡黃河入海流欲窮千里目更上一層樓中看爲龘a，。", max_size=40)


def test_every_column_is_there_and_nothing_of_nothing():
    assert set(prosody(TOWER, "").values()) == {0}
    assert set(prosody(TOWER, "").values()) == set(prosody("", "").values()) == {0.0}
    assert set(prosody(TOWER, "no verse at all").values()) == {0.0}


def test_a_quatrain_that_rhymes_in_the_level_tone():
    # 登鸛雀樓: 流 and 樓 are 尤. 欲窮千里目: 仄平平仄仄, 更上一層樓: 仄仄仄平平.
    assert prosody(TOWER, "欲窮千里目，更上一層樓。") == {
        "rhyme": 1, "rhyme_level": 1, "tone_opposition": 1, "prosody_known": 1
    }  # fmt: skip


def test_a_quatrain_that_rhymes_in_an_oblique_tone():
    # 春曉: 鳥 and 少 are 上聲 (曉 as well).
    scores = prosody("春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。")
    assert (scores["rhyme"], scores["rhyme_level"]) == (1, 0)
    shared = one(shared_groups, "春眠不覺曉，處處聞啼鳥。", "夜來風雨聲，花落知多少。")
    assert [group for group, own in zip(groups(), np.unpackbits(shared), strict=False) if own] == [
        "上聲十七篠"
    ]


def test_an_ending_of_another_group_does_not_rhyme():
    assert prosody(TOWER, "欲窮千里目，更上一層山。")["rhyme"] == 0
    # Modern Mandarin rhymes 東 with 冬; 平水韻 has them apart.
    assert prosody("一二三四五，六七八九東。", "一二三四五，六七八九冬。")["rhyme"] == 0


def test_one_wrong_ending_of_four_is_enough():
    # 杜甫, 春望: 深 心 金 簪 are 侵.
    couplet, text = "國破山河在，城春草木深。", "感時花濺淚，恨別鳥驚心。烽火連三月，家書抵萬金。"
    assert prosody(couplet, text + "白頭搔更短，渾欲不勝簪。")["rhyme_level"] == 1
    assert prosody(couplet, text + "白頭搔更短，渾欲不勝冠。")["rhyme"] == 0


def test_readings_count_in_the_poems_favour_but_all_endings_must_share_one_group():
    # 中 is in 東 and 送: it rhymes with 風 and with 鳳, which do not rhyme with each other.
    assert {"上平聲一東", "去聲一送"} <= rhyme_groups("中")
    assert prosody("甲乙，丙中。", "甲乙，丙風。")["rhyme_level"] == 1
    assert prosody("甲乙，丙中。", "甲乙，丙鳳。")["rhyme"] == 1
    assert prosody("甲乙，丙中。", "甲乙，丙風。甲乙，丙鳳。")["rhyme"] == 0
    assert tones("中") == tones("看") == {"平", "仄"}


def test_characters_with_both_tones_oppose_either():
    assert prosody("", "甲看，乙山。")["tone_opposition"] == 1  # 看 平仄, 山 平
    assert prosody("", "甲看，乙月。")["tone_opposition"] == 1  # 月 仄


def test_only_the_places_two_four_six_that_both_clauses_have_are_judged():
    # 平 and 仄 stand for themselves: each is a character of the tone it names.
    assert (tones("平"), tones("仄")) == ({"平"}, {"仄"})
    assert prosody("", "平平平平平平平，平仄平仄平仄平。")["tone_opposition"] == 1
    assert prosody("", "仄平平平仄平仄，平仄平仄平平平。")["tone_opposition"] == pytest.approx(2 / 3)
    assert prosody("", "平平平平平平平，平仄平平。")["tone_opposition"] == 1 / 2
    assert prosody("", "平，仄。")["tone_opposition"] == 0
    assert prosody("", "平龘平平平，平仄平仄平。")["tone_opposition"] == 1  # place 4 alone is left


def test_unknown_endings_are_left_out_but_two_must_be_known_and_one_written():
    assert rhyme_groups("龘") == tones("龘") == rhyme_groups("a") == frozenset()
    text = "欲窮千里目，更上一層龘。"
    assert prosody(TOWER, text)["rhyme"] == 0
    assert prosody(TOWER, text + "欲窮千里目，更上一層樓。")["rhyme"] == 1
    assert prosody("白日依山盡，黃河入海龘。", "欲窮千里目，更上一層樓。")["rhyme"] == 0
    assert prosody(TOWER + "欲窮千里目，更上一層樓。", text)["rhyme"] == 0
    assert prosody(TOWER, text)["prosody_known"] == 9 / 10


def test_an_odd_last_clause_has_no_partner():
    odd = prosody(TOWER, "欲窮千里目，更上一層樓。白日依山盡")
    assert odd == prosody(TOWER, "欲窮千里目，更上一層樓。")
    assert prosody(TOWER, "欲窮千里目")["rhyme"] == 0


def test_a_character_does_not_rhyme_with_itself():
    assert prosody(TOWER, "欲窮千里目，更上一層流。")["rhyme"] == 0
    assert prosody(TOWER, "欲窮千里目，更上一層樓。欲窮千里目，更上一層樓。")["rhyme"] == 0
    assert prosody("甲乙，丙爲。", "甲乙，丙為。")["rhyme"] == 0  # nor with its variant
    assert prosody("甲乙，白鷗。", "甲乙，悠々。")["rhyme_level"] == 1
    assert prosody("甲乙，丙悠。", "甲乙，悠々。")["rhyme"] == 0


def test_ten_clauses_are_judged_to_the_last():
    four = "".join(f"欲窮千里目，更上一層{ending}。" for ending in "樓秋舟州")
    assert prosody(TOWER, four)["rhyme_level"] == 1
    assert prosody(TOWER, four + "欲窮千里目，更上一層山。")["rhyme"] == 0


def test_variants_have_the_same_readings():
    for first, other in ("爲為", "羣群", "却卻", "慙慚", "劒劍", "樓楼"):
        assert rhyme_groups(first) == rhyme_groups(other) != frozenset()


def test_readings_are_united_where_folding_makes_two_characters_one():
    assert rhyme_groups("干") == rhyme_groups("幹") >= {"上平聲十四寒", "去聲十五翰"}


def test_the_table_has_106_groups_of_which_30_are_level():
    groups = read_table(PINGSHUI)
    assert len(groups) == 106
    assert sum("平聲" in name for name in groups) == 30
    assert list(read_table(GUANGYUN)) == list(groups)
    assert all(name[-1] in characters for name, characters in groups.items())


def test_guangyun_adds_characters_and_changes_none():
    known = set(fold("".join(read_table(PINGSHUI).values())))
    assert not known & set(fold("".join(read_table(GUANGYUN).values())))
    assert rhyme_groups("啼") == {"上平聲八齊"}


@hypothesis_settings(max_examples=200, deadline=None)
@given(verse, verse)
def test_scores_are_shares_and_a_level_rhyme_is_a_rhyme(couplet, text):
    scores = prosody(couplet, text)
    assert all(0 <= score <= 1 for score in scores.values())
    assert scores["rhyme_level"] <= scores["rhyme"]


@hypothesis_settings(max_examples=200, deadline=None)
@given(verse, verse)
def test_variants_and_marks_decide_nothing(couplet, text):
    assert prosody(fold(couplet), fold(text)) == prosody(couplet, text)
    assert prosody(as_verse(couplet), as_verse(text)) == prosody(couplet, text)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("流樓山中空鳥為"), min_size=2, max_size=5))
def test_a_poem_rhymes_where_one_line_of_the_table_has_all_its_endings(endings):
    couplet, *text = [f"甲乙，丙{ending}。" for ending in endings]
    table = [fold(characters) for characters in read_table(PINGSHUI).values()]
    expected = any(all(fold(ending) in characters for ending in endings) for characters in table)
    expected = expected and len(set(endings)) == len(endings)
    assert prosody(couplet, "".join(text))["rhyme"] == expected


def human_and_exchanged(examples):
    """Mean rhyme of the poems, and of couplets with another poem's ending of that shape."""
    noise = random.Random(0)
    pool = {}
    for e in examples:
        pool.setdefault((line_length(e.input), len(clauses(e.reference))), []).append(e.reference)
    others = [noise.choice(pool[line_length(e.input), len(clauses(e.reference))]) for e in examples]
    own = [prosody(e.input, as_verse(e.reference))["rhyme"] for e in examples]
    exchanged = [prosody(e.input, as_verse(o))["rhyme"] for e, o in zip(examples, others, strict=True)]
    return sum(own) / len(own), sum(exchanged) / len(exchanged)


@pytest.mark.hw5
def test_poets_of_hw5_rhyme_and_random_endings_do_not(hw5):
    human, exchanged = human_and_exchanged(hw5.split("train"))
    assert 0.85 < human < 0.97
    assert exchanged < human - 0.4


def test_poets_of_the_sample_rhyme_and_the_floor_does_not():
    sample = dataset.load("sample")
    human, exchanged = human_and_exchanged(sample.split("train"))
    assert human > 0.9
    assert exchanged < 0.15
    rhymes = [
        prosody(example.input, text)["rhyme"]
        for example in sample.split("test")
        for text in baseline(sample, example, 0, 32)
    ]
    assert sum(rhymes) / len(rhymes) < 0.3
