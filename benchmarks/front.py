"""How often a setting that is truly on the front of two metrics is called dominated, and how often one that is not.

    python -m benchmarks.front [--quick] [--out results/bench/front.json]

Simulates studies whose truth is known. Needs no torch.
"""

from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.command import command_line
from tangeval.analysis.dominance import dominated_by, on_front
from tangeval.analysis.intervals import Floats
from tangeval.results.files import write_json

POEMS, SETTINGS, SAMPLES, RUNS = (15, 50, 200), 12, 4, 300
FAR = 1.0  # in standard deviations of what poems have in common: seen with 15 poems
#: A world: how far each setting is truly above the one before it in the first metric and in the second. ``tied`` is the
#: worst case of a true front: in the first metric the settings fall by next to nothing, in the second they rise by much.
WORLDS = {"equal": (0.0, 0.0), "tied": (0.0, FAR), "ordered": (0.25, 0.25)}


def main() -> None:
    options = command_line(__file__, __doc__, quick="runs", out=True).parse_args()
    runs = RUNS // 10 if options.quick else RUNS
    cells = product(("normal", "shares near 1"), WORLDS, POEMS)
    rows = [row(law, world, poems, runs) for law, world, poems in cells]
    write_json(options.out, rows)
    table = Table("law", "world", "poems", "studies with a false one", "of the truly dominated, shown")
    for each in rows:
        known = "" if each["shown"] is None else f"{each['shown']:.0%}"
        table.add_row(each["law"], each["world"], str(each["poems"]), f"{each['false']:.1%}", known)
    Console(width=100).print(table)


def row(law: str, world: str, poems: int, runs: int) -> dict[str, Any]:
    """The share of studies with a false declaration, and of truly dominated settings the share that is shown."""
    false, shown = [], []
    truly = np.arange(SETTINGS) < SETTINGS - 1 if world == "ordered" else np.zeros(SETTINGS, bool)
    for run in range(runs):
        generator = np.random.default_rng([run, poems, len(law), list(WORLDS).index(world)])
        by_poem = study(generator, law, poems, WORLDS[world])
        found = dominated_by(by_poem, on_front(by_poem.mean(axis=1)), run) >= 0
        false.append(found[~truly].any())
        shown.append(found[truly].mean() if truly.any() else np.nan)
    power = None if world != "ordered" else float(np.mean(shown))
    return {
        "law": law,
        "world": world,
        "poems": poems,
        "runs": runs,
        "false": float(np.mean(false)),
        "shown": power,
    }


def study(generator: np.random.Generator, law: str, poems: int, steps: tuple[float, float]) -> Floats:
    """Two metrics of settings that share poems and some noise: ``[2, P, C]``."""
    size = (2, poems, SETTINGS)
    place = np.array(steps)[:, None, None] * np.arange(SETTINGS)
    shared, own = generator.normal(size=(2, poems, 1)), generator.normal(size=size)
    if law == "normal":
        return place + shared + 0.7 * own
    # Each sample passes where a latent normal is above a bar: 98 % of those of the best setting do.
    bar = -2.05 * np.sqrt(1 + 0.7**2 + 1)
    latent = place - place.max(axis=2, keepdims=True) + shared + 0.7 * own
    noise = generator.normal(size=(SAMPLES, *size))
    passed: Floats = (latent + noise > bar).mean(axis=0)
    return passed


if __name__ == "__main__":
    main()
