"""How often successive halving chooses as the whole grid does, and what it saves.

    python -m benchmarks.halving RESULTS [RESULTS …] [--by bleu] [--trials 200] [--out results/bench/halving.json]

Runs races on the stored generations of whole grids: each trial resamples the poems and shuffles
the samples, chooses by all samples of all settings, and races for the same choice. Needs no torch.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from tangeval.analysis.intervals import Floats
from tangeval.analysis.successive_halving import spent, successive_halving
from tangeval.core.knobs import AXES
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics.base import Metric
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG

KEEP = (0.5, 0.25)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.halving", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--by", action="append", help="metrics to choose by (bleu, chrf, rhyme)")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("results/bench/halving.json"))
    options = parser.parse_args()
    rows = [
        {"folder": folder.name, "checkpoint": name, "split": split, "by": by, **row}
        for folder in options.folders
        for name, split, part in checkpoints(folder)
        for by in options.by or ("bleu", "chrf", "rhyme")
        for row in trials(part, TANG.metrics[by], options.trials)
    ]
    write_json(options.out, rows)
    show(pd.DataFrame(rows))


def checkpoints(folder: Path) -> Any:
    """Each fine-tuned checkpoint's scores on each split that has several samples."""
    scores = pd.concat(RunFolder(folder).scores(), ignore_index=True)
    runs = scores[~scores["checkpoint"].isin([BASE, RANDOM, REFERENCE])]
    for (name, split), part in runs.groupby(["checkpoint", "split"], sort=False):
        if part["sample"].nunique() > 1:
            yield name, split, part.sort_values([*AXES, "example_id", "sample"])


def trials(part: pd.DataFrame, by: Metric, count: int) -> list[dict[str, Any]]:
    """The share of races that end as the whole does, what they cost, and what a wrong choice loses."""
    poems, samples = part["example_id"].nunique(), part["sample"].nunique()
    columns = list(by.counts or [by.name])
    cube = part[columns].to_numpy(float).reshape(-1, poems, samples, len(columns))
    sign = 1 if by.better == "high" else -1
    generator = np.random.default_rng(0)
    outcomes: dict[float, list[tuple[bool, float, float, float]]] = {keep: [] for keep in KEEP}
    for _ in range(count):
        weights = generator.multinomial(poems, np.full(poems, 1 / poems)).astype(float)
        values = sign * by_sample(cube[:, :, generator.permutation(samples)], weights, by)  # [C, S]
        whole = values.mean(axis=1)

        def rank(places: Sequence[int], have: int, values: Floats = values) -> list[int]:
            means = values[list(places), :have].mean(axis=1)
            return [places[i] for i in np.argsort(-means, kind="stable")]

        spread = whole.std()
        for keep in KEEP:
            rounds = successive_halving(len(values), samples, rank, keep)
            lost = whole.max() - whole[rounds[-1].kept[0]]
            cost = spent(rounds) / values.size
            outcomes[keep].append((bool(lost < 1e-12), cost, lost, lost / spread if spread else 0.0))
    return [
        {
            "keep": keep, "settings": len(cube), "poems": poems, "samples": samples,
            **dict(zip(("same", "cost", "lost", "lost_in_deviations"), np.mean(found, axis=0).tolist(), strict=True)),
        }
        for keep, found in outcomes.items()
    ]  # fmt: skip


def by_sample(cube: Floats, weights: Floats, by: Metric) -> Floats:
    """The value of each setting by each sample alone: ``[C, P, S, columns]`` → ``[C, S]``."""
    sums = np.einsum("cpsk,p->csk", cube, weights)
    value: Floats = by.score(sums) if by.counts else sums[..., 0] / weights.sum()
    return value


def show(frame: pd.DataFrame) -> None:
    table = Table(
        "results",
        "split",
        "by",
        "settings × samples",
        "kept a round",
        "same choice",
        "generations",
        "lost [deviations of settings]",
    )
    keys = ["folder", "split", "by", "settings", "samples", "keep"]
    for key, part in frame.groupby(keys, sort=False):
        folder, split, by, settings, samples, keep = key
        table.add_row(
            folder, split, by, f"{settings} × {samples}", f"{keep:.0%}", f"{part['same'].mean():.0%}",
            f"{part['cost'].mean():.0%}", f"{part['lost_in_deviations'].mean():.3f}",
        )  # fmt: skip
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
