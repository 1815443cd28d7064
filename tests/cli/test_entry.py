"""Streams of any encoding, closed, full or absent; a process without threads; what the system refuses."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import threading

import pytest

from tangeval.core.libraries import needs
from tests.support.command import ROOT, refusal


def shell(command, **environment):
    """A shell command with ``tangeval``; its exit code, output and errors as bytes."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    line = command.replace("tangeval", f"{sys.executable} -m tangeval")
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=120, env=environment, check=False
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "big5", "cp950", "utf-8"])
def test_any_text_can_be_shown_whatever_the_streams_encoding(tiny_run, tmp_path, encoding):
    run = shutil.copytree(tiny_run, tmp_path / "唐詩→é")
    (run / "checkpoint-20" / "adapter_config.json").write_text("{")
    done = shell(f"tangeval checkpoints {run}; tangeval checkpoints {run}x", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert b"checkpoint-10" in done.stdout
    assert "唐詩→é".encode() in done.stderr  # whatever a pipe's code page is, texts are UTF-8


def test_a_locale_that_is_not_utf8(tiny_run):
    done = shell(f"tangeval checkpoints {tiny_run}", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert done.returncode == 0


@pytest.mark.parametrize("where", ["> /dev/full", ">&-", "| true"])
def test_a_lost_output_ends_with_one_line_and_keeps_what_was_made(tmp_path, where):
    out = tmp_path / "x.csv"
    done = shell(
        f"set -o pipefail; tangeval checkpoints {tmp_path} {where}; tangeval data {where}; echo $? >&2; touch {out}"
    )
    said = done.stderr.decode().splitlines()
    assert out.exists()
    if where == ">&-":
        assert said[-1] == "0"
    else:
        assert said[-1] == "1"
        assert said[-2].startswith("error: standard output was lost (")


def test_no_standard_error_is_no_error():
    assert shell("tangeval data 2>&-").returncode == 0


def test_a_process_without_threads_says_so_and_ends(tmp_path, monkeypatch):
    started = []

    def start(self):
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(begin(self))

    begin = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    assert "cannot start 16 threads (can't start new thread); raise `ulimit -u`" in refusal(tmp_path, "data")
    assert threading.active_count() < 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_never_comes_back(number):
    """As a library that waits for a thread that could not be started."""
    script = (
        "import ctypes, signal; from tangeval.cli import entry; entry._GRACE = 0.5\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with entry.command():\n"
        "    lock = ctypes.create_string_buffer(64); libc = ctypes.CDLL(None)\n"
        "    libc.pthread_mutex_lock(lock); print('waits', flush=True); libc.pthread_mutex_lock(lock)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        assert process.stdout.readline() == b"waits\n"
        process.send_signal(number)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize("command", ["checkpoints", "run", "score", "summarize", "report", "explain"])
def test_names_that_no_file_system_takes_are_one_message(tmp_path, command):
    data = ["--data", "sample"] if command == "score" else []
    assert "File name too long" in refusal(tmp_path, command, "x" * 300, *data)


def test_libraries_are_imported_without_looking_for_garbage_and_it_is_looked_for_again():
    for before in (False, True):
        gc.enable() if before else gc.disable()
        try:
            with needs("this"):
                assert not gc.isenabled()
            assert gc.isenabled() is before
        finally:
            gc.enable()
