"""Progress of a decoding: a bar in a terminal, a line now and then in a log, JSON for machines.

In: how many sequences ended, and the latest text. Out: lines on a console. Texts are a model's and
are shown as they are, never read as markup; ``SafeConsole`` lets no text, name or path steer the
terminal.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from rich import progress
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Column

from tangeval.core.untrusted import inert, inert_json
from tangeval.core.words import say

if TYPE_CHECKING:
    from tangeval.api import Watch
    from tangeval.engines.base import OnProgress
    from tangeval.generation import Pending

_LOG_EVERY = 10.0  # seconds between the lines of a log
_BAR_EVERY = 0.1  # seconds between updates of a bar
_WIDE = 100  # columns from which on a bar has room for a text
_SHOWN = 16  # characters of the latest text
_ENDLESS = 10_000  # columns of a pipe or a log, in which nothing is wrapped

#: ``people``: a bar in a terminal, plain lines elsewhere; ``machines``: one JSON object a line; or nothing.
Audience = Literal["people", "machines", "nobody"]


class SafeConsole(Console):
    """A console that shows control characters in texts as pictures; rich's own control codes still work."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=inert(segment.text))

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line of which nothing is read as markup."""
        self.print(text, style=style, markup=False, highlight=False)


def make_console(*, quiet: bool = False) -> SafeConsole:
    """Return the console of a command, as wide as its terminal."""
    return SafeConsole(width=None if sys.stdout and sys.stdout.isatty() else _ENDLESS, quiet=quiet)


console = make_console()


def print_event(event: str, **facts: Any) -> None:
    """Print one line of JSON for machines."""
    print(inert_json(json.dumps({"event": event, **facts}, ensure_ascii=False)), flush=True)


def moves(console: Console) -> bool:
    """Say whether a bar can move there: on a terminal that does not call itself dumb."""
    return console.is_terminal and not console.is_dumb_terminal


def make_bar(console: Console) -> progress.Progress:
    """Return a progress bar for a terminal, none elsewhere; a task's field ``more`` follows the times."""
    what, more = (
        progress.TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[more]}")
    )
    times = (progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
    if console.width < _WIDE:  # the numbers, and no scrap of verse between them
        what = progress.TextColumn(
            "{task.description}", markup=False, table_column=Column(no_wrap=True, max_width=22)
        )
        columns: tuple[progress.ProgressColumn, ...] = (progress.MofNCompleteColumn(), *times, more, what)
    else:
        columns = (what, progress.BarColumn(bar_width=24), progress.MofNCompleteColumn(), *times, more)
    return progress.Progress(*columns, console=console, transient=True, disable=not moves(console))


def pace(rate: float, unit: str = "/s") -> str:
    """Return a rate for people: how many a second, or how many seconds each takes."""
    if rate >= 1:
        return f"{rate:,.0f}{unit}"
    return say("run.each", seconds=f"{1 / rate:,.0f}") if rate > 0 else ""


class Decoding:
    """A context manager that shows a decoding of ``total`` sequences; it yields the engine's ``on_progress``."""

    def __init__(
        self, console: SafeConsole, total: int, checkpoints: Sequence[str] = (), audience: Audience = "people"
    ) -> None:
        self.console, self.total, self.names, self.audience = console, total, list(checkpoints), audience
        self.done, self.text = 0, ""
        self.began = self.updated = time.monotonic()
        self.bar = make_bar(console)
        self.task = self.bar.add_task(say("run.loading"), total=total or None, more="")

    def __enter__(self) -> "OnProgress":
        self.bar.start()
        return self.advance

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()
        if not self.done:
            return
        seconds = time.monotonic() - self.began
        if self.audience == "machines":
            print_event("decoded", sequences=self.done, seconds=round(seconds, 1))
        rate = pace(self.done / max(seconds, 1e-9), say("run.a_second"))
        self.console.say(say("run.decoded", sequences=f"{self.done:,}", seconds=f"{seconds:.0f}", rate=rate))

    def advance(self, name: str, ended: int, text: str) -> None:
        """Count ``ended`` more sequences of checkpoint ``name``; show them if the last update is old enough."""
        self.done += ended
        self.text = " ".join(text.split())[:_SHOWN] or self.text
        now = time.monotonic()
        on_bar = self.audience == "people" and moves(self.console)
        if now - self.updated < (_BAR_EVERY if on_bar else _LOG_EVERY):
            return
        self.updated = now
        facts = self._facts(name, now)
        rate = pace(self.done / max(now - self.began, 1e-9))
        shown = f"{facts['memory_gib']:.1f} GiB {self.text}"
        where = name
        if name in self.names:
            where = say("run.where", name=name, place=self.names.index(name) + 1, count=len(self.names))
        if on_bar:
            own = rate if self.console.width < _WIDE else f"{rate} {shown}"
            self.bar.update(self.task, description=where, completed=self.done, more=own)
        elif self.audience == "machines":
            print_event("decoding", **facts)
        else:
            seconds = facts["seconds_left"]
            left = "" if seconds is None else say("run.left", minutes=f"{seconds / 60:.1f}")
            counts = {"done": f"{self.done:,}", "total": f"{self.total:,}"}
            told = say("run.between").join(each for each in (rate, left, shown) if each)
            self.console.say(say("run.so_far", where=where, **counts, shown=told))

    def _facts(self, name: str, now: float) -> dict[str, Any]:
        """Where the decoding stands; ``memory_gib`` is the process's."""
        import psutil

        rate = self.done / max(now - self.began, 1e-9)
        return {
            "checkpoint": name, "checkpoints": len(self.names), "done": self.done, "total": self.total,
            "per_second": round(rate, 1), "seconds_left": round((self.total - self.done) / rate) if self.done > 0 else None,
            "memory_gib": round(psutil.Process().memory_info().rss / 2**30, 2), "text": self.text,
        }  # fmt: skip


def watch(console: SafeConsole, audience: Audience = "people") -> "Watch":
    """Return what shows a feature's progress on a console."""
    from tangeval.api import Watch

    def decoding(what: str, pending: "Pending") -> Decoding:
        counts = {"outputs": f"{pending.outputs:,}", "sequences": f"{pending.sequences:,}"}
        console.say(say("run.planned", what=what, **counts, batches=len(pending.waiting)))
        names = list(dict.fromkeys(batch.checkpoint for batch in pending.batches))
        if audience == "machines":
            settings = len({setting for batch in pending.batches for setting in batch.settings})
            print_event("planned", checkpoints=len(names), settings=settings, outputs=pending.outputs,
                        sequences=pending.sequences)  # fmt: skip
        return Decoding(console, pending.sequences, names, audience)

    @contextmanager
    def counting(what: str) -> Iterator[Callable[[int, int], None]]:
        with make_bar(console) as bar:
            task = bar.add_task(what, total=None, more="")

            def update(done: int, total: int) -> None:
                if not done:
                    console.say(f"{what}: {total:,} calls")
                bar.update(task, completed=done, total=total)

            yield update

    return Watch(decoding, counting, console.status, console.say)
