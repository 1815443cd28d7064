"""The random baseline of a declared task: references of random training records.

In: the data and an example. Out: texts that are not the example's own, of records alike in a field where the task says
so. Where no other record is, those nearest in form, which is said. Knows nothing of metrics.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count, islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.tasks.base import Dataset
from tangeval.tasks.declared.schema import Same

#: Records that are taken as the nearest.
NEAREST = 32


@dataclass(frozen=True)
class _Training:
    """Training references as they are compared and as they are, and where those with each value of a field stand."""

    compared: list[str]
    texts: list[str]
    places: dict[str, list[int]]
    units: Callable[[str], str]

    @cached_property
    def shapes(self) -> NDArray[np.int64]:
        """Each one's lines and length ``[n, 2]``."""
        return np.array([_shape(text, self.units) for text in self.texts])


@lru_cache(maxsize=4)
def _training(
    data: Dataset, field: str, normalise: Callable[[str], str], units: Callable[[str], str]
) -> _Training:
    training, places = data.split("train"), dict[str, list[int]]()
    for place, example in enumerate(training):
        places.setdefault(dict(example.fields).get(field, ""), []).append(place)
    texts = [example.reference for example in training]
    return _Training([normalise(text) for text in texts], texts, places, units)


def _shape(text: str, units: Callable[[str], str]) -> tuple[int, int]:
    return len(text.strip().splitlines()), len(units(text))


@dataclass(frozen=True)
class Pool:
    """What is drawn from, as the task's ``baseline`` says; ``units`` makes a text a string of what is counted."""

    how: Literal["random", "none"] | Same
    normalise: Callable[[str], str]
    units: Callable[[str], str]

    def draw(self, data: Dataset, example: Example, seed: int, draws: int) -> list[str]:
        """Return ``draws`` references, drawn with replacement, seeded by example; none of ``none``.

        Raises:
            TangevalError: there is no training record but the example.
        """
        if self.how == "none":
            return []
        training, among, said = self._pool(data, example)
        own = self.normalise(example.reference)
        alone = all(training.compared[place] == own for place in among) if said else False
        noise = random.Random(f"random {seed} {example.id}")
        # Drawn again where it is its own: a copy of all others takes longer.
        drawn = (noise.choice(among) for _ in count())
        return [
            training.texts[p]
            for p in islice((p for p in drawn if alone or training.compared[p] != own), draws)
        ]

    def nearest(self, data: Dataset, example: Example) -> str:
        """Return what is drawn from in place of records of the example's form, in words; "" where there are such."""
        return "" if self.how == "none" else self._pool(data, example)[2]

    def _pool(self, data: Dataset, example: Example) -> tuple[_Training, list[int], str]:
        field = self.how.same if isinstance(self.how, Same) else ""
        training = _training(data, field, self.normalise, self.units)
        own, value = self.normalise(example.reference), dict(example.fields).get(field, "")
        among = training.places.get(value, [])
        if any(training.compared[place] != own for place in among):
            return training, among, ""
        others = [place for place, text in enumerate(training.compared) if text != own]
        if not others:
            places = [p for p, e in enumerate(data.split("train")) if e.id != example.id]
            if not places:
                raise TangevalError(f"baseline: there is no training record but {example.id}; say none")
            return training, places, "its own text, for all training references are that"
        apart = np.abs(training.shapes[others] - _shape(example.reference, self.units))
        near = [others[place] for place in np.lexsort((apart[:, 1], apart[:, 0]))[:NEAREST]]
        return (
            training,
            near,
            f"the {len(near)} references nearest in lines and length, for no other has {field} {value}",
        )
