"""How often successive halving chooses as the whole grid does, and what it saves.

    python -m benchmarks.halving [RESULTS …] [--by bleu] [--trials 200] [--out results/bench/halving.json]

Runs races on the stored generations of whole grids: each trial resamples the poems and shuffles
the samples, chooses by all samples of all settings, and races for the same choice. Without a results folder it measures
on made-up studies what the winner's value owes to its having been picked, and what the correction leaves of that. Needs
no torch.
"""

from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.command import command_line
from tangeval.analysis.aggregate import Measured
from tangeval.analysis.intervals import Floats
from tangeval.analysis.race import race, spent, successive_halving
from tangeval.core.knobs import COMMON_AXES
from tangeval.core.study import Selection
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics.base import Metric
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG

KEEP = (0.5, 0.25)
POEMS, SETTINGS, SAMPLES = (15, 50, 200), 60, 8
#: Made-up studies: how far settings' truths lie apart, in standard errors of a setting; the standard deviation between
#: poems of what suits a setting; and that between samples.
WORLDS = {"equal": (0.0, 1.0, 1.0), "equal, much noise": (0.0, 0.3, 1.0), "different": (1.0, 0.5, 1.0)}


def main() -> None:
    parser = command_line(__file__, __doc__, out=True)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--by", action="append", help="metrics to choose by (bleu, chrf, rhyme)")
    parser.add_argument("--trials", type=int, default=200)
    options = parser.parse_args()
    if not options.folders:
        worlds = product(POEMS, WORLDS)
        biases = [bias(poems, world, options.trials) for poems, world in worlds]
        write_json(options.out, biases)
        show_biases(biases)
        return
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
            yield name, split, part.sort_values([*COMMON_AXES, "example_id", "sample"])


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


def bias(poems: int, world: str, count: int) -> dict[str, Any]:
    """What the winner's value, as it stands and corrected, is above its truth, in standard errors of a setting."""
    apart, poem, noise = WORLDS[world]
    error = np.sqrt((poem**2 + noise**2 / SAMPLES) / poems)
    rule = Selection.model_validate({"setting": {"by": "chrf"}})
    found, costs, held = [], [], []
    for trial in range(count):
        generator = np.random.default_rng([trial, poems, list(WORLDS).index(world)])
        truths = apart * error * generator.normal(size=SETTINGS)
        own = truths + poem * generator.normal(size=(poems, SETTINGS))
        outputs = own[..., None] + noise * generator.normal(size=(poems, SETTINGS, SAMPLES))
        raced = race(SETTINGS, SAMPLES, poems, partial(measured, outputs), rule, trial)
        value, low, high = (raced.corrected[key] for key in ("value", "low", "high"))
        truth = truths[raced.winner]
        found.append((outputs[:, raced.winner].mean() - truth, value - truth))
        held.append(low <= truth <= high)
        costs.append((spent(raced.rounds), raced.on_top))
    naive, corrected = np.mean(found, axis=0) / error
    unsure = float(np.std(found, axis=0)[1] / error / np.sqrt(count))
    cost, on_top = np.mean(costs, axis=0) / (SETTINGS * SAMPLES)
    return {
        "poems": poems, "world": world, "trials": count, "naive": naive, "corrected": corrected, "error": unsure,
        "left": corrected / naive, "covers": float(np.mean(held)), "cost": cost, "on_top": on_top,
    }  # fmt: skip


def measured(outputs: Floats, places: Sequence[int], have: int) -> Measured:
    """What the first samples of some settings are worth, by a metric that is a mean."""
    by_poem = {"chrf": outputs[:, list(places), :have].mean(axis=2)}
    value = {name: each.mean(axis=0) for name, each in by_poem.items()}
    knobs, names = pd.DataFrame({"place": places}), tuple(map(str, range(len(outputs))))
    return Measured(TANG.metrics, knobs, names, have, value, by_poem, {})


def show_biases(rows: Sequence[dict[str, Any]]) -> None:
    table = Table(
        "poems", "world", "naive bias", "corrected", "±", "left", "interval holds", "generations", "on top"
    )
    for row in rows:
        errors = (f"{row[key]:.2f}" for key in ("naive", "corrected", "error"))
        shares = (f"{row[key]:.0%}" for key in ("left", "covers", "cost", "on_top"))
        table.add_row(str(row["poems"]), row["world"], *errors, *shares)
    Console(width=120).print(table)


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
