"""Does the output look like the rest of a Tang poem? Checks of a text beside its couplet.

In: the couplet given and the text written. Out: a bool for each check. Pure; each check is
one small function, all are in ``CHECKS``. Characters are compared folded.

With ``no_repeat_ngram_size: 3`` and one token a character, ``no_echo`` and ``no_repeat``
can hardly fail: the decoding itself forbids any three characters twice.
"""

import re
from collections.abc import Callable

from tangeval.tasks.tang.text import HAN, MARKS, PAUSES, STOPS, clauses, fold, han, line_length

Check = Callable[[str, str], bool]

_PUNCTUATED = re.compile(f"(?:[{HAN}]+[{PAUSES}][{HAN}]+[{STOPS}])+")

#: How many clauses a whole poem has: a quatrain's four or a regulated poem's eight.
CLAUSES_OF_A_POEM = (4, 8)


def even_lines(couplet: str, text: str) -> bool:
    """Every clause is as long as the couplet's first, and there is at least one."""
    written = clauses(text)
    return bool(written) and {len(clause) for clause in written} == {line_length(couplet)}


def clause_count(couplet: str, text: str) -> bool:
    """Couplet and text together have four or eight clauses."""
    return len(clauses(couplet)) + len(clauses(text)) in CLAUSES_OF_A_POEM


def punctuation(couplet: str, text: str) -> bool:
    """Couplet after couplet: a clause, a mark of a pause, a clause, a mark of a stop."""
    return bool(_PUNCTUATED.fullmatch(text))


def han_only(couplet: str, text: str) -> bool:
    """There is nothing but Han characters and the marks of verse, and at least one character."""
    characters = set(han(text))
    return bool(characters) and set(text) <= characters | MARKS


def no_echo(couplet: str, text: str) -> bool:
    """No clause of the couplet is written again."""
    return not set(clauses(fold(couplet))) & set(clauses(fold(text)))


def no_repeat(couplet: str, text: str) -> bool:
    """No clause is written twice."""
    written = clauses(fold(text))
    return len(set(written)) == len(written)


def length_match(text: str, reference: str) -> bool:
    """There are as many clauses as the poet wrote. No part of ``form``: a quatrain's couplet may begin a longer poem."""
    return len(clauses(text)) == len(clauses(reference))


CHECKS: tuple[tuple[str, Check], ...] = (
    ("line_length", even_lines),
    ("clause_count", clause_count),
    ("punctuation", punctuation),
    ("han_only", han_only),
    ("no_echo", no_echo),
    ("no_repeat", no_repeat),
)


def check(couplet: str, text: str, finish_reason: str | None) -> dict[str, float | None]:
    """Return each check as 1 or 0, ``complete``, and ``form``: 1 if all hold.

    ``complete`` says that the text ended by itself; it is None where ``finish_reason`` is,
    which is where the text was not generated here, and then has no part in ``form``.
    """
    held = {name: float(test(couplet, text)) for name, test in CHECKS}
    complete = None if finish_reason is None else float(finish_reason == "stop")
    form = float(all(held.values()) and complete != 0.0)
    return {"form": form, **held, "complete": complete}
