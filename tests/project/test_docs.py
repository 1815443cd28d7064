"""The documents: what they link to is there, and what they name exists."""

import re
import shlex
import tomllib
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from packaging.requirements import Requirement
from typer.core import TyperGroup
from typer.main import get_command

from tangeval.cli.app import app
from tests.support.extending import sections, steps

ROOT = Path(__file__).parents[2]
READMES = ROOT / "README.md", ROOT / "README.zh-TW.md"
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


def blocks(place: Path) -> list[str]:
    """The code of a page's fences, or of a notebook's cells."""
    if place.suffix == ".ipynb":
        return [cell.source for cell in nbformat.read(place, 4).cells if cell.cell_type == "code"]
    return re.findall(r"^```\w*\n(.*?)^```", place.read_text("utf-8"), re.M | re.S)


def typed(*places: Path) -> set[str]:
    """The lines of tangeval and make that are to be typed, without their comments."""
    lines = [line for place in places for block in blocks(place) for line in block.splitlines()]
    found = [line.strip().removeprefix("!") for line in lines]
    return {
        shlex.join(shlex.split(line, comments=True))
        for line in found
        if line.startswith(("tangeval ", "make "))
    }


def parse(line: str) -> None:
    """Let the command line read a line, and run nothing of it."""
    command, words = get_command(app), shlex.split(line)[1:]
    context = command.make_context("tangeval", list(words))
    while isinstance(command, TyperGroup) and words:
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, list(words), parent=context)


@pytest.mark.parametrize("place", [*PAGES, *NOTEBOOKS], ids=lambda place: place.name)
def test_commands_that_a_page_gives_are_those_of_the_command_line(place):
    for line in sorted(typed(place)):
        if line.startswith("tangeval "):
            parse(line)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_notebooks_are_valid_and_their_cells_are_python(notebook):
    nbformat.validate(nbformat.read(notebook, 4))
    for cell in blocks(notebook):
        compile(TransformerManager().transform_cell(cell), notebook.name, "exec")


def test_colab_keeps_the_torch_that_the_project_takes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (torch,) = (r for r in map(Requirement, project["optional-dependencies"]["local"]) if r.name == "torch")
    least = re.findall(r'version\("torch"\)\) < Version\("(.+?)"\)', blocks(ROOT / "docs/colab.ipynb")[0])
    assert [f">={version}" for version in least] == [str(torch.specifier)]


def test_the_chinese_readme_gives_commands_of_the_other_pages():
    english, chinese = READMES
    given = typed(english, *(ROOT / "docs").glob("*.md"), *NOTEBOOKS)
    assert {line.removesuffix(" --lang zh-TW") for line in typed(chinese)} <= given


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
