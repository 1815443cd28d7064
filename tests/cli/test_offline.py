"""Nothing is fetched that was not asked for by name: a study in a network namespace of its own, which has no route.

Each program runs under an audit hook too, which notes every attempt to reach out, so that one
that is quietly given up is found as well.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.study import write_study

#: Run a module as ``python -m`` does; sockets between processes of this machine (AF_UNIX) are no network.
WATCHED = """
import runpy, socket, sys
tried = open(sys.argv.pop(1), "a")
def watch(event, arguments):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and arguments[0].family != socket.AF_UNIX):
        print(event, arguments[0] if event.endswith("info") else arguments[1], file=tried, flush=True)
sys.addaudithook(watch)
module = sys.argv.pop(1)
sys.argv[0] = module
runpy.run_module(module, run_name="__main__")
"""
ALONE = ["unshare", "--map-root-user", "--net"]


@pytest.fixture(scope="module")
def no_route() -> list[str]:
    """What a command is begun with to have no network; skips where that is not permitted."""
    try:
        probe = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if probe.returncode:
        pytest.skip(f"network namespaces are not permitted here: {probe.stderr.strip()}")
    return ALONE


def watched(
    prefix: list[str], log: Path, module: str, *arguments: object
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, sys.executable, "-c", WATCHED, str(log), module, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=200,
        env={k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")},
    )  # fmt: skip


def test_the_watch_sees_what_reaches_out(no_route, tmp_path):
    (tmp_path / "probe.py").write_text("import urllib.request; urllib.request.urlopen('http://example.com')")
    done = subprocess.run(
        [*no_route, sys.executable, "-c", WATCHED, str(tmp_path / "log"), "probe"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "example.com" in (tmp_path / "log").read_text()


def test_a_study_runs_without_a_network_and_asks_for_none(no_route, tiny_model, tiny_run, tmp_path):
    """Its adapters say that they were trained on a model of the hub, which nobody asked for."""
    run = shutil.copytree(tiny_run, tmp_path / "run")
    for file in run.glob("*/adapter_config.json"):
        content = json.loads(file.read_text()) | {"base_model_name_or_path": "owner/model"}
        file.write_text(json.dumps(content))
    write_study(tmp_path, tiny_model, run)
    done = watched(
        no_route, tmp_path / "log", "tangeval", "run", tmp_path / "tiny.yaml", "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "log").read_text() == ""


def test_fine_tuning_runs_without_a_network_and_asks_for_none(no_route, tiny_model, tmp_path):
    (tmp_path / "tiny.yaml").write_text(
        f"base_model: {tiny_model}\ndata: sample\noutput_dir: {tmp_path / 'out'}\nrecords: 16\nsave_steps: 1\n"
    )
    done = watched(no_route, tmp_path / "log", "finetune", tmp_path / "tiny.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "checkpoint-1").is_dir()
    assert (tmp_path / "log").read_text() == ""


@pytest.mark.parametrize(
    "entry", ["tangeval.cli.app", "tangeval.api", "tangeval.models.loading", "finetune.train"]
)
def test_telemetry_is_off_before_the_hubs_library_is_imported(entry):
    code = f"import {entry}; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_TELEMETRY)"
    names = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if k not in names},
    )  # fmt: skip
    assert done.stdout.strip() == "True"
