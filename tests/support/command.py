"""``tangeval`` in this process, or in one that lacks libraries."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tangeval.cli.app import main

ROOT = Path(__file__).parents[2]
#: What only the extras install.
EXTRAS = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "safetensors",
    "openai",
    "ray",
)


class Done(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    raw: str
    err: str

    @property
    def out(self) -> str:
        """What was printed, without the lines of tables and white space made one, since lines are wrapped."""
        return " ".join(self.raw.replace("│", " ").split())

    def table(self) -> list[list[str]]:
        """The cells of the rows of every table printed."""
        rows = [line.strip("│").split("│") for line in self.raw.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in row] for row in rows]


def tangeval(folder: Path, *arguments: object) -> Done:
    """What ``tangeval`` does in ``folder``, without importing torch anew."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["tangeval", *map(str, arguments)])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main()
            except SystemExit as stop:
                code = int(stop.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def without(
    libraries: Sequence[str], folder: Path, *commands: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run commands, one after another, where importing one of ``libraries`` is an error; stop at the first that fails."""
    script = (
        "import sys\n"
        f"for name in {libraries!r}: sys.modules[name] = None\n"
        "from tangeval.cli.app import main\n"
        f"for command in {[list(command) for command in commands]!r}:\n"
        "    sys.argv = ['tangeval', *command]\n"
        "    try: main()\n"
        "    except SystemExit as stop:\n"
        "        if stop.code: raise\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT)
    }  # tests may run from a checkout that is not installed
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
