"""The documents: what they link to is there, and what they name exists."""

import re
from pathlib import Path

import pytest

from tangeval.core.study import load_study
from tests.support.pages import block, module

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
    examples = {"studies/NAME.yaml", "studies/greedy.yaml", "tangeval/decoding/simple.py"}
    assert [name for name in named if not (ROOT / name).exists() and name not in examples] == []


def test_the_metric_of_the_page_on_extending_passes_the_test_that_stands_beside_it():
    metric = module("docs/extending.md", "def doubled(")
    exec(block("docs/extending.md", "def test_doubled"), metric.__dict__)
    metric.test_doubled_counts_characters_that_follow_their_like()


def test_the_study_of_the_page_on_extending_is_one(tmp_path):
    file = tmp_path / "greedy.yaml"
    file.write_text(block("docs/extending.md", "name: greedy"), "utf-8")
    assert load_study(file).name == "greedy"
