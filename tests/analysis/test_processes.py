"""Work that is shared out over processes."""

import os

from tangeval.analysis.processes import in_order


def test_processes_compute_by_one_thread_and_leave_the_environment_as_it_was(monkeypatch, tmp_path):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    names = [("OMP_NUM_THREADS",), ("OPENBLAS_NUM_THREADS",)]
    assert list(in_order(os.getenv, names, 2, tmp_path)) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "OPENBLAS_NUM_THREADS" not in os.environ
