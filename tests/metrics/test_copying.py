"""What stands in the training texts, against a search of every run in every text."""

from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.metrics.copying import copied_share, index, longest_run, runs

POEMS = ("白日依山盡黃河入海流", "欲窮千里目更上一層樓", "黃河遠上白雲間一片孤城萬仞山")
texts = st.text(alphabet="白日依山\0", max_size=14)


def indexed(poems):
    return index((str(place), poem, ()) for place, poem in enumerate(poems))


def in_a_text(poems, run, own=None):
    return any(str(place) != own and run in poem for place, poem in enumerate(poems))


def every_run(text):
    return {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1) if "\0" not in text[i:j]}


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=5), texts, st.sampled_from([None, "0", "1"]))
@example(["日" * 40, "日" * 41, "白"], "日" * 60, "1")
def test_overlap_is_the_longest_run_that_a_text_has(poems, text, own):
    found = [len(run) for run in every_run(text) if in_a_text(poems, run, own)]
    assert longest_run(indexed(poems), text, own) == max(found, default=0)


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.lists(texts, max_size=5), texts)
def test_runs_are_those_that_no_longer_one_contains(poems, text):
    spans = [(i, j) for i in range(len(text)) for j in range(i + 2, len(text) + 1) if "\0" not in text[i:j]]
    found = [(i, j) for i, j in spans if in_a_text(poems, text[i:j])]
    longest = [(i, j) for i, j in found if not any(a <= i and j <= b and (a, b) != (i, j) for a, b in found)]
    assert [(begin, begin + length) for begin, length in runs(indexed(poems), text, 2)] == longest


def test_a_run_does_not_go_from_text_to_text():
    assert longest_run(indexed(POEMS), "山盡黃河") == 4
    assert longest_run(indexed(POEMS), "海流欲窮") == 2


def test_a_part_is_copied_whole_or_not_and_the_text_itself_is_left_out():
    found = index([("a", "白日依山盡黃河", ("白日依山盡", "黃河")), ("b", "", ("黃河",))])
    assert copied_share(found, ["白日依山盡", "白日依山", "黃河", "山"]) == 0.5
    assert copied_share(found, ["白日依山盡", "黃河"], own="a") == 0.5


def test_nothing_written_or_nothing_to_look_in():
    assert longest_run(indexed(POEMS), "") == 0
    assert longest_run(indexed([]), "白日") == 0
    assert copied_share(indexed([]), []) == 0


def test_long_texts_are_indexed_in_memory_that_grows_as_they_do():
    """Stored suffix by suffix, these would take ten gigabytes."""
    long = "白日依山" * 25_000
    assert longest_run(indexed([long]), long[1:500] + "盡") == 499
