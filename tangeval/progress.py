"""What one sees while streams are decoded: a bar in a terminal, a line now and then in a log.

In: how many streams ended, and the latest text. Out: lines on a console. Texts are a
model's and are shown as they are, never read as markup.
"""

import time

import psutil
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_EVERY = 10  # seconds between the lines of a log
_SHOWN = 16  # characters of the latest text


def make_bar(console: Console) -> Progress:
    """Return a bar for a terminal, none elsewhere; a task has a description and, in ``more``, what follows the times."""
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[more]}", markup=False), console=console,
        transient=True, disable=not console.is_terminal,
    )  # fmt: skip


class Decoding:
    """A context manager; ``advance`` is what ``generate`` calls as it goes on."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done, self.text = console, total, 0, ""
        self.began = self.told = time.monotonic()
        self.bar = make_bar(console)
        self.task = self.bar.add_task("loading", total=total or None, more="")

    def __enter__(self) -> "Decoding":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()
        if self.done:
            seconds = time.monotonic() - self.began
            self.console.print(
                f"decoded {self.done:,} streams in {seconds:.0f} s, {self.done / seconds:,.0f} a second",
                highlight=False,
            )

    def advance(self, name: str, ended: int, text: str) -> None:
        """Show that ``ended`` more streams of checkpoint ``name`` are done, and ``text`` if there is one."""
        self.done += ended
        self.text = " ".join(text.split())[:_SHOWN] or self.text
        memory = psutil.Process().memory_info().rss / 2**30
        now = time.monotonic()
        more = f"{self.done / (now - self.began):,.0f}/s {memory:.1f} GiB {self.text}"
        self.bar.update(self.task, description=name, completed=self.done, more=more)
        if not self.console.is_terminal and now - self.told > _EVERY:
            self.told = now
            self.console.print(
                f"{name}: {self.done:,} of {self.total:,}, {more}", highlight=False, markup=False
            )
