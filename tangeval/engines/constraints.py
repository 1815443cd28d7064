"""What the texts of a study are held to: its ``constrain`` knob, made of the task and the tokenizer.

In: a resolved study and a tokenizer. Out: the ``Constraint`` of an example and value, one object each. Knows nothing of
models and batches.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, REGEX
from tangeval.core.types import Constraint, Example
from tangeval.engines.base import examples_of
from tangeval.models.vocabulary import token_texts
from tangeval.resolve import ResolvedStudy, check_constrain

#: Gives the constraint of a value and an example; None where the value is off.
Constraints = Callable[[str, Example], Constraint | None]


def constraints_of(resolved: ResolvedStudy, tokenizer: Any) -> Constraints:
    """Return what gives constraints, each made once.

    Raises (what it returns):
        TangevalError: no text of this example can be as the value asks, and names the example; or there is no such value.
    """

    @cache
    def writer(value: str) -> Callable[[Example], Constraint]:
        check_constrain(resolved.task, value)
        texts = token_texts(tokenizer)
        if not value.startswith(REGEX):
            return resolved.task.constraints[value](texts)
        from tangeval.decoding.regex import Regex

        one = Regex(texts, tokenizer.eos_token_id, value.removeprefix(REGEX))
        return lambda example: one

    @cache
    def made(value: str, example: Example) -> Constraint | None:
        return None if value == KNOB["constrain"].off else writer(value)(example)

    return made


def check_constraints(resolved: ResolvedStudy, tokenizer: Any) -> None:
    """Refuse constraints that an example's text cannot keep, or no text within ``max_length``; warn of those that may be cut.

    Raises:
        TangevalError: naming the example, or ``decoding.max_length``.
    """
    give = constraints_of(resolved, tokenizer)
    decoding, examples = resolved.study.decoding, examples_of(resolved)
    for value in dict.fromkeys(decoding.constrain):
        made = [each for each in (give(value, example) for example in examples) if each]
        lengths = [s.max_length for s in decoding.settings() if s.constrain == value]
        if not made or not lengths:
            continue
        fewest = max(each.length[0] for each in made)
        most = max(each.length[1] or 0 for each in made)
        short = f"decoding.max_length: {min(lengths)} tokens"
        if min(lengths) < fewest:
            raise TangevalError(
                f"{short} hold no whole text of constrain {value}, which takes {fewest} to {most}; set it to {most}"
            )
        if min(lengths) < most:
            warnings.warn(
                f"{short} cut some texts of constrain {value}, which takes up to {most}", stacklevel=2
            )
