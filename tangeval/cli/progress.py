"""What one sees while sequences are decoded: a bar in a terminal, a line now and then in a log, JSON for machines.

In: how many sequences ended, and the latest text. Out: lines on a console. Texts are a
model's and are shown as they are, never read as markup; and what tangeval prints goes through
``Shown``, so that no text, name or path steers the terminal.
"""

import json
import logging
import os
import time
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import psutil
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment

from tangeval.core.untrusted import inert, inert_json

_EVERY = 10  # seconds between the lines of a log
_SHOWN = 16  # characters of the latest text

#: ``people``: a bar in a terminal, plain lines elsewhere; ``machines``: one JSON object a line; or nothing.
For = Literal["people", "machines", "nobody"]


def quieten() -> None:
    """Keep the libraries from telling what no user can act on; before they are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, in a notebook without widgets


class Shown(Console):
    """A console on which control characters of what is shown are pictures; rich's own still work."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=inert(segment.text))


def tell(event: str, **facts: Any) -> None:
    """Print one line of JSON for machines."""
    print(inert_json(json.dumps({"event": event, **facts}, ensure_ascii=False)), flush=True)


def make_bar(console: Console) -> Progress:
    """Return a bar for a terminal, none elsewhere; a task has a description and, in ``more``, what follows the times."""
    return Progress(
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[more]}", markup=False),
        console=console, transient=True, disable=not console.is_terminal,
    )  # fmt: skip


class Decoding:
    """A context manager; ``advance`` is what ``generate`` calls as it goes on.

    ``checkpoints`` are the names of all, in their order; ``total`` sequences are to be decoded.
    """

    def __init__(
        self, console: Console, total: int, checkpoints: Sequence[str] = (), audience: For = "people"
    ) -> None:
        self.console, self.total, self.names, self.audience = console, total, list(checkpoints), audience
        self.done, self.text = 0, ""
        self.began = self.told = time.monotonic()
        self.bar = make_bar(console)
        self.task = self.bar.add_task("loading", total=total or None, more="")

    def __enter__(self) -> "Decoding":
        self.bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()
        if not self.done:
            return
        seconds = time.monotonic() - self.began
        if self.audience == "machines":
            tell("decoded", sequences=self.done, seconds=round(seconds, 1))
        self.console.print(
            f"decoded {self.done:,} sequences in {seconds:.0f} s, {self.done / seconds:,.0f} a second",
            highlight=False,
        )

    def advance(self, name: str, ended: int, text: str) -> None:
        """Show that ``ended`` more sequences of checkpoint ``name`` are done, and ``text`` if there is one."""
        self.done += ended
        self.text = " ".join(text.split())[:_SHOWN] or self.text
        now = time.monotonic()
        facts = self._facts(name, now)
        self.bar.update(
            self.task, description=self._where(name), completed=self.done,
            more=f"{facts['per_second']:,.0f}/s {facts['memory_gib']:.1f} GiB {self.text}",
        )  # fmt: skip
        if now - self.told <= _EVERY:
            return
        self.told = now
        if self.audience == "machines":
            tell("decoding", **facts)
        elif not self.console.is_terminal:
            left = f"{facts['seconds_left'] / 60:.1f} min left" if facts["seconds_left"] is not None else ""
            self.console.print(
                f"{self._where(name)}: {self.done:,} of {self.total:,}, {facts['per_second']:,.0f}/s, {left}, "
                f"{facts['memory_gib']:.1f} GiB {self.text}",
                highlight=False, markup=False,
            )  # fmt: skip

    def _where(self, name: str) -> str:
        return f"{name} ({self.names.index(name) + 1} of {len(self.names)})" if name in self.names else name

    def _facts(self, name: str, now: float) -> dict[str, Any]:
        """Where the decoding stands; ``memory_gib`` is the process's."""
        rate = self.done / max(now - self.began, 1e-9)
        return {
            "checkpoint": name, "checkpoints": len(self.names), "done": self.done, "total": self.total,
            "per_second": round(rate, 1), "seconds_left": round((self.total - self.done) / rate) if self.done > 0 else None,
            "memory_gib": round(psutil.Process().memory_info().rss / 2**30, 2), "text": self.text,
        }  # fmt: skip
