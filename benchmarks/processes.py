"""What several GPUs, or several cores of a CPU, bring: one study decoded by ever more processes, in one run.

    python -m benchmarks.processes STUDY --gpus 1 2 4 [--ray] [key=value …]
    python -m benchmarks.processes STUDY --processes 1 2 [--busy] [key=value …]

Each row is one `tangeval generate` from its start to its end, in a folder of its own: seconds in all, until the first
batch is written, and from there to the end; and how many times as fast as the first row. ``--busy`` runs the last row
once more beside an endless loop on every core; ``--ray`` runs the study once more by the Ray cluster that this machine is a
node of. The batch files must be the same bytes in all rows.
"""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.command import command_line


class Run(NamedTuple):
    """Seconds of one run, and the digest of what it wrote."""

    whole: float
    first: float
    digest: str


def run(study: Path, where: list[str]) -> Run:
    """Return what one run of ``tangeval generate`` took."""
    with TemporaryDirectory() as place:
        folder, began, first = Path(place) / "results", time.monotonic(), None
        command = [sys.executable, "-m", "tangeval", "generate", str(study), "--quiet", "--out", str(folder)]
        process = subprocess.Popen([*command, *where])
        while process.poll() is None:
            time.sleep(0.1)
            if first is None and any(folder.glob("generations/*.parquet")):
                first = time.monotonic() - began
        whole = time.monotonic() - began
        if process.returncode:
            sys.exit(process.returncode)
        written = hashlib.sha256()
        for file in sorted(folder.glob("generations/*.parquet")):
            written.update(file.name.encode() + file.read_bytes())
        return Run(whole, first or whole, written.hexdigest())


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("study", type=Path)
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--gpus", type=int, nargs="+")
    how.add_argument("--processes", type=int, nargs="+")
    parser.add_argument("--busy", action="store_true", help="once more beside an endless loop on every core")
    parser.add_argument("--ray", action="store_true", help="once more with --on ray")
    parser.add_argument("overrides", nargs="*")
    options, more = parser.parse_known_args()
    overrides = [*options.overrides, *more]

    def where(number: int) -> list[str]:
        if options.gpus:
            return ["--gpus", str(number), *overrides]
        return [f"engine={{kind: local, processes: {number}}}", *overrides]

    numbers = options.gpus or options.processes
    rows = []
    for number in numbers:
        rows.append(run(options.study, where(number)))
        show(str(number), rows)
    if options.ray:
        rows.append(run(options.study, ["--on", "ray", *overrides]))
        show("Ray", rows)
    if options.busy:
        loops = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)
        ]
        try:
            rows.append(run(options.study, where(numbers[-1])))
        finally:
            for loop in loops:
                loop.kill()
        show(f"{numbers[-1]}, busy", rows)
    print("the same bytes" if len({row.digest for row in rows}) == 1 else "OTHER BYTES")


def show(name: str, rows: list[Run]) -> None:
    """Print the last row beside the first."""
    (first, *_), last = rows, rows[-1]
    after = (first.whole - first.first) / (last.whole - last.first)
    print(
        f"{name:>9}: {last.whole:6.1f} s ({first.whole / last.whole:.2f} times as fast), the first batch after "
        f"{last.first:.1f} s, from there {last.whole - last.first:.1f} s ({after:.2f}); files {last.digest[:8]}",
        flush=True,
    )


if __name__ == "__main__":
    main()
