"""How long scoring and summarising take, and how much memory, as generations grow.

    python -m benchmarks.scale [0.1 1 10] [--folder results/bench/scale]

For each number of million generations a results folder is made up: 10 checkpoints × settings × HW5's 215
poems × 4 samples in batch files of up to 8,000, verse of right and of wrong form, of which two fifths are
distinct for a checkpoint and a poem, as in ``studies/quickstart.yaml``. Then each step runs in a process
of its own; memory is that of all of its processes together, looked at ten times a second, and beside the
seconds stand those that the cores were at work. What is done already, by ``scale.json``, is not done
again. The numbers mean nothing. Needs no torch, and Linux.
"""

import json
import random
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.command import command_line
from benchmarks.report import manifest
from tangeval import api
from tangeval.analysis import scoring as score
from tangeval.analysis import select, summarize, variance
from tangeval.core.digest import digest
from tangeval.core.knobs import Setting
from tangeval.core.study import Study
from tangeval.reporting import figures, tables
from tangeval.reporting.page import build
from tangeval.results.files import write_json, write_parquet, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, write_plan
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import clauses, line_length, punctuate

CHECKPOINTS, SAMPLES, SEQUENCES = 10, 4, 8000
DISTINCT = 0.4
#: Levels of temperature, top_k, top_p and max_length, by millions of generations.
GRIDS = {0.1: (3, 2, 2, 1), 1: (5, 4, 3, 2), 3: (10, 4, 3, 3), 10: (20, 5, 4, 3)}
STEPS = ("score", "summarize", "variance", "select", "tables", "figures", "page")


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("millions", nargs="*", type=float, default=[0.1, 1, 10], help=f"of {list(GRIDS)}")
    parser.add_argument("--folder", type=Path, default=Path("results/bench/scale"))
    parser.add_argument("--step", choices=STEPS, help="only this step, in this process")
    options = parser.parse_args()
    if options.step:
        step(options.step, options.folder)
        return
    for millions in options.millions:
        folder = options.folder / f"{millions:g}m"
        file = folder / "scale.json"
        told = json.loads(file.read_text()) if file.is_file() else {}
        if "generations" not in told:
            began = time.perf_counter()
            told = {"generations": made_up(folder, GRIDS[millions])}
            print(
                f"{told['generations']:,} generations made up in {time.perf_counter() - began:.0f} s",
                flush=True,
            )
            write_json(file, told)
        for name in STEPS:
            if name not in told:
                told[name] = timed(
                    [sys.executable, "-m", "benchmarks.scale", "--step", name, "--folder", str(folder)]
                )
                write_json(file, told)
            print(
                f"{told['generations']:,} {name}: {told[name]['seconds']:.0f} s ({told[name]['cpu_seconds']:.0f} of cores), {told[name]['gib']:.2f} GiB",
                flush=True,
            )


def step(name: str, folder: Path) -> None:
    """One step of ``tangeval.api.summarize`` and ``select``."""
    results = api.load_results(folder)
    study = results.study
    if name == "score":
        score.score(study, results.dataset, folder)
    elif name == "summarize":
        summarize.summarize(RunFolder(folder))
    elif name == "variance":
        variance.write_variance(RunFolder(folder))
    elif name == "select":
        select.select(study, RunFolder(folder))
    elif name == "page":
        build.write(study, results.dataset, folder)
    else:
        run, metrics = RunFolder(folder), TANG.metrics
        frames = [
            run.read_table(name).copy() for name in ("summary", "effects", "checkpoints", "likelihood_curve")
        ]
        summary = summarize.Summary(*frames[:3], frames[3].astype({"group": str}))
        if name == "tables":
            tables.write(summary, metrics, run.tables, by="bleu")
        else:
            figures.draw(summary, run.read_table("variance"), metrics, run.figures, by="bleu")


def timed(command: list[str]) -> dict[str, float]:
    """Seconds, and the most memory that the command and its children had at one time."""
    began, most, before = time.perf_counter(), 0, worked()
    process = subprocess.Popen(command)
    while process.poll() is None:
        most = max(most, sum(map(resident, tree(process.pid))))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return {
        "seconds": round(time.perf_counter() - began, 1), "cpu_seconds": round(worked() - before, 1),
        "gib": round(most / 2**30, 3),
    }  # fmt: skip


def worked() -> float:
    """Seconds that cores have worked for processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def tree(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return []
    return [pid, *(each for child in children for each in tree(int(child)))]


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):  # it has just ended
        return 0


def made_up(folder: Path, levels: tuple[int, ...]) -> int:
    """Write plan, batch files, likelihoods and manifest; return how many generations there are."""
    study, data = declared(levels), dataset.load("hw5")
    run, settings = RunFolder(folder), study.decoding.settings()
    names = ["base", *(f"checkpoint-{65 * n}" for n in range(1, CHECKPOINTS))]
    pool: dict[int, list[str]] = {}
    for example in data.split("train"):
        pool.setdefault(line_length(example.input), []).extend(clauses(example.reference))
    size = max(1, SEQUENCES // (len(settings) * SAMPLES))
    batches = []
    for name, split in product(names, study.ordered_splits()):
        examples = data.split(split)
        for begin in range(0, len(examples), size):
            some = examples[begin : begin + size]
            batch = Batch(
                digest([name, split, begin]),
                name,
                "",
                tuple(e.id for e in some),
                tuple(range(SAMPLES)),
                settings,
            )
            write_parquet(
                run.batch_file(batch.id),
                pd.concat([batch_file(batch, e, pool) for e in some], ignore_index=True),
            )
            batches.append(batch)
    write_plan(run, batches)
    write_json(run.manifest_file, manifest(names, data))
    write_text(run.study_file, study.to_yaml())
    noise = np.random.default_rng(0)
    rows = [(n, None, s, e.id, noise.normal(5, 1), "5", [5.0] * 20)
            for n, s in product(names, study.ordered_splits()) for e in data.split(s)]  # fmt: skip
    columns = ["checkpoint", "step", "split", "example_id", "reference_nll", "group", "by_character"]
    write_parquet(run.likelihood_file, pd.DataFrame(rows, columns=columns).astype({"step": "Int64"}))
    return sum(batch.outputs() for batch in batches)


def declared(levels: tuple[int, ...]) -> Study:
    temperatures, top_k, top_p, lengths = levels
    decoding = {
        "temperature": [round(0.1 + 0.05 * n, 2) for n in range(temperatures)], "top_k": [0, 5, 20, 50, 100][:top_k],
        "top_p": [1.0, 0.9, 0.6, 0.3][:top_p], "max_length": [96, 48, 24][:lengths],
    }  # fmt: skip
    rule = {"split": "validation", "checkpoint": "bleu", "setting": {"by": "bleu"}}
    return Study.model_validate(
        {"name": "large", "data": "hw5", "decoding": decoding, "samples": SAMPLES, "select": rule}
    )


def batch_file(batch: Batch, example: dataset.Example, pool: dict[int, list[str]]) -> pd.DataFrame:
    """The rows of one poem: each sample has texts of its own, and settings share them."""
    noise = random.Random(f"{batch.id} {example.id}")
    settings: tuple[Setting, ...] = batch.settings
    distinct = max(1, round(DISTINCT * len(settings)))
    texts: list[str] = []
    for _ in batch.samples:
        own = [verse(noise, pool[line_length(example.input)]) for _ in range(distinct)]
        texts += own + noise.choices(own, k=len(settings) - distinct)
    knobs = {
        k: [getattr(c, k) for c in settings] * SAMPLES
        for k in ("temperature", "top_k", "top_p", "max_length")
    }
    return pd.DataFrame(
        {
            "checkpoint": batch.checkpoint, "step": None if batch.checkpoint == "base" else int(batch.checkpoint[11:]),
            **knobs, "no_repeat_ngram_size": 3, "split": example.split, "example_id": example.id,
            "sample": np.repeat(batch.samples, len(settings)), "text": texts, "n_tokens": list(map(len, texts)),
            "finish_reason": noise.choices(["stop", "length"], [9, 1], k=len(texts)),
        }
    ).astype({"step": "Int64"})  # fmt: skip


def verse(noise: random.Random, pool: list[str]) -> str:
    """Two or six clauses of training poems with a character changed, or in one of five a fault."""
    parts = noise.choices(pool, k=noise.choice((2, 6)))
    fault = noise.randrange(25)
    place = noise.randrange(len(parts[0]))
    parts[0] = parts[0][:place] + noise.choice(parts[1]) + parts[0][place + 1 :]
    if fault == 0:
        parts[1] = parts[1][1:]
    if fault == 1:
        parts[1] = parts[0]
    text = punctuate(parts)
    return text[: -fault - 1] if fault in (2, 3) else text + "a" if fault == 4 else text


if __name__ == "__main__":
    main()
