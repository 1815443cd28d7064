"""How large the page of a large study is, how long it takes to write, and how fast its sliders answer.

    python -m benchmarks.report [--folder results/bench/report] [--checkpoints 5] [--samples 8]

Makes up a results folder of 5 checkpoints × 180 settings × 215 poems × 8 samples (1,548,000 texts), writes
its page in a fresh process, and turns every slider in headless Chromium if one is found. The texts are made
to be hard to pack: settings of one noise share a beginning, and what follows is drawn character by character.
The numbers mean nothing. Needs no torch.
"""

import random
import resource
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.command import command_line
from tangeval import tasks
from tangeval.analysis.summarize import measures
from tangeval.core.knobs import COMMON_AXES
from tangeval.core.study import Study
from tangeval.reporting.page import build as report
from tangeval.results.files import write_csv, write_json, write_parquet, write_text
from tangeval.results.folder import RunFolder
from tangeval.results.plan import Batch, write_plan
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import han
from tests.support.chromium import NoBrowserError, launched

FLAWS = [metric.name for metric in TANG.metrics.values() if metric.flaw]
GRID: dict[str, list[Any]] = {
    "temperature": [0.1, 0.4, 0.7, 1.0, 1.3], "top_k": [0, 5, 50], "top_p": [0.3, 0.6, 0.9, 1.0],
    "max_length": [16, 32, 96],
}  # fmt: skip
#: Milliseconds from a slider's event to the end of the frame that shows it, each slider end to end.
TURN = """async (place) => {
    document.querySelector(place).scrollIntoView();
    await new Promise((done) => setTimeout(done, 1500));
    const times = [], painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    for (const slider of document.querySelectorAll("#knobs input[type=range]:enabled"))
        for (let step = 0; step <= Number(slider.max); step++) {
            const began = performance.now();
            slider.value = step;
            slider.dispatchEvent(new Event("input", {bubbles: true}));
            const ran = performance.now() - began;
            await painted();
            times.push([ran, performance.now() - began]);
        }
    return times;
}"""


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("--folder", type=Path, default=Path("results/bench/report"))
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--write-only", action="store_true", help="Only write the page of the folder.")
    options = parser.parse_args()
    study, data = declared(options.samples)
    if options.write_only:
        began = time.perf_counter()
        _, about = report.write(study, data, options.folder)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"page: {about}; {time.perf_counter() - began:.1f} s, peak {peak:.2f} GiB")
        return
    names = ["base", *(f"checkpoint-{step * 65}" for step in range(1, options.checkpoints))]
    made_up(study, data, names, options.folder)
    # A process of its own, so that its peak is the page's.
    subprocess.run([sys.executable, "-m", "benchmarks.report", "--write-only", "--folder", options.folder,
                    "--samples", str(options.samples)], check=True)  # fmt: skip
    turn_sliders(RunFolder(options.folder).page)


def declared(samples: int) -> tuple[Study, dataset.Dataset]:
    study = Study.model_validate(
        {"name": "large", "data": {"path": "sample", "validation": 200}, "decoding": GRID, "samples": samples,
         "select": None}
    )  # fmt: skip
    return study, dataset.load(study.data_name, study.validation_size)


def made_up(study: Study, data: dataset.Dataset, names: list[str], folder: Path) -> None:
    """Write all that the page is made of."""
    examples = [e for split in study.ordered_splits() for e in data.split(split)]
    settings, samples = study.decoding.settings(), range(study.samples_of("test"))
    letters = "".join(han(e.reference) for e in data.split("train"))
    batches, scores = [], []
    for name, sample in product(names, samples):
        batch = Batch(
            f"b{names.index(name)}_{sample}", name, "", tuple(e.id for e in examples), (sample,), settings
        )
        keys = pd.DataFrame(
            [
                (e.split, e.id, c.temperature, c.top_k, c.top_p, c.max_length)
                for e in examples
                for c in settings
            ],
            columns=["split", "example_id", *COMMON_AXES],
        ).assign(checkpoint=name, step=None, no_repeat_ngram_size=3, sample=sample)
        texts = [text for e in examples for text in endings(f"{sample} {e.id}", name, settings, letters)]
        batch_file = keys.assign(text=texts, n_tokens=40, finish_reason="stop")
        write_parquet(RunFolder(folder).batch_file(batch.id), batch_file)
        noise = np.random.default_rng([sample, names.index(name)])
        flaws = {f: (noise.random(len(keys)) > 0.2).astype(float) for f in FLAWS}
        scores.append(keys[["checkpoint", "example_id", *COMMON_AXES, "sample"]].assign(**flaws))
        batches.append(batch)
    write_plan(RunFolder(folder), batches)
    rows = pd.concat(scores, ignore_index=True)
    # In the order in which generations are read.
    place = rows["example_id"].map({e.id: n for n, e in enumerate(examples)})
    by = rows.assign(place=place, name=rows["checkpoint"].map(names.index))
    write_parquet(
        folder / "scores.parquet", rows.loc[by.sort_values(["name", "place", *COMMON_AXES, "sample"]).index]
    )
    numbers(names, study, folder)
    write_text(folder / "study.yaml", study.to_yaml())
    write_json(folder / "manifest.json", manifest(names, data))


def endings(noise: str, name: str, settings: tuple[Any, ...], letters: str) -> list[str]:
    """A text for each setting: the noise's own, left at a place of the setting's, and cut at max_length."""
    own, other = random.Random(noise), random.Random(f"{noise} {name}")
    common, sequences = own.choices(letters, k=40), {}
    for sequence in dict.fromkeys(setting.sequence for setting in settings):
        at = other.randrange(40)
        text = common[:at] + other.choices(letters, k=40 - at)
        sequences[sequence] = "".join(c + "，。"[n // 5 % 2] * (n % 5 == 4) for n, c in enumerate(text))
    return [sequences[setting.sequence][: setting.max_length] for setting in settings]


def numbers(names: list[str], study: Study, folder: Path) -> None:
    """summary.csv, effects.csv and checkpoints.csv of random numbers."""
    noise, splits = np.random.default_rng(0), study.ordered_splits()
    columns = measures(tasks.load(study.task).metrics)
    baselines = [{"checkpoint": n, "split": s} for n in ("random", "reference") for s in splits]
    settings = [{"checkpoint": n, "split": s, **dict(zip(COMMON_AXES, (c.temperature, c.top_k, c.top_p, c.max_length), strict=True))}
             for n in names for s in splits for c in study.decoding.settings()]  # fmt: skip
    effects = [{"checkpoint": n, "split": s, "knob": knob, "value": value}
               for n in names for s in splits for knob in COMMON_AXES for value in GRID[knob]]  # fmt: skip
    overall = [{"checkpoint": n, "step": 65 * i, "split": s} for i, n in enumerate(names) for s in splits]
    for file, rows in (("summary", settings), ("effects", effects), ("checkpoints", overall)):
        frame = pd.DataFrame(rows + baselines)
        whole = [k for k in ("top_k", "max_length", "step") if k in frame]
        values = pd.DataFrame(noise.random((len(frame), len(columns))), columns=columns)
        frame = pd.concat([frame.astype(dict.fromkeys(whole, "Int64")), values], axis=1)
        write_csv(
            folder / f"{file}.csv", frame.assign(no_repeat_ngram_size=3, poems=200, samples=8, n_tokens=40)
        )


def manifest(names: list[str], data: dataset.Dataset) -> dict[str, Any]:
    checkpoints = [{"name": n, "step": None, "kind": "adapter", "path": None, "fingerprint": "", "seen": None}
                   for n in names]  # fmt: skip
    return {
        "schema": 1, "tangeval": "0", "study": "large", "seed": 42, "signature": "made up", "engine": "none",
        "noise": "made up", "data": {"name": data.name, "digest": data.digest},
        "base_model": {"name": "none", "fingerprint": ""}, "checkpoints": checkpoints, "left_out": [],
        "versions": {}, "hardware": {},
    }  # fmt: skip


def turn_sliders(page: Path) -> None:
    try:
        with launched() as browser:
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            began = time.perf_counter()
            tab.goto(f"{page.resolve().as_uri()}#tab=explore")
            tab.wait_for_selector("[data-ready]", state="attached")
            opened = time.perf_counter() - began
            moved = {place: tab.evaluate(TURN, place) for place in ("#knobs", "#curves", "#heat")}
    except NoBrowserError as error:
        print(f"sliders not measured: {error}")
        return
    print(f"opened in {opened:.1f} s")
    for place, times in moved.items():
        ran, painted = zip(*times, strict=True)
        print(f"slider, {place} on the screen: scripts {median(ran):.0f} ms, until painted {median(painted):.0f} ms, "
              f"at most {max(painted):.0f} ms of {len(times)} moves")  # fmt: skip


if __name__ == "__main__":
    main()
