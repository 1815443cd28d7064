"""How long scoring takes, and the intervals and comparisons of a large grid.

    python -m benchmarks.score [--generations 100000] [--settings 720] [--out results/bench/score.json]

Scores distinct made-up endings (clauses of training poems at random, so that nothing is found in
a cache) with every metric but the judge; then measures one checkpoint's ``--settings`` settings of 200
poems and 8 samples, their intervals, by each metric the best setting against all others, and what samples know. Times are of the
processor, so that a busy machine changes them little. Needs no torch.
"""

import random
import resource
import time
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.command import command_line
from tangeval.analysis import scoring as score
from tangeval.analysis.aggregate import Group, Part, groups, of_level
from tangeval.analysis.headroom import frames, read_outputs
from tangeval.analysis.select import Candidate, compared, ranked
from tangeval.core.knobs import COMMON
from tangeval.results.files import write_json
from tangeval.results.folder import NO_LIKELIHOOD
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang import data as dataset
from tangeval.tasks.tang.text import as_verse, clauses, line_length, punctuate

POEMS, SAMPLES = 200, 8


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("--generations", type=int, default=100_000)
    parser.add_argument("--settings", type=int, default=720)
    parser.add_argument("--data", default="hw5")
    options = parser.parse_args()
    data = dataset.load(options.data)
    report: dict[str, Any] = {
        "generations": options.generations,
        "settings": options.settings,
        "data": options.data,
    }
    frame = made_up(data, options.generations)
    began = time.process_time()
    scores = score.score_texts(frame, TANG, data)
    report |= {"score_seconds": time.process_time() - began, "score_peak_gib": peak_gib()}
    print(
        f"{options.generations:,} generations: {report['score_seconds']:.1f} s, {report['score_peak_gib']:.2f} GiB"
    )
    large = spread(scores, options.settings)
    began = time.process_time()
    (group,) = groups(large, NO_LIKELIHOOD, TANG.metrics)
    for place, metric in product(range(options.settings), TANG.metrics):
        Part(group.measured, [place]).interval(metric)
    report["interval_seconds"] = time.process_time() - began
    began = time.process_time()
    report["told_apart"] = against_all(group)
    report |= {"compare_seconds": time.process_time() - began, "peak_gib": peak_gib()}
    print(
        f"{options.settings} settings: intervals of {len(TANG.metrics)} metrics {report['interval_seconds']:.1f} s, by each "
        f"the best against all others {report['compare_seconds']:.1f} s, {report['peak_gib']:.2f} GiB"
    )
    report["headroom_seconds"] = headroom_seconds(large, frame["text"].map(TANG.normalise).tolist())
    print(f"what their samples know: {report['headroom_seconds']:.1f} s")
    write_json(options.out, report)


def headroom_seconds(scores: pd.DataFrame, texts: list[str]) -> float:
    """Return what `tangeval headroom` takes of these scores, as if each output were one of the distinct ``texts``."""
    began, metrics = time.process_time(), {m.name: m for m in of_level(TANG.metrics, "text", "corpus")}
    step, outputs = read_outputs([scores], metrics, "scores")
    size = next(iter(outputs.values.values())).shape
    codes = np.random.default_rng(0).integers(0, len(texts), size)
    labels = {"checkpoint": "made up", "step": step, "split": "validation"}
    list(frames(outputs, codes, texts, metrics, labels, 0))
    return time.process_time() - began


def made_up(data: dataset.Dataset, count: int) -> pd.DataFrame:
    """``count`` distinct outputs for the validation poems, four samples a setting."""
    noise = random.Random(0)
    pool: dict[int, list[str]] = {}
    for example in data.split("train"):
        pool.setdefault(line_length(example.input), []).extend(clauses(example.reference))
    examples = data.split("validation")
    rows = []
    for number in range(count):
        example = examples[number // SAMPLES % len(examples)]
        parts = noise.choices(pool[line_length(example.input)], k=noise.choice((2, 6)))
        text = list(as_verse(punctuate(parts)))
        text[noise.randrange(len(text))] = noise.choice(parts[0])
        rows.append(
            {
                "checkpoint": "made up", "step": 1, "temperature": float(number // (SAMPLES * len(examples))),
                "top_k": 0, "top_p": 1.0, "max_length": 96, "no_repeat_ngram_size": 3, "split": "validation",
                "example_id": example.id, "sample": number % SAMPLES, "text": "".join(text), "n_tokens": 50.0,
                "finish_reason": "stop",
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def spread(scores: pd.DataFrame, settings: int) -> pd.DataFrame:
    """Rows of ``scores`` drawn anew for ``settings`` settings × poems × samples."""
    generator = np.random.default_rng(0)
    grid = pd.DataFrame(
        product(range(settings), range(POEMS), range(SAMPLES)), columns=["setting", "poem", "sample"]
    )
    large = scores.iloc[generator.integers(0, len(scores), len(grid))].reset_index(drop=True)
    return large.assign(
        temperature=grid["setting"] * 0.01,
        example_id="train-" + grid["poem"].astype(str),
        sample=grid["sample"],
    ).astype({"temperature": float})


def against_all(group: Group) -> dict[str, int]:
    """Return by each metric how many settings can be told from its best."""
    settings = [
        Candidate(dict.fromkeys(COMMON), Part(group.measured, [place]))
        for place in range(len(group.measured.knobs))
    ]
    names = [name for name, metric in TANG.metrics.items() if metric.per_setting]
    return {
        name: sum(row["distinguishable"] for row in compared(*ranked(settings, name), name)) for name in names
    }


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
