"""Regular expressions by llguidance against Python's own matcher, over all texts of a few tokens."""

import re

import numpy as np
import pytest

from tangeval.core.errors import TangevalError
from tangeval.decoding.regex import Regex

EOS = 0
TEXTS = ("", "a", "b", "ab", "abc", " ", " a", "1", "12", "é", "\n", "c", "山水", "山")


def reachable(held: Regex, state, text: str, depth: int) -> set[str]:
    """The whole texts of so many more tokens; each state must say rightly whether its text is one."""
    allowed = held.allowed(state)
    assert allowed.end == bool(re.fullmatch(f" ?(?:{held.pattern})", text))
    found = {text} if allowed.end else set()
    for token in np.flatnonzero(allowed.tokens) if depth else ():
        found |= reachable(held, held.advance(state, int(token)), text + TEXTS[token], depth - 1)
    return found


@pytest.mark.parametrize("pattern", ["(ab)+c?", "a|b{2,3}", "abcabc", "[0-9]{3}", r"\w{2}", "山(水|山)"])
def test_what_is_allowed_is_what_matches(pattern):
    held = Regex(TEXTS, EOS, pattern)
    layers = {""}
    every = set(layers)
    for _ in range(4):
        layers = {text + token for text in layers for token in TEXTS if token}
        every |= {text for text in layers if re.fullmatch(f" ?(?:{pattern})", text)}
        layers = {text for text in layers if len(text) < 8}
    every = {text for text in every if re.fullmatch(f" ?(?:{pattern})", text)}
    assert reachable(held, held.start, "", 4) == every


def test_what_is_no_expression_or_has_no_tokens_is_refused():
    with pytest.raises(TangevalError, match=r"decoding.constrain: regex '\(': .*Rust's syntax"):
        Regex(TEXTS, EOS, "(")
    held = Regex(TEXTS, EOS, "xyz")
    with pytest.raises(TangevalError, match="'xyz': no token writes what must come next"):
        held.allowed(held.advance(held.start, TEXTS.index(" ")))
