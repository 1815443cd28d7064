"""What the words mean, and that the examples are what they are said to be."""

import pytest

from scripts import glossary as made
from tangeval.core.knobs import KNOB
from tangeval.core.types import Example
from tangeval.core.words import glossary
from tangeval.metrics.base import Texts
from tangeval.tasks.tang import TANG

VERSE = Example("test-1", "", "白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。", "test")


def test_every_metric_of_the_task_and_nothing_unknown_has_a_meaning_in_both_languages():
    entries = glossary()
    assert TANG.metrics.keys() <= entries.keys()
    assert all(entry["en"].strip() and entry["zh"].strip() for entry in entries.values())
    terms = {word for word, entry in entries.items() if "name" in entry}
    assert not terms & TANG.metrics.keys()
    assert {"temperature", "top_k", "top_p", "max_length"} <= terms & KNOB.keys()


def test_a_meaning_is_two_sentences_without_the_other_languages_marks():
    for word, entry in glossary().items():
        assert entry["en"].count(". ") == 1, word
        assert entry["zh"].count("。") == 2, word


@pytest.mark.parametrize(
    "name", [name for name, entry in glossary().items() if isinstance(entry.get("yes"), str)]
)
def test_the_example_that_passes_is_better_than_the_one_that_fails(name):
    metric, entry = TANG.metrics[name], glossary()[name]
    texts = Texts([entry["yes"], entry["no"]], [VERSE, VERSE], [None, None], TANG.normalise)
    values = (
        metric.compute(texts) if metric.level == "text" else metric.score(metric.compute(texts).astype(float))
    )
    passes, fails = (float(value) for value in values)
    assert passes > fails if metric.better == "high" else passes < fails


def test_the_document_is_made_of_what_the_page_says():
    assert made.FILE.read_text("utf-8") == made.text()
