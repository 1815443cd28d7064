"""Texts held to a regular expression, by llguidance.

In: what each token writes, the id that ends a text, and an expression in Rust's syntax. Out: a ``Constraint``. A text may
begin with the space that completions begin with. Knows nothing of tasks and models.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs
from tangeval.core.types import Allowed

with needs("constrain"):
    from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper


class _Tokens:
    """The tokens as llguidance asks for them; what is no whole character is no token of its."""

    bos_token_id = None

    def __init__(self, texts: Sequence[str], eos: int) -> None:
        self.tokens = [text.encode() for text in texts]
        self.eos_token_id, self.special_token_ids = eos, [eos]
        self.ids = {text: number for number, text in enumerate(self.tokens) if text}
        self.longest = max(map(len, self.ids), default=0)

    def __call__(self, text: bytes) -> list[int]:
        """The longest token first; llguidance asks so for what an expression forces."""
        for size in range(min(len(text), self.longest), 0, -1):
            if text[:size] in self.ids:
                return [self.ids[text[:size]], *self(text[size:])]
        return []


@lru_cache(maxsize=2)
def _tokenizer(texts: tuple[str, ...], eos: int) -> Any:
    return LLTokenizer(TokenizerWrapper(_Tokens(texts, eos)))


class Regex:
    """A ``Constraint`` whose states are llguidance's matchers; an expression may be of any length.

    Raises:
        TangevalError: it is no expression, or no token can begin it.
    """

    length = (1, None)

    def __init__(self, texts: tuple[str, ...], eos: int, pattern: str) -> None:
        self.pattern, self.eos, self.size = pattern, eos, len(texts)
        grammar = LLMatcher.grammar_from_regex(f" ?(?:{pattern})")
        self.start = LLMatcher(_tokenizer(texts, eos), grammar)
        if self.start.is_error():
            reason = self.start.get_error().splitlines()[0]
            raise TangevalError(
                f"decoding.constrain: regex {pattern!r}: {reason}; give an expression in Rust's syntax"
            )
        self.allowed(self.start)

    def allowed(self, state: Any) -> Allowed:
        bits = np.frombuffer(state.compute_bitmask(), np.uint8)
        tokens = np.unpackbits(bits, bitorder="little")[: self.size].astype(bool)
        tokens[self.eos], end = False, state.is_accepting()
        if not end and not tokens.any():
            raise TangevalError(
                f"decoding.constrain: regex {self.pattern!r}: no token writes what must come next; use characters that are "
                "tokens of the model"
            )
        return Allowed(tokens, (), end)

    def advance(self, state: Any, token: int) -> Any:
        after = state.deep_copy()
        after.consume_token(token)
        return after
