"""docs/extending.md is followed to the letter, in a copy of the project: a knob, a metric, a task, an engine, a view."""

import pytest

from tests.support.extending import Copy, sections, steps


def test_every_section_of_the_page_has_something_to_do():
    assert {"A metric", "A knob", "A task", "An engine", "A view of the page"} <= set(sections())
    assert all(steps(heading) for heading in sections())


@pytest.mark.parametrize("heading", sections())
def test_what_the_page_says_works_as_it_stands(heading, tmp_path):
    copy = Copy(tmp_path)
    for step in steps(heading):
        copy.do(step)
