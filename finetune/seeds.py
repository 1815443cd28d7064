"""Several seeds of one configuration: ``seeds=1..5``.

In: a configuration with ``seeds``, and the command that it came by. Out: a run for each, in a process and a
folder of its own (``OUTPUT_DIR-seed1`` …), as ``seed=1`` alone leaves it. Knows nothing of what a run does.
"""

import json
import os
import time
from subprocess import PIPE, STDOUT, CalledProcessError, Popen, check_output
from threading import Thread

from tangeval.cli.progress import SafeConsole
from tangeval.core.errors import TangevalError
from tangeval.results.records import read_record

from .config import Config


def train_seeds(command: list[str], config: Config, console: SafeConsole) -> None:
    """Train every seed: on each GPU one, then as many at a time as it holds; without a GPU one after another.

    ``command`` trains with the seed and folder that are put at its end. A run that fails stops no other.

    Raises:
        TangevalError: naming the seeds that failed and their exit codes.
    """
    if "WORLD_SIZE" in os.environ:
        raise TangevalError("seeds: each seed trains in one process; leave torchrun out, or give one seed=…")
    gpus = free_memory() or {"": 0}
    folders = {seed: config.folder_of(seed) for seed in config.seeds or ()}
    waiting, runs = list(folders), dict[int, tuple[str, Popen[str]]]()
    try:
        while waiting or any(process.poll() is None for _, process in runs.values()):
            told = [read_record(folder / "timings.json") or {} for folder in folders.values()]
            peak = max(run.get("peak_gib") or 0 for run in told)
            for gpu, free in gpus.items():
                here = sum(on == gpu and process.poll() is None for on, process in runs.values())
                if waiting and here < at_once(free, peak):
                    seed = waiting.pop(0)
                    folder = json.dumps(str(folders[seed]), ensure_ascii=False)  # as YAML reads it
                    keys = [f"seed={seed}", "seeds=null", f"output_dir={folder}"]
                    runs[seed] = gpu, _start([*command, *keys], gpu, f"seed {seed}", console)
            time.sleep(0.5)
    finally:
        for _, process in runs.values():
            process.terminate()
            process.wait()
    codes = {seed: process.returncode for seed, (_, process) in runs.items()}
    if failed := [f"seed {seed} (exit code {code})" for seed, code in codes.items() if code]:
        raise TangevalError(f"seeds: failed: {', '.join(failed)}; the same command tries these again")


def at_once(free: int, peak: float) -> int:
    """Return how many runs of ``peak`` GiB fit ``free`` MiB, a quarter and 1 GiB to spare; 1 if unknown or none."""
    return max(1, int(free / 1024 / (1.25 * peak + 1))) if peak else 1


def free_memory() -> dict[str, int]:
    """Return the free MiB of each GPU that this process may use, by UUID; none where nvidia-smi tells of none."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    query = ["--query-gpu=uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = check_output(["nvidia-smi", *query, *([] if chosen is None else ["-i", chosen])], text=True)
    except (OSError, CalledProcessError):
        return {}
    # A GPU that shares the machine's memory tells [N/A].
    return {
        uuid: int(free) if free.isdigit() else 0 for uuid, free in (t.split(", ") for t in told.splitlines())
    }


def _start(command: list[str], gpu: str, name: str, console: SafeConsole) -> Popen[str]:
    """Start a run on a GPU, and a thread that prints its lines under its name."""
    here = os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
    process = Popen(command, stdout=PIPE, stderr=STDOUT, encoding="utf-8", errors="replace", env=here)

    def tell() -> None:
        for line in process.stdout or ():
            console.say(f"{name}: {line.rstrip()}")

    Thread(target=tell).start()
    return process
