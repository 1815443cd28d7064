"""The rules of regulated verse on Tang poems whose tones were marked by hand."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.tasks.tang import form
from tangeval.tasks.tang import regulated as verse_rules
from tangeval.tasks.tang.text import as_verse, fold
from tests.support.poems import one

rules = partial(one, verse_rules.rules)
regulated = partial(one, verse_rules.regulated)
repeated_characters = partial(one, form.repeated_characters)

# Couplet and rest. 平 and 仄 are characters of the tones that they name, so patterns can stand as poems too.
TOWER = "白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。"
SPRING_VIEW = (
    "國破山河在，城春草木深。",
    "感時花濺淚，恨別鳥驚心。烽火連三月，家書抵萬金。白頭搔更短，渾欲不勝簪。",
)
AUTUMN = (
    "空山新雨後，天氣晚來秋。",
    "明月松間照，清泉石上流。竹喧歸浣女，蓮動下漁舟。隨意春芳歇，王孫自可留。",
)
MAPLE_BRIDGE = "月落烏啼霜滿天，江楓漁火對愁眠。", "姑蘇城外寒山寺，夜半鐘聲到客船。"
#: Its seventh line is 平平仄平仄; its first rhymes.
TO_SHU = (
    "城闕輔三秦，風煙望五津。",
    "與君離別意，同是宦遊人。海內存知己，天涯若比鄰。無為在歧路，兒女共霑巾。",
)
#: Known for its lost adhesion: 舍 is oblique, 君 level.
WEI_CITY = "渭城朝雨浥輕塵，客舍青青柳色新。", "勸君更盡一杯酒，西出陽關無故人。"
#: Old-style: an oblique rhyme; no opposition (頭, 頭); 生曾雲 is 三平尾.
RIVER_SNOW = "千山鳥飛絕，萬徑人蹤滅。", "孤舟簑笠翁，獨釣寒江雪。"
NIGHT = "牀前明月光，疑是地上霜。", "舉頭望明月，低頭思故鄉。"
MOUNT_TAI = (
    "岱宗夫如何，齊魯青未了。",
    "造化鍾神秀，陰陽割昏曉。蕩胸生曾雲，決眥入歸鳥。會當凌絕頂，一覽眾山小。",
)
POEMS = (TOWER, SPRING_VIEW, AUTUMN, MAPLE_BRIDGE, TO_SHU, WEI_CITY, RIVER_SNOW, NIGHT, MOUNT_TAI)
verse = st.text(alphabet="白日依山盡黃河入海流欲窮千里目更上一層樓中看爲龘a，。", max_size=60)


@pytest.mark.parametrize("poem", [TOWER, SPRING_VIEW, AUTUMN, MAPLE_BRIDGE, TO_SHU])
def test_regulated_poems_keep_every_rule(poem):
    assert rules(*poem) == {
        "regulated": 1, "alternation": 1, "adhesion_given": 1, "adhesion_inner": 1, "odd_line_tone": 1,
        "three_level": 0, "lone_level": 0,
    }  # fmt: skip


@pytest.mark.parametrize("poem", [WEI_CITY, RIVER_SNOW, NIGHT, MOUNT_TAI])
def test_old_style_poems_and_broken_adhesion_are_not_regulated(poem):
    assert not regulated(*poem)


def test_each_rule_sees_its_fault():
    assert rules(*WEI_CITY)["adhesion_given"] == 0
    assert rules(*WEI_CITY) | {"adhesion_given": 1, "regulated": 1} == rules(*MAPLE_BRIDGE)
    assert rules(*MOUNT_TAI)["three_level"] == 1 / 6
    # 舉頭望明月: 仄平仄平仄, which has no 平 before it to be 平平仄平仄, and 低頭思故鄉: 思 has both tones.
    assert rules(*NIGHT)["alternation"] == 1 / 2
    assert rules("", "百歲老翁今種田，惟知曝背樂殘年。")["lone_level"] == 0
    assert rules("", "平平仄仄仄，仄平仄仄平。")["lone_level"] == 1
    assert rules("", "仄仄平平平仄仄，仄仄仄平仄仄平。")["lone_level"] == 1
    assert rules("", "平平仄仄仄，仄平平仄平。")["lone_level"] == 0  # saved in its own line
    assert rules("", "平平仄仄平，仄仄仄平平。")["odd_line_tone"] == 0


def test_adhesion_joins_couplets_and_tells_where():
    couplet, text = SPRING_VIEW
    second, third, fourth = (text[place : place + 12] for place in (0, 12, 24))
    # 恨別 and 白頭 part; 渾欲 and 烽火 agree.
    scores = rules(couplet, second + fourth + third)
    assert (scores["adhesion_given"], scores["adhesion_inner"], scores["regulated"]) == (1, 1 / 2, 0)
    assert rules(couplet, third)["adhesion_given"] == 0
    assert rules(couplet, second + third[:5])["adhesion_inner"] == 1  # half a couplet is none
    assert rules(couplet, second[:5])["adhesion_given"] == rules(couplet, "")["adhesion_inner"] == 0


def test_the_first_line_may_rhyme_and_no_other_odd_line_may_end_level():
    assert regulated("月落烏啼霜滿天，江楓漁火對愁眠。", MAPLE_BRIDGE[1])
    assert not regulated("月落烏啼霜滿山，江楓漁火對愁眠。", MAPLE_BRIDGE[1])  # level, of another group
    assert regulated("月落烏啼平仄仄，江楓漁火對愁眠。", MAPLE_BRIDGE[1])
    assert not regulated(MAPLE_BRIDGE[0], "姑蘇城外寒山山，夜半鐘聲到客船。")


def test_an_ending_that_stands_twice_a_lost_line_and_another_metre_are_not_regulated():
    assert not regulated(TOWER[0], "欲窮千里目，更上一層流。")
    assert not regulated(TOWER[0], "欲窮千里目，")
    assert not regulated("仄仄平平，平平仄流。", "平平仄仄，仄仄平樓。")


def test_patterns_must_hold_at_once():
    """看 has both tones. Its lines alternate if it is level in both; the couplet opposes if it is not."""
    pattern = "仄看平平仄，平平仄仄流。", "平平平仄仄，仄仄仄平樓。"
    assert regulated(*pattern)
    assert not regulated("仄看平仄仄，平看仄仄流。", pattern[1])


def test_unknown_characters_are_read_in_the_poems_favour():
    assert regulated(TOWER[0], "欲龘千龘目，龘上一層樓。")
    assert rules(TOWER[0], "欲龘千龘龘，更上一層樓。") | {"regulated": 1} == rules(*TOWER) | {
        "odd_line_tone": 0,
        "adhesion_given": 0,
    }


def test_repeated_characters_are_counted_and_reduplication_is_not():
    assert repeated_characters(*TOWER) == 0
    assert repeated_characters(*NIGHT) == 3 / 10  # 明 and 月 of the couplet, 頭
    assert repeated_characters("風急天高猿嘯哀，渚清沙白鳥飛廻。", "無邊落木蕭蕭下，不盡長江滾滾來。") == 0
    assert repeated_characters("", "青青河畔草，青青園中柳。") == 1 / 10  # the pair again, once
    assert repeated_characters("", "一二三四五，五六七八九。") == 1 / 10  # across lines it is no pair
    assert repeated_characters("為", "爲") == 1
    assert repeated_characters("甲", "") == 0


@pytest.mark.parametrize(("plain", "marked"), [("蕭蕭", "蕭々"), ("滾滾", "滾〻"), ("青青", "青\U00016fe3")])
def test_an_iteration_mark_is_the_character_before_it(plain, marked):
    text = f"無邊落木{plain}下，不盡長江客舍來。"
    other = text.replace(plain, marked)
    assert rules(TOWER[0], other) == rules(TOWER[0], text)
    assert repeated_characters("", other) == 0


@hypothesis_settings(max_examples=200, deadline=None)
@given(verse, verse)
def test_scores_are_shares_and_variants_and_marks_decide_nothing(couplet, text):
    scores = rules(couplet, text)
    assert all(0 <= score <= 1 for score in scores.values())
    assert rules(as_verse(fold(couplet)), as_verse(fold(text))) == scores


@pytest.mark.parametrize("poem", POEMS)
def test_a_text_without_verse_keeps_no_rule(poem):
    assert set(rules(poem[0], "").values()) == set(rules(poem[0], "no verse").values()) == {0}
