"""A study's jobs on the nodes of a Ray cluster.

In: a resolved study and a cluster that runs. Out: what ``generate.Here`` gives of the same jobs, in
the order in which they end. The nodes need tangeval, the base model and the checkpoints; the results
folder is written by the process that asks, and they never see it. Knows nothing of plans and folders.

A process a place (an actor) holds the base model and does one job at a time. There is always one more
asked for than there are places: it starts as soon as a node joins that has room for it. A job whose
node died goes back to those that wait. Torch and Ray are imported when they are used.
"""

import hashlib
import os
import signal
import socket
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from tangeval import __version__
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.libraries import quieten
from tangeval.core.study import Section, validated
from tangeval.core.types import Base, Checkpoint
from tangeval.engines.base import OnProgress
from tangeval.models import checkpoints as checkpoints_on_disk
from tangeval.resolve import ResolvedStudy

if TYPE_CHECKING:
    from tangeval.generation import Done, Here, Job, Machine


class RaySection(Section):
    """What a job takes of a node where a study is run ``--on ray``; it changes no text but by the threads of a CPU."""

    kind: Literal["ray"] = "ray"
    address: str = "ray"
    gpus_per_job: Literal["auto"] | Annotated[int, Field(ge=0, le=1)] = "auto"
    cpus_per_job: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"


_TICK = 0.5  # seconds between looks at what the nodes tell
#: How often a job may take its process with it, or a process fail to start, before that is an error.
_TRIES = 3
_CODE = "code of tangeval"


@dataclass(frozen=True)
class _Brief:
    """What a process of a node has to know: the study with absolute paths, and what it may take."""

    resolved: ResolvedStudy
    by_path: bool  #: whether the base model is at a path, else known to every installation by its name
    threads: int
    gpus: int
    fingerprints: dict[str, str]


@dataclass(frozen=True)
class _Told:
    """What a process made of a request, what it was warned of, and what the user can mend."""

    value: Any
    warned: tuple[str, ...] = ()
    error: str | None = None


class _Worker:
    """The process on a node: ``generate.Here`` under a look at whether all is as it was planned for."""

    def __init__(self, brief: _Brief, board: Any) -> None:
        import ray

        quieten()
        if not brief.gpus:  # before torch looks: a job that asks for none must not take another's
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self.brief, self.board = brief, board
        self.address, self.node = ray.util.get_node_ip_address(), ray.get_runtime_context().get_node_id()
        self.looked_at: set[str] = set()

    def place(self) -> tuple[str, str]:
        return self.node, self.address

    def survey(self) -> _Told:
        """Say what it computes on: a ``Machine``, and ``_facts``."""
        return self._told(lambda: (self.here.machine, self._facts))

    def trial(self, expected: dict[str, str]) -> _Told:
        return self._told(lambda: self._alike(expected).trial())

    def do(self, job: "Job", expected: dict[str, str]) -> _Told:
        """Do a job, told on the board under its batch's id."""
        return self._told(lambda: self._do(job, expected))

    @cached_property
    def here(self) -> "Here":
        resolved = self.brief.resolved
        base = resolved.base
        if not self.brief.by_path:
            base = checkpoints_on_disk.resolve_base(resolved.study.base_model, base.cache_dir)
        elif not Path(base.source).exists():
            raise TangevalError(f"there is no {base.source} (base_model); {_EVERYWHERE}")
        import torch

        from tangeval.generation import Here

        torch.set_num_threads(self.brief.threads)
        return Here(replace(resolved, base=base))

    @cached_property
    def _facts(self) -> dict[str, str]:
        """What must be the same on all nodes, so that a text does not depend on where it was made."""
        import torch

        engine = self.here.machine.engine
        kernels = {} if self.brief.gpus else {"CPU": torch.backends.cpu.get_cpu_capability()}
        return {"engine": engine, **kernels, **installed(), "base model": self.here.resolved.base_fingerprint}

    def _alike(self, expected: dict[str, str]) -> "Here":
        if not self.looked_at:
            differ(expected, self._facts)
            self.looked_at.add("")
        return self.here

    def _do(self, job: "Job", expected: dict[str, str]) -> "Done":
        here = self._alike(expected)
        checkpoint = next(c for c in self.brief.resolved.checkpoints if c.name == job.checkpoint.name)
        if checkpoint.name not in self.looked_at and checkpoint.path:
            if not checkpoint.path.is_dir():
                raise TangevalError(f"there is no {checkpoint.path} (checkpoints); {_EVERYWHERE}")
            weights = f"weights in {checkpoint.path}"
            mine = checkpoints_on_disk.fingerprint(checkpoint.path)
            differ({weights: self.brief.fingerprints[checkpoint.name]}, {weights: mine})
        self.looked_at.add(checkpoint.name)
        return here.do(replace(job, checkpoint=checkpoint), self._reporter(_key(job)))

    def _reporter(self, key: str) -> OnProgress:
        """Put how many outputs ended on the board, not more often than it is looked at."""
        ended, told = 0, time.monotonic()

        def report(name: str, more: int, text: str) -> None:
            nonlocal ended, told
            ended += more
            if time.monotonic() - told >= _TICK:
                told = time.monotonic()
                self.board.write.remote(key, name, ended)

        return report

    def _told(self, make: Callable[[], Any]) -> _Told:
        value, error = None, None
        with warnings.catch_warnings(record=True) as heard:
            try:
                value = make()
            except TangevalError as problem:
                error = f"node {self.address}: {problem}"
        warned = tuple(str(w.message) for w in heard if w.category is UserWarning)
        return _Told(value, warned, error)


class _Board:
    """Where processes write how far their jobs are; it lives on the head node, and dies with the cluster alone."""

    def __init__(self) -> None:
        self.written: dict[str, tuple[str, int]] = {}

    def write(self, key: str, name: str, ended: int) -> None:
        self.written[key] = (name, ended)

    def read(self) -> dict[str, tuple[str, int]]:
        written, self.written = self.written, {}
        return written


_EVERYWHERE = "put base model and checkpoints on every node under the path they have where the run is started"


@dataclass
class _Hand:
    """One process of the cluster, as this one sees it; its node is known once it is placed."""

    actor: Any
    node: str = ""
    address: str = ""


class Nodes:
    """The nodes of a cluster that is connected, as ``generate.Workers``."""

    def __init__(self, ray: Any, resolved: ResolvedStudy) -> None:
        section = resolved.study.engine.model_dump(exclude_none=True) if resolved.study.engine else {}
        study = validated(RaySection, section, resolved.study.file, "engine")
        gpus = study.gpus_per_job
        if gpus == "auto":
            gpus = int(ray.cluster_resources().get("GPU", 0) >= 1)
        cpus = study.cpus_per_job
        if cpus == "auto":
            cpus = self._share(ray, gpus) if gpus else _threads()
        self.ray, self.needs = ray, {"CPU": cpus, "GPU": gpus}
        by_path = resolved.base.local and resolved.study.base_model not in checkpoints_on_disk.named()
        brief = _Brief(_absolute(resolved), by_path, cpus, gpus, resolved.fingerprints)
        self._brief, self._base = ray.put(brief), resolved.base_fingerprint
        head = {"resources": {"node:__internal_head__": 0.001}}
        self._board = ray.remote(_Board).options(num_cpus=0, **head).remote()
        self._starting: dict[Any, _Hand] = {}
        self._idle: list[_Hand] = []
        self._working: dict[Any, tuple[_Hand, Any]] = {}
        self._stillborn, self._alone = 0, False

    @staticmethod
    def _share(ray: Any, gpus: int) -> int:
        """CPUs for a job that decodes on GPUs, where threads decide no text: so many that no GPU is without."""
        has = (node["Resources"] for node in ray.nodes() if node["Alive"])
        shares = [int(r.get("CPU", 0) * gpus // r["GPU"]) for r in has if r.get("GPU", 0) >= gpus]
        return max(1, min(shares, default=1))

    def __str__(self) -> str:
        nodes = self._alive()
        each = f"{self.needs['CPU']} threads" + (" and a GPU" if self.needs["GPU"] else "")
        return f"nodes: {len(nodes)}, with room for {sum(map(self._places, nodes))} at a time ({each} each)"

    @property
    def machine(self) -> "Machine":
        return self._survey[0]

    @cached_property
    def _survey(self) -> tuple["Machine", dict[str, str]]:
        """What the first node that answers computes on, and what all others must have too."""
        machine, facts = self._ask("survey")
        mine = installed() | {"base model": self._base}
        try:
            differ(mine, {name: facts[name] for name in mine})
        except TangevalError as error:
            raise TangevalError(f"the first node that answered: {error}") from None
        return machine, facts

    def trial(self) -> dict[str, float] | None:
        measured: dict[str, float] | None = self._ask("trial", self._survey[1])
        return measured

    def make(self, jobs: Sequence["Job"], on_progress: OnProgress) -> Iterator["Done"]:
        waiting, lost = deque(jobs), set()
        crashes: dict[str, list[_Hand]] = {}
        bar = _Bar(on_progress)
        look = self._board.read.remote()
        try:
            while waiting or self._working:
                for job, hand, told in self._next(waiting, "do", self._survey[1]):
                    if told is None:
                        self._again(job, hand, crashes)
                        waiting.appendleft(job)
                        continue
                    done = replace(_value(told), job=job)
                    bar.done(done)
                    if isinstance(done.made, UnusableError):
                        if job.checkpoint.name in lost:
                            continue
                        lost.add(job.checkpoint.name)
                        waiting = deque(j for j in waiting if j.checkpoint.name not in lost)
                    yield done
                if self.ray.wait([look], timeout=0)[0]:
                    bar.told(self.ray.get(look))
                    look = self._board.read.remote()
        finally:
            self._dismiss()

    def _ask(self, what: str, *arguments: Any) -> Any:
        """Return what any one process answers, whichever node dies meanwhile."""
        waiting: deque[Any] = deque([None])
        crashes: dict[str, list[_Hand]] = {}
        while waiting or self._working:
            for _, hand, told in self._next(waiting, what, *arguments):
                if told is not None:
                    return _value(told)
                self._again(None, hand, crashes)
                waiting.append(None)
        raise AssertionError("a request was lost")

    def _next(self, waiting: deque[Any], what: str, *arguments: Any) -> list[tuple[Any, _Hand, _Told | None]]:
        """Hand out what waits, and return what ended within a tick: None of a process that is gone."""
        self._hire(len(waiting))
        while waiting and self._idle:
            hand, job = self._idle.pop(), waiting.popleft()
            asked = getattr(hand.actor, what).remote(*([] if job is None else [job]), *arguments)
            self._working[asked] = (hand, job)
        ready, _ = self.ray.wait([*self._starting, *self._working], timeout=_TICK)
        ended: list[tuple[Any, _Hand, _Told | None]] = []
        for answer in ready:
            if answer in self._starting:
                self._placed(answer)
                continue
            hand, job = self._working.pop(answer)
            told = self._answer(answer)
            if told is not None:
                self._idle.append(hand)
            else:
                self._bury(hand)
            ended.append((job, hand, told))
        return ended

    def _hire(self, wanted: int) -> None:
        """Ask for a process for each place there is, and one more for a node that may join."""
        nodes = self._alive()
        places = sum(map(self._places, nodes))
        here = len(self._idle) + len(self._working)
        lacking = min(max(places - here, 0) + 1, wanted - len(self._idle)) - len(self._starting)
        for _ in range(lacking):
            remote = self.ray.remote(_Worker).options(
                num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"], max_restarts=0
            )
            actor = remote.remote(self._brief, self._board)
            self._starting[actor.place.remote()] = _Hand(actor)
        if not places and wanted and not self._alone:
            warnings.warn(
                f"no node of the cluster has {self.needs['CPU']} CPUs and {self.needs['GPU']} GPUs (ray.cpus_per_job, "
                "ray.gpus_per_job); the run waits for one to join",
                stacklevel=2,
            )
        self._alone = not places

    def _placed(self, answer: Any) -> None:
        """Take in a process that was started somewhere, or see why it was not."""
        hand = self._starting.pop(answer)
        try:
            hand.node, hand.address = self.ray.get(answer)
        except self.ray.exceptions.RayError as error:
            self._stillborn += 1
            if self._stillborn >= _TRIES:
                raise TangevalError(
                    f"Ray cannot start a process of tangeval on a node; is the same version installed there? {error}"
                ) from error
            return
        self._stillborn = 0
        self._idle.append(hand)

    def _answer(self, answer: Any) -> _Told | None:
        """What was asked for, or None where the process or what it wrote is gone."""
        gone = self.ray.exceptions
        try:
            told: _Told = self.ray.get(answer)
        except (gone.RayActorError, gone.ObjectLostError, gone.NodeDiedError, gone.WorkerCrashedError):
            return None
        return told

    def _bury(self, hand: _Hand) -> None:
        """Say who is gone, and end what may be left of it: its job is done elsewhere."""
        warnings.warn(f"node {hand.address} died or lost a process; its job is done again", stacklevel=2)
        self._end(hand)

    def _again(self, job: "Job | None", hand: _Hand, crashes: dict[str, list[_Hand]]) -> None:
        """Refuse to do a job again that takes every process with it; a dead node's end is no fault of the job's."""
        what = f"{job.checkpoint.name}, {_key(job)}" if job else "a look at a node"
        alive = {node["NodeID"] for node in self._alive()}  # a node that died is known as dead seconds later
        crashes[what] = [h for h in (*crashes.get(what, []), hand) if h.node in alive]
        if len(crashes[what]) >= _TRIES:
            raise TangevalError(
                f"{what}: its process was killed {_TRIES} times, on node {hand.address} the last time, and the node lived "
                "on: mostly memory ran out; give a smaller batch_size, or fewer jobs a node (ray.cpus_per_job)"
            )

    def _alive(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def _places(self, node: dict[str, Any]) -> int:
        has = node["Resources"]
        return min(int(has.get(kind, 0) // number) for kind, number in self.needs.items() if number)

    def _dismiss(self) -> None:
        """End the processes that are still to start, and those at work on what nobody waits for."""
        for hand in [*self._starting.values(), *(hand for hand, _ in self._working.values())]:
            self._end(hand)
        self._starting, self._working = {}, {}

    def _end(self, hand: _Hand) -> None:
        with suppress(self.ray.exceptions.RayError):  # it may be gone already
            self.ray.kill(hand.actor)


class _Bar:
    """Counts of many processes as one: what a job had told before its node died is not told twice."""

    def __init__(self, on_progress: OnProgress) -> None:
        self.on_progress = on_progress
        self.shown: Counter[str] = Counter()

    def told(self, written: dict[str, tuple[str, int]]) -> None:
        for key, (name, ended) in written.items():
            self._show(key, name, ended, "")

    def done(self, done: "Done") -> None:
        batch = done.job.batch
        if batch and not isinstance(done.made, (list, UnusableError)):
            self._show(batch.id, batch.checkpoint, batch.sequences(), done.made["text"].iloc[-1])

    def _show(self, key: str, name: str, ended: int, text: str) -> None:
        more = max(0, ended - self.shown[key])
        self.shown[key] += more
        if more or text:
            self.on_progress(name, more, text)


@contextmanager
def connect(on: str, resolved: ResolvedStudy) -> Iterator[Nodes]:
    """Yield the nodes of the cluster that ``on`` names: ``ray``, of which this machine is one, or ``ray://HOST:10001``.

    Raises:
        TangevalError: Ray is not installed, or no cluster is there.
    """
    if on != "ray" and not on.startswith("ray://"):
        raise TangevalError(f"--on {on}: give ray, or ray://HOST:10001")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise TangevalError(
            f"--on {on}: Ray is not installed: pip install 'tangeval[ray]', on every node ({error})"
        ) from error
    handler = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS") or "auto" if on == "ray" else on
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise TangevalError(
            f"--on {on}: no cluster answers there ({str(error).strip().splitlines()[0]}); `ray start --head` on one "
            "machine and `ray start --address=HOST:6379` on the others make one (docs/scale.md)"
        ) from error
    # What nodes log of their end would stand among the progress, and among the lines for machines.
    ray._private.worker._worker_logs_enabled = False
    if threading.current_thread() is threading.main_thread():
        # Ray puts its own in the place of what stops a run as Ctrl-C does.
        signal.signal(signal.SIGTERM, handler)
    try:
        yield Nodes(ray, resolved)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Fail now where nothing listens: Ray itself asks on for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def installed() -> dict[str, str]:
    """Return the versions of all that has a part in a text, tangeval's code by its digest."""
    from tangeval.generation import versions

    digest = hashlib.blake2b(digest_size=8)
    root = Path(__file__).parents[1]
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return {"tangeval": __version__, _CODE: digest.hexdigest(), **versions()}


def differ(expected: dict[str, str], found: dict[str, str]) -> None:
    """Refuse a node that would write other texts.

    Raises:
        TangevalError: naming all that differs.
    """
    names = [name for name in expected if found.get(name) != expected[name]]
    if names:
        told = "; ".join(
            f"{name}: {found.get(name)!r}, where the plan is for {expected[name]!r}" for name in names
        )
        raise TangevalError(
            f"{told}. Results of both would be mixed; make the nodes alike, or leave this one out"
        )


def _value(told: _Told) -> Any:
    for message in told.warned:
        warnings.warn(message, stacklevel=2)
    if told.error:
        raise TangevalError(told.error)
    return told.value


def _key(job: "Job") -> str:
    return job.batch.id if job.batch else "likelihood"


def _threads() -> int:
    """As many threads as this process would decode with: on a CPU they are part of what decides a text."""
    import torch

    return torch.get_num_threads()


def _absolute(resolved: ResolvedStudy) -> ResolvedStudy:
    """The setup with paths that hold wherever a node's process is started, and no digest of what is at them."""
    base = resolved.base
    cache = base.cache_dir and str(Path(base.cache_dir).absolute())
    source = str(Path(base.source).absolute()) if base.local else base.source
    placed = [Checkpoint(c.name, c.step, c.path and c.path.absolute(), c.kind) for c in resolved.checkpoints]
    return replace(resolved, base=Base(base.name, source, base.gguf, cache), checkpoints=tuple(placed))
