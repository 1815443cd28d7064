"""Does the poem keep the rules of regulated verse (格律)?

In: couplets given and texts written. Out: seven metrics from 0 to 1: the rules of tones one by one, of
what was written (``adhesion_given``: of where it joins the couplet), and all of 格律 in one yes or no, of the
whole poem. The rules are those of 王力, 詩詞格律 (1977), chapter 2. Knows nothing of the reference.

Unknown characters are left out; one with both tones is read as suits a rule best. A line that ends in
平平仄平仄 counts as 平平平仄仄, as poets use it; no other 拗救 is known.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.ngrams import Ints
from tangeval.tasks.tang.form import clause_count
from tangeval.tasks.tang.poems import Bools, Floats, Poems
from tangeval.tasks.tang.poems import poems as read_poems
from tangeval.tasks.tang.prosody import (
    EITHER,
    LEVEL,
    OBLIQUE,
    Bits,
    in_groups,
    in_level,
    opposed,
    shared_groups,
    tone,
)

_USUAL, _TWISTED = (LEVEL, LEVEL, LEVEL, OBLIQUE, OBLIQUE), (LEVEL, LEVEL, OBLIQUE, LEVEL, OBLIQUE)
_THREE_LEVEL, _LONE_LEVEL = (LEVEL, LEVEL, LEVEL), (OBLIQUE, LEVEL, OBLIQUE, OBLIQUE, LEVEL)


def rules(poems: Poems) -> Mapping[str, Floats]:
    """Return this module's metrics of the texts by their names ``[n]``; all are 0 for an empty one."""
    tones, written = tone(poems), poems.written
    places = opposed(poems, _usual(poems, tones))
    one, two = places[:, :-1], places[:, 1:]
    three, lone = (_ends(poems, tones, ending) for ending in (_THREE_LEVEL, _LONE_LEVEL))
    return {
        "regulated": regulated(poems).astype(float),
        "alternation": poems.share(one | two == EITHER, (one > 0) & (two > 0) & written[:, None]),
        **_adhesion(poems, tones),
        "odd_line_tone": _odd_line_tone(poems, tones),
        "three_level": poems.share(three, written),
        "lone_level": (~poems.none(lone & written)).astype(float),
    }


def _adhesion(poems: Poems, tones: Ints) -> Mapping[str, Floats]:
    """The shares of junctions where place 2 keeps its tone (粘): couplet to text, and within the text.

    A junction joins a couplet's second line to the first line of the next. A text of one couplet has none within
    and breaks no rule: 1; a text without a couplet has 0 and 0.
    """
    second, (starts, _) = poems.at(tones, 1), poems.couplets
    given = poems.counted(~poems.written)[poems.poem[starts]]
    outer = poems.place[starts] == 0
    # The line before; where the couplet given has an odd last clause, that before it.
    before = np.maximum(starts - 1 - outer * (given % 2), 0)
    one, two = second[before], second[starts]
    held, judged = one & two > 0, (one > 0) & (two > 0) & ~(outer & (given < 2))
    inner = poems.share(held, judged & ~outer, starts)
    return {
        "adhesion_given": poems.share(held, judged & outer, starts),
        "adhesion_inner": np.where(poems.lines // 2 == 1, 1.0, inner),
    }


def _odd_line_tone(poems: Poems, tones: Ints) -> Floats:
    """The share of couplets whose first line ends in the other tone than the second, which rhymes."""
    one, other = (poems.at(tones, -1, clauses) for clauses in poems.couplets)
    return poems.share(one | other == EITHER, (one > 0) & (other > 0), poems.couplets[0])


def regulated(poems: Poems) -> Bools:
    """Return which whole poems are regulated verse, their characters read as suits them best ``[n]``.

    4 or 8 lines of 5 or 7 characters; a level rhyme, no ending twice; ``endings_in_place`` and ``in_metre``.
    """
    alike = poems.none(poems.length != 5) | poems.none(poems.length != 7)
    return alike & clause_count(poems) & endings_in_place(poems, shared_groups(poems)) & in_metre(poems)


def endings_in_place(poems: Poems, rhyme: Bits) -> Bools:
    """Return where a group of the ``rhyme`` ``[n, bytes]`` is level, and odd clauses of the whole poem end in an
    oblique tone, or the first in such a group."""
    level = rhyme & in_level()
    odd = np.flatnonzero(poems.number % 2 == 0)
    ending = poems.codes[poems.begin[odd] + poems.length[odd] - 1]
    known, fits = in_groups(ending), level[poems.poem[odd]]
    oblique = ~known.any(axis=1) | (known & ~in_level()).any(axis=1)
    rhymes = (poems.number[odd] == 0) & (known & fits).any(axis=1)
    return level.any(axis=1) & poems.none(odd[~oblique & ~rhymes])


def in_metre(poems: Poems) -> Bools:
    """Return which whole poems keep alternation, opposition and adhesion at once, without 三平尾 and 孤平."""
    found: Bools = np.logical_or(*starts(poems).values())
    return found


def starts(poems: Poems) -> Mapping[int, Bools]:
    """Return which poems are ``in_metre`` by the pattern that begins with a clause of each tone at place 2."""
    tones = tone(poems)
    fault = _ends(poems, tones, _THREE_LEVEL) | _ends(poems, tones, _LONE_LEVEL)
    forms = [opposed(poems, each) for each in (tones, _usual(poems, tones))]
    follows = {}
    for start in (LEVEL, OBLIQUE):
        second = np.where(np.isin(poems.number % 4, (0, 3)), start, EITHER - start)
        wanted = np.stack([second, EITHER - second, second], axis=1)
        fits = np.logical_or.reduce([_may(form, wanted).all(axis=1) for form in forms])
        follows[start] = poems.none(~fits | fault)
    return follows


def _usual(poems: Poems, tones: Ints) -> Ints:
    """The tones, the ends 平平仄平仄 of clauses made 平平平仄仄."""
    usual = tones.copy()
    twisted = np.flatnonzero(_ends(poems, tones, _TWISTED, _may))
    last = poems.begin[twisted] + poems.length[twisted]
    usual[last[:, None] + np.arange(-len(_USUAL), 0)] = _USUAL
    return usual


def _ends(poems: Poems, tones: Ints, ending: Sequence[int], fits: Callable[..., Any] = np.equal) -> Bools:
    """Which clauses ``[C]`` end in these tones."""
    last = np.stack([poems.at(tones, place) for place in range(-len(ending), 0)], axis=1)
    there: Bools = (poems.length >= len(ending)) & fits(last, np.array(ending)).all(axis=1)
    return there


def _may(tones: Ints, wanted: Ints) -> Bools:
    return (np.where(tones, tones, EITHER) & wanted) > 0


def _rules(texts: Texts) -> Mapping[str, Floats]:
    return rules(texts.once(read_poems))


def _metric(name: str, en: str, zh: str, **kind: Any) -> Metric:
    def compute(texts: Texts) -> Floats:
        return texts.once(_rules)[name]

    kind = {"better": "high", "compute": compute, **kind}
    return Metric(name, {"en": en, "zh": zh}, share=True, **kind)


REGULATED = _metric("regulated", "regulated verse", "合律", headline=True)
ALTERNATION = _metric("alternation", "tones alternate in a line", "句中平仄相間")
ADHESION_GIVEN = _metric("adhesion_given", "adhesion to the couplet", "粘題聯")
ADHESION_INNER = _metric("adhesion_inner", "adhesion within the text", "聯間相粘")
ODD_LINE_TONE = _metric("odd_line_tone", "odd lines end in the other tone", "出句腳異調")
THREE_LEVEL = _metric("three_level", "lines ending in three level tones", "三平尾", better="low")
LONE_LEVEL = _metric("lone_level", "poems with a lone level tone", "孤平", better="low")
