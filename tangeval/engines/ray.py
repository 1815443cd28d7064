"""The engine of a Ray cluster: ``LocalEngine`` in a process on every node that has room.

In: a resolved study, jobs, and a cluster that runs. Out: what ``LocalEngine`` gives of the same jobs, in
the order in which they end. The nodes need tangeval, the base model and the checkpoints, and never
see the results folder. Ray restarts a process that died and does its job again; this module decides
which process gets which checkpoint, and refuses nodes that would write other texts.
"""

import hashlib
import os
import signal
import socket
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import pandas as pd
import torch
from pydantic import Field

from tangeval import __version__
from tangeval.core.config import Section
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.libraries import quieten
from tangeval.engines import local
from tangeval.engines.base import Description, Done, Job, OnProgress
from tangeval.engines.local import LocalEngine, versions
from tangeval.engines.workers import take
from tangeval.models import checkpoints
from tangeval.models.averages import fingerprint_of
from tangeval.resolve import ResolvedStudy

_TICK = 1.0  # seconds between looks at the cluster
_RETRIES = 3  # times that a job whose process died is done again
_EVERYWHERE = "put base model and checkpoints on every node under the path they have where the run is started"


class Config(Section):
    """Where the cluster is, and what a job takes of a node; no text depends on it but by the threads of a CPU."""

    kind: Literal["ray"] = "ray"
    address: str = "ray"  #: ``ray``: the cluster that this machine is a node of; or ``ray://HOST:10001``
    gpus_per_job: Literal["auto"] | Annotated[int, Field(ge=0, le=1)] = "auto"
    cpus_per_job: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


@dataclass(frozen=True)
class _Survey:
    """What a node computes on; ``facts`` must be the same on all, so that no text depends on where it was made."""

    description: Description
    sequences: int
    facts: dict[str, str]


@contextmanager
def _on_this_node() -> Iterator[None]:
    """Errors name the node."""
    try:
        yield
    except TangevalError as error:
        import ray

        raise TangevalError(f"node {ray.util.get_node_ip_address()}: {error}") from None


class _Worker:
    """The process on a node."""

    def __init__(self, resolved: ResolvedStudy, digests: Any, named: bool, threads: int, gpus: int) -> None:
        """``digests``: of files, if this is the machine where they were seen; ``named``: every installation finds the base
        model by its name, wherever it keeps it.
        """
        checkpoints.DIGESTS.update(digests)
        if not gpus:  # before torch looks: a job that asks for no GPU must not take another's
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        quieten()
        torch.set_num_threads(threads)
        self.resolved, self.named, self.kernels = resolved, named, not gpus
        self.alike: set[str] = set()  # checkpoints whose weights were compared

    @_on_this_node()
    def survey(self) -> _Survey:
        return _Survey(self.here.describe(), self.here.sequences_per_batch(), self.facts)

    @_on_this_node()
    def do(self, job: Job, expected: dict[str, str], weights: str) -> Done:
        """Do a job on a node that is as ``expected``, with the checkpoint whose fingerprint is ``weights``."""
        differ(expected, self.facts)
        folders = job.checkpoint.folders
        if folders and job.checkpoint.name not in self.alike:
            if missing := [folder for folder in folders if not folder.is_dir()]:
                raise TangevalError(f"there is no {missing[0]} (checkpoints); {_EVERYWHERE}")
            what = f"weights in {', '.join(map(str, folders))}"
            differ({what: weights}, {what: fingerprint_of(job.checkpoint)})
        self.alike.add(job.checkpoint.name)
        return self.here.device.do(job, lambda name, ended, text: None)

    @cached_property
    def here(self) -> LocalEngine:
        base = self.resolved.base
        if self.named:
            base = checkpoints.resolve_base(
                self.resolved.study.base_model, base.cache_dir, allow_pickle=self.resolved.allow_pickle
            )
        elif Path(base.source).is_absolute() and not Path(base.source).exists():
            raise TangevalError(f"there is no {base.source} (base_model); {_EVERYWHERE}")
        return LocalEngine(replace(self.resolved, base=base), local.Config(gpus=1, processes=1))

    @cached_property
    def facts(self) -> dict[str, str]:
        kernels = {"CPU": torch.backends.cpu.get_cpu_capability()} if self.kernels else {}
        base = self.here.resolved.base_fingerprint
        return {"engine": self.here.describe().name, **kernels, **installed(), "base model": base}


class RayEngine(LocalEngine):
    """See ``Engine``. A process a place; each keeps the base model, and does one job at a time."""

    Config: ClassVar[type[Section]] = Config

    def __init__(self, resolved: ResolvedStudy, config: Any) -> None:
        super().__init__(_absolute(resolved), config)
        self.config = config
        self.actors: list[Any] = []

    def __enter__(self) -> Self:
        self.ray = connect(self.config.address)
        gpus, cpus = self.config.gpus_per_job, self.config.cpus_per_job
        if gpus == "auto":
            gpus = int(self.ray.cluster_resources().get("GPU", 0) >= 1)
        if cpus == "auto":  # on a CPU threads help decide a text; beside a GPU, so few that none is idle
            shares = [int(r.get("CPU", 0) * gpus // r["GPU"]) for r in self._resources() if r.get("GPU")]
            cpus = max(1, min(shares, default=1)) if gpus else self.threads
        self.needs = {"CPU": cpus, "GPU": gpus}
        self.resolved.fingerprints, self.resolved.base_fingerprint  # noqa: B018  made once, and known to all
        # A worker that is started again reads them again.
        self.study, self.digests = self.ray.put(self.resolved), self.ray.put(checkpoints.DIGESTS)
        for _ in range(max(1, min(self._room(), len(self.resolved.checkpoints)))):
            self._start()  # they import libraries at the same time
        return self

    def __exit__(self, *exception: object) -> None:
        self._dismiss(self.actors)
        self.ray.shutdown()

    def describe(self) -> Description:
        each = f"{self.needs['CPU']} threads" + (" and a GPU" if self.needs["GPU"] else "")
        place = f"on {len(self._resources())} nodes with room for {self._room()} at a time ({each} each)"
        return replace(self._survey.description, place=place, processes=max(1, self._room()))

    def sequences_per_batch(self) -> int:
        return self._survey.sequences

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        waiting, lost, facts = list(jobs), set(), self._survey.facts
        # What is under way, and by which worker; the first are there already.
        asked: dict[Any, tuple[Any, Job | None]] = {w.survey.remote(): (w, None) for w in self.actors}
        gone: Counter[tuple[str, str]] = Counter()  # how often a job's worker stopped to answer
        on: dict[Any, str] = {}  # the checkpoint that a worker has loaded
        placed = {checkpoint.name: checkpoint for checkpoint in self.resolved.checkpoints}  # wherever it runs
        try:
            while waiting or any(job for _, job in asked.values()):
                for _ in range(min(max(self._room(), 1), len(waiting)) - len(self.actors)):
                    worker = self._start()
                    asked[worker.survey.remote()] = (worker, None)  # it answers once it has a place
                for answer in self.ray.wait(list(asked), timeout=_TICK)[0]:
                    worker, job = asked.pop(answer)
                    done = self._value(answer, job)
                    if done is None:  # its node does not answer: the job goes elsewhere
                        self._dismiss([worker])
                        if job:
                            waiting.insert(0, job)
                            gone[job.checkpoint.name, job.key] += 1
                            if gone[job.checkpoint.name, job.key] > _RETRIES:
                                raise _died(job, "no answer")
                        continue
                    if job and job.checkpoint.name not in lost:
                        if job.batch and isinstance(done.made, pd.DataFrame):
                            text = done.made["text"].iloc[-1]
                            on_progress(job.checkpoint.name, job.batch.sequences(), text)
                        yield replace(done, job=job)
                    if job and isinstance(done.made, UnusableError):
                        lost.add(job.checkpoint.name)
                        waiting = [each for each in waiting if each.checkpoint.name not in lost]
                    if not waiting:  # its place may be what another worker waits for to start again
                        self._dismiss([worker])
                        continue
                    others = [on.get(other, "") for other in self.actors if other is not worker]
                    job = take(waiting, on.get(worker, ""), others)
                    on[worker] = job.checkpoint.name
                    weights = self.resolved.fingerprints[job.checkpoint.name]
                    there = replace(job, checkpoint=placed[job.checkpoint.name])
                    asked[worker.do.remote(there, facts, weights)] = (worker, job)
        finally:
            self._dismiss(self.actors)

    @cached_property
    def _survey(self) -> _Survey:
        """What the first node that answers computes on, and what all others must have too."""
        found: _Survey | None = None
        while found is None:
            asked = {worker.survey.remote(): worker for worker in self.actors or [self._start()]}
            first = self.ray.wait(list(asked))[0][0]
            found = self._value(first, None)
            if found is None:
                self._dismiss([asked[first]])
        differ(installed() | {"base model": self.resolved.base_fingerprint}, found.facts)
        return found

    def _start(self) -> Any:
        """A process on whichever node has room, now or once one joins."""
        if not self._room():
            warnings.warn(
                f"no node of the cluster has {self.needs['CPU']} CPUs and {self.needs['GPU']} GPUs (engine.cpus_per_job, "
                "engine.gpus_per_job); the run waits for one to join",
                stacklevel=2,
            )
        named = self.resolved.study.base_model in checkpoints.named()
        cpus, gpus = self.needs["CPU"], self.needs["GPU"]
        room = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": 0}
        self.actors.append(
            self.ray.remote(_Worker).options(**room).remote(self.study, self.digests, named, cpus, gpus)
        )
        return self.actors[-1]

    def _value(self, answer: Any, job: Job | None) -> Any:
        """What a worker returned; None if its node does not answer.

        Raises:
            TangevalError: what it raised; or its process cannot be started.
        """
        try:
            return self.ray.get(answer)
        except self.ray.exceptions.ActorUnavailableError:
            return None
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, TangevalError):
                raise error.cause from None
            raise
        except self.ray.exceptions.RayError as error:
            raise _died(job, str(error).strip().splitlines()[0]) from error

    def _dismiss(self, workers: Sequence[Any]) -> None:
        for worker in list(workers):
            with suppress(self.ray.exceptions.RayError):  # it may be gone already
                self.ray.kill(worker)
            self.actors.remove(worker)

    def _resources(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _room(self) -> int:
        """How many jobs the cluster has room for at a time."""
        needs = [(kind, number) for kind, number in self.needs.items() if number]
        return sum(min(int(r.get(kind, 0) // n) for kind, n in needs) for r in self._resources())


def _died(job: Job | None, why: str) -> TangevalError:
    what = f"{job.checkpoint.name}, {job.key}" if job else "a first look at a node"
    return TangevalError(
        f"{what}: its process died {_RETRIES + 1} times or cannot be started; mostly memory ran out, or another version "
        f"of tangeval is installed on a node: give a smaller batch_size, or fewer jobs a node (engine.cpus_per_job) ({why})"
    )


def connect(address: str) -> Any:
    """Return the ``ray`` module, connected to the cluster at ``address``.

    Raises:
        TangevalError: Ray is not installed, or no cluster is there.
    """
    if address != "ray" and not address.startswith("ray://"):
        raise TangevalError(f"engine.address: {address}: give ray, or ray://HOST:10001")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise TangevalError(
            f"engine.kind: Ray is not installed: pip install 'tangeval[ray]', on every node ({error})"
        ) from error
    handler = signal.getsignal(signal.SIGTERM)
    place = os.environ.get("RAY_ADDRESS") or "auto" if address == "ray" else address
    host, _, port = place.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # where nothing listens, Ray itself asks on for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=place, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError, ray.exceptions.AuthenticationError) as error:
        raise TangevalError(
            f"engine.address: {address}: no cluster answers there ({str(error).strip().splitlines()[0]}); "
            "`ray start --head` on one machine and `ray start --address=HOST:6379` on the others make one; where it "
            "said that it wants a token, RAY_AUTH_MODE=token and that token are needed here too (docs/scale.md)"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would not stop a run as Ctrl-C does
    return ray


def installed() -> dict[str, str]:
    """Return the versions of all that has a part in a text, tangeval's code by its digest."""
    code = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        code.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return {"tangeval": __version__, "code of tangeval": code.hexdigest(), **versions()}


def differ(expected: dict[str, str], found: dict[str, str]) -> None:
    """Raise ``TangevalError`` for a node that would write other texts, naming all that differs."""
    others = {name: value for name, value in expected.items() if found.get(name) != value}
    if others:
        told = (f"{name}: {found.get(name)!r}, where the plan is for {others[name]!r}" for name in others)
        raise TangevalError(
            f"{'; '.join(told)}. Results of both would be mixed; make the nodes alike, or leave this one out"
        )


def _absolute(resolved: ResolvedStudy) -> ResolvedStudy:
    """The study with paths that hold wherever a node's process is started."""
    base = resolved.base
    cache = base.cache_dir and str(Path(base.cache_dir).absolute())
    source = str(Path(base.source).absolute()) if base.local else base.source
    placed = tuple(
        replace(
            c, path=c.path and c.path.absolute(), members=tuple(folder.absolute() for folder in c.members)
        )
        for c in resolved.checkpoints
    )
    return replace(resolved, base=replace(base, source=source, cache_dir=cache), checkpoints=placed)
