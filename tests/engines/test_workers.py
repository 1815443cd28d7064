"""Processes of this machine: what is dealt out to which, the same texts as one writes, and how they end."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tangeval import generation
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.core.types import Checkpoint
from tangeval.engines import make, workers
from tangeval.engines.base import Job
from tangeval.engines.device import Device
from tangeval.engines.workers import Workers, take
from tangeval.models.checkpoints import DIGESTS
from tangeval.resolve import resolve
from tests.support.study import GRID, contents, evaluate, write_study
from tests.support.tiny import make_tiny_model


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


def test_processes_end_with_the_one_that_started_them(tmp_path, tiny_model, tiny_run):
    started = Workers(resolve(load_study(settings(tiny_model, tiny_run, tmp_path / "one", 1))), [""], 1)
    started.all[0]._writing.shutdown()
    started.all[0].process.stdin.close()
    assert started.all[0].process.wait(100) == 0


def test_processes_started_early_are_handed_out_once_and_those_without_a_gpu_are_ended(monkeypatch):
    monkeypatch.setattr(workers, "_Worker", Silent)
    Workers.early("study", ["0", "1", "2"])
    every = list(Workers._early.all)
    found = Workers.ready("study", ["0", "2"], 1)
    assert [worker.place for worker in found.all] == ["0", "2"]
    assert [worker.asked for worker in every] == [("study", DIGESTS), None, ("study", DIGESTS)]
    assert every[1].killed
    assert Workers.ready("study", ["0", "2"], 1) is not found
    for places, why in ((["0", "1", "2"], "not enough"), ([""], "of the CPU"), ([], "none is wanted")):
        Workers.early("study", ["0", "1"])
        few = Workers._early.all
        found = Workers.ready("study", places, 1)
        assert [worker.place for worker in found.all] == places if places else found is None, why
        assert all(worker.killed for worker in few), why
    Workers.early("study", ["0"])
    assert Workers._early is None, "one GPU is this process's"


def test_no_process_outlives_an_engine_that_wanted_none(monkeypatch, tiny_model, tiny_run, tmp_path):
    monkeypatch.setattr(workers, "_Worker", Silent)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,5")
    resolved = resolve(load_study(settings(tiny_model, tiny_run, tmp_path / "one", 1)))
    with make(resolved, now=True, gpus=2):
        started = list(Workers._early.all)
        assert [worker.place for worker in started] == ["0", "1"]
    assert all(worker.killed for worker in started)


def test_files_that_change_after_a_process_loaded_them_are_refused(tmp_path, tiny_model, tiny_run):
    """The process loads before the command digests; so the digest of what came after does not make it right."""
    base = shutil.copytree(tiny_model, tmp_path / "base")
    resolved = resolve(load_study(write_study(tmp_path, base, tiny_run)))
    device = Device(resolved, mapped=True)
    device.load_base()
    (make_tiny_model(tmp_path / "other", 9) / "model.safetensors").replace(base / "model.safetensors")
    job = Job(resolved.checkpoints[0], examples=resolved.examples("test")[:1])
    with pytest.raises(TangevalError, match=f"{base}: its files have changed since"):
        device.do(job, lambda *progress: None)


@pytest.mark.parametrize(("named", "known"), [("0,1,5", ["0", "1", "5"]), ("", []), ("GPU-7", ["GPU-7"])])
def test_gpus_are_known_without_pytorch(monkeypatch, named, known):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert workers.visible_gpus() == known


def test_what_each_process_warns_of_is_said_once_and_what_one_raises_is_raised(monkeypatch):
    monkeypatch.setattr(workers, "_Worker", Silent)
    started = Workers("study", [""], 1)
    for said in ("slower", "slower", TangevalError("no room")):
        started.said.put((started.all[0], said))
    with pytest.warns(UserWarning, match="slower") as heard, pytest.raises(TangevalError, match="no room"):
        list(started.run(jobs("base"), lambda *progress: None))
    assert len(heard) == 1


class Silent:
    """A process that never answers."""

    on, job, asked, killed = "", None, None, False

    def __init__(self, resolved, place, threads, said):
        self.process, self.place = self, place

    def ask(self, what):
        self.asked = what

    def kill(self):
        self.killed = True

    def wait(self):
        assert self.killed
