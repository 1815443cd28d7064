"""The code that a page of the documents shows, and the luminance of a page's colours."""

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


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance by WCAG 2.2 of red, green and blue from 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
