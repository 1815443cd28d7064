"""A function of many arguments, computed by processes beside each other.

In: a function and its arguments, which can be pickled. Out: what it returns, in their order. Knows nothing of what is
computed.
"""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tangeval.core.errors import TangevalError

#: Processes at most, and the rows of scores below which starting them costs more than it brings.
MAX_PROCESSES, MIN_ROWS_FOR_POOL = 8, 150_000
#: How many threads the libraries take that NumPy is built with.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_Found = TypeVar("_Found")


def processes_for(rows: int) -> int:
    """Return by how many processes so many rows of scores are worked on; 1 is this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_PROCESSES) if rows >= MIN_ROWS_FOR_POOL else 1


def in_order(
    function: Callable[..., _Found], arguments: Iterable[tuple[Any, ...]], processes: int, folder: Path
) -> Iterator[_Found]:
    """Yield ``function(*each)`` for each of ``arguments``, by this process where ``processes`` is 1.

    Raises:
        TangevalError: a process was ended; ``folder`` is named.
    """
    if processes == 1:
        yield from (function(*each) for each in arguments)
        return
    # Not forked: this process may have torch's threads, and a GPU.
    with _one_thread_each(), ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        try:
            pending: deque[Future[_Found]] = deque()
            for each in arguments:
                pending.append(pool.submit(function, *each))
                if len(pending) == 2 * processes:
                    yield pending.popleft().result()
            yield from (found.result() for found in pending)
        except BrokenProcessPool as error:
            raise TangevalError(
                f"{folder}: a process of this command was ended, mostly because memory ran out; free some, and give the same "
                'command again. In a script of your own, call tangeval under if __name__ == "__main__"'
            ) from error


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile compute by one thread: more of them would spin on each other's cores."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ |= dict.fromkeys(_THREADS, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {} if value is None else {name: value}
