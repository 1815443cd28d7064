"""Rhymes of lyrics: the parts of 詞林正韻, and what rhymes with what was given."""

from collections import Counter

import pytest

from tangeval import api, tasks
from tangeval.core.errors import TangevalError
from tangeval.tasks.declared import measures
from tangeval.tasks.declared.rhymes import CILIN, cilin, rhyming
from tangeval.tasks.tang.prosody import groups

GIVEN, REST = (
    "雨恨雲愁，江南依舊稱佳麗。",
    "水村漁市。一縷孤煙細。天際征鴻，遙認行如綴。平生事。此時凝睇。誰會憑闌意。",
)


def test_every_group_is_in_a_part_and_those_that_the_book_parts_in_two():
    """The nine are named in every edition as halves (半)."""
    count = Counter("".join(CILIN))
    assert set(count) == {group[-1] for group in groups()}
    assert {group for group, n in count.items() if n > 1} == set("佳灰元賄阮泰卦隊願")


def test_a_lyric_rhymes_by_its_own_book_and_not_by_that_of_regulated_verse():
    """點絳脣 of 王禹偁: one rhyme throughout, its groups joined by lyrics alone."""
    assert rhyming(REST, "cilin", GIVEN) == 1
    assert rhyming(REST, "pingshui", GIVEN) == 1 / 2
    assert cilin("水").isdisjoint(cilin("東"))


def test_a_text_that_rhymes_with_itself_alone_does_not_rhyme_with_what_was_given():
    assert (rhyming("春風。夜空。", "cilin"), rhyming("春風。夜空。", "cilin", GIVEN)) == (1, 0)
    assert rhyming("無標點", "cilin", "x") == 0


def test_what_was_given_tells_references_from_random_ones():
    rhyme = api.calibrate("sample", task="songci")["rhyme"]
    assert rhyme["reference"] > 0.7 > 0.3 > rhyme["random"]
    assert "rhyme" in tasks.load("songci").metrics


@pytest.mark.parametrize(
    ("options", "said"), [({"groups": "mine"}, "no book of rhymes"), ({"by": 1}, "by is no option")]
)
def test_no_such_book_or_option_is_named(options, said):
    with pytest.raises(TangevalError, match=said):
        measures.make("rhyme", options, str, words=False)
