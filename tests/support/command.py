"""``tangeval`` in this process, or in one that lacks libraries."""

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tangeval.cli.app import main

ROOT = Path(__file__).parents[2]
#: What only the extras install.
EXTRAS = [
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "safetensors",
    "urllib3",
    "ray",
]


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


def succeeds(folder: Path, *arguments: object) -> Done:
    """The same of a command that must end well."""
    done = tangeval(folder, *arguments)
    assert done.code == 0, done.err
    return done


def refusal(folder: Path, *arguments: object) -> str:
    """The message of a command that must be refused."""
    done = tangeval(folder, *arguments)
    assert done.code == 2, done
    assert "Traceback" not in done.err
    return done.err


def _process(libraries: Sequence[str], folder: Path, commands: Sequence[Sequence[object]]) -> dict[str, Any]:
    """The arguments of ``Popen`` for commands one after another; Ctrl-C is heard, where importing ``libraries`` is an error."""
    script = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"for name in {list(libraries)!r}: sys.modules[name] = None\n"
        "from tangeval.cli.app import main\n"
        f"for command in {[list(map(str, command)) for command in commands]!r}:\n"
        "    sys.argv = ['tangeval', *command]\n"
        "    try: main()\n"
        "    except SystemExit as stop:\n"
        "        if stop.code: raise\n"
    )
    # Tests may run from a checkout that is not installed.
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return {"args": [sys.executable, "-c", script], "cwd": folder, "env": environment, "text": True}


def without(
    libraries: Sequence[str], folder: Path, *commands: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """Run commands where importing one of ``libraries`` is an error; stop at the first that fails."""
    return subprocess.run(**_process(libraries, folder, commands), capture_output=True, timeout=200)


def start(folder: Path, *arguments: object, without: Sequence[str] = ()) -> subprocess.Popen[str]:
    """``tangeval`` as a process of its own, for tests that end it."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(**_process(without, folder, [arguments]), **pipes)


def wait(process: subprocess.Popen[str], moment: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so, or the process has ended."""
    limit = time.monotonic() + seconds
    while not moment() and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.002)
