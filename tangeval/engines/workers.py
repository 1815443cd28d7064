"""Processes of this machine that decode side by side: one for each GPU, or for each core of a CPU.

In: a resolved study, jobs, and a GPU for each process. Out: each job done, in the order in which they end.
A process asks for its next job when it has done one; those of the checkpoint that it has on come first. Knows nothing
of models: ``engines.device`` does the jobs, and nothing of results folders.
"""

import importlib
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
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.libraries import quieten
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


def visible_gpus() -> int:
    """Return how many GPUs a process of this machine may use, as far as that is seen without PyTorch; 0 if it is not."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    return len(named.split(",")) if named else 0


class Workers:
    """So many processes, which import libraries until they are told what to do, and then keep their models; to be closed."""

    _early: "ClassVar[Workers | None]" = None

    def __init__(self, number: int, threads: int) -> None:
        self.said: queue.SimpleQueue[tuple[_Worker, Any]] = queue.SimpleQueue()
        self.warned: set[str] = set()
        self.all = [_Worker(threads, self.said) for _ in range(number)]

    @classmethod
    def early(cls, number: int) -> None:
        """Start processes for several GPUs now: they import libraries while this one does, and ``ready`` hands them out."""
        if number > 1:
            cls._early = cls(number, max(1, (os.cpu_count() or 1) // number))

    @classmethod
    def ready(cls, number: int, threads: int) -> "Workers":
        """Return processes, those started early if there are enough."""
        found, cls._early = cls._early, None
        if found and len(found.all) >= number:
            return found
        if found:
            found.close()
        return cls(number, threads)

    def tell(self, resolved: ResolvedStudy, gpus: Sequence[str]) -> None:
        """Give each process the study and its place: a GPU's number or id, or "" for the CPU; end those without one."""
        for worker in self.all[len(gpus) :]:
            worker.process.kill()
        del self.all[len(gpus) :]
        for worker, gpu in zip(self.all, gpus, strict=True):
            worker.ask((gpu, resolved, checkpoints.DIGESTS))

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

    def __init__(self, threads: int, said: "queue.SimpleQueue[tuple[_Worker, Any]]") -> None:
        self.job: Job | None = None
        self.on = ""
        # Libraries look at these once, when they are imported.
        environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import main; main()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
            process_group=-1 if os.name == "nt" else 0,  # Ctrl-C is for the process that was started by hand
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(said,), daemon=True).start()

    def _listen(self, said: "queue.SimpleQueue[tuple[_Worker, Any]]") -> None:
        assert self.process.stdout
        with suppress(EOFError, pickle.UnpicklingError, OSError):
            while True:
                said.put((self, pickle.load(self.process.stdout)))
        said.put((self, None))

    def ask(self, what: Any) -> None:
        assert self.process.stdin
        try:
            pickle.dump(what, self.process.stdin)
            self.process.stdin.flush()
        except OSError as error:
            raise self.died() from error

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
    # With it torch and transformers: what takes long, and looks at no GPU yet.
    importlib.import_module("peft")

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
    os.environ["CUDA_VISIBLE_DEVICES"], resolved, digests = jobs.get()
    checkpoints.DIGESTS.update(digests)
    device = pkgutil.resolve_name("tangeval.engines.device:Device")(resolved, mapped=True)
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
