"""Recipes trained several times → their means and differences, over poems and training runs.

In: a recipe's values of each poem, ``[k, P]``: a row for each of its k runs, means over samples and settings;
all of the same poems. Out: values whose intervals and p hold for other poems and other runs. Knows nothing of
metrics or files.

Runs are crossed with poems: a value is recipe + poem + recipe × poem + run + rest. τ is the standard deviation
of runs, without what the rest makes of it. docs/statistics.md says what was measured.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import special

from tangeval.analysis.hypothesis_tests import ERROR
from tangeval.analysis.intervals import LEVEL, Floats

#: With fewer degrees of freedom it says little that runs were alike: two runs each, or three beside one.
FEW = 4
#: The chance that runs are no further apart than is planned for (Browne, *Statistics in Medicine* 14, 1995).
CAUTION = 0.8
MOST_RUNS = 1000
_ROUNDING = 1e-12


class Spread(NamedTuple):
    """The mean squares of a recipe's value, or of two recipes' difference.

    ``runs`` is the variance of the means of one recipe's runs, ``poems`` that of the value's parts by poem,
    ``rest`` that of what neither explains. ``size`` counts the poems; ``weight`` is 1/k, summed over the recipes;
    ``free`` are the runs' degrees of freedom, 0 where each recipe has one run and ``runs`` is not known.
    """

    runs: float
    poems: float
    rest: float
    size: int
    weight: float
    free: int

    def variance(self, *, cautious: bool = True) -> tuple[float, float]:
        """Return the value's variance, and its degrees of freedom (Satterthwaite, *Biometrics Bulletin* 2, 1946).

        The variance is runs + poems − rest, since both have the rest in them. Neither is below it. Few runs leave
        all of it their own degrees of freedom, if ``cautious``: in a difference most of it is theirs.
        """
        runs, poems = self.weight * self.runs, self.poems / self.size
        rest = self.weight * self.rest / self.size
        if not self.free or (runs <= rest and self.free >= FEW):
            return max(poems, rest), self.size - 1
        runs = max(runs, rest)
        variance = runs + max(poems - rest, 0)
        if poems <= rest or (cautious and self.free < FEW):
            return variance, self.free
        doubt = runs**2 / self.free + (poems**2 + rest**2 / self.free) / (self.size - 1)
        return variance, variance**2 / doubt


class Estimate(NamedTuple):
    """A value with its interval, and a two-sided p against 0."""

    value: float
    low: float
    high: float
    p: float
    spread: Spread


def estimate(first: Floats, second: Floats | None = None, level: float = LEVEL) -> Estimate:
    """Return a recipe's value, or how much larger it is than that of a ``second``, by Student's t.

    A side is ``[k, P]``; or ``[P]`` where a checkpoint is meant and not its recipe. Where each recipe has one run
    the interval is over poems alone. Of one poem, ends and p are NaN.
    """
    sides = [side for side in (first, second) if side is not None]
    parts = [side.mean(axis=0) if side.ndim == 2 else side for side in sides]
    by_poem = parts[0] - parts[1] if second is not None else parts[0]
    spread = _spread(by_poem, [side for side in sides if side.ndim == 2])
    variance, free = spread.variance(cautious=len(sides) == 2) if spread.size > 1 else (math.nan, math.nan)
    value, error = float(by_poem.mean()), max(math.sqrt(variance), _ROUNDING)
    half = float(special.stdtrit(free, (1 + level) / 2)) * error
    p = 2 * float(special.stdtr(free, -abs(value) / error)) if abs(value) > _ROUNDING else 1.0
    return Estimate(value, value - half, value + half, p, spread)


def between_runs(runs: Floats, level: float = LEVEL) -> tuple[float, float, float]:
    """Return τ of one recipe's runs ``[k, P]``, and Williams' interval of it (*Biometrika* 49, 1962); NaN of one run."""
    spread = _spread(runs.mean(axis=0), [runs])
    if not spread.free or spread.size < 2:
        return math.nan, math.nan, math.nan
    rest, free = spread.rest / spread.size, spread.free
    squares = [spread.runs - rest]
    for tail in ((1 + level) / 2, (1 - level) / 2):
        least = rest * special.fdtri(free, free * (spread.size - 1), tail)
        squares.append(free * (spread.runs - least) / special.chdtri(free, 1 - tail))
    tau, low, high = (math.sqrt(max(square, 0)) for square in squares)
    return tau, low, high


def runs_needed(spread: Spread, effect: float, power: float, family: int = 1) -> float:
    """Return how many runs of either recipe show a difference of ``effect`` with ``power``, on as many poems.

    ``spread`` is of their difference; that of runs is taken at its upper 80 % limit. ``family`` counts the
    comparisons that share the level. Infinite where it wants more poems; NaN where no recipe has a second run.
    """
    if not spread.free:
        return math.nan
    rest, size = spread.rest, spread.size
    runs = max(spread.runs * spread.free / float(special.chdtri(spread.free, CAUTION)), rest / size)
    poems = max(spread.poems - spread.weight * rest, 0)
    for k in range(2, MOST_RUNS + 1):
        variance, free = Spread(runs, poems + 2 * rest / k, rest, size, 2 / k, 2 * k - 2).variance()
        if sum(special.stdtrit(free, [1 - ERROR / family / 2, power])) * math.sqrt(variance) <= effect:
            return k
    return math.inf


def _spread(by_poem: Floats, recipes: Sequence[Floats]) -> Spread:
    """The mean squares of a value whose parts by poem are ``by_poem``, made of these ``recipes``."""
    size, free, runs, rest = len(by_poem), sum(len(recipe) - 1 for recipe in recipes), 0.0, 0.0
    for recipe in recipes if free else ():
        means = recipe.mean(axis=1, keepdims=True) - recipe.mean()
        runs += float((means**2).sum()) / free
        rest += float(((recipe - means - recipe.mean(axis=0)) ** 2).sum()) / free / max(size - 1, 1)
    poems = float(by_poem.var(ddof=1)) if size > 1 else math.nan
    return Spread(runs, poems, rest, size, sum(1 / len(recipe) for recipe in recipes), free)
