"""How often 95 % intervals hold a truth that is known: of shares, means, BLEU, self-BLEU, and differences of these.

In: how many studies. Out: rows of tables for benchmarks.statistics, of which each says what share of the intervals
held the truth and, where an interval may be refused, how often it was shown.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from scipy import special

from benchmarks import worlds
from benchmarks.worlds import Floats
from tangeval.analysis.aggregate import Part
from tangeval.analysis.differences import Pair, differences
from tangeval.analysis.hypothesis_tests import ERROR
from tangeval.analysis.intervals import mean_interval, rate_interval
from tangeval.metrics.diversity import diversity
from tangeval.tasks.tang import TANG

Row = dict[str, Any]
Interval = tuple[Floats, Floats]
POEMS = (15, 50, 200)
SAMPLES = (1, 2, 4, 8)
RATES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.02)
#: How alike the samples of one poem are: the correlation of two, from none to nearly equal.
ALIKE = (0.0, 0.1, 0.3, 0.6, 0.9)
#: The probability that a clause of another poet's ending is the poet's own: BLEU 0.07, 0.4, 0.7, 1.1, 2, 4.5, 8.5, 25.
OWN = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3)


def rates(runs: int) -> Iterator[Row]:
    """Shares, by samples a poem, likeness of a poem's samples, and rate."""
    for number, (poems, samples, alike, rate) in enumerate(product(POEMS, (1, 4, 8), ALIKE, RATES)):
        if samples == 1 and alike:
            continue  # with one sample the likeness cannot be seen
        by_poem = outputs(np.random.default_rng([1, number]), poems, samples, alike, rate, runs)
        ends = {"tangeval": rate_interval(by_poem, samples), **rate_rivals(by_poem)}
        labels = {"poems": poems, "samples": samples, "alike": alike, "rate": rate}
        yield labels | {name: share(held(pair, rate)) for name, pair in ends.items()}


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
    """Intervals for shares that were not taken."""
    poems, mean, variance = len(by_poem), by_poem.mean(axis=0), by_poem.var(axis=0, ddof=1)
    n = np.where(variance > 0, poems * mean * (1 - mean) / np.where(variance > 0, variance, 1), poems)
    hits = mean * n
    low, high = (special.betaincinv(hits + 0.5, n - hits + 0.5, tail) for tail in (0.025, 0.975))
    return {
        "Jeffreys": (np.where(hits < 1e-9, 0, low), np.where(hits > n - 1e-9, 1, high)),
        "t": student(by_poem),
    }


def student(by_poem: Floats) -> Interval:
    poems, mean = len(by_poem), by_poem.mean(axis=0)
    far = special.stdtrit(poems - 1, 0.975) * by_poem.std(axis=0, ddof=1) / np.sqrt(poems)
    return mean - far, mean + far


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
    "nine of ten 0": (lambda g, size: g.exponential(size=size) * (g.random(size) < 0.1), 0.1),
}


def means(runs: int) -> Iterator[Row]:
    """Means of unbounded values, and differences of two.

    ``difference`` is of two draws of a law, ``lopsided`` of a draw and a constant, by what the sign-flip test does not
    reject; ``apart`` how often that test and its interval disagree.
    """
    for number, (poems, (name, (draw, expected))) in enumerate(product(POEMS, LAWS.items())):
        generator = np.random.default_rng([2, number])
        by_poem = draw(generator, (poems, runs))
        row = {"poems": poems, "law": name}
        for method, ends in (("tangeval", mean_interval(by_poem)), ("t", student(by_poem))):
            row[method] = share(held(ends, expected))
        some = min(runs, 1000)  # these are tested with the same swaps
        second = np.concatenate([draw(generator, (poems, some)), np.zeros((poems, some))], axis=1)
        first = np.tile(by_poem[:, :some], 2)
        sides = (worlds.parts(worlds.means(side, "chrf", 1)) for side in (first, second))
        found = differences([Pair(*pair, "chrf") for pair in zip(*sides, strict=True)])
        truths = np.repeat([0.0, expected], some)
        inside = np.array([each.low <= truth <= each.high for each, truth in zip(found, truths, strict=True)])
        apart = np.array([(each.p <= ERROR) != (not each.low <= 0 <= each.high) for each in found])
        row |= {"difference": share(inside[:some]), "lopsided": share(inside[some:]), "apart": share(apart)}
        yield row


def rate_differences(runs: int) -> Iterator[Row]:
    """Differences of two shares of the same poems; how many intervals are flat, or leave [−1, 1]."""
    rates_of = ((0.98, 0.98), (0.98, 0.9), (0.9, 0.9), (0.99, 0.5), (0.5, 0.5), (0.02, 0.02))
    for number, (poems, samples, pair) in enumerate(product(POEMS, SAMPLES, rates_of)):
        generator = np.random.default_rng([3, number])
        own = special.ndtr(generator.normal(size=(poems, runs)))  # what makes a poem easy for both
        sides = [
            generator.binomial(samples, special.betaincinv(4 * rate, 4 * (1 - rate), own)) / samples
            for rate in pair
        ]
        first, second = (worlds.parts(worlds.means(side, "form", samples)) for side in sides)
        labels = {"poems": poems, "samples": samples, "shares": f"{pair[0]} v {pair[1]}"}
        yield labels | _of_shares(first, second, "form", pair[0] - pair[1], sides[0] - sides[1])


def real_rate_differences(runs: int) -> Iterator[Row]:
    """Differences of shares between checkpoints of the reference study in the homework's setting: poems drawn anew."""
    for metric, poems in product(("form", "rhyme", "length_match"), POEMS):
        values = np.stack(
            [worlds.computed(texts, metric)[:, 0] for texts in worlds.homework("gemma3-270m")], axis=1
        )
        generator = np.random.default_rng([4, poems])
        held_, flat, rival = [], [], []
        for _ in range(runs):
            a, b = generator.choice(values.shape[1], 2, replace=False)
            which = generator.integers(0, len(values), poems)
            part = worlds.parts(worlds.means(values[which][:, [a, b]], metric, 1))
            row = _of_shares(
                part[:1],
                part[1:],
                metric,
                values[:, a].mean() - values[:, b].mean(),
                values[which][:, [a]] - values[which][:, [b]],
            )
            held_.append(row["tangeval"]["share"])
            flat.append(row["flat"]["share"])
            rival.append(row["t"]["share"])
        yield {
            "poems": poems,
            "metric": metric,
            "tangeval": share(np.array(held_)),
            "flat": share(np.array(flat)),
            "t": share(np.array(rival)),
        }


def _of_shares(
    first: Sequence[Part], second: Sequence[Part], metric: str, expected: float, by_poem: Floats
) -> Row:
    ends = np.array([Pair(*pair, metric).interval() for pair in zip(first, second, strict=True)]).T
    inside = held((ends[0], ends[1]), expected)
    rival = held(student(by_poem), expected)
    return {
        "tangeval": share(inside), "flat": share(ends[1] - ends[0] < 1e-9), "t": share(rival),
        "beyond": share(np.abs(ends).max(axis=0) > 1 + 1e-9),
    }  # fmt: skip


def bleu(runs: int) -> Iterator[Row]:
    """BLEU of other poets' endings, and of the outputs that results/reference keeps."""
    pools = {f"poets, {own:g} own": worlds.poets(own) for own in OWN}
    pools |= {name: worlds.computed(texts, "bleu") for name, texts in worlds.chosen().items()}
    for (name, pool), poems, samples in product(pools.items(), POEMS, SAMPLES):
        expected, found = worlds.truth(pool, poems), []
        for part in worlds.drawn(pool, poems, samples, runs, 5):
            found += [each.interval("bleu") for each in worlds.parts(worlds.corpora(part))]
        labels = {"poems": poems, "samples": samples, "world": name, "bleu": expected}
        yield labels | shown(np.array(found), expected)


def bleu_differences(runs: int) -> Iterator[Row]:
    """The difference of BLEU of two of these worlds on the same poems."""
    pairs = ((0.005, 0.005), (0.005, 0.02), (0.02, 0.02), (0.002, 0.05), (0.05, 0.1), (0.1, 0.3))
    for (own, other), poems, samples in product(pairs, POEMS, (1, 4)):
        pools = [worlds.poets(each) for each in (own, other)]
        expected, found = worlds.truth(pools[0], poems) - worlds.truth(pools[1], poems), []
        # Twice as many samples of both together: a poem's two sides are never the same draw.
        for part in worlds.drawn(np.concatenate(pools, axis=2), poems, 2 * samples, runs, 6):
            kinds = part.shape[3] // 2
            sides = part[:, :, :samples, :kinds], part[:, :, samples:, kinds:]
            first, second = (worlds.parts(worlds.corpora(side)) for side in sides)
            found += [Pair(*pair, "bleu").interval() for pair in zip(first, second, strict=True)]
        labels = {
            "poems": poems,
            "samples": samples,
            "worlds": f"{own:g} v {other:g}",
            "difference": expected,
        }
        yield labels | shown(np.array(found), expected)


def self_bleu(runs: int) -> Iterator[Row]:
    """Self-BLEU of kept outputs, and of poets' endings of which some poems' samples are equal."""
    for (name, values), poems in product(_self_bleus(), POEMS):
        generator, samples = np.random.default_rng([7, poems]), int(name.split()[0])
        by_poem = generator.choice(values, (poems, runs))
        found = [
            each.interval("self_bleu") for each in worlds.parts(worlds.means(by_poem, "self_bleu", samples))
        ]
        yield {"poems": poems, "world": name, "self-BLEU": values.mean()} | shown(
            np.array(found), values.mean()
        )


def _self_bleus() -> Iterator[tuple[str, Floats]]:
    """Poems' self-BLEU, by number of samples and kind."""
    for samples in (2, 4, 8):
        endings = worlds.unlike(samples)
        values = diversity(tuple(map(tuple, endings)))["self_bleu"]
        for equal in (0.0, 0.02, 0.1, 0.5, 0.95):
            mixed = np.where(np.arange(len(values)) < equal * len(values), 100.0, values)
            yield f"{samples} poets, {equal:.0%} equal", mixed
    for name, texts in worlds.chosen().items():
        normalised = np.reshape([TANG.normalise(text) for text in texts["text"]], (15, -1))
        pairs = tuple(tuple(row[[i, i + 1]]) for row in normalised for i in range(0, 8, 2))
        yield f"2 {name}", diversity(pairs)["self_bleu"]


def shown(ends: Floats, expected: float) -> Row:
    """How many intervals ``[runs, 2]`` there are, how many of these hold, and how many studies show a false one."""
    low, high = ends.T
    there, holds = ~np.isnan(low), held((low, high), expected)
    row: Row = {"shown": share(there), "false": share(there & ~holds)}
    return row | ({"holds": share(holds[there])} if there.sum() >= 20 else {})


def held(ends: Interval, expected: float) -> np.ndarray:
    low, high = ends
    return (low <= expected + 1e-12) & (expected - 1e-12 <= high)


def share(happened: np.ndarray) -> dict[str, float]:
    """A share with its Monte Carlo standard error."""
    mean = float(happened.mean())
    return {"share": mean, "error": float(np.sqrt(mean * (1 - mean) / happened.size))}
