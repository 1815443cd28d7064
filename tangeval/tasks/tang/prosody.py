"""Does the text rhyme, and do its tones alternate, as Tang poets heard them?

In: the couplet given and the text written. Out: four metrics from 0 to 1, and for one character its
rhyme groups and tones. Knows the tables of 平水韻, and nothing of the reference: another poem than
the poet's may rhyme as well as his.

Characters are folded before they are looked up, in the table too, so variants are found. Where
folding makes two characters one (后, 後), their readings are united. A character with several
readings is read as suits the poem best: the metrics cannot know which was meant.
"""

from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from tangeval.core.types import ASSETS
from tangeval.metrics.base import Metric, Output
from tangeval.tasks.tang.text import clauses, fold

_ASSETS = ASSETS / "prosody"
#: The 106 groups of 平水韻, and in the same groups what 廣韻 has and that table lacks: a group a
#: line, name, tab, characters. The README beside them says whence.
PINGSHUI, GUANGYUN = _ASSETS / "pingshui.tsv", _ASSETS / "guangyun.tsv"

#: The places in a clause whose tones a couplet opposes, the 2nd, 4th and 6th: 二四六分明.
OPPOSED = slice(1, 6, 2)

#: A line's tones as bits, 0 where a character is unknown.
Line = tuple[int, ...]
LEVEL, OBLIQUE, EITHER = 1, 2, 3

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
def tones(character: str) -> frozenset[str]:
    """Return the tones ``character`` can have: 平 (level), 仄 (oblique: 上, 去, 入) or both."""
    return frozenset("平" if is_level(group) else "仄" for group in rhyme_groups(character))


@cache
def _tone(character: str) -> int:
    return sum({"平": LEVEL, "仄": OBLIQUE}[tone] for tone in tones(character))


@lru_cache(maxsize=64)
def lines(part: str) -> tuple[Line, ...]:
    """Return the tones of each clause of a couplet or of a text."""
    return tuple(tuple(map(_tone, clause)) for clause in clauses(part))


def rhyme_endings(part: str) -> list[str]:
    """Return the characters of a couplet or of a text that have to rhyme: every second clause's last.

    Each part is paired by itself, so what the model writes is never shifted by what it was given.
    """
    return [second[-1] for second in clauses(part)[1::2]]


@lru_cache(maxsize=1)
def shared_groups(couplet: str, text: str) -> frozenset[str]:
    """Return the rhyme groups that all known endings of the poem share.

    None are shared unless two endings are known, one of them written: a couplet alone says nothing about the
    model. None are where an ending stands twice (重韻): a character does not rhyme with itself (王力, 漢語詩律學).
    """
    endings = [rhyme_endings(part) for part in (couplet, text)]
    given, written = (list(filter(None, map(rhyme_groups, part))) for part in endings)
    characters = fold("".join(chain(*endings)))
    if not written or len(given) + len(written) < 2 or len(set(characters)) < len(characters):
        return _NONE
    return frozenset.intersection(*given, *written)


def tone_opposition(text: str) -> float:
    """Return the share of the places 2, 4 and 6 where the clauses of a couplet oppose their tones.

    Places that a clause lacks, or where a character is unknown, are left out; 0 if none is left. A character
    with both tones opposes either.
    """
    written = lines(text)
    met = [
        one | other
        for first, second in zip(written[::2], written[1::2], strict=False)
        for one, other in zip(first[OPPOSED], second[OPPOSED], strict=False)
        if one and other
    ]
    return met.count(EITHER) / len(met) if met else 0.0


def known_share(text: str) -> float:
    """Return the share of the text's Han characters that the table knows; 0 if it has none."""
    written = [tone for line in lines(text) for tone in line]
    return sum(map(bool, written)) / len(written) if written else 0.0


@lru_cache(maxsize=1)  # four metrics in a row ask for the same text
def prosody(couplet: str, text: str) -> Mapping[str, float]:
    """Return ``rhyme``, ``rhyme_level``, ``tone_opposition`` and ``prosody_known`` of a text, each from 0 to 1.

    ``rhyme`` and ``rhyme_level`` (a group in the level tone, as regulated verse asks) are 1 or 0 for couplet
    and text together; the others are about the text alone. All are 0 for an empty one.
    """
    shared = shared_groups(couplet, text)
    return {
        "rhyme": float(bool(shared)),
        "rhyme_level": float(any(map(is_level, shared))),
        "tone_opposition": tone_opposition(text),
        "prosody_known": known_share(text),
    }


def _metric(name: str, en: str, zh: str, **kind: Any) -> Metric:
    def compute(output: Output) -> float:
        return prosody(output.example.input, output.text)[name]

    return Metric(name, {"en": en, "zh": zh}, "high", share=True, compute=compute, **kind)


_NO_RHYME = {"en": "rhyme", "zh": "失韻"}
RHYME = _metric("rhyme", "couplets rhyme", "押韻", headline=True, flaw=_NO_RHYME)
RHYME_LEVEL = _metric("rhyme_level", "couplets rhyme in a level tone", "押平聲韻")
TONE_OPPOSITION = _metric("tone_opposition", "tones oppose in a couplet", "平仄相對", headline=True)
PROSODY_KNOWN = _metric("prosody_known", "characters with a known reading", "讀音已知的字")
