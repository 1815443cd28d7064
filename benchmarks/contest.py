"""Families of samplers at an equal budget, and the room for adaptive decoding, in studies whose truth is known.

    python -m benchmarks.contest [--quick] [--out results/bench/contest.json]

How often equal families have a winner, how much of the winner's luck is left, and how often a room is seen where there
is none. BLEU is of real texts, as in ``benchmarks.statistics``. Needs no torch.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm

from benchmarks import worlds
from benchmarks.command import command_line
from tangeval.analysis.aggregate import Measured
from tangeval.analysis.best_of import chances
from tangeval.analysis.contest import contest, told_apart
from tangeval.analysis.oracle import room
from tangeval.results.files import write_json

Floats = worlds.Floats
Generator = np.random.Generator
POEMS, RUNS = (15, 50, 200), 300
#: Settings of each family, and the budget: all alike, or as unlike as those of samplers with one knob and with two.
SIZES = {6: (6, 6, 6, 6), 4: (4, 12, 8, 6)}
#: How far a family's worst setting is below its best, in standard deviations of what a poem has in common.
LADDER = 0.6
#: The share of clauses that are the poem's own, which makes BLEU.
OWN = (0.0, 0.03, 0.1)
#: What a study is drawn from: settings ``[C]`` of what each is truly above the lowest, and how many poems.
World = Callable[[Generator, Floats, int], tuple[Measured, str, Floats]]


def normal(generator: Generator, above: Floats, poems: int) -> tuple[Measured, str, Floats]:
    by_poem = above + generator.normal(size=(poems, 1)) + generator.normal(size=(poems, len(above)))
    return worlds.means(by_poem, "parallelism", 2), "parallelism", above


def shares(rate: float, generator: Generator, above: Floats, poems: int) -> tuple[Measured, str, Floats]:
    """Of two samples; ``rate`` is that of a setting that is not above."""
    bar, size = -norm.ppf(rate) * np.sqrt(3), (poems, len(above))
    latent = above + generator.normal(size=(poems, 1)) + generator.normal(size=size)
    passed = (latent[..., None] + generator.normal(size=(*size, 2)) > bar).mean(axis=2)
    return worlds.means(passed, "form", 2), "form", norm.cdf((above - bar) / np.sqrt(3))


def bleu(own: float, generator: Generator, above: Floats, poems: int) -> tuple[Measured, str, Floats]:
    """Equal settings, one sample each; as many as the pool has draws."""
    pool = worlds.poets(own)
    which = generator.integers(0, len(pool), poems)
    draws = generator.random((poems, pool.shape[1])).argsort(axis=1)[:, : len(above)]
    counts = pool[which[:, None], draws].transpose(1, 0, 2)[:, :, None]
    return worlds.corpora(counts), "bleu", np.full(len(above), worlds.truth(pool, poems))


def contests(
    name: str, world: World, sizes: tuple[int, ...], ladder: float, poems: int, runs: int
) -> dict[str, Any]:
    """Equal families: the share of studies with a winner, and what is left of the winner's luck."""
    places = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    families = {str(number): own.tolist() for number, own in enumerate(places)}
    budget, above = min(sizes), np.concatenate([np.linspace(-ladder, 0, size) for size in sizes])
    rows = []
    for run in range(runs):
        generator = np.random.default_rng([run, poems, *sizes])
        measured, metric, true = world(generator, above, poems)
        found = contest(measured, families, metric, [budget], budget, run)
        apart = [each.p_adjusted for each in told_apart([found])[0]]
        value = measured.value[metric]
        got = [
            true[own][np.argsort(-value[own], kind="stable")] @ chances(len(own), budget) for own in places
        ]
        held = (found.low[:, 0] <= got) & (got <= found.high[:, 0])
        told = not np.isnan(apart).any()
        rows.append(
            [np.nanmin([*apart, 1]) <= 0.05, told, found.naive.mean() - np.mean(got),
             found.value.mean() - np.mean(got), held.mean() if told else np.nan]
        )  # fmt: skip
    false, told, naive, left, held = np.array(rows, float).T
    return {
        "world": name, "settings": sizes, "ladder": ladder, "budget": budget, "poems": poems, "runs": runs,
        "false": false.mean(), "told": told.mean(), "naive": naive.mean(), "left": left.mean() / naive.mean(),
        "error": left.std() / np.sqrt(runs) / naive.mean(), "held": np.nanmean(held) if told.any() else None,
    }  # fmt: skip


def rooms(share: bool, apart: float, poems: int, samples: int, runs: int) -> dict[str, Any]:
    """Twelve settings that suit all poems alike: how often a room is seen, and how large it seems."""
    found = []
    for run in range(runs):
        generator = np.random.default_rng([run, poems, samples])
        size = (12, poems, samples)
        values = apart * np.arange(12)[:, None, None] + generator.normal(size=(1, poems, 1))
        values = values + 0.7 * generator.normal(size=(1, poems, samples)) + generator.normal(size=size)
        found.append(room(values > 1.0 if share else values, run))
    low, value, luck = (
        np.array([getattr(each, name) for each in found]) for name in ("low", "room", "with_luck")
    )
    return {
        "shares": share, "apart": apart, "poems": poems, "samples": samples, "runs": runs, "seen": (low > 0).mean(),
        "room": value.mean() / luck.mean(),
    }  # fmt: skip


def show(told: list[dict[str, Any]], seen: list[dict[str, Any]]) -> None:
    """Print what ``contests`` and ``rooms`` found, a table each."""
    console = Console(width=110)
    table = Table(
        "families",
        "settings",
        "ladder",
        "poems",
        "tested",
        "false winner",
        "naive bias",
        "left of it",
        "held",
    )
    for each in told:
        held = "" if each["held"] is None else f"{each['held']:.1%}"
        table.add_row(
            each["world"], str(each["settings"]), f"{each['ladder']:g}", str(each["poems"]), f"{each['told']:.0%}",
            f"{each['false']:.1%}", f"{each['naive']:.3f}", f"{each['left']:.0%} ± {each['error']:.0%}", held,
        )  # fmt: skip
    console.print(table)
    table = Table(
        "no room, values", "settings apart", "poems", "samples", "a room seen", "of what luck makes"
    )
    for each in seen:
        law = "shares" if each["shares"] else "normal"
        table.add_row(
            law,
            f"{each['apart']:g}",
            str(each["poems"]),
            str(each["samples"]),
            f"{each['seen']:.1%}",
            f"{each['room']:.1%}",
        )
    console.print(table)


def main() -> None:
    options = command_line(__file__, __doc__, quick="runs", out=True).parse_args()
    runs = RUNS // 10 if options.quick else RUNS
    known: dict[str, World] = {
        "normal": normal,
        "shares of 0.9": partial(shares, 0.9),
        "shares of 0.97": partial(shares, 0.97),
    }
    told = [
        contests(name, world, sizes, ladder, poems, runs)
        for (name, world), sizes, ladder, poems in product(known.items(), SIZES.values(), (0.0, LADDER), POEMS)
        if not ladder or len(set(sizes)) == 1  # a ladder's best of 4 is another where it has more steps
    ] + [
        contests(f"BLEU {worlds.truth(worlds.poets(own), poems):.2g}", partial(bleu, own), (4, 8, 4), 0, poems, runs // 3)
        for own, poems in product(OWN, POEMS)
    ]  # fmt: skip
    seen = [
        rooms(share, apart, poems, samples, runs)
        for share, apart, poems, samples in product((False, True), (0.0, 0.1), POEMS, (2, 8))
    ]
    show(told, seen)
    write_json(options.out, {"contests": told, "rooms": seen})


if __name__ == "__main__":
    main()
