"""對仗 on couplets that every reader knows, on couplets put together wrongly, and on what poets wrote."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from tangeval.tasks.tang import parallelism as facing
from tangeval.tasks.tang.parallelism import FACING
from tangeval.tasks.tang.text import clauses, punctuate
from tests.support.poems import one

parallelism = partial(one, facing.parallelism, "")

#: 王之渙, 杜甫, 王維 three times, 杜甫, 孟浩然; then 杜甫 three times, 李商隱 three times.
FIVE = [
    "白日依山盡，黃河入海流",
    "感時花濺淚，恨別鳥驚心",
    "明月松間照，清泉石上流",
    "竹喧歸浣女，蓮動下漁舟",
]
FIVE += ["大漠孤煙直，長河落日圓", "星垂平野闊，月湧大江流", "野曠天低樹，江清月近人"]
SEVEN = ["兩個黃鸝鳴翠柳，一行白鷺上青天", "窗含西嶺千秋雪，門泊東吳萬里船", "無邊落木蕭蕭下，不盡長江滾滾來"]
SEVEN += [
    "春蠶到死絲方盡，蠟炬成灰淚始乾",
    "滄海月明珠有淚，藍田日暖玉生煙",
    "身無彩鳳雙飛翼，心有靈犀一點通",
]


@pytest.mark.parametrize("couplets", [FIVE, SEVEN])
def test_a_famous_couplet_is_more_parallel_than_its_first_clause_with_any_other_second(couplets):
    lines = [clauses(couplet) for couplet in couplets]
    scores = np.array(
        [[parallelism(punctuate((first, second))) for _, second in lines] for first, _ in lines]
    )
    own = scores.diagonal()
    assert (own >= scores.max(axis=1)).all()
    assert own.min() > 0.8 > 0.5 > np.mean(scores[~np.eye(len(own), dtype=bool)])


def test_the_last_couplet_is_left_out_unless_it_is_the_only_one():
    # 杜甫, 春望: its third and fifth clauses begin parallel couplets, its seventh does not.
    middle, last = "感時花濺淚，恨別鳥驚心。烽火連三月，家書抵萬金。", "白頭搔更短，渾欲不勝簪。"
    couplets = [parallelism(middle[:12]), parallelism(middle[12:])]
    assert parallelism(middle + last) == pytest.approx(np.mean(couplets))
    assert parallelism(last) < min(couplets)
    assert parallelism(middle + last + "一二三四五") == parallelism(middle + last)


def test_a_clause_that_faces_itself_is_not_parallel():
    assert parallelism("白日依山盡，白日依山盡。") == 0
    # Variants are one character.
    assert parallelism("峯羣，峰群。") == 0


def test_a_place_without_a_partner_counts_nothing():
    whole = parallelism("明月松間照，清泉石上流。")
    assert parallelism("明月松間照，清泉石上流白白白白白。") == pytest.approx(whole / 2)
    assert parallelism("明月松間照A，清泉石上流。") == pytest.approx(whole)


@pytest.mark.parametrize("text", ["", "no verse", "白日依山盡", "龘龘，龖龖。"])
def test_what_has_no_couplet_of_known_characters_has_none(text):
    assert parallelism(text) == 0


@pytest.mark.hw5
def test_poets_are_told_from_their_last_couplets_and_from_crossed_ones(hw5):
    poems = [clauses(e.reference) for e in hw5.split("validation")]
    poems = [parts for parts in poems if len(parts) == 6]
    own, last = (np.array([parallelism(punctuate(p[n:])) for p in poems]) for n in (0, 4))
    five = [parts for parts in poems if len(parts[0]) == 5]
    crossed = [punctuate(sum(zip(p[::2], q[1::2], strict=True), ())) for p, q in pairwise(five)]
    assert own.mean() > 2.5 * last.mean() > 0
    assert own.mean() > 3 * np.mean([parallelism(text) for text in crossed])


def test_the_table_is_small():
    assert FACING.stat().st_size <= 300_000
