"""Does the poem keep the rules of regulated verse (格律)?

In: the couplet given and the text written. Out: seven metrics from 0 to 1: the rules of tones one by one, of
what was written (``adhesion_given``: of where it joins the couplet), and all of 格律 in one yes or no, of the
whole poem. The rules are those of 王力, 詩詞格律 (1977), chapter 2. Knows nothing of the reference.

Unknown characters are left out; one with both tones is read as suits a rule best. A line that ends in
平平仄平仄 counts as 平平平仄仄, as poets use it; no other 拗救 is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

from tangeval.metrics.base import Metric, Output
from tangeval.tasks.tang.form import CLAUSES_OF_A_POEM
from tangeval.tasks.tang.prosody import (
    EITHER,
    LEVEL,
    OBLIQUE,
    OPPOSED,
    Line,
    is_level,
    lines,
    rhyme_groups,
    shared_groups,
    tones,
)
from tangeval.tasks.tang.text import clauses

_USUAL, _TWISTED = (LEVEL, LEVEL, LEVEL, OBLIQUE, OBLIQUE), (LEVEL, LEVEL, OBLIQUE, LEVEL, OBLIQUE)
_THREE_LEVEL, _LONE_LEVEL = (LEVEL, LEVEL, LEVEL), (OBLIQUE, LEVEL, OBLIQUE, OBLIQUE, LEVEL)


def alternation(written: Iterable[Line]) -> float:
    """Return the share of neighbours among places 2, 4 and 6 of a line that have different tones."""
    return _share(held for line in written for held in _alternates(line))


def adhesion(given: Sequence[Line], written: Sequence[Line]) -> tuple[float, float]:
    """Return the shares of junctions where place 2 keeps its tone (粘): couplet to text, and within the text.

    A junction joins a couplet's second line to the first line of the next. A text of one couplet has none within
    and breaks no rule: 1; a text without a couplet has 0 and 0.
    """
    if len(written) < 2:
        return 0.0, 0.0
    ends = [*(given[1::2] or ((),))[-1:], *written[1::2]]
    outer, *inner = zip(ends, written[:-1:2], strict=False)
    return _share(_keep_tone([outer])), _share(_keep_tone(inner)) if inner else 1.0


def odd_line_tone(written: Sequence[Line]) -> float:
    """Return the share of couplets whose first line ends in the other tone than the second, which rhymes."""
    couplets = zip(written[::2], written[1::2], strict=False)
    return _share(one[-1] | other[-1] == EITHER for one, other in couplets if one[-1] and other[-1])


def three_level(line: Line) -> bool:
    """Does the line end in three level tones (三平尾)?"""
    return line[-3:] == _THREE_LEVEL


def lone_level(line: Line) -> bool:
    """Is the first of 平平仄仄平 oblique, so that one level tone is left beside the rhyme (孤平)?"""
    return line[-5:] == _LONE_LEVEL


def regulated(couplet: str, text: str) -> bool:
    """Is the whole poem regulated verse, its characters read as suits it best?

    4 or 8 lines of 5 or 7 characters; a level rhyme, no ending twice; ``endings_in_place`` and ``in_metre``.
    """
    parts = clauses(couplet) + clauses(text)
    if len(parts) not in CLAUSES_OF_A_POEM or {len(part) for part in parts} not in ({5}, {7}):
        return False
    return endings_in_place(parts, shared_groups(couplet, text)) and in_metre(lines(couplet) + lines(text))


def endings_in_place(parts: Sequence[str], rhyme: frozenset[str]) -> bool:
    """Is a group of the ``rhyme`` level, and do odd clauses end in an oblique tone, or the first in such a group?"""
    level = frozenset(filter(is_level, rhyme))
    first, *odd = (part[-1] for part in parts[::2])
    return bool(level) and all(map(_oblique, odd)) and (_oblique(first) or bool(level & rhyme_groups(first)))


def in_metre(whole: Sequence[Line]) -> bool:
    """Do alternation, opposition and adhesion hold at once, without 三平尾 and 孤平?"""
    fault = any(map(three_level, whole)) or any(map(lone_level, whole))
    return not fault and any(_follow(whole, start) for start in (LEVEL, OBLIQUE))


def _oblique(character: str) -> bool:
    return "仄" in tones(character) or not tones(character)


def _follow(whole: Sequence[Line], start: int) -> bool:
    """Do places 2, 4 and 6 follow the pattern whose first line has the tone ``start`` at place 2?"""
    other = EITHER - start
    return all(map(_fits, whole, (start, other, other, start) * 2))


@lru_cache(maxsize=4096)  # lines of 5 and 7 characters have few patterns
def _fits(line: Line, second: int) -> bool:
    wanted = (second, EITHER - second, second)
    return any(all(map(_may, form[OPPOSED], wanted)) for form in (line, _usual(line)))


@lru_cache(maxsize=4096)
def _alternates(line: Line) -> list[bool]:
    return [one | other == EITHER for one, other in pairwise(_usual(line)[OPPOSED]) if one and other]


def _usual(line: Line) -> Line:
    """The line, its end 平平仄平仄 made 平平平仄仄."""
    twisted = len(line) >= len(_TWISTED) and all(map(_may, line[-len(_TWISTED) :], _TWISTED))
    return line[: -len(_TWISTED)] + _USUAL if twisted else line


def _may(tone: int, wanted: int) -> bool:
    return bool((tone or EITHER) & wanted)


def _keep_tone(junctions: Iterable[tuple[Line, Line]]) -> list[bool]:
    return [bool(one[1] & two[1]) for one, two in junctions if any(one[1:2]) and any(two[1:2])]


def _share(held: Iterable[bool]) -> float:
    judged = list(held)
    return sum(judged) / len(judged) if judged else 0.0


@lru_cache(maxsize=1)  # seven metrics in a row ask for the same text
def rules(couplet: str, text: str) -> Mapping[str, float]:
    """Return this module's metrics of a text by their names; all are 0 for an empty one."""
    written = lines(text)
    given, inner = adhesion(lines(couplet), written)
    return {
        "regulated": float(regulated(couplet, text)),
        "alternation": alternation(written),
        "adhesion_given": given,
        "adhesion_inner": inner,
        "odd_line_tone": odd_line_tone(written),
        "three_level": _share(map(three_level, written)),
        "lone_level": float(any(map(lone_level, written))),
    }


def _metric(name: str, en: str, zh: str, **kind: Any) -> Metric:
    def compute(output: Output) -> float:
        return rules(output.example.input, output.text)[name]

    kind = {"better": "high", "compute": compute, **kind}
    return Metric(name, {"en": en, "zh": zh}, share=True, **kind)


REGULATED = _metric("regulated", "regulated verse", "合律", headline=True)
ALTERNATION = _metric("alternation", "tones alternate in a line", "句中平仄相間")
ADHESION_GIVEN = _metric("adhesion_given", "adhesion to the couplet", "粘題聯")
ADHESION_INNER = _metric("adhesion_inner", "adhesion within the text", "聯間相粘")
ODD_LINE_TONE = _metric("odd_line_tone", "odd lines end in the other tone", "出句腳異調")
THREE_LEVEL = _metric("three_level", "lines ending in three level tones", "三平尾", better="low")
LONE_LEVEL = _metric("lone_level", "poems with a lone level tone", "孤平", better="low")
