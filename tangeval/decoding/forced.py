"""A text that begins with given tokens: the constraint that holds it to them.

In: tokens, and what the text is held to besides. Out: a ``Constraint``. Noise is keyed by step, so what follows is drawn
with the noise that it would have had. Knows nothing of who chose the tokens.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from tangeval.core.types import Allowed, Constraint

#: A constraint and its state after what is written; None where a text is held to none.
Held = tuple[Constraint, Any] | None


def held_after(held: Held, token: int) -> Held:
    """Return a constraint after one more token; a text that leaves what is allowed is held to nothing from there on."""
    if held is None:
        return None
    constraint, state = held
    found = constraint.allowed(state)
    ok = token < len(found.tokens) and found.tokens[token] and token not in found.without
    return (constraint, constraint.advance(state, token)) if ok else None


class Forced:
    """A ``Constraint``: ``tokens`` come first, then what ``rest`` allows; a state is a place, and what ``rest`` says there."""

    def __init__(
        self, tokens: Sequence[int], rest: Constraint | None, size: int, eos: Collection[int]
    ) -> None:
        """``size`` is the vocabulary's."""
        self.tokens, self.eos = tuple(tokens), eos
        self.start = (0, (rest, rest.start) if rest else None)
        self.every = np.ones(len(rest.allowed(rest.start).tokens) if rest else size, dtype=bool)

    @property
    def length(self) -> tuple[int, int | None]:
        return len(self.tokens), None

    def allowed(self, state: Any) -> Allowed:
        place, held = state
        if place < len(self.tokens):
            token, only = self.tokens[place], np.zeros_like(self.every)
            only[token] = True
            return Allowed(only, (), token in self.eos)
        constraint, inner = held or (None, None)
        return constraint.allowed(inner) if constraint else Allowed(self.every, (), True)

    def advance(self, state: Any, token: int) -> Any:
        return state[0] + 1, held_after(state[1], token)
