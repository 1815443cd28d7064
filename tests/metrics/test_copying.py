"""What stands in the training texts, against a search of every run in every text."""

import numpy as np
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.metrics.copying import copied, index, reach, runs

POEMS = ("白日依山盡黃河入海流", "欲窮千里目更上一層樓", "黃河遠上白雲間一片孤城萬仞山")
texts = st.text(alphabet="白日依山\0", max_size=14)


def indexed(poems):
    return index((str(place), poem, ()) for place, poem in enumerate(poems))


def longest_run(indexed, text, own=None):
    return max(reach(indexed, [text], [own]))


def in_a_text(poems, run, own=None):
    return any(str(place) != own and run in poem for place, poem in enumerate(poems))


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=5), texts, st.sampled_from([None, "0", "1"]))
@example(["日" * 40, "日" * 41, "白"], "日" * 60, "1")
def test_overlap_is_the_longest_run_that_a_text_has(poems, text, own):
    every = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    found = [len(run) for run in every if in_a_text(poems, run, own)]
    assert longest_run(indexed(poems), text, own) == max(found, default=0)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=5), texts)
def test_runs_are_those_that_no_longer_one_contains(poems, text):
    spans = [(i, j) for i in range(len(text)) for j in range(i + 2, len(text) + 1)]
    found = [(i, j) for i, j in spans if in_a_text(poems, text[i:j])]
    longest = [(i, j) for i, j in found if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in found)]
    begins, lengths = runs(reach(indexed(poems), [text], [None]), 2)
    assert list(zip(begins, begins + lengths, strict=True)) == longest


def test_a_run_does_not_go_from_text_to_text():
    assert longest_run(indexed(POEMS), "山盡黃河") == 4
    assert longest_run(indexed(POEMS), "海流欲窮") == 2


def test_a_part_is_copied_whole_or_not_and_the_text_itself_is_left_out():
    found = index([("a", "白日依山盡黃河", ("白日依山盡", "黃河")), ("b", "", ("黃河",))])
    parts = ["白日依山盡", "白日依山", "黃河", "山"]
    assert copied(found, parts, [None] * 4).tolist() == [True, False, True, False]
    assert copied(found, parts, ["a"] * 4).tolist() == [False, False, True, False]


def test_many_texts_at_once_equal_one_by_one():
    texts = ["白日依山盡", "", "一片孤城黃河", "盡"]
    found, own = indexed(POEMS), [None, "0", "2", "0"]
    alone = [reach(found, [text], [name]) for text, name in zip(texts, own, strict=True)]
    assert reach(found, texts, own).tolist() == np.concatenate(alone).tolist()


def test_nothing_written_or_nothing_to_look_in():
    assert longest_run(indexed(POEMS), "") == 0
    assert longest_run(indexed([]), "白日") == 0
    assert not copied(indexed([]), ["白日"], [None]).any()


def test_long_texts_are_indexed_in_memory_that_grows_as_they_do():
    """Stored suffix by suffix, these would take ten gigabytes."""
    long = "白日依山" * 25_000
    assert longest_run(indexed([long]), long[1:500] + "盡") == 499
