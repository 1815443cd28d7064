"""The couplets that coherence compares with: alike in form, and not the example's own."""

from dataclasses import replace

import pytest

from tangeval.core.errors import TangevalError
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.coherence import others
from tangeval.tasks.tang.prosody import rhyme_groups, tones
from tangeval.tasks.tang.text import clauses, line_length


@pytest.fixture(scope="module")
def sample():
    return dataset.load("sample")


def sound(couplet):
    last = clauses(couplet)[-1]
    return rhyme_groups(last[-1]), tones(last[1])


def test_they_are_as_long_and_those_that_rhyme_and_begin_in_the_same_tone_come_first(sample):
    known = [e.input for e in sample.split("train")]
    for example in sample.split("validation"):
        found, (groups, tone) = others(sample, example, 8), sound(example.input)
        assert len(set(found)) == 8
        assert set(found) <= set(known)
        assert {line_length(couplet) for couplet in found} == {line_length(example.input)}
        heard = [(not s[0] & groups, not s[1] & tone) for s in map(sound, found)]
        left = [c for c in known if line_length(c) == line_length(example.input) and c not in found]
        assert heard == sorted(heard)
        assert heard[-1] <= min((not s[0] & groups, not s[1] & tone) for s in map(sound, left))


def test_they_are_the_same_each_time_and_never_the_examples_own(sample):
    example = sample.split("train")[0]
    known = {e.input for e in sample.split("train") if line_length(e.input) == line_length(example.input)}
    assert others(sample, example, 8) == others(sample, example, 9)[:8]
    assert set(others(sample, example, len(known) - 1)) == known - {example.input}


def test_too_few_are_refused(sample):
    with pytest.raises(TangevalError, match="0 other training couplets are as long as that of e"):
        others(sample, replace(sample.split("test")[0], id="e", input="三字經，三字經。"), 8)
