"""The documents: what they link to is there, and what they name exists."""

import re
from pathlib import Path

import pytest

from tests.support.extending import sections, steps

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_project_that_a_page_names_are_there(page):
    named = re.findall(
        r"\b(?:tangeval|finetune|studies|tests|benchmarks|docs)/[\w/.-]+\.(?:py|yaml|md)",
        page.read_text("utf-8"),
    )
    examples = {"studies/NAME.yaml", *(step.file for heading in sections() for step in steps(heading))}
    assert [name for name in named if not (ROOT / name).exists() and name not in examples] == []


@pytest.mark.parametrize(
    "page", [*PAGES, *(ROOT / "results").glob("*.md"), *(ROOT / "tangeval").rglob("*.md")], ids=str
)
def test_no_page_is_empty_or_half_merged(page):
    text = page.read_text("utf-8")
    assert text.startswith("# ")
    assert not re.search("^(<<<<<<<|=======|>>>>>>>)", text, re.M)
