"""What every command begins and ends with: streams that hold, one message for an error, a clean stop.

Knows nothing of any command; ``tangeval`` and ``python -m finetune`` share it. Imports nothing slow.
"""

import atexit
import gc
import io
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.libraries import quieten
from tangeval.core.untrusted import inert
from tangeval.core.words import translated

#: Threads that a command must be able to start: libraries that cannot wait for them without end.
_THREADS = 16
#: Seconds that a command may take to end after a signal.
_GRACE = 30.0

# A process that ends gives its memory back by itself; to look for garbage in all of PyTorch first takes a second.
atexit.register(gc.freeze)


class _Lasting:
    """A stream as it is, but that what it cannot take any longer is dropped, and ``lost`` says why."""

    def __init__(self, stream: Any) -> None:
        self._stream, self.lost = stream, ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, write: Any) -> None:
        if self.lost:
            return
        try:
            write()
        except (OSError, ValueError) as error:  # full, closed by its reader, or closed here
            if isinstance(error, UnicodeError):
                raise
            self.lost = getattr(error, "strerror", None) or str(error)
            with suppress(OSError, ValueError):  # Python flushes it once more when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


@contextmanager
def _streams() -> Iterator[None]:
    """Make standard output and error take any text and last; a lost output is said, and the exit code is 1."""
    before = sys.stdout, sys.stderr
    for name, stream in zip(("stdout", "stderr"), before, strict=True):
        if isinstance(stream, io.TextIOWrapper):
            # UTF-8 whatever the system's code page (cp950, cp1252): texts are verse.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
        setattr(sys, name, _Lasting(stream or io.StringIO()))
    out = sys.stdout
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if lost := getattr(out, "lost", ""):
            print(f"error: standard output was lost ({lost}); what was made is kept", file=sys.stderr)
        sys.stdout, sys.stderr = before
        ended = sys.exc_info()[1]
        if lost and (ended is None or (isinstance(ended, SystemExit) and not ended.code)):
            sys.exit(1)


@contextmanager
def command() -> Iterator[None]:
    """Return the context of a whole command.

    A ``TangevalError`` is printed as one message, and the exit code is 2; so is what the system refuses. Ctrl-C
    and SIGTERM stop the command with exit code 130. Warnings are one line each.
    """
    quieten()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    warnings.showwarning = lambda message, *place: print(inert(f"warning: {message}"), file=sys.stderr)
    with _streams():
        try:
            with interruptible():
                _check_threads()
                with _ended_by_signals():
                    yield
        except TangevalError as error:
            print(inert(f"error: {error}"), file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(inert(f"error: {where}{error.strerror or error}"), file=sys.stderr)
            sys.exit(2)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the process if it does not end itself within ``_GRACE`` seconds of a signal, as a library that waits without end."""
    heard, written = socket.socketpair()
    written.setblocking(False)

    def watch() -> None:
        with heard, suppress(TimeoutError):
            while number := heard.recv(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    heard.settimeout(_GRACE)  # nothing more comes while the command ends, then the end
        if number:
            os.write(2, b"stopped; the same command goes on from here\n")
            os._exit(130)

    before = signal.set_wakeup_fd(written.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        written.close()


def _check_threads() -> None:
    """Raise ``TangevalError`` where threads cannot be started."""
    done = threading.Event()
    started = []
    try:
        for _ in range(_THREADS):
            started.append(threading.Thread(target=done.wait, daemon=True))
            started[-1].start()
    except RuntimeError as error:
        started.pop()
        raise TangevalError(
            f"this process cannot start {_THREADS} threads ({error}); raise `ulimit -u`, or the limit of its container "
            "(pids.max)"
        ) from None
    finally:
        done.set()
        for thread in started:
            thread.join()


@contextmanager
def interruptible() -> Iterator[None]:
    """Return a context that Ctrl-C ends with exit code 130 and one message."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"\n{translated('stopped; the same command goes on from here')}", file=sys.stderr)
        sys.exit(130)
