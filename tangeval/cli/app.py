"""The command line: parse, call ``tangeval.api``, print. A file a group of commands."""

from tangeval.cli import (
    analyze,
    classroom,
    data,
    doors,
    explain,
    front,
    judge,
    run,
    samples,
    sharing,
    task,
    verdict,
)  # isort: skip  # the order of --help
from tangeval.cli.base import app, console
from tangeval.cli.entry import command

__all__ = [
    "analyze", "app", "classroom", "data", "doors", "explain", "front", "judge", "main", "run", "samples", "sharing", "task", "verdict",
]  # fmt: skip


def main() -> None:
    """Run the command line."""
    console.quiet = False  # in a process of several commands, as tests are
    with command():
        app()
