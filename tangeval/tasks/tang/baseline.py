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
    the nearest to the example's is taken; where none has so many, the nearest.

    Raises:
        TangevalError: no other training poem has the example's line length.
    """
    own = frozenset(clauses(fold(example.reference)))
    by_count = _endings(dataset).get(line_length(example.input), {})
    wanted = len(clauses(example.reference))
    counts = sorted(by_count, key=lambda n: (abs(n - wanted), n))
    texts = [[text for text, poem in by_count[count] if own.isdisjoint(poem)] for count in counts]
    nearest = next((each for each in texts if len(each) >= ENOUGH), next(filter(None, texts), None))
    if not nearest:
        raise TangevalError(
            f"{dataset.folder}: no training poem but itself has {line_length(example.input)} characters a clause, "
            f"as {example.id} has, so there is no random baseline to draw"
        )
    noise = random.Random(f"floor {seed} {example.id}")
    return [noise.choice(nearest) for _ in range(draws)]
