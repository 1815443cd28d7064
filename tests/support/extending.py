"""docs/extending.md, done to a copy of the project: files written, lines typed into files, commands run.

A fence of the page says what its block is: ``file=PATH`` a new file; ``file=PATH after="LINE"`` (or ``before``)
lines typed beside the one line that begins with LINE (``^LINE``) or contains it; ``sh`` commands. Everything else
is for the reader alone.
"""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "extending.md"
_FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.S | re.M)
_FILE = re.compile(r'file=(\S+)(?: (after|before)="((?:[^"\\]|\\.)+)")?')
#: What of the project a copy has.
PARTS = ("tangeval", "studies", "tests", "docs", "pyproject.toml")


@dataclass(frozen=True)
class Step:
    """A block of the page: a file, or lines to type on one ``side`` of a ``line`` of it; or commands."""

    text: str
    file: str | None = None
    side: str | None = None
    line: str | None = None


def sections() -> list[str]:
    """Return the headings of the page's sections."""
    return re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), flags=re.M)


def steps(heading: str) -> list[Step]:
    """Return what a section asks to be done, in its order."""
    text = PAGE.read_text("utf-8")
    begin = text.index(f"## {heading}\n")
    section = text[begin:].split("\n## ")[0]
    found = []
    for _, language, told, block in _FENCE.findall(section):
        named = _FILE.search(told)
        if named or language == "sh":
            found.append(Step(textwrap.dedent(block), *(named.groups() if named else ())))
    return found


class Copy:
    """A copy of the project in a folder of its own, and its commands."""

    def __init__(self, place: Path) -> None:
        self.place = place
        for name in PARTS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, place / name, symlinks=True, ignore=shutil.ignore_patterns("golden"))
            else:
                shutil.copy(source, place / name)
        shims = place / "bin"
        shims.mkdir()
        for name, command in (("tangeval", f"{sys.executable} -m tangeval"), ("python", sys.executable)):
            (shims / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
            (shims / name).chmod(0o755)

    def do(self, step: Step) -> str:
        """Do one step; return what its commands printed."""
        if step.file is None:
            return self.run(step.text)
        file = self.place / step.file
        if step.line is None:
            assert not file.exists(), f"{step.file} is there already"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(step.text, "utf-8")
            return ""
        lines = file.read_text("utf-8").splitlines(keepends=True)
        anchor = step.line.replace('\\"', '"')
        found = (
            (lambda line: line.startswith(anchor[1:])) if anchor[0] == "^" else (lambda line: anchor in line)
        )
        (place,) = [number for number, line in enumerate(lines) if found(line)]
        opens = lines[place].rstrip().endswith(("(", "[", "{"))
        own = len(lines[place]) - len(lines[place].lstrip()) + 4 * (opens and step.side == "after")
        lines.insert(place + (step.side == "after"), textwrap.indent(step.text, " " * own))
        file.write_text("".join(lines), "utf-8")
        return ""

    def run(self, commands: str) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands], cwd=self.place, capture_output=True, text=True,
            env=os.environ | {
                "PYTHONPATH": str(self.place), "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
                "COLUMNS": "120",
            },
        )  # fmt: skip
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout
