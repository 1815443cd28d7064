"""Regulated verse out of chinese-poetry, and how poems are kept out of it.

In: the folder of the npm package ``chinese-poetry`` (or its ``dist``). Out: ``Poem``s, and
corpora without the poems that evaluation must not have shown. Pure but for reading; knows
nothing of models, tokenizers or HW5's files.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.tasks.tang.text import clauses, fold, han

#: The marks of verse; whatever else stands in a text (notes, gaps, Latin letters) is no verse.
VERSE_MARKS = "，。？！、；："


@dataclass(frozen=True)
class Poem:
    """One poem: ``text`` has its marks and no white space; ``dynasty`` is tang or song."""

    dynasty: str
    author: str
    title: str
    text: str

    @cached_property
    def clauses(self) -> tuple[str, ...]:
        return clauses(self.text)

    @cached_property
    def folded(self) -> frozenset[str]:
        """Every clause, variants folded: what two copies of a poem share."""
        return frozenset(clauses(fold(self.text)))

    @cached_property
    def key(self) -> bytes:
        """A digest of the folded characters, to order poems by: stable, and unlike any reading order."""
        return hashlib.blake2b(fold(han(self.text)).encode(), digest_size=16).digest()


def read(folder: Path, dynasty: str) -> Iterator[Poem]:
    """Yield the poems of ``quantangshi/poet.DYNASTY.*.json``, in the files' order.

    Raises:
        TangevalError: there are no such files in ``folder``.
    """
    for place in (folder, folder / "dist"):
        files = sorted(
            (place / "quantangshi").glob(f"poet.{dynasty}.*.json"), key=lambda f: int(f.name.split(".")[2])
        )
        if files:
            break
    else:
        raise TangevalError(
            f"{folder}: no quantangshi/poet.{dynasty}.*.json there; give the unpacked npm package chinese-poetry"
        )
    for file in files:
        for record in json.loads(file.read_text("utf-8")):
            text = "".join("".join(record["paragraphs"]).split())
            yield Poem(dynasty, record["author"], record["title"], text)


def is_regulated(poem: Poem) -> bool:
    """Say whether a poem has four clauses or more, all of 5 or all of 7 characters, and is nothing but verse."""
    lengths = {len(clause) for clause in poem.clauses}
    verse = len(han(poem.text)) + sum(map(poem.text.count, VERSE_MARKS)) == len(poem.text)
    # Exactly one mark a clause: doubled or missing ones are slips of the edition.
    marked = len(poem.text) == sum(map(len, poem.clauses)) + len(poem.clauses)
    return len(poem.clauses) >= 4 and lengths in ({5}, {7}) and verse and marked


def leave_out(poems: Iterable[Poem], withheld: Iterable[str]) -> tuple[list[Poem], list[Poem]]:
    """Part the poems into those without any clause of the texts ``withheld``, and those with one.

    Clauses are compared folded, so a poem is left out in another edition's characters too.
    """
    secret = {clause for text in withheld for clause in clauses(fold(text))}
    kept: list[Poem] = []
    left: list[Poem] = []
    for poem in poems:
        (kept if secret.isdisjoint(poem.folded) else left).append(poem)
    return kept, left


def without_repeats(poems: Iterable[Poem]) -> list[Poem]:
    """Return the poems, the first of each that differ in marks and variants alone."""
    first: dict[bytes, Poem] = {}
    for poem in poems:
        first.setdefault(poem.key, poem)
    return list(first.values())


def hold_out(poems: list[Poem], size: int) -> tuple[list[Poem], list[Poem]]:
    """Part the poems into those to train on and at most ``size`` Tang poems held out.

    A poem held out shares no folded clause with any other poem; which ones, their keys decide.
    """
    count = Counter(clause for poem in poems for clause in poem.folded)
    alone = [p for p in poems if p.dynasty == "tang" and all(count[clause] == 1 for clause in p.folded)]
    held = sorted(alone, key=lambda poem: poem.key)[:size]
    keys = {poem.key for poem in held}
    return [poem for poem in poems if poem.key not in keys], held
