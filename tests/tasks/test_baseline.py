"""The random baseline: whose endings are drawn, and from which poems."""

from dataclasses import replace

import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.baseline import ENOUGH, baseline, nearest
from tangeval.tasks.tang.text import as_verse, clauses, han

SAMPLE = dataset.load("sample")
QUATRAIN = next(e for e in SAMPLE.split("test") if len(clauses(e.reference)) == 2)
TRAINING = tuple(e for e in SAMPLE.examples if e.split == "train")


def with_more(*examples):
    return replace(SAMPLE, examples=(*TRAINING, *examples))


def of_length(count, name="train-999", split="train", number=0):
    """An example of ``QUATRAIN``'s line length whose reference has ``count`` clauses."""
    parts = [chr(ord("一") + number + place) * 5 for place in range(count)]
    return Example(name, "", QUATRAIN.input, as_verse("，".join(parts)), split)


def test_endings_are_of_training_poems_of_the_same_form():
    training = {as_verse(e.reference) for e in TRAINING}
    for example in SAMPLE.split("test"):
        drawn = baseline(SAMPLE, example, 42, 32)
        assert set(drawn) <= training
        assert {len(han(text)) for text in drawn} == {len(han(example.reference))}


def test_draws_are_those_of_the_seed_and_more_of_them_begin_alike():
    few, many = (baseline(SAMPLE, QUATRAIN, 42, draws) for draws in (3, 40))
    assert many[:3] == few
    assert baseline(SAMPLE, QUATRAIN, 43, 40) != many


def test_a_poem_is_never_its_own_baseline():
    alone = next(e for e in TRAINING if len(clauses(e.reference)) == 6)
    for example in (*TRAINING[:200], alone):
        assert as_verse(example.reference) not in baseline(SAMPLE, example, 42, 32)
    with pytest.raises(TangevalError, match=r"no training poem but train-.* itself"):
        baseline(replace(SAMPLE, examples=(alone,)), alone, 42, 2)


def test_of_a_line_length_that_training_has_not_the_nearest_is_drawn_and_named():
    six = replace(
        QUATRAIN, id="test-99", input="一二三四五六，七八九十百千。", reference="甲乙丙丁戊己，庚辛壬癸子丑。"
    )
    assert {len(han(text)) for text in baseline(SAMPLE, six, 42, 32)} == {10}
    assert nearest(SAMPLE, six) == "of 5 characters a clause, not 6"
    assert not nearest(SAMPLE, QUATRAIN)


def test_no_copy_of_a_poem_and_no_other_edition_is_its_baseline():
    """HW5's training poems hold 103 pairs of editions that differ in a character or a few."""
    copy = replace(QUATRAIN, id="train-901", split="train")
    edition = replace(copy, id="train-902", reference="龘" + copy.reference[1:])
    drawn = baseline(with_more(copy, edition, QUATRAIN), QUATRAIN, 42, 5_000)
    assert not {as_verse(copy.reference), as_verse(edition.reference)} & set(drawn)


def test_a_rare_number_of_clauses_is_drawn_from_the_nearest_common_one():
    """Whether the training data have none of its number, one, or one less than enough."""
    longer = of_length(8, "test-99", "test", number=900)
    for few in (0, 1, ENOUGH - 1):
        rare = [of_length(8, f"train-{900 + n}", number=8 * n) for n in range(few)]
        assert {len(clauses(text)) for text in baseline(with_more(*rare), longer, 42, 64)} == {6}
    enough = [of_length(8, f"train-{900 + n}", number=8 * n) for n in range(ENOUGH)]
    assert {len(clauses(text)) for text in baseline(with_more(*enough), longer, 42, 64)} == {8}


def test_where_nothing_is_common_the_nearest_is_drawn_from():
    few = replace(SAMPLE, examples=(of_length(3, "train-1"), of_length(6, "train-2")))
    assert {len(clauses(text)) for text in baseline(few, QUATRAIN, 42, 8)} == {3}
