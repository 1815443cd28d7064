"""The code that a page of the documents shows."""

import re
import textwrap
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def block(page: str, mark: str) -> str:
    """Return the one block of code of ``page`` that ``mark`` stands in."""
    blocks = re.findall(r"^ *```\w*[^\n]*\n(.*?)^ *```$", (ROOT / page).read_text("utf-8"), flags=re.S | re.M)
    (found,) = [textwrap.dedent(text) for text in blocks if mark in text]
    return found


def module(page: str, mark: str) -> ModuleType:
    """Return that block as a module."""
    made = ModuleType(mark)
    exec(compile(block(page, mark), page, "exec"), made.__dict__)
    return made
