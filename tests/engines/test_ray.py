"""A study on a Ray cluster of three nodes: the same bytes as on one machine, whoever dies."""

import os
import shutil
import sys
from dataclasses import replace

import pytest

from tangeval import generation as generate
from tangeval import pipeline
from tangeval.core.errors import TangevalError
from tangeval.core.study import load_study
from tangeval.engines import ray as clusters
from tangeval.resolve import resolve
from tangeval.results import plan
from tangeval.results.folder import RunFolder
from tests.results.test_faults import spoil
from tests.support.tiny import SMALL_STUDY

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
#: A node that does not answer is given up within a second.
QUICK = {
    "health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3,
    "health_check_timeout_ms": 2000,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def three_nodes():
    """Three nodes of one CPU each, the first of them the head."""
    with pytest.MonkeyPatch.cache_key() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        head = {**SMALL, "include_dashboard": False, "_system_config": QUICK}
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
    file = tmp_path_factory.mktemp("study") / "tiny.yaml"
    text = SMALL_STUDY.format(base=tiny_model, run=tiny_run) + "batch_size: 6\n"
    file.write_text(text.replace("max_length: 12", "max_length: 60"))
    return file


@pytest.fixture(scope="module")
def alone(study, tmp_path_factory):
    """The results of one machine."""
    folder = tmp_path_factory.mktemp("alone")
    pipeline.decode(resolve(load_study(study)), folder)
    return folder


def contents(folder):
    """Every file but the times."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != generate.TIMINGS]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def decode(study, folder, on_progress=lambda *told: None, **options):
    resolved = resolve(load_study(study))
    with clusters.connect("ray", resolved) as nodes:
        return pipeline.decode(
            resolved, folder, lambda *told: on_progress(nodes, *told), workers=nodes, **options
        )


def test_a_node_that_dies_loses_nothing_and_one_that_joins_gets_work(three_nodes, study, alone, tmp_path):
    places, joined, ended = set(), [], []

    def watch(nodes, name, more, text):
        ended.append(more)
        places.update(hand.node for hand, _ in nodes._working.values())
        if not joined and sum(ended) > 20:
            killed = three_nodes.list_all_nodes()[-1]
            assert killed.node_id in places
            three_nodes.remove_node(killed, allow_graceful=False)
            joined.append(three_nodes.add_node(**SMALL).node_id)

    with pytest.warns(UserWarning, match=r"node .* died or lost a process; its job is done again"):
        decode(study, tmp_path, watch)
    assert contents(tmp_path) == contents(alone)
    assert len(places) == 4
    assert set(joined) <= places
    batches = plan.read_plan(RunFolder(tmp_path))
    assert len(batches) > 25
    assert sum(ended) == sum(batch.sequences() for batch in batches)


def test_what_is_lacking_is_made_on_the_nodes_and_nothing_else(study, alone, tmp_path):
    folder = shutil.copytree(alone, tmp_path / "results")
    lost = min((folder / "generations").iterdir())
    lost.unlink()
    ended = []
    decode(study, folder, lambda nodes, name, more, text: ended.append(more))
    assert contents(folder) == contents(alone)
    (batch,) = [
        batch for batch in plan.read_plan(RunFolder(folder)) if RunFolder(folder).batch_file(batch.id) == lost
    ]
    assert sum(ended) == batch.sequences()


def test_a_checkpoint_that_cannot_be_used_is_left_out_as_on_one_machine(study, tiny_run, tmp_path):
    runs = shutil.copytree(tiny_run, tmp_path / "run")
    spoil(runs / "checkpoint-10")
    own = tmp_path / "spoilt.yaml"
    text = study.read_text().replace(str(tiny_run), str(runs)).replace("max_length: 60", "max_length: 6")
    own.write_text(text)
    failed = decode(own, tmp_path / "cluster", keep_going=True)
    assert [skipped.path.name for skipped in failed] == ["checkpoint-10"]
    pipeline.decode(resolve(load_study(own)), tmp_path / "alone", keep_going=True)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "alone")


def test_a_node_without_a_checkpoint_or_with_other_weights_or_threads_is_named(study, tiny_run, tmp_path):
    """The nodes of the test have what this process has: so what is expected of them differs."""
    resolved = resolve(load_study(study))
    moved = tuple(replace(c, path=tmp_path / "nowhere") if c.path else c for c in resolved.checkpoints)
    whole = clusters._Brief(resolved, True, 1, 0, resolved.fingerprints)
    asked = [
        (replace(whole, resolved=replace(resolved, checkpoints=moved)), {}),
        (replace(whole, fingerprints=dict.fromkeys(resolved.fingerprints, "other")), {}),
        (replace(whole, threads=2), {"engine": "cpu torch.float32 1 threads"}),
    ]
    job = generate.Job(resolved.checkpoints[1], examples=resolved.examples("test"))
    with clusters.connect("ray", resolved):
        workers = [(ray.remote(clusters._Worker).remote(brief, None), facts) for brief, facts in asked]
        errors = [told.error for told in ray.get([w.do.remote(job, facts) for w, facts in workers])]
    assert all(error.startswith("node ") for error in errors)
    assert f"there is no {tmp_path / 'nowhere'} (checkpoints); put base model and checkpoints" in errors[0]
    assert f"weights in {tiny_run / 'checkpoint-10'}: " in errors[1]
    assert (
        "engine: 'cpu torch.float32 2 threads', where the plan is for 'cpu torch.float32 1 thr" in errors[2]
    )


class Deadly(generate.Job):
    """A job that ends every process that reads it."""

    def __reduce__(self):
        return os._exit, (1,)


def test_a_job_that_takes_every_process_with_it_ends_the_run(study):
    resolved = resolve(load_study(study))
    with clusters.connect("ray", resolved) as nodes:
        nodes.__dict__["_survey"] = (None, {})
        jobs = nodes.make([Deadly(resolved.checkpoints[0])], lambda *told: None)
        with (
            pytest.warns(UserWarning, match="lost a process"),
            pytest.raises(TangevalError, match="killed 3 times"),
        ):
            next(jobs)


def test_what_cannot_be_connected_is_said(study, monkeypatch):
    resolved = resolve(load_study(study))
    with (
        pytest.raises(TangevalError, match="give ray, or ray://HOST:10001"),
        clusters.connect("slurm", resolved),
    ):
        pass
    for on, address in (("ray", "127.0.0.1:1"), ("ray://127.0.0.1:1", "")):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with (
            pytest.raises(TangevalError, match=r"no cluster answers there .*ray start"),
            clusters.connect(on, resolved),
        ):
            pass
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(TangevalError, match=r"pip install 'tangeval\[ray\]'"),
        clusters.connect("ray", resolved),
    ):
        pass
