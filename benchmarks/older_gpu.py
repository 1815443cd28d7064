"""What a command takes on a GPU like a T4: 16 GB, no bfloat16, nothing that wants Ampere; a newer one is held to that.

    python -m benchmarks.older_gpu demo
    python -m benchmarks.older_gpu --memory-gib 14.7 hw5 exp1

Runs ``tangeval`` with these arguments, and the processes that it starts, each of which is told that its GPU is of compute
capability 7.5; PyTorch gives each no more memory. Prints the seconds, and each process's peak. It is no measure of a
T4's speed: it shows which ways are taken, and that they fit.
"""

import argparse
import atexit
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CAPABILITY = (7, 5)
#: GiB, and where processes say what they took.
_HELD, _PEAKS = "OLDER_GPU_GIB", "OLDER_GPU_PEAKS"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--memory-gib", type=float, default=14.7, help="what a card of 16 GB leaves a program"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="tangeval's arguments")
    options = parser.parse_args()
    with TemporaryDirectory() as place:
        # Python imports this before anything else, in the command and in what it starts.
        Path(place, "sitecustomize.py").write_text("from benchmarks.older_gpu import hold\nhold()\n")
        here, peaks = str(Path(__file__).parents[1]), Path(place, "peaks")
        paths = os.pathsep.join([place, here, os.environ.get("PYTHONPATH", "")])
        said = {"PYTHONPATH": paths, _HELD: str(options.memory_gib), _PEAKS: str(peaks)}
        for each in (signal.SIGINT, signal.SIGTERM):  # the command ends itself; what it took is still said
            signal.signal(each, lambda *_: None)
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "tangeval", *options.command], env=os.environ | said)
        print(f"{time.monotonic() - began:.0f} s of the clock, exit code {done.returncode}")
        print(peaks.read_text() if peaks.is_file() else "no process used a GPU")
    sys.exit(done.returncode)


def hold() -> None:
    """Let PyTorch in this process give no more than a T4 has, and say that its GPU is one."""
    import torch

    room, properties, free = (
        int(float(os.environ[_HELD]) * 2**30), torch.cuda.get_device_properties, torch.cuda.mem_get_info,
    )  # fmt: skip

    class Card:
        """A GPU's properties, but for the three that are changed."""

        def __init__(self, own: Any) -> None:
            self._own, self.major, self.minor = own, *CAPABILITY
            self.total_memory = min(room, own.total_memory)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._own, name)

    def left(*device: Any, **named: Any) -> tuple[int, int]:
        return min(free(*device, **named)[0], room - torch.cuda.memory_reserved()), room

    def tell() -> None:
        if torch.cuda.is_initialized():
            with Path(os.environ[_PEAKS]).open("a") as file:
                peak = torch.cuda.max_memory_reserved() / 2**30
                print(f"{peak:6.2f} GiB {' '.join(sys.argv)[:90]}", file=file)

    torch.cuda.get_device_properties = lambda *device, **named: Card(properties(*device, **named))
    torch.cuda.get_device_capability = lambda *device, **named: CAPABILITY
    torch.cuda.mem_get_info = left
    torch.cuda.is_bf16_supported = lambda including_emulation=True: bool(including_emulation)
    torch.backends.cuda.enable_flash_sdp(False)
    torch.cuda._lazy_call(
        lambda: torch.cuda.set_per_process_memory_fraction(room / properties(0).total_memory)
    )
    atexit.register(tell)


if __name__ == "__main__":
    main()
