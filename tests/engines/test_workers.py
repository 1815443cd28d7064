"""Processes of this machine: what is dealt out to which, the same texts as one writes, and how they end."""

import os
import signal
from pathlib import Path

import pytest

from tangeval import generation
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.core.types import Checkpoint
from tangeval.engines import workers
from tangeval.engines.base import Job
from tangeval.engines.workers import Workers, take
from tangeval.resolve import resolve
from tests.support.study import GRID, contents, evaluate, write_study


def jobs(*names: str) -> list[Job]:
    return [Job(Checkpoint(name, None, None, "base")) for name in names]


@pytest.mark.parametrize(
    ("own", "others", "expected"),
    [("b", ["a"], "b"), ("", [], "a"), ("", ["a"], "b"), ("", ["a", "b", "c"], "c"), ("z", ["a", "b"], "c")],
)
def test_a_process_keeps_its_checkpoint_then_takes_one_that_nobody_has_then_helps(own, others, expected):
    waiting = jobs("a", "b", "c", "c")
    assert take(waiting, own, others).checkpoint.name == expected
    assert len(waiting) == 3


def settings(tiny_model, tiny_run, folder, processes: int):
    folder.mkdir()
    engine = {"kind": "local", "processes": processes}
    return write_study(folder, tiny_model, tiny_run, **GRID | {"batch_size": 40}, engine=engine)


@pytest.fixture(scope="module")
def two(tiny_model, tiny_run, tmp_path_factory):
    """What two processes make of the grid."""
    folder = tmp_path_factory.mktemp("workers")
    evaluate(settings(tiny_model, tiny_run, folder / "two", 2), folder / "out")
    return folder


def test_two_processes_write_the_bytes_that_one_writes(two, tiny_model, tiny_run):
    evaluate(settings(tiny_model, tiny_run, two / "one", 1), two / "single")
    made, expected = contents(two / "out"), contents(two / "single")
    assert made.pop("study.yaml") != expected.pop("study.yaml")
    assert made == expected
    timed = (two / "out" / "timings.jsonl").read_text()
    assert timed.count('"load"') == 2, "each process loads the base model once"


def test_a_process_that_dies_is_named_and_the_run_goes_on_from_there(
    two, tmp_path, tiny_model, tiny_run, monkeypatch
):
    resolved, pids = resolve(load_study(settings(tiny_model, tiny_run, tmp_path / "two", 2))), []
    start = workers._Worker.__init__

    def noted(self, *arguments):
        start(self, *arguments)
        pids.append(self.process.pid)

    monkeypatch.setattr(workers._Worker, "__init__", noted)

    def kill():
        if len(list((tmp_path / "out" / "generations").glob("*.parquet"))) == 3:
            os.kill(pids[0], signal.SIGKILL)

    with pytest.raises(
        TangevalError, match=r"its process died \(SIGKILL\); mostly memory ran out.*engine.processes"
    ):
        generation.decode(resolved, tmp_path / "out", after_write=kill)
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists(), "the other is ended too"
    evaluate(tmp_path / "two" / "tiny.yaml", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(two / "out")


def test_processes_end_with_the_one_that_started_them():
    started = Workers(1, 1)
    started.all[0].process.stdin.close()
    assert started.all[0].process.wait(100) == 0


def test_processes_started_early_are_handed_out_once_and_those_without_a_gpu_are_ended(monkeypatch):
    monkeypatch.setattr(workers, "_Worker", Silent)
    Workers.early(3)
    found = Workers.ready(2, 1)
    extra = found.all[2]
    found.tell("study", ["0", "2"])
    assert [worker.asked[0] for worker in found.all] == ["0", "2"]
    assert extra.killed
    assert Workers.ready(2, 1) is not found
    Workers.early(2)
    few = Workers._early.all
    assert len(Workers.ready(3, 1).all) == 3, "not enough"
    assert all(worker.killed for worker in few)
    Workers.early(1)
    assert Workers._early is None, "one GPU is this process's"


@pytest.mark.parametrize(("named", "number"), [("0,1,5", 3), ("", 0), ("GPU-7", 1)])
def test_gpus_are_counted_without_pytorch(monkeypatch, named, number):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert workers.visible_gpus() == number


def test_what_each_process_warns_of_is_said_once_and_what_one_raises_is_raised(monkeypatch):
    monkeypatch.setattr(workers, "_Worker", Silent)
    started = Workers(1, 1)
    for said in ("slower", "slower", TangevalError("no room")):
        started.said.put((started.all[0], said))
    with pytest.warns(UserWarning, match="slower") as heard, pytest.raises(TangevalError, match="no room"):
        list(started.run(jobs("base"), lambda *progress: None))
    assert len(heard) == 1


class Silent:
    """A process that never answers."""

    on, job, killed = "", None, False

    def __init__(self, threads, said):
        self.process = self

    def ask(self, what):
        self.asked = what

    def kill(self):
        self.killed = True

    def wait(self):
        assert self.killed
