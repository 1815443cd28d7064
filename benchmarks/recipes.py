"""What ``tangeval.analysis.recipes`` promises, measured on simulated trainings whose truth is known.

    python -m benchmarks.recipes [--quick] [--out results/bench/recipes.json]

(a) How often alike recipes are called different, and how often the interval holds the difference: by poems alone with one
    run each, and over poems and runs.
(b) How often a difference is found with as many runs as ``runs_needed`` says, the spread being known.
(c) How often the interval of τ holds it, and what a two-way bootstrap says of the same error.

The spread of runs, and the error of a paired difference over 200 poems, are those of six training seeds of tang-mini.
"""

import time
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import special

from benchmarks.command import command_line
from tangeval.analysis.intervals import LEVEL, Floats
from tangeval.analysis.recipes import Spread, between_runs, estimate, runs_needed
from tangeval.results.files import write_json

#: τ, and the standard error of the difference of two runs over 200 poems.
METRICS = {
    "length_match": (0.0216, 0.0098),
    "form": (0.0031, 0.0033),
    "chrF": (0.037, 0.025),
    "rhyme": (0.0, 0.0083),
}
RUNS = ((3, 3), (5, 5), (2, 2), (1, 3), (2, 5))
POEMS = (200, 15)
#: How runs differ, in units of τ; the last two with poems that suit one recipe (sd of the rest × 0.7).
LAWS = ("normal", "t, 3 degrees", "normal, poems take sides")
Generator = np.random.Generator


def main() -> None:
    options = command_line(__file__, __doc__, quick="studies", out=True).parse_args()
    begin, studies = time.perf_counter(), 400 if options.quick else 4000
    report: dict[str, Any] = {
        "alike": alike(studies), "shares": shares(studies), "means": means(studies), "power": powers(studies), "tau": taus(studies),
        "bootstrap": bootstraps(studies // 10),
    }  # fmt: skip
    report["seconds"] = time.perf_counter() - begin
    write_json(options.out, report)
    show(report)


def trained(generator: Generator, metric: str, runs: int, law: str, poems: Floats) -> Floats:
    """A recipe's values ``[runs, P]``, ``poems`` being what is the same in all recipes."""
    tau, error = METRICS[metric]
    rest, size = error * np.sqrt(POEMS[0] / 2), (runs, 1)
    run = generator.standard_t(3, size) / np.sqrt(3) if law == LAWS[1] else generator.normal(size=size)
    sides = 0.7 * rest * generator.normal(size=poems.shape) * (law == LAWS[2])
    return 3 * rest * poems + sides + tau * run + rest * generator.normal(size=(runs, len(poems)))


def alike(studies: int) -> list[dict[str, Any]]:
    """Two recipes that are one: the share called different is the share of intervals without the truth."""
    rows = []
    for poems, metric, law, runs in product(POEMS, METRICS, LAWS, ((1, 1), *RUNS)):
        generator, found = np.random.default_rng([1, poems, len(rows)]), 0
        for _ in range(studies):
            same = generator.normal(size=poems)
            found += estimate(*(trained(generator, metric, k, law, same) for k in runs)).p <= 1 - LEVEL
        rows.append(
            {"poems": poems, "metric": metric, "law": law, "runs": runs, "different": found / studies}
        )
    return rows


def shares(studies: int) -> list[dict[str, Any]]:
    """The same of shares near 1: twelve outputs a poem, poems, runs and their pairs being normal on the logits."""
    rows = []
    for poems, rate, tau, runs in product(POEMS, (0.9, 0.97, 0.99), (0.0, 0.3), ((1, 1), *RUNS)):
        generator, found = np.random.default_rng([2, poems, len(rows)]), 0
        for _ in range(studies):
            same = special.logit(rate) + generator.normal(size=poems)
            sides = []
            for k in runs:
                own = tau * generator.normal(size=(k, 1)) + 0.5 * generator.normal(size=(k, poems))
                sides.append(generator.binomial(12, special.expit(same + own)) / 12)
            found += estimate(*sides).p <= 1 - LEVEL
        rows.append({"poems": poems, "rate": rate, "tau": tau, "runs": runs, "different": found / studies})
    return rows


def means(studies: int) -> list[dict[str, Any]]:
    """How often the interval of one recipe holds its value."""
    rows = []
    for poems, metric, runs in product(POEMS, METRICS, (2, 3, 5)):
        generator, held = np.random.default_rng([6, poems, len(rows)]), 0
        for _ in range(studies):
            found = estimate(trained(generator, metric, runs, LAWS[0], generator.normal(size=poems)))
            held += found.low <= 0 <= found.high
        rows.append({"poems": poems, "metric": metric, "runs": runs, "coverage": held / studies})
    return rows


def powers(studies: int) -> list[dict[str, Any]]:
    """How often a difference is found with the runs needed, τ being known and not taken at its upper limit."""
    rows = []
    for metric, effect in (
        ("length_match", 0.05),
        ("length_match", 0.03),
        ("form", 0.01),
        ("form", 0.005),
        ("chrF", 0.1),
    ):
        tau, error = METRICS[metric]
        rest = error**2 * POEMS[0] / 2
        known = Spread(tau**2 + error**2 / 2, 2 * rest, rest, POEMS[0], 2, 10**6)
        runs = int(runs_needed(known, effect, 0.8))
        generator, found = np.random.default_rng([3, len(rows)]), 0
        for _ in range(studies):
            same = generator.normal(size=POEMS[0])
            first, second = (trained(generator, metric, runs, "normal", same) for _ in range(2))
            found += estimate(first + effect, second).p <= 1 - LEVEL
        rows.append({"metric": metric, "effect": effect, "runs": runs, "power": found / studies})
    return rows


def taus(studies: int) -> list[dict[str, Any]]:
    """How often the interval of τ holds it."""
    rows = []
    for metric, law, runs in product(METRICS, LAWS[:2], (3, 5)):
        generator, held = np.random.default_rng([4, len(rows)]), 0
        for _ in range(studies):
            _, low, high = between_runs(
                trained(generator, metric, runs, law, generator.normal(size=POEMS[0]))
            )
            held += low <= METRICS[metric][0] <= high
        rows.append({"metric": metric, "law": law, "runs": runs, "coverage": held / studies})
    return rows


def bootstraps(studies: int) -> list[dict[str, Any]]:
    """The mean standard error of a difference: true, tangeval's, and by drawing runs and poems anew (Owen 2007)."""
    rows = []
    for metric, runs in product(METRICS, (3, 5, 20)):
        generator, values, own, drawn = np.random.default_rng([5, len(rows)]), [], [], []
        for _ in range(studies):
            same = generator.normal(size=POEMS[0])
            sides = [trained(generator, metric, runs, LAWS[2], same) for _ in range(2)]
            found = estimate(*sides)
            values.append(found.value)
            own.append(found.spread.variance()[0])
            poems = generator.multinomial(POEMS[0], np.full(POEMS[0], 1 / POEMS[0]), 300) / POEMS[0]
            first, second = (
                generator.multinomial(runs, np.full(runs, 1 / runs), 300) / runs @ side for side in sides
            )
            drawn.append(((first - second) * poems).sum(axis=1).var())
        rows.append({"metric": metric, "runs": runs, "true": float(np.std(values))})
        rows[-1] |= {"tangeval": float(np.sqrt(np.mean(own))), "bootstrap": float(np.sqrt(np.mean(drawn)))}
    return rows


def show(report: dict[str, Any]) -> None:
    console = Console(width=120)
    for kind, labels, title in (
        ("alike", ("poems", "metric", "law"), "alike recipes called different, % (bar: 6), by runs"),
        ("shares", ("poems", "rate", "tau"), "the same of shares; tau on the logits"),
    ):
        table = Table(*labels, *(f"{a} v {b}" for a, b in ((1, 1), *RUNS)), title=title)
        lines: dict[tuple[str, ...], list[str]] = {}
        for row in report[kind]:
            key = tuple(str(row[label]) for label in labels)
            lines.setdefault(key, []).append(f"{100 * row['different']:.1f}")
        for key, cells in lines.items():
            table.add_row(*key, *cells)
        console.print(table)
    for kind in ("means", "power", "tau", "bootstrap"):
        table = Table(*report[kind][0], title=kind)
        for row in report[kind]:
            table.add_row(
                *(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values())
            )
        console.print(table)
    console.print(f"{report['seconds']:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
