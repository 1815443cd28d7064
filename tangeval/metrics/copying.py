"""How much of a text stands verbatim in the poems that were there to be trained on.

In: the training poems, indexed once, and a text. Out: the length of the longest run of
characters that also stands in one of the poems, and the share of clauses that do. Pure; Han
characters alone are compared, folded, marks left out, so a run may cross from one clause to the
next.

The index is a sorted list of the poems' suffixes (a suffix array: Manber & Myers, 1993). Of
all suffixes the one that shares most with a string stands next to where the string would.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tangeval.tasks.tang.text import clauses, fold, han

COLUMNS = ("train_overlap", "copied_clauses")


@dataclass(frozen=True)
class Index:
    """Poems to look for: their suffixes sorted, whose each is, and the poems that hold each clause."""

    suffixes: list[str]
    owners: list[str]
    clauses: dict[str, set[str]]


def index(poems: Iterable[tuple[str, str]]) -> Index:
    """Index (id, whole text) of each poem."""
    suffixes: list[tuple[str, str]] = []
    holders: defaultdict[str, set[str]] = defaultdict(set)
    for name, text in poems:
        whole = fold(han(text))
        suffixes += [(whole[i:], name) for i in range(len(whole))]
        for clause in clauses(fold(text)):
            holders[clause].add(name)
    suffixes.sort()
    return Index([s for s, _ in suffixes], [name for _, name in suffixes], dict(holders))


def copying(poems: Index, text: str, own: str | None = None) -> dict[str, float]:
    """Return ``COLUMNS`` of ``text``; the poem with the id ``own`` is not looked at.

    ``train_overlap`` [characters] is the longest run, 0 for a text without Han characters;
    ``copied_clauses`` the share of clauses found, 0 where there is none.
    """
    written = clauses(fold(text))
    found = sum(bool(poems.clauses.get(clause, set()) - {own}) for clause in written)
    return {
        "train_overlap": float(_longest(poems, "".join(written), own)),
        "copied_clauses": found / len(written) if written else 0.0,
    }


def runs(poems: Index, text: str, least: int, own: str | None = None) -> list[tuple[int, int]]:
    """Return (begin, length) of the longest runs of ``text``'s Han characters that a training poem has too.

    Runs of at least ``least`` characters that no other such run contains, in order; they may overlap.
    """
    written = fold(han(text))
    found: list[tuple[int, int]] = []
    end = 0
    for begin in range(len(written) - least + 1):
        # A run that does not reach beyond the last one is part of it.
        if end == len(written):
            break
        length = _at(poems, written[begin:], own)
        if length >= least and begin + length > end:
            end = begin + length
            found.append((begin, length))
    return found


def _longest(poems: Index, text: str, own: str | None) -> int:
    longest = 0
    for begin in range(len(text)):
        if len(text) - begin <= longest:
            break
        longest = max(longest, _at(poems, text[begin:], own, longest))
    return longest


def _at(poems: Index, rest: str, own: str | None, longest: int = 0) -> int:
    """How many of the first characters of ``rest`` stand together in a poem; ``longest`` unless more do."""
    place = bisect_left(poems.suffixes, rest)
    for step in (-1, 1):
        neighbour = place - 1 if step < 0 else place
        while 0 <= neighbour < len(poems.suffixes):
            if not poems.suffixes[neighbour].startswith(rest[: longest + 1]):
                break
            shared = _shared(poems.suffixes[neighbour], rest)
            if poems.owners[neighbour] != own:
                longest = shared
                break
            neighbour += step
    return longest


def _shared(a: str, b: str) -> int:
    """How many characters ``a`` and ``b`` begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
