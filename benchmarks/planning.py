"""What the components of variance and `tangeval plan` promise, measured on simulated poems whose truth is known.

    python -m benchmarks.planning [--quick] [--real results/grid …] [--out results/bench/planning.json]

(a) The components of variance of grids whose components are known, beside shares of sums of squares.
(b) The power of studies that pilots of 15 and 50 poems plan, by the limit of the pilot's spread and by the spread
    as it stands; of simulated scores, and of the scores of results folders, whose poems are then the population.

Prints tables and writes JSON.
"""

import math
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import special

from benchmarks.command import command_line
from tangeval.analysis.hypothesis_tests import ERROR, family_tests, poems_needed, power_of
from tangeval.analysis.intervals import Floats
from tangeval.analysis.planning import compared, deviation
from tangeval.analysis.variance import by_poem, components
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder

#: Draws scores ``[settings, poems, samples]``.
World = Callable[[np.random.Generator, int, int, int], Floats]
TERMS = ("poem", "poem × setting", "noise", "noise × setting")
#: Components in percent: those of four metrics of the reference results, and noise alone.
GRIDS = {
    "BLEU": (24, 17, 3, 56),
    "form": (10, 25, 2, 63),
    "poems": (60, 20, 10, 10),
    "noise alone": (0, 0, 0, 100),
}
PILOTS, SETTINGS, SAMPLES = (15, 50), (2, 12), (1, 8)
#: The study that an exact plan would have, in poems.
EXACT = 120
METRICS = ("form", "rhyme", "chrf", "length_match")


def main() -> None:
    parser = command_line(__file__, __doc__, quick="runs", out=True)
    parser.add_argument(
        "--real", type=Path, nargs="*", default=[], help="results folders of two settings and samples"
    )
    options = parser.parse_args()
    begin, runs = time.perf_counter(), 60 if options.quick else 600
    report: dict[str, Any] = {"components": grids(runs), "plans": plans(runs)}
    report["real"] = [row for folder in options.real for row in real(folder, runs)]
    report["seconds"] = time.perf_counter() - begin
    write_json(options.out, report)
    show(report)


# (a) Components


def grids(runs: int) -> list[dict[str, Any]]:
    """Each term's share in truth, estimated, and of the sums of squares: 60 settings, 50 poems, 2 samples."""
    rows = []
    for name, truth in GRIDS.items():
        generator = np.random.default_rng(0)
        tables = [normal(generator, 60, 50, 2, truth) for _ in range(runs // 10)]
        found = [components(y, ["setting"]) for y in tables]
        estimated = [[each[term] / sum(each.values()) for term in TERMS] for each in found]
        printed = [squares(y) for y in tables]
        for place, term in enumerate(TERMS):
            values = {"truth": truth[place], "estimated": 100 * np.mean(estimated, axis=0)[place]}
            rows.append(
                {"grid": name, "term": term, **values, "squares": 100 * np.mean(printed, axis=0)[place]}
            )
    return rows


def squares(y: Floats) -> list[float]:
    """The terms' shares of the sum of squares: what `variance.csv` was before."""
    y = y - y.mean(axis=(1, 2), keepdims=True)
    poem, mixed, noise = (y.mean(axis=axes, keepdims=True) for axes in ((0, 2), 2, 0))
    parts = (poem, mixed - poem, noise - poem, y - mixed - noise + poem)
    return [float((part**2).mean() / (y**2).mean()) for part in parts]


# (b) Plans


def normal(generator: np.random.Generator, settings: int, poems: int, samples: int, parts: Any) -> Floats:
    """Scores that are the sum of the four ``TERMS``, of variances ``parts``."""
    shapes = ((1, poems, 1), (settings, poems, 1), (1, poems, samples), (settings, poems, samples))
    drawn = (math.sqrt(part) * generator.normal(size=s) for part, s in zip(parts, shapes, strict=True))
    return sum(drawn, np.zeros(()))


def share(generator: np.random.Generator, settings: int, poems: int, samples: int, rate: float) -> Floats:
    """Scores of 0 and 1: whether a normal variable is below the threshold of ``rate``."""
    values = normal(generator, settings, poems, samples, (1, 1, 0.5, 0.5))
    return (values < special.ndtri(rate) * math.sqrt(3)).astype(float)


def skewed(generator: np.random.Generator, settings: int, poems: int, samples: int) -> Floats:
    return np.exp(normal(generator, settings, poems, samples, (0.6, 0.25, 0.1, 0.4)))


WORLDS: dict[str, World] = {
    "normal": partial(normal, parts=GRIDS["form"]),
    **{f"share {rate}": partial(share, rate=rate) for rate in (0.5, 0.9, 0.97)},
    "skewed": skewed,
}


def plans(runs: int) -> list[dict[str, Any]]:
    """Plans of simulated pilots; the truth is that of 200,000 poems."""
    rows = []
    for (name, draw), samples in product(WORLDS.items(), SAMPLES):
        a, b = draw(np.random.default_rng(1), 2, 200_000, samples).mean(axis=-1)
        for poems, settings in product(PILOTS, SETTINGS):
            generator = np.random.default_rng([poems, settings, samples])
            pilot = partial(draw, generator, settings, poems, 2)
            study = partial(_two, draw, generator, samples)
            about = {"world": name, "poems": poems, "settings": settings, "samples": samples}
            rows.append(about | planned(pilot, study, float((a - b).std()), samples, runs))
    return rows


def _two(draw: World, generator: np.random.Generator, samples: int, poems: int) -> Floats:
    return draw(generator, 2, poems, samples)


def real(folder: Path, runs: int) -> list[dict[str, Any]]:
    """Plans by pilots of two samples of some of a folder's poems; the truth is that of all of its poems.

    The effect is added to the difference of two settings of one checkpoint, both drawn at random.
    """
    rows, run = [], RunFolder(folder)
    for metric, between, y in compared(run, "validation", METRICS):
        if between != "two settings" or not (whole := by_poem(y, run.noise_shared))[0].any():
            continue
        for poems, samples in product(PILOTS, (1, y.shape[-1])):
            generator = np.random.default_rng([poems, samples])
            sd = math.sqrt(2 * (whole[0] + whole[1] / samples).mean())
            pilot = partial(some, generator, y, poems, 2)
            study = partial(pair, generator, y, samples=samples)
            about = {"world": f"{run.study.name} {metric}", "poems": poems, "samples": samples}
            rows.append(about | planned(pilot, study, sd, samples, runs))
    return rows


def some(generator: np.random.Generator, y: Floats, poems: int, samples: int) -> Floats:
    """The scores of some poems, drawn with replacement, and of some of each one's samples."""
    drawn = generator.integers(y.shape[-2], size=(poems, 1))
    order = generator.permuted(np.tile(np.arange(y.shape[-1]), (poems, 1)), axis=1)
    return y[..., drawn, order[:, :samples]]


def pair(generator: np.random.Generator, y: Floats, poems: int, samples: int) -> Floats:
    """Such scores of two settings of one checkpoint, less their means over all poems: nothing differs."""
    checkpoint, settings = generator.integers(len(y)), generator.permutation(y.shape[1])[:2]
    own = y[checkpoint, settings]
    return some(generator, own - own.mean(axis=(-2, -1), keepdims=True), poems, samples)


def planned(
    pilot: Callable[[], Floats], study: Callable[..., Floats], sd: float, samples: int, runs: int
) -> dict[str, float]:
    """What pilots plan to show the effect that ``EXACT`` poems show, and the power of what they plan, in percent.

    ``refused`` are pilots that do not vary; the others' studies are drawn and tested.
    """
    effect, powers, plain, shown, limits = 2.8 * sd / math.sqrt(EXACT), [], [], [], []
    for _ in range(runs):
        parts = by_poem(pilot(), shared=True)
        limit = deviation(parts, samples)
        if not limit > 0:
            continue
        poems = poems_needed(limit, effect)
        limits.append(limit >= sd)
        powers.append(power_of(sd, effect, poems))
        a, b = study(poems=poems).mean(axis=-1)
        shown.append(family_tests([b - a + effect], 0).p[0] <= ERROR)
        estimate = 2 * max((parts[0] + parts[1] / samples).mean(), parts[1].mean() / samples)
        plain.append(power_of(sd, effect, poems_needed(math.sqrt(estimate), effect)) if estimate > 0 else 0.0)
    found = {"holds": limits, "power": powers, "shown": shown, "plain": plain}
    below = {"below 70": np.array(powers) < 0.7, "plain below 70": np.array(plain) < 0.7}
    means = {name: 100 * float(np.mean(values)) for name, values in (found | below).items()}
    return means | {"refused": 100 * (1 - len(powers) / runs)}


def show(report: dict[str, Any]) -> None:
    console = Console(width=140)
    for name in ("components", "plans", "real"):
        if rows := report[name]:
            table = Table(*rows[0], title=name, title_justify="left")
            for row in rows:
                table.add_row(*(f"{v:.1f}" if isinstance(v, float) else str(v) for v in row.values()))
            console.print(table)
    console.print(f"{report['seconds']:.0f} s")


if __name__ == "__main__":
    main()
