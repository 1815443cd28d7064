"""How long a class takes: `tangeval class` on made-up students.

    python -m benchmarks.classroom [--students 500] [--out results/bench/classroom.json]

Writes a results.txt of HW5's 15 poems for each student (other poems' endings, some cut off), and times the command in
a process of its own, import and page included. Needs HW5's data; needs no torch.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.command import command_line
from tangeval.results.files import write_json
from tangeval.tasks.tang import TANG, results_txt
from tangeval.tasks.tang import data as dataset


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("--students", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_class(Path(folder) / "students", options.students)
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        asked = ["class", f"{folder}/students", "--out", f"{folder}/out", "--data", "hw5"]
        subprocess.run([sys.executable, "-m", "tangeval", *asked], check=True, stdout=subprocess.DEVNULL)
        seconds, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        size = (Path(folder) / "out" / "class.html").stat().st_size
    report = {
        "students": options.students, "seconds": seconds, "cpu_seconds": used.ru_utime - before.ru_utime,
        "peak_gib": used.ru_maxrss / 2**20, "page_mb": size / 1e6,
    }  # fmt: skip
    print(", ".join(f"{name} {value:.3g}" for name, value in report.items()))
    write_json(options.out, report)


def make_class(folder: Path, students: int) -> None:
    """Write a results.txt for each student; how many of the endings are cut off differs between students."""
    data, noise = dataset.load("hw5"), random.Random(0)
    poems = data.split("test")
    pools = [TANG.baseline(data, poem, 1, 400) for poem in poems]
    for number in range(students):
        share, texts = noise.random(), [noise.choice(pool) for pool in pools]
        own = folder / f"b{number:04}"
        own.mkdir(parents=True)
        cut = [text if noise.random() < share else text[:-3] for text in texts]
        (own / "results.txt").write_text(results_txt(poems, cut), "utf-8")


if __name__ == "__main__":
    main()
