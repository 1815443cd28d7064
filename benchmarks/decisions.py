"""How often tests find what is not there and what is, and what is left of a winner's luck.

In: how many studies. Out: rows of tables for benchmarks.statistics.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy import special

from benchmarks import worlds
from benchmarks.coverage import POEMS, SAMPLES, Row, share
from benchmarks.worlds import Counts, Floats
from tangeval.analysis import hypothesis_tests
from tangeval.analysis.as_good import shortfall_bounds
from tangeval.analysis.differences import Pair, differences
from tangeval.analysis.hypothesis_tests import ERROR, Tested, family_tests, holm, poems_needed
from tangeval.analysis.select import Candidate, _corrected

#: Fewer ways to swap than users get: a test's level does not depend on their number, only its time.
FEW = {"EXACT": 1000, "MOST": 1000, "FEWEST": 1000}


def false_alarms(runs: int) -> Iterator[Row]:
    """Two sides of one law, by BLEU: poets' endings; and outputs of one setting, its samples parted at random."""
    pools = {f"poets, {own:g} own": worlds.poets(own) for own in (0.0, 0.005, 0.02, 0.1)}
    pools |= {name: worlds.computed(texts, "bleu") for name, texts in worlds.chosen().items()}
    for (name, pool), poems, samples in product(pools.items(), POEMS, SAMPLES):
        if 2 * samples > pool.shape[1]:
            continue
        p = np.concatenate([_p_of_halves(part) for part in worlds.drawn(pool, poems, 2 * samples, runs, 11)])
        yield {"poems": poems, "samples": samples, "world": name, "found": share(p <= ERROR)}


def _p_of_halves(counts: Counts) -> Floats:
    """p of the first half of the samples ``[R, P, 2S, K]`` against the other, of each study alone."""
    halves = (worlds.parts(worlds.corpora(half)) for half in np.array_split(counts, 2, axis=2))
    with patch.multiple(hypothesis_tests, **FEW):
        return np.array([differences([Pair(*pair, "bleu")])[0].p for pair in zip(*halves, strict=True)])


def families(runs: int) -> Iterator[Row]:
    """Ten settings against an eleventh: how often any is found where none differs; where five do, how many of these.

    ``lower`` is by how much these five are lower, less with more poems; ``Holm`` what his correction of the same
    p-values would find.
    """
    kinds = {"normal": 1.2, "skewed": 1.5, "share 0.9, 2 samples": 0.3, "share 0.98, 1 sample": 0.3}
    for (kind, most), poems in product(kinds.items(), POEMS):
        lower = most * np.sqrt(15 / poems)
        generator, alone, any_of, power, by_holm = np.random.default_rng([12, poems]), [], [], [], []
        for seed in range(runs):
            tested = _tested(_settings_of(generator, kind, poems, np.zeros(11)), seed)
            alone.append(tested.p[0] <= ERROR)
            any_of.append((tested.adjusted <= ERROR).any())
            lowered = np.r_[0, np.full(5, lower), np.zeros(5)]
            tested = _tested(_settings_of(generator, kind, poems, lowered), seed)
            power.append((tested.adjusted[:5] <= ERROR).mean())
            by_holm.append((holm(tested.p)[:5] <= ERROR).mean())
        yield {
            "data": kind, "poems": poems, "lower": lower, "one": share(np.array(alone)),
            "any of ten": share(np.array(any_of)), "power": share(np.array(power)),
            "Holm": share(np.array(by_holm)),
        }  # fmt: skip


def _settings_of(generator: np.random.Generator, kind: str, poems: int, lower: Floats) -> Floats:
    """Poems' values of settings ``[settings, poems]`` that share poems and some noise, some being lower."""
    shape, shared, lower = (len(lower), poems), (1, poems), lower[:, None]
    if kind == "normal":
        return generator.normal(size=shared) * 2 + generator.normal(size=shape) - lower
    if kind == "skewed":
        return generator.lognormal(0, 1, shared) * generator.lognormal(0, 1, shape) - lower
    _, rate, samples, _ = kind.replace(",", "").split()
    own, found = generator.beta(float(rate) * 3, (1 - float(rate)) * 3, shared), np.zeros(shape)
    for _ in range(int(samples)):
        same = generator.random(shape) < 0.7
        noise = np.where(same, generator.random(shared), generator.random(shape))
        found += noise < own * (1 - lower / float(rate))
    return found / int(samples)


def _tested(values: Floats, seed: int) -> Tested:
    """The first setting against the others."""
    with patch.multiple(hypothesis_tests, **FEW):
        return family_tests(list(values[:1] - values[1:]), seed)


def powers(runs: int) -> Iterator[Row]:
    """How often a difference is found with as many poems as it is said to need, alone or beside nine."""
    for effect, family in product((0.2, 0.3, 0.5), (1, 10)):
        poems = poems_needed(1.0, effect, family=family)
        generator, found = np.random.default_rng([13, poems]), []
        for seed in range(runs // family):
            by_poem = generator.normal(size=(family, poems))
            by_poem[0] += effect
            with patch.multiple(hypothesis_tests, **FEW):
                found.append(family_tests(list(by_poem), seed).adjusted[0] <= ERROR)
        yield {"effect": effect, "family": family, "poems": poems, "power": share(np.array(found))}


def winners(runs: int) -> Iterator[Row]:
    """The best of many settings, by BLEU and by shares and means: its bias as it stands and corrected, and its interval.

    ``naive`` and ``corrected`` are how much too good it looks; ``left`` is the second by the first, ``±`` its Monte
    Carlo error. ``below`` is how far the lower end lies under the value.
    """
    for (world, settings), poems in product(_settings().items(), (15, 200)):
        if "real" in world and poems > len(settings[0]):
            continue  # these poems are all that there are
        yield {"world": world, "poems": poems} | _winner(world, settings, poems, runs)


def _settings() -> dict[str, Any]:
    """Worlds to pick a winner in: a pool of outputs for each setting, or the law of shares."""
    homework = worlds.homework("gemma3-270m")
    return {
        "BLEU, 12 at the floor": [worlds.poets(0.0)] * 12,
        "BLEU, 12 at 0.7": [worlds.poets(0.005)] * 12,
        "BLEU, 12 at 0.4 to 2": [worlds.poets(own) for own in (0.002, 0.005, 0.01, 0.02)] * 3,
        f"BLEU, {len(homework)} real checkpoints": [worlds.computed(texts, "bleu") for texts in homework],
        "40 shares, 0.97 to 0.985": np.linspace(0.97, 0.985, 40),
        "40 shares, 0.5": np.full(40, 0.5),
        "40 shares, 0.05": np.full(40, 0.05),
    }  # fmt: skip


def declared(runs: int) -> Iterator[Row]:
    """What is declared as good as the best within a margin: how many of those that are, and how often one that is not.

    Settings of shares that share poems, and the reference study's checkpoints in the homework's setting, whose poems
    are drawn anew. ``bounds`` is how often all settings' bounds hold at once.
    """
    for (metric, margin), poems in product((("form", 0.05), ("rhyme", 0.05), ("rhyme", 0.1)), POEMS):
        for world, truths, samples, draw in _surfaces(metric):
            generator, found = np.random.default_rng([15, poems]), []
            below = truths.max() - truths
            for _ in range(runs):
                parts = worlds.parts(worlds.means(draw(generator, poems), metric, samples))
                bounds = shortfall_bounds(parts, metric)
                good = bounds <= margin
                found.append((good.sum(), (good & (below > margin)).any(), (bounds >= below - 1e-12).all()))
            named, false, bounded = np.array(found).T
            yield {
                "world": world, "metric": metric, "within": margin, "poems": poems,
                "are": int((below <= margin).sum()), "declared": float(named.mean()),
                "false": share(false), "bounds": share(bounded),
            }  # fmt: skip


def _surfaces(metric: str) -> Iterator[tuple[str, Floats, int, Callable[..., Floats]]]:
    """Worlds of shares: their settings' true values, the samples, and what draws a study of so many poems."""
    rates = 1 - np.geomspace(0.01, 0.4, 24) if metric == "form" else np.linspace(0.2, 0.4, 24)
    yield "24 settings", rates, 2, partial(_shares, rates=rates, samples=2)
    texts = np.stack([worlds.computed(t, metric)[:, 0] for t in worlds.homework("gemma3-270m")], axis=1)
    yield f"{texts.shape[1]} checkpoints", texts.mean(axis=0), 1, partial(_anew, texts)


def _anew(texts: Floats, generator: np.random.Generator, poems: int) -> Floats:
    drawn: Floats = texts[generator.integers(0, len(texts), poems)]
    return drawn


def _winner(world: str, settings: Sequence[Any], poems: int, runs: int) -> Row:
    samples, metric = (1, "bleu") if "real" in world else (2, "bleu" if "BLEU" in world else "form")
    truths = settings
    if metric == "bleu":
        distinct = {id(pool): pool for pool in settings}
        of = {key: worlds.truth(pool, poems) for key, pool in distinct.items()}
        truths = np.array([of[id(pool)] for pool in settings])
    bias, held, below = [], [], []
    for run in range(runs):
        generator = np.random.default_rng([14, poems, run])
        candidates = [Candidate({}, part) for part in _study(generator, settings, poems, samples, metric)]
        values = np.array([each.part.value(metric) for each in candidates])
        place = int(values.argmax())
        found = _corrected(candidates[place], candidates, metric, run)
        # What the poems have in common is no bias; taken out, it does not blur it.
        common = truths[place] + (values - truths).mean()
        bias.append((values[place] - common, found["value"] - common))
        if found["low"] is not None:
            held.append(found["low"] <= truths[place] + 1e-12 and truths[place] - 1e-12 <= found["high"])
            below.append(values[place] - found["low"])
    naive, corrected = np.mean(bias, axis=0)
    row = {"naive": naive, "corrected": corrected, "left": corrected / naive}
    row["±"] = np.std(bias, axis=0)[1] / np.sqrt(runs) / abs(naive)
    row["shown"] = len(held) / runs
    return row | ({"holds": share(np.array(held)), "below": float(np.mean(below))} if held else {})


def _study(
    generator: np.random.Generator, settings: Sequence[Any], poems: int, samples: int, metric: str
) -> list[Any]:
    """One study of these settings: the same poems, each setting's own outputs."""
    if metric != "bleu":
        return worlds.parts(worlds.means(_shares(generator, poems, settings, samples), metric, samples))
    which = generator.integers(0, len(settings[0]), poems)
    draws = [
        generator.permuted(np.tile(np.arange(pool.shape[1]), (poems, 1)), axis=1)[:, :samples]
        for pool in settings
    ]
    counts = [pool[which[:, None], own] for pool, own in zip(settings, draws, strict=True)]
    return worlds.parts(worlds.corpora(np.stack(counts)))


def _shares(generator: np.random.Generator, poems: int, rates: Floats, samples: int) -> Floats:
    """Poems' shares ``[poems, settings]``: half of what makes a poem easy is the same for all settings."""
    ease = generator.normal(size=(poems, 1)) + generator.normal(size=(poems, len(rates)))
    own = special.betaincinv(4 * rates, 4 * (1 - rates), special.ndtr(ease / np.sqrt(2)))
    return generator.binomial(samples, own) / samples
