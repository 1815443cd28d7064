"""The command line: parse, call ``tangeval.api``, print. A file a group of commands."""

# The order of --help.
# isort: off
from tangeval.cli import (
    doors,
    classroom,
    run,
    analyze,
    explain,
    samples,
    front,
    task,
    data,
    judge,
    sharing,
)

# isort: on
from tangeval.cli.base import app, console
from tangeval.cli.entry import command

__all__ = [
    "analyze", "app", "classroom", "data", "doors", "explain", "front", "judge", "main", "run", "samples", "sharing", "task",
]  # fmt: skip


def main() -> None:
    """Run the command line."""
    console.quiet = False  # in a process of several commands, as tests are
    with command():
        app()
