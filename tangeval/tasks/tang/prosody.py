"""Does the text rhyme, and do its tones alternate, as Tang poets heard them?

In: couplets given and texts written. Out: four metrics from 0 to 1, and for one character its
rhyme groups and tones. Knows the tables of 平水韻, and nothing of the reference: another poem than
the poet's may rhyme as well as his.

Characters are folded before they are looked up, in the table too, so variants are found. Where
folding makes two characters one (后, 後), their readings are united. A character with several
readings is read as suits the poem best: the metrics cannot know which was meant.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tangeval.core.types import ASSETS
from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.ngrams import CODES, Ints, Lookup, share
from tangeval.tasks.tang.poems import Floats, Poems
from tangeval.tasks.tang.poems import poems as read_poems
from tangeval.tasks.tang.text import fold

_ASSETS = ASSETS / "prosody"
#: The 106 groups of 平水韻, and in the same groups what 廣韻 has and that table lacks: a group a
#: line, name, tab, characters. The README beside them says whence.
PINGSHUI, GUANGYUN = _ASSETS / "pingshui.tsv", _ASSETS / "guangyun.tsv"

#: The places in a clause, from 0, whose tones a couplet opposes, the 2nd, 4th and 6th: 二四六分明.
OPPOSED = (1, 3, 5)
#: A character's tones as bits, 0 where it is unknown.
LEVEL, OBLIQUE, EITHER = 1, 2, 3
#: Rhyme groups, a bit for each of ``groups()``, as ``np.packbits`` has them.
Bits = NDArray[np.uint8]

_NONE: frozenset[str] = frozenset()


def read_table(file: Path) -> dict[str, str]:
    """Return the groups of a table, in its order: name → characters."""
    lines = (line.partition("\t") for line in file.read_text("utf-8").splitlines())
    return {name: characters for name, _, characters in lines}


def _readings(file: Path) -> dict[str, frozenset[str]]:
    """Folded character → names of its groups in one table."""
    found: dict[str, frozenset[str]] = {}
    for name, characters in read_table(file).items():
        found |= {character: found.get(character, _NONE) | {name} for character in fold(characters)}
    return found


@cache
def _table() -> dict[str, frozenset[str]]:
    """Folded character → names of its groups; 廣韻 is asked only where 平水韻 is silent."""
    return _readings(GUANGYUN) | _readings(PINGSHUI)


@cache
def rhyme_groups(character: str) -> frozenset[str]:
    """Return the names of the groups ``character`` rhymes in, as 下平聲十一尤; none if unknown."""
    return _table().get(fold(character), _NONE)


def is_level(group: str) -> bool:
    """Is the group named one of the 30 in the level tone (上平聲, 下平聲)?"""
    return "平聲" in group


@cache
def groups() -> tuple[str, ...]:
    return tuple(read_table(PINGSHUI))


@cache
def in_level() -> Bits:
    """Return which of ``groups()`` are in the level tone."""
    return np.packbits([*map(is_level, groups())])


@cache
def _kinds() -> tuple[dict[frozenset[str], int], Bits]:
    """The sets of groups that a character may rhyme in, numbered, none among them, and the groups of each."""
    kinds = list(dict.fromkeys((_NONE, *_table().values())))
    bits = np.packbits([np.isin(groups(), list(names)) for names in kinds], axis=1)
    return {names: kind for kind, names in enumerate(kinds)}, bits


_kind = Lookup(lambda character: _kinds()[0][rhyme_groups(character)], np.int64)


def in_groups(codes: Ints) -> Bits:
    """Return the groups that each character rhymes in ``[…, bytes]``."""
    found: Bits = _kinds()[1][_kind(codes)]
    return found


@cache
def tones(character: str) -> frozenset[str]:
    """Return the tones ``character`` can have: 平 (level), 仄 (oblique: 上, 去, 入) or both."""
    return frozenset("平" if is_level(group) else "仄" for group in rhyme_groups(character))


_tone = Lookup(
    lambda character: sum({"平": LEVEL, "仄": OBLIQUE}[tone] for tone in tones(character)), np.int8
)


def tone(poems: Poems) -> Ints:
    """Return the tone of each character ``[N]`` as bits, 0 where it is unknown."""
    return _tone(poems.codes)


def shared_groups(poems: Poems) -> Bits:
    """Return which rhyme groups all known endings of each poem share ``[n, bytes]``.

    Every second clause has to rhyme. The couplet is paired by itself, so what the model writes is never shifted by
    what it was given. None are shared unless two endings are known, one of them written: a couplet alone says nothing
    about the model. None are where an ending stands twice (重韻): a character does not rhyme with itself (王力, 漢語詩律學).
    """
    ends = np.flatnonzero(np.where(poems.written, poems.place, poems.number) % 2 == 1)
    of, last = poems.poem[ends], poems.begin[ends] + poems.length[ends] - 1
    held = in_groups(poems.codes[last])
    known = held.any(axis=1)
    several = np.bincount(of, known, poems.count) >= 2
    several &= np.bincount(of, known & poems.written[ends], poems.count) >= 1
    characters = np.sort(of * CODES + poems.folded[last])
    several[characters[1:][characters[1:] == characters[:-1]] // CODES] = False
    found = np.zeros((poems.count, held.shape[1]), np.uint8)
    begins = np.flatnonzero(np.diff(of[known], prepend=-1))
    found[of[known][begins]] = np.bitwise_and.reduceat(held[known], begins, axis=0) if len(begins) else 0
    return found * several[:, None]


def tone_opposition(poems: Poems, tones: Ints) -> Floats:
    """Return the share of the places 2, 4 and 6 where the clauses of a couplet oppose their tones.

    Places that a clause lacks, or where a character is unknown, are left out; 0 if none is left. A character
    with both tones opposes either.
    """
    first, second = (opposed(poems, tones, clauses) for clauses in poems.couplets)
    return poems.share(first | second == EITHER, (first > 0) & (second > 0), poems.couplets[0])


def opposed(poems: Poems, tones: Ints, clauses: Ints | slice = slice(None)) -> Ints:
    """Return the tones of clauses at places 2, 4 and 6 ``[clauses, 3]``."""
    return np.stack([poems.at(tones, place, clauses) for place in OPPOSED], axis=1)


def known_share(poems: Poems, tones: Ints) -> Floats:
    """Return the share of the texts' Han characters that the table knows; 0 if one has none."""
    judged = poems.han & poems.in_text
    return share(
        *(
            np.bincount(poems.poem_of[which], minlength=poems.count)
            for which in (judged & (tones > 0), judged)
        )
    )


def prosody(poems: Poems) -> Mapping[str, Floats]:
    """Return ``rhyme``, ``rhyme_level``, ``tone_opposition`` and ``prosody_known`` of each text, from 0 to 1.

    ``rhyme`` and ``rhyme_level`` (a group in the level tone, as regulated verse asks) are 1 or 0 for couplet
    and text together; the others are about the text alone. All are 0 for an empty one.
    """
    shared, tones = shared_groups(poems), tone(poems)
    return {
        "rhyme": shared.any(axis=1).astype(float),
        "rhyme_level": (shared & in_level()).any(axis=1).astype(float),
        "tone_opposition": tone_opposition(poems, tones),
        "prosody_known": known_share(poems, tones),
    }


def _prosody(texts: Texts) -> Mapping[str, Floats]:
    return prosody(texts.once(read_poems))


def _metric(name: str, en: str, zh: str, **kind: Any) -> Metric:
    def compute(texts: Texts) -> Floats:
        return texts.once(_prosody)[name]

    return Metric(name, {"en": en, "zh": zh}, "high", share=True, compute=compute, **kind)


_NO_RHYME = {"en": "rhyme", "zh": "失韻"}
RHYME = _metric("rhyme", "couplets rhyme", "押韻", headline=True, flaw=_NO_RHYME)
RHYME_LEVEL = _metric("rhyme_level", "couplets rhyme in a level tone", "押平聲韻")
TONE_OPPOSITION = _metric("tone_opposition", "tones oppose in a couplet", "平仄相對", headline=True)
PROSODY_KNOWN = _metric("prosody_known", "characters with a known reading", "讀音已知的字")
