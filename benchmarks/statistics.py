"""What the methods of ``tangeval.analysis`` promise, measured on simulated poems whose truth is known.

    python -m benchmarks.statistics [--quick] [--out results/bench/statistics.json]

(a) How often a 95 % interval holds the truth: shares, means and corpus scores, of 200 poems and
    of 15, by tangeval's method and by those that were not taken.
(b) How often the paired test finds a difference that is not there, and one that is, with as many
    poems as ``poems_needed`` says.
(c) How much too good a grid's best setting looks, before and after cross-fitting.

Prints tables and writes JSON. Every share has a Monte Carlo error, which the tables state.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import special

from tangeval.analysis.hypothesis_tests import ERROR, holm, poems_needed, sign_flip_p
from tangeval.analysis.intervals import Floats, bca_interval, mean_interval, rate_interval, resample_weights
from tangeval.analysis.selection_bias import cross_fitted, folds, joint_level

Interval = tuple[Floats, Floats]
POEMS = (200, 15)
RATES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.02)
#: How alike the samples of one poem are: the correlation of two, from none to nearly equal.
ALIKE = (0.0, 0.1, 0.3, 0.6, 0.9)
FLIPS = 2000  # the test's level does not depend on it, only its power
CHOSEN = {"rates": "tangeval", "means": "tangeval", "corpora": "BCa"}
COVERED = (0.93, 0.97)
_PART = 500  # runs that are simulated together


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.statistics", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--out", type=Path, default=Path("results/bench/statistics.json"))
    options = parser.parse_args()
    begin, scale = time.perf_counter(), 0.1 if options.quick else 1.0
    report: dict[str, Any] = {
        "rates": rates(round(4000 * scale)),
        "means": means(round(4000 * scale)),
        "corpora": corpora(round(4000 * scale)),
        "false_alarms": false_alarms(round(10_000 * scale)),
        "power": powers(round(4000 * scale)),
        "winners": winners(round(1000 * scale)),
        "folds": fold_choices(round(1000 * scale)),
    }
    report["seconds"] = time.perf_counter() - begin
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    show(report)


# (a) Intervals


def rates(runs: int) -> list[dict[str, Any]]:
    """Coverage for shares, by samples a poem, likeness of a poem's samples, and rate."""
    rows = []
    for number, (poems, samples, alike, rate) in enumerate(product(POEMS, (1, 4, 8), ALIKE, RATES)):
        if samples == 1 and alike:
            continue  # with one sample the likeness cannot be seen
        generator = np.random.default_rng([1, number])
        by_poem = outputs(generator, poems, samples, alike, rate, runs)
        ends = {"tangeval": rate_interval(by_poem, samples), **rate_rivals(by_poem)}
        ends |= bootstrapped(by_poem[:, :1000], number)
        rows.append(
            {"poems": poems, "samples": samples, "alike": alike, "rate": rate}
            | {"coverage": {name: covered(pair, rate) for name, pair in ends.items()}}
        )
    return rows


def outputs(
    generator: np.random.Generator, poems: int, samples: int, alike: float, rate: float, runs: int
) -> Floats:
    """Each poem's share of ``samples`` that hold, ``[poems, runs]``: its own rate is a draw of Beta."""
    own = np.full((poems, runs), rate)
    if alike:
        total = 1 / alike - 1
        own = generator.beta(rate * total, (1 - rate) * total, (poems, runs))
    return generator.binomial(samples, own) / samples


def rate_rivals(by_poem: Floats) -> dict[str, Interval]:
    """The intervals for shares that were tried and not taken; all but the last on effective outputs."""
    poems, mean, variance = len(by_poem), by_poem.mean(axis=0), by_poem.var(axis=0, ddof=1)
    varied, inside = variance > 0, (mean > 0) & (mean < 1)
    spread = mean * (1 - mean)
    n = np.where(varied, poems * spread / np.where(varied, variance, 1), poems)
    hits, tail, z = mean * n, 0.025, special.ndtri(0.975)
    centre, half = (mean + z**2 / (2 * n)), z * np.sqrt(spread / n + z**2 / (4 * n**2))
    lowest, highest = hits < 1e-9, hits > n - 1e-9
    safe = np.where(inside, mean, 0.5)
    step = special.stdtrit(poems - 1, 0.975) * np.sqrt(variance / poems) / (safe * (1 - safe))
    return {
        "Wilson, normal": ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)),
        "mid-P": (mid_p(hits, n, tail), mid_p(hits, n, 1 - tail)),
        "Clopper–Pearson": (
            np.where(lowest, 0, special.betaincinv(np.maximum(hits, 1e-9), n - hits + 1, tail)),
            np.where(highest, 1, special.betaincinv(hits + 1, np.maximum(n - hits, 1e-9), 1 - tail)),
        ),
        "Jeffreys": (
            np.where(lowest, 0, special.betaincinv(hits + 0.5, n - hits + 0.5, tail)),
            np.where(highest, 1, special.betaincinv(hits + 0.5, n - hits + 0.5, 1 - tail)),
        ),
        "logit-t": tuple(
            np.where(inside, special.expit(special.logit(safe) + sign * step), mean) for sign in (-1, 1)
        ),
    }


def mid_p(hits: Floats, n: Floats, share: float) -> Floats:
    """The rate at which P(more than ``hits`` of ``n``) + half of P(as many) is ``share``."""
    low, high = np.zeros_like(hits), np.ones_like(hits)
    for _ in range(25):
        rate = (low + high) / 2
        as_many = np.where(hits < 1e-9, 1, special.betainc(np.maximum(hits, 1e-9), n - hits + 1, rate))
        more = np.where(hits > n - 1e-9, 0, special.betainc(hits + 1, np.maximum(n - hits, 1e-9), rate))
        below = (as_many + more) / 2 < share
        low, high = np.where(below, rate, low), np.where(below, high, rate)
    end = (low + high) / 2
    return np.where((hits < 1e-9) & (share < 0.5), 0, np.where((hits > n - 1e-9) & (share > 0.5), 1, end))


def bootstrapped(by_poem: Floats, seed: int) -> dict[str, Interval]:
    """Percentile and BCa intervals of means ``[poems, runs]``."""
    poems = len(by_poem)
    resampled = resample_weights(poems, seed) @ by_poem / poems
    jackknife = (1 - np.eye(poems)) @ by_poem / (poems - 1)
    return {
        "percentile": percentiles(resampled),
        "BCa": bca_interval(by_poem.mean(axis=0), resampled, jackknife),
    }


#: Laws of a poem's value, from no tail to one that 200 poems do not show: a draw, and its mean.
LAWS: dict[str, tuple[Callable[[np.random.Generator, Any], Floats], float]] = {
    "normal": (lambda g, size: g.normal(size=size), 0.0),
    "t, 4 degrees": (lambda g, size: g.standard_t(4, size), 0.0),
    "exponential": (lambda g, size: g.exponential(size=size), 1.0),
    "gamma 0.5": (lambda g, size: g.gamma(0.5, size=size), 0.5),
    "lognormal 0.5": (lambda g, size: g.lognormal(0, 0.5, size), float(np.exp(0.125))),
    "lognormal 1": (lambda g, size: g.lognormal(0, 1, size), float(np.exp(0.5))),
    "one in 20 tenfold": (
        lambda g, size: g.exponential(size=size) * np.where(g.random(size) < 0.05, 10, 1),
        1.45,
    ),
}


def means(runs: int) -> list[dict[str, Any]]:
    """Coverage for means of unbounded values."""
    rows = []
    for poems, (name, (draw, truth)) in product(POEMS, LAWS.items()):
        generator, parts = np.random.default_rng([2, poems, len(rows)]), []
        for seed, size in enumerate(divided(runs)):
            by_poem = draw(generator, (poems, size))
            ends = {
                "tangeval": mean_interval(by_poem),
                **student(by_poem, seed),
                **bootstrapped(by_poem, seed),
            }
            parts.append({method: covered(pair, truth) for method, pair in ends.items()})
        rows.append({"poems": poems, "law": name, "coverage": averaged(parts)})
    return rows


def percentiles(resampled: Floats) -> Interval:
    """The percentile interval along the first axis."""
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    return low, high


def student(by_poem: Floats, seed: int) -> dict[str, Interval]:
    """Student's t, and the bootstrap of it."""
    poems, mean = len(by_poem), by_poem.mean(axis=0)
    error = by_poem.std(axis=0, ddof=1) / np.sqrt(poems)
    weights = resample_weights(poems, seed)
    moved = weights @ (by_poem - mean) / poems
    spread = np.maximum(weights @ (by_poem - mean) ** 2 / poems - moved**2, 1e-12) / (poems - 1)
    low, high = np.quantile(moved / np.sqrt(spread), [0.025, 0.975], axis=0)
    t = special.stdtrit(poems - 1, 0.975)
    return {
        "t": (mean - t * error, mean + t * error),
        "bootstrap-t": (mean - high * error, mean - low * error),
    }


def corpora(runs: int) -> list[dict[str, Any]]:
    """Coverage for what is computed from sums over poems, as corpus BLEU is."""
    rows = []
    for poems, orders in product(POEMS, (1, 4)):
        share = np.array([0.3, 0.12, 0.06, 0.04])[:orders]
        truth = float(np.exp(np.log(share).mean()))
        generator, parts = np.random.default_rng([3, poems, orders]), []
        for seed, size in enumerate(divided(runs)):
            length = generator.choice([20, 28, 60], (poems, size), p=[0.55, 0.4, 0.05])
            ease = generator.gamma(2, 0.5, (poems, size))  # some poems are easy: all orders match more
            counts = generator.poisson(length[..., None] * ease[..., None] * share).astype(float)
            columns = np.concatenate([counts, length[..., None]], axis=2).reshape(poems, -1)

            def score(weights: Floats, columns: Floats = columns, size: int = size) -> Floats:
                sums = (weights @ columns).reshape(len(weights), size, -1)
                return np.exp(np.log(np.maximum(sums[..., :-1], 0.5) / sums[..., -1:]).mean(axis=2))

            value, resampled = score(np.ones((1, poems)))[0], score(resample_weights(poems, seed))
            bca = bca_interval(value, resampled, score(1 - np.eye(poems)))
            ends = {"BCa": bca, "percentile": percentiles(resampled)}
            parts.append({method: covered(pair, truth) for method, pair in ends.items()})
        name = "ratio of sums" if orders == 1 else "geometric mean of four ratios"
        rows.append({"poems": poems, "score": name, "coverage": averaged(parts)})
    return rows


# (b) The paired test


def twins(generator: np.random.Generator, kind: str, poems: int, settings: int, runs: int) -> Floats:
    """``settings`` that differ by noise alone, ``[poems, settings, runs]``; they share poems and some noise."""
    shape, shared = (poems, settings, runs), (poems, 1, runs)
    if kind == "normal":
        return generator.normal(size=shared) * 2 + generator.normal(size=shape)
    if kind == "skewed":
        return generator.lognormal(0, 1, shared) * generator.lognormal(0, 1, shape)
    samples, rate = (4, 0.9) if kind == "0/1, 4 samples" else (1, 0.98)
    own = generator.beta(rate * 3, (1 - rate) * 3, shared)
    found = np.zeros(shape)
    for _ in range(samples):
        same = generator.random(shape) < 0.7
        noise = np.where(same, generator.random(shared), generator.random(shape))
        found += noise < own
    return found / samples


def false_alarms(runs: int) -> list[dict[str, Any]]:
    """How often a difference is found where there is none: of one pair, and of any of ten with Holm."""
    rows = []
    for kind, poems in product(("normal", "skewed", "0/1, 4 samples", "0/1, 1 sample"), POEMS):
        generator, single, family = np.random.default_rng([4, len(rows)]), [], []
        for seed, size in enumerate(divided(runs, 100)):
            first, second = twins(generator, kind, poems, 2, size).transpose(1, 0, 2)
            single.append(sign_flip_p(first - second, FLIPS, seed) <= ERROR)
        for seed in range(runs // 4):
            settings = twins(generator, kind, poems, 11, 1)[..., 0]
            family.append(holm(sign_flip_p(settings[:, 1:] - settings[:, :1], FLIPS, seed)).min() <= ERROR)
        rows.append(
            {"data": kind, "poems": poems, "single": share(np.concatenate(single))}
            | {"family_of_10": share(np.array(family))}
        )
    # Means that are equal though the difference is not symmetric: no swap of the two explains it.
    for poems in POEMS:
        generator, single = np.random.default_rng([5, poems]), []
        for seed, size in enumerate(divided(runs, 100)):
            lopsided = generator.exponential(size=(poems, size)) - 1
            single.append(sign_flip_p(lopsided, FLIPS, seed) <= ERROR)
        rows.append({"data": "lopsided", "poems": poems, "single": share(np.concatenate(single))})
    return rows


def powers(runs: int) -> list[dict[str, Any]]:
    """How often a difference is found with as many poems as it is said to need, alone or beside nine."""
    rows = []
    for law, effect, family in product(("normal", "Laplace"), (0.2, 0.3, 0.5), (1, 10)):
        poems = poems_needed(1.0, effect, family=family)
        generator, found = np.random.default_rng([6, len(rows)]), []
        for seed in range(runs // family):
            noise = (poems, family)
            differences = (
                generator.normal(size=noise) if law == "normal" else generator.laplace(0, 0.5**0.5, noise)
            )
            differences[:, 0] += effect
            found.append(holm(sign_flip_p(differences, FLIPS, seed))[0] <= ERROR)
        rows.append({"law": law, "effect": effect, "family": family, "poems": poems})
        rows[-1] |= {"power": share(np.array(found))}
    return rows


# (c) The winner


def winners(runs: int) -> list[dict[str, Any]]:
    """The bias of the best of many settings, in standard errors of one setting's mean.

    A world is how far the settings' true means lie apart, in standard errors, and how alike two
    settings' values of a poem are. ``coverage`` is of the winner's interval at the joint level on
    the worse side; ``plain`` of its ordinary one, ``fitted`` of one from the cross-fitted poems.
    """
    rows = []
    worlds = {
        "equal": (0.0, 0.0), "slightly different": (0.5, 0.0), "different": (2.0, 0.0),
        "equal, correlated 0.9": (0.0, 0.9), "slightly different, correlated 0.9": (0.15, 0.9),
    }  # fmt: skip
    for poems, settings, (world, (apart, alike)) in product(POEMS, (60, 720), worlds.items()):
        generator = np.random.default_rng([7, len(rows)])
        error = 1 / np.sqrt(poems)
        bias, held = [], []
        for run in range(runs if poems == POEMS[0] else runs // 4):
            truths = apart * error * generator.normal(size=settings)
            common = generator.normal(size=poems) * np.sqrt(alike)
            by_poem = truths[:, None] + common + generator.normal(size=(settings, poems)) * np.sqrt(1 - alike)
            best = by_poem.mean(axis=1).argmax()
            truth, fitted = truths[best], cross_fitted(by_poem, folds(poems, run))
            # What the poems have in common is no bias; taken out, it does not blur it.
            bias.append(np.array([by_poem[best].mean(), fitted.value]) - common.mean() - truth)
            low, high = mean_interval(by_poem[best])
            careful, _ = mean_interval(by_poem[best], joint_level(by_poem, run))
            low_fitted, high_fitted = mean_interval(fitted.by_poem)
            held.append(
                (
                    min(careful, fitted.value) <= truth <= high,
                    low <= truth <= high,
                    low_fitted <= truth <= high_fitted,
                )
            )
        naive, corrected = np.mean(bias, axis=0) / error
        coverage, plain, by_fitted = np.mean(held, axis=0)
        deviation = np.std(bias, axis=0)[1] / error
        rows.append(
            {
                "poems": poems, "settings": settings, "world": world, "runs": len(bias), "naive_bias": naive,
                "corrected_bias": corrected, "error": deviation / np.sqrt(len(bias)), "deviation": deviation,
                "left": abs(corrected) / naive, "coverage": coverage, "plain": plain, "fitted": by_fitted,
            }
        )  # fmt: skip
    return rows


def fold_choices(runs: int) -> list[dict[str, Any]]:
    """What other numbers of folds and repeats leave of the bias, and how far they scatter: 60 settings, 200 poems."""
    rows = []
    for apart in (0.0, 0.5, 2.0):
        choices = ((2, 10), (5, 10), (8, 1), (8, 10), (20, 1), (20, 10))
        generator, found, naive = np.random.default_rng([8, round(10 * apart)]), [], []
        for run in range(runs):
            truths = apart * generator.normal(size=60)
            by_poem = truths[:, None] + generator.normal(size=(60, 200)) * np.sqrt(200)
            best = by_poem.mean(axis=1).argmax()
            naive.append(by_poem[best].mean() - truths[best])
            found.append(
                [cross_fitted(by_poem, folds(200, run, *choice)).value - truths[best] for choice in choices]
            )
        for choice, mean, deviation in zip(
            choices, np.mean(found, axis=0), np.std(found, axis=0), strict=True
        ):
            rows.append(
                {"apart": apart, "folds": choice[0], "repeats": choice[1], "naive_bias": np.mean(naive)}
            )
            rows[-1] |= {"corrected_bias": mean, "deviation": deviation, "error": deviation / np.sqrt(runs)}
    return rows


def divided(runs: int, part: int = _PART) -> Iterator[int]:
    """``runs`` in parts."""
    for begin in range(0, runs, part):
        yield min(part, runs - begin)


def covered(ends: Interval, truth: float) -> float:
    """The share of intervals that hold the truth."""
    low, high = ends
    return float(((low <= truth + 1e-12) & (truth - 1e-12 <= high)).mean())


def averaged(parts: list[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([part[name] for part in parts])) for name in parts[0]}


def share(happened: np.ndarray) -> dict[str, float]:
    """A share with its Monte Carlo standard error."""
    mean = float(happened.mean())
    return {"share": mean, "error": float(np.sqrt(mean * (1 - mean) / len(happened)))}


# Tables


def show(report: dict[str, Any]) -> None:
    console = Console(width=120)
    for kind, labels in (
        ("rates", ("poems", "samples", "alike", "rate")), ("means", ("poems", "law")), ("corpora", ("poems", "score")),
    ):  # fmt: skip
        rows = report[kind]
        methods = list(rows[0]["coverage"])
        table = Table(*labels, *methods, title=f"{kind}: how many of 100 95 % intervals hold the truth")
        for row in rows:
            shares = [f"{100 * row['coverage'][method]:.1f}" for method in methods]
            table.add_row(*(str(row[label]) for label in labels), *shares)
        console.print(table)
        console.print(within(kind, rows))
    table = Table("data", "poems", "one pair", "any of ten, Holm", title="false alarms, % (bar: 5)")
    for row in report["false_alarms"]:
        family = percent(row["family_of_10"]) if "family_of_10" in row else ""
        table.add_row(row["data"], str(row["poems"]), percent(row["single"]), family)
    console.print(table)
    table = Table("law", "effect", "family", "poems", "power, %", title="power with the poems needed (80)")
    for row in report["power"]:
        table.add_row(
            row["law"], str(row["effect"]), str(row["family"]), str(row["poems"]), percent(row["power"])
        )
    console.print(table)
    table = Table(
        "poems", "settings", "world", "naive", "corrected", "±", "left", "sd", "covers", "plain", "fitted",
        title="the best setting's bias, in standard errors of a setting's mean (bar: left < 10 %)",
    )  # fmt: skip
    for row in report["winners"]:
        bias = (f"{row[name]:.3f}" for name in ("naive_bias", "corrected_bias", "error"))
        shares = (f"{row[name]:.1%}" for name in ("coverage", "plain", "fitted"))
        labels = (str(row["poems"]), str(row["settings"]), row["world"])
        table.add_row(*labels, *bias, f"{row['left']:.1%}", f"{row['deviation']:.2f}", *shares)
    console.print(table)
    table = Table(
        "apart", "folds", "repeats", "naive", "corrected", "±", "sd",
        title="other folds: 60 settings of 200 poems, in standard errors",
    )  # fmt: skip
    for row in report["folds"]:
        bias = (f"{row[name]:.3f}" for name in ("naive_bias", "corrected_bias", "error"))
        labels = (str(row["apart"]), str(row["folds"]), str(row["repeats"]))
        table.add_row(*labels, *bias, f"{row['deviation']:.2f}")
    console.print(table)
    console.print(f"{report['seconds']:.0f} s", highlight=False)


def within(kind: str, rows: Iterable[dict[str, Any]]) -> Table:
    """How many settings each method covers as often as it should."""
    low, high = COVERED
    table = Table(
        "method", "poems", "settings", f"{low:.0%} to {high:.0%}", "below", "above", "least", "most",
        title=f"{kind}, summed up; tangeval takes {CHOSEN[kind]}",
    )  # fmt: skip
    rows = list(rows)
    for poems, method in product(POEMS, rows[0]["coverage"]):
        found = np.array([row["coverage"][method] for row in rows if row["poems"] == poems])
        below, above = int((found < low).sum()), int((found > high).sum())
        counts = (len(found), len(found) - below - above, below, above)
        table.add_row(method, str(poems), *map(str, counts), f"{found.min():.1%}", f"{found.max():.1%}")
    return table


def percent(found: dict[str, float]) -> str:
    return f"{100 * found['share']:.2f} ± {100 * found['error']:.2f}"


if __name__ == "__main__":
    main()
