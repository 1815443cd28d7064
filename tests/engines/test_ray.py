"""A study on a Ray cluster of three nodes: the same bytes as on one machine, whoever dies."""

import os
import shutil
import sys
from dataclasses import replace

import pytest

from tangeval import generation
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.engines import make
from tangeval.engines import ray as clusters
from tangeval.engines.base import Job
from tangeval.resolve import resolve
from tangeval.results import plan
from tangeval.results.folder import RunFolder
from tests.results.test_faults import spoil
from tests.support.study import MIXED, write_study

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
#: A node that is gone is given up within seconds; one on a busy machine has time to answer.
QUICK = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 20,
    "health_check_timeout_ms": 10000,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def three_nodes():
    """A head without room, and two nodes of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**SMALL, "num_cpus": 0, "include_dashboard": False, "_system_config": QUICK}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            cluster.add_node(**SMALL)
        cluster.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def study(tiny_model, tiny_run, tmp_path_factory):
    """Some thirty jobs; the base model and two checkpoints."""
    decoding = {"temperature": [0.4, 1.0], "max_length": 60, "no_repeat_ngram_size": 0}
    return write_study(
        tmp_path_factory.mktemp("study"), tiny_model, tiny_run, batch_size=6, decoding=decoding
    )


@pytest.fixture(scope="module")
def alone(study, tmp_path_factory):
    """The results of one machine."""
    folder = tmp_path_factory.mktemp("alone")
    generation.decode(resolve(load_study(study)), folder)
    return folder


def contents(folder):
    """Every file but the times."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "timings.jsonl"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def decode(study, folder, on_progress=lambda *news: None, **options):
    resolved = resolve(load_study(study))
    with make(resolved, on="ray") as engine:
        return generation.decode(resolved, folder, on_progress, engine=engine, **options)


def test_nodes_that_die_lose_nothing_and_those_that_join_get_work(three_nodes, study, alone, tmp_path):
    """The head has no room for a job, and all others die: what is left is done on those that join."""
    joined, ended = [], []

    def watch(name, more, text):
        ended.append(more)
        if not joined and sum(ended) > 20:
            for node in three_nodes.list_all_nodes()[1:]:
                three_nodes.remove_node(node, allow_graceful=False)
            joined.extend(three_nodes.add_node(**SMALL) for _ in range(2))

    decode(study, tmp_path, watch)
    assert contents(tmp_path) == contents(alone)
    assert joined
    batches = plan.read_plan(RunFolder(tmp_path))
    assert len(batches) > 25
    assert sum(ended) == sum(batch.sequences() for batch in batches)


def test_what_is_lacking_is_made_on_the_nodes_and_nothing_else(study, alone, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "results")
    lost = min((folder / "generations").iterdir())
    lost.unlink()
    ended = []
    decode(study, folder, lambda name, more, text: ended.append(more))
    assert contents(folder) == contents(alone)
    (batch,) = [
        batch for batch in plan.read_plan(RunFolder(folder)) if RunFolder(folder).batch_file(batch.id) == lost
    ]
    assert sum(ended) == batch.sequences()


def test_knobs_of_all_kinds_are_decoded_on_the_nodes_as_alone(tiny_model, tiny_run, tmp_path, monkeypatch):
    """Cuts, penalties, searches and a constraint in one study of an average; texts cut short."""
    monkeypatch.chdir(tiny_run.parent)  # where no node is
    places = ["run/checkpoint-10", {"average": ["checkpoint-10", "run/checkpoint-20"]}]
    decoding = {**MIXED, "max_length": 18}
    changes = {"checkpoints": places, "include_base": False, "batch_size": 80, "decoding": decoding}
    own = write_study(tmp_path, tiny_model, **changes)
    decode(own, tmp_path / "cluster")
    generation.decode(resolve(load_study(own)), tmp_path / "alone")
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")


def test_a_checkpoint_that_cannot_be_used_is_left_out_as_on_one_machine(study, tiny_run, tmp_path):
    runs = shutil.copytree(tiny_run, tmp_path / "run")
    spoil(runs / "checkpoint-10")
    own = tmp_path / "spoilt.yaml"
    text = study.read_text().replace(str(tiny_run), str(runs)).replace("max_length: 60", "max_length: 6")
    own.write_text(text)
    failed = decode(own, tmp_path / "cluster", keep_going=True)
    assert [skipped.path.name for skipped in failed] == ["checkpoint-10"]
    generation.decode(resolve(load_study(own)), tmp_path / "alone", keep_going=True)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")


def test_a_node_without_a_checkpoint_or_with_other_weights_or_another_device_is_named(
    study, tiny_run, tmp_path
):
    """The nodes of the test have what this process has: so what is expected of them differs."""
    resolved = resolve(load_study(study))
    checkpoint = resolved.checkpoints[1]
    weights = resolved.fingerprints[checkpoint.name]
    moved = replace(checkpoint, path=tmp_path / "nowhere")
    examples = resolved.examples("test")
    asked = [
        (Job(moved, examples=examples), {}, weights),
        (Job(checkpoint, examples=examples), {}, "other"),
        (Job(checkpoint, examples=examples), {"engine": "cpu torch.bfloat16 1 threads"}, weights),
    ]
    with make(resolved, on="ray"):
        errors = []
        for job, facts, expected in asked:
            worker = ray.remote(clusters._Worker).remote(resolved, {}, False, 1, 0)
            with pytest.raises(ray.exceptions.RayTaskError) as error:
                ray.get(worker.do.remote(job, facts, expected))
            errors.append(str(error.value.cause))
            ray.kill(worker)
    assert f"there is no {tmp_path / 'nowhere'} (checkpoints); put base model and checkpoints" in errors[0]
    assert f"weights in {tiny_run / 'checkpoint-10'}: " in errors[1]
    assert (
        "engine: 'cpu torch.float32 1 threads', where the plan is for 'cpu torch.bfloat16 1 thr" in errors[2]
    )


def test_what_a_node_lacks_is_said_with_its_address(study, tiny_run, tmp_path):
    runs = shutil.copytree(tiny_run, tmp_path / "run")
    own = tmp_path / "moved.yaml"
    own.write_text(study.read_text().replace(str(tiny_run), str(runs)))
    resolved = resolve(load_study(own))
    job = Job(resolved.checkpoints[1], examples=resolved.examples("test"))
    with make(resolved, on="ray") as engine:
        assert engine.resolved.fingerprints  # this process has read them
        runs.rename(tmp_path / "elsewhere")
        with pytest.raises(TangevalError, match=r"^node [\d.]+: there is no"):
            list(engine.run([job], lambda *news: None))


class Deadly(Job):
    """A job that ends every process that reads it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_job_that_takes_every_process_with_it_ends_the_run(study, monkeypatch):
    monkeypatch.setattr(clusters, "_RETRIES", 1)
    resolved = resolve(load_study(study))
    with (
        make(resolved, on="ray") as engine,
        pytest.raises(TangevalError, match="its process died 2 times"),
    ):
        next(engine.run([Deadly(resolved.checkpoints[0])], lambda *news: None))


def test_what_cannot_be_connected_is_said(study, monkeypatch):
    resolved = resolve(load_study(study))

    def refused(on, message):
        with pytest.raises(TangevalError, match=message), make(resolved, on=on):
            pass

    refused("slurm", "give ray, or ray://HOST:10001")
    for on, address in (("ray", "127.0.0.1:1"), ("ray://127.0.0.1:1", "")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        refused(on, r"no cluster answers there .*ray start")
    monkeypatch.setenv("RAY_ADDRESS", "")
    import ray

    def no_token(**_):
        raise ray.exceptions.AuthenticationError("no token is here")

    with monkeypatch.context() as patch:
        patch.setattr(ray, "init", no_token)
        refused("ray", r"no token is here.*RAY_AUTH_MODE=token")
    monkeypatch.setitem(sys.modules, "ray", None)
    refused("ray", r"pip install 'tangeval\[ray\]'")
