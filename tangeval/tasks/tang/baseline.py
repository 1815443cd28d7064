"""The random baseline: the rest of other poems of the same form.

In: the data and an example. Out: texts of random training poems. Knows nothing of metrics.
"""

import random
from functools import lru_cache

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang.text import as_verse, clauses, fold, line_length

#: Poems that a number of clauses must have to be drawn from: fewer would be drawn again and again.
ENOUGH = 32


@lru_cache(maxsize=2)
def _endings(dataset: Dataset) -> dict[int, dict[int, list[tuple[str, frozenset[str]]]]]:
    """Endings of training poems beside their folded clauses, by characters a clause and number of clauses."""
    found: dict[int, dict[int, list[tuple[str, frozenset[str]]]]] = {}
    for e in dataset.split("train"):
        same = found.setdefault(line_length(e.input), {}).setdefault(len(clauses(e.reference)), [])
        same.append((as_verse(e.reference), frozenset(clauses(fold(e.reference)))))
    return found


def baseline(dataset: Dataset, example: Example, seed: int, draws: int) -> list[str]:
    """Return the rest of random training poems of the example's line length and number of clauses.

    Drawn with replacement, seeded by example. Endings that share a clause with the example's own are left out:
    they are copies of its poem, or other editions. Of the numbers of clauses that at least ``ENOUGH`` poems have,
    the nearest to the example's is taken; where none has so many, the nearest. Of a line length that no other training
    poem has, the nearest line length is taken, which ``nearest`` names.

    Raises:
        TangevalError: there is no other training poem.
    """
    texts = _pool(dataset, example)[1]
    noise = random.Random(f"floor {seed} {example.id}")
    return [noise.choice(texts) for _ in range(draws)]


def nearest(dataset: Dataset, example: Example) -> str:
    """Return the line length that is drawn from in place of the example's own, in words; "" where that is."""
    taken, own = _pool(dataset, example)[0], line_length(example.input)
    return "" if taken == own else f"of {taken} characters a clause, not {own}"


def _pool(dataset: Dataset, example: Example) -> tuple[int, list[str]]:
    """The line length, and the endings that are drawn from."""
    own, length = frozenset(clauses(fold(example.reference))), line_length(example.input)
    wanted, endings = len(clauses(example.reference)), _endings(dataset)
    for near in sorted(endings, key=lambda n: (abs(n - length), n)):
        counts = sorted(endings[near], key=lambda n: (abs(n - wanted), n))
        texts = [[text for text, poem in endings[near][count] if own.isdisjoint(poem)] for count in counts]
        found = next((each for each in texts if len(each) >= ENOUGH), next(filter(None, texts), None))
        if found:
            return near, found
    raise TangevalError(
        f"{dataset.folder}: no training poem but {example.id} itself, so no random baseline to draw"
    )
