"""What every command begins and ends with: one message for an error, a clean stop.

Knows nothing of any command; ``tangeval`` and ``python -m finetune`` share it. Imports nothing slow.
"""

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tangeval.core.errors import TangevalError
from tangeval.core.libraries import quieten
from tangeval.core.untrusted import inert


@contextmanager
def command() -> Iterator[None]:
    """Return the context of a whole command.

    A ``TangevalError`` is printed as one message, and the exit code is 2. Ctrl-C and SIGTERM stop
    the command with exit code 130. Warnings are one line each.
    """
    quieten()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    warnings.showwarning = lambda message, *place: print(inert(f"warning: {message}"), file=sys.stderr)
    try:
        with interruptible():
            yield
    except TangevalError as error:
        print(inert(f"error: {error}"), file=sys.stderr)
        sys.exit(2)


@contextmanager
def interruptible() -> Iterator[None]:
    """Return a context that Ctrl-C ends with exit code 130 and one message."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
