"""What stands in the training poems, against a search of every run in every poem."""

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tangeval.metrics.copying import copying, index
from tangeval.tasks.tang.text import fold, han

POEMS = [
    ("a", "白日依山盡，黃河入海流。"),
    ("b", "欲窮千里目，更上一層樓。"),
    ("c", "黃河遠上白雲間，一片孤城萬仞山。"),
]
texts = st.text(alphabet="白日依山，", max_size=14)


def every_run(poems, text, own):
    text = fold(han(text))
    runs = {text[i:j] for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    return max(
        (len(r) for r in runs for name, poem in poems if name != own and r in fold(han(poem))), default=0
    )


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.lists(texts, max_size=5), texts, st.sampled_from([None, "0", "1"]))
def test_overlap_is_the_longest_run_that_a_poem_has(poems, text, own):
    named = [(str(place), poem) for place, poem in enumerate(poems)]
    assert copying(index(named), text, own)["train_overlap"] == every_run(named, text, own)


def test_a_run_may_cross_a_mark_but_not_from_poem_to_poem():
    assert copying(index(POEMS), "山盡黃河")["train_overlap"] == 4
    assert copying(index(POEMS), "海流欲窮")["train_overlap"] == 2


def test_a_clause_is_copied_whole_or_not():
    assert copying(index(POEMS), "白日依山盡，更上一層樓。黃河遠上，一片孤城。")["copied_clauses"] == 0.5


def test_variants_are_found_and_the_poem_itself_is_left_out():
    found = index([("a", "曾為大梁客，不負信陵恩。")])
    assert copying(found, "曾爲大梁客")["copied_clauses"] == 1
    assert copying(found, "曾爲大梁客", own="a") == {"train_overlap": 0, "copied_clauses": 0}


def test_nothing_written_or_nothing_to_look_in():
    assert copying(index(POEMS), "") == {"train_overlap": 0, "copied_clauses": 0}
    assert copying(index([]), "白日") == {"train_overlap": 0, "copied_clauses": 0}
