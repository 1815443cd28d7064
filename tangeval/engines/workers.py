"""Processes of this machine that decode side by side: one for each GPU, or for each core of a CPU.

In: a resolved study, jobs, and a GPU for each process. Out: each job done, in the order in which they end.
A process asks for its next job when it has done one; those of the checkpoint that it has on come first. Knows nothing
of models: ``engines.device`` does the jobs, and nothing of results folders.
"""

import os
import pickle
import pkgutil
import queue
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.libraries import needs, quieten
from tangeval.engines.base import Done, Job, OnProgress
from tangeval.models import checkpoints
from tangeval.resolve import ResolvedStudy


def take(waiting: list[Job], own: str, others: Collection[str]) -> Job:
    """Remove and return the job that a process does next, of those ``waiting``.

    To change the checkpoint takes time. So the first choice is the checkpoint that it has on (``own``), then one that none
    of the ``others`` has on, then the one with most jobs left.
    """
    left = list(dict.fromkeys(job.checkpoint.name for job in waiting))
    free = [name for name in left if name not in others]
    most = max(left, key=lambda name: sum(job.checkpoint.name == name for job in waiting))
    chosen = own if own in left else free[0] if free else most
    job = next(job for job in waiting if job.checkpoint.name == chosen)
    waiting.remove(job)
    return job


def visible_gpus() -> list[str]:
    """Return the number or id of each GPU that this process may use, as far as that is seen without PyTorch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]
    return named.split(",") if named else []


class Workers:
    """A process for each place: a GPU's number or id, or "" for the CPU. Each loads the study's base model; to be closed."""

    _early: "ClassVar[Workers | None]" = None

    def __init__(self, resolved: ResolvedStudy, places: Sequence[str], threads: int) -> None:
        self.said: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
        self.warned: set[str] = set()
        self.all = [_Worker(resolved, place, threads, self.said) for place in places]

    @classmethod
    def early(cls, resolved: ResolvedStudy, places: Sequence[str]) -> None:
        """Start processes for several GPUs now: they import libraries and load while this one makes the plan."""
        cls.discard()
        if len(places) > 1:
            cls._early = cls(resolved, places, max(1, (os.cpu_count() or 1) // len(places)))

    @classmethod
    def ready(cls, resolved: ResolvedStudy, places: Sequence[str], threads: int) -> "Workers | None":
        """Return a process for each place, those started early where these have it; None without places."""
        workers = cls._early
        if workers and places and set(places) <= {worker.place for worker in workers.all}:
            cls._early = None
        else:
            cls.discard()
            workers = cls(resolved, places, threads) if places else None
        if not workers:
            return None
        for worker in [each for each in workers.all if each.place not in places]:
            worker.process.kill()
            workers.all.remove(worker)
        for worker in workers.all:  # the study once more: its files' digests are known now
            worker.ask((resolved, checkpoints.DIGESTS))
        return workers

    @classmethod
    def discard(cls) -> None:
        """End the processes that were started early and not handed out."""
        found, cls._early = cls._early, None
        if found:
            found.close()

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for worker in self.all:
            worker.process.kill()
        for worker in self.all:
            worker.process.wait()

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        """Yield each job when it is done; those left of a checkpoint that cannot be used are dropped.

        Raises:
            TangevalError: what a process raised; or it died.
        """
        waiting, busy, lost = list(jobs), set[_Worker](), set[str]()
        while True:
            for worker in self.all:
                if waiting and worker not in busy:
                    others = [other.on for other in self.all if other is not worker]
                    worker.job = take(waiting, worker.on, others)
                    worker.on = worker.job.checkpoint.name
                    worker.ask(worker.job)
                    busy.add(worker)
            if not busy:
                return
            worker, said = self.said.get()
            if isinstance(said, Done):
                busy.discard(worker)
                name = said.job.checkpoint.name
                if name not in lost:
                    yield said
                if isinstance(said.made, UnusableError):
                    lost.add(name)
                    waiting = [job for job in waiting if job.checkpoint.name != name]
            elif isinstance(said, BaseException):
                raise said
            elif isinstance(said, str):
                if said not in self.warned:  # each process has the same to say
                    warnings.warn(said, stacklevel=2)
                self.warned.add(said)
            elif said is None:
                raise worker.died()
            else:
                on_progress(*said)


class _Worker:
    """One process, its job, and the checkpoint that it has on."""

    def __init__(
        self,
        resolved: ResolvedStudy,
        place: str,
        threads: int,
        said: "queue.SimpleQueue[tuple[_Worker, Any]]",
    ) -> None:
        self.job: Job | None = None
        self.place, self.on = place, ""
        # Libraries look at these once, when they are imported.
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        environment["CUDA_VISIBLE_DEVICES"] = place
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            process_group=-1 if os.name == "nt" else 0,  # Ctrl-C is for the process that was started by hand
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(said,), daemon=True).start()
        self._writing = ThreadPoolExecutor(1)
        self.ask(resolved)

    def _listen(self, said: "queue.SimpleQueue[tuple[_Worker, Any]]") -> None:
        assert self.process.stdout
        with suppress(EOFError, pickle.UnpicklingError, OSError):
            while True:
                said.put((self, pickle.load(self.process.stdout)))
        said.put((self, None))

    def ask(self, what: Any) -> None:
        """Say it without waiting: a process that was just started reads it seconds later."""
        self._writing.submit(self._write, pickle.dumps(what))

    def _write(self, what: bytes) -> None:
        assert self.process.stdin
        with suppress(OSError):  # a process that died is noticed by who listens to it
            self.process.stdin.write(what)
            self.process.stdin.flush()

    def died(self) -> TangevalError:
        code = self.process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        what = f"{self.on}, {self.job.key}" if self.job else "a first look"
        return TangevalError(
            f"{what}: its process died ({how}); mostly memory ran out, or a weight file was cut short: give a smaller "
            "batch_size, or fewer processes (engine.processes)"
        )


def serve(asked: BinaryIO, answers: BinaryIO) -> None:
    """Do the jobs that are asked for, until nobody asks any more."""

    def say(what: Any) -> None:
        pickle.dump(what, answers)
        answers.flush()

    jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def listen() -> None:
        with suppress(EOFError, OSError):
            while True:
                jobs.put(pickle.load(asked))
        os._exit(0)  # the process that asked is gone, however it ended

    threading.Thread(target=listen, daemon=True).start()
    warnings.showwarning = lambda message, *_: say(str(message))
    with needs("decoding"):
        found = pkgutil.resolve_name("tangeval.engines.device:Device")
    device = found(jobs.get(), mapped=True)
    if any(c.kind != "full" for c in device.resolved.checkpoints):
        with suppress(Exception):  # the first job says it again, where it is heard
            device.load_base()
    device.resolved, digests = jobs.get()
    checkpoints.DIGESTS.update(digests)
    while True:
        try:
            say(device.do(jobs.get(), lambda *progress: say(progress)))
        except Exception as error:
            say(error)


def main() -> None:
    """Serve whoever started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quieten()
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, answers)
