"""Does the output look like the rest of a Tang poem? Checks of texts beside their couplets.

In: couplets given and texts written. Out: a metric for each check, 1 or 0. Pure. Characters are compared folded.

With ``no_repeat_ngram_size: 3`` and one token a character, ``no_echo`` and ``no_repeat``
can hardly fail: the decoding itself forbids any three characters twice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.copying import copied
from tangeval.metrics.ngrams import CODES, Ints, Lookup, different, share
from tangeval.tasks.tang.poems import Bools, Floats, Poems
from tangeval.tasks.tang.poems import poems as read_poems
from tangeval.tasks.tang.text import MARKS, PAUSES, STOPS, clauses

Check = Callable[[Poems], Bools]

#: How many clauses a whole poem has: a quatrain's four or a regulated poem's eight.
CLAUSES_OF_A_POEM = (4, 8)
_pauses, _stops, _marks = (Lookup(marks.__contains__, bool) for marks in (PAUSES, STOPS, MARKS))


def even_lines(poems: Poems) -> Bools:
    """Every clause is as long as the couplet's first, and there is at least one."""
    given = np.zeros(poems.count, np.int64)
    first = ~poems.written & (poems.number == 0)
    given[poems.poem[first]] = poems.length[first]
    return (poems.lines > 0) & poems.none(poems.written & (poems.length != given[poems.poem]))


def clause_count(poems: Poems) -> Bools:
    """Couplet and text together have four or eight clauses."""
    return np.isin(poems.counted(slice(None)), CLAUSES_OF_A_POEM)


def punctuation(poems: Poems) -> Bools:
    """Couplet after couplet: a clause, a mark of a pause, a clause, a mark of a stop."""
    after = poems.codes[poems.begin + poems.length]
    marked = poems.none(poems.written & ~np.where(poems.place % 2, _stops(after), _pauses(after)))
    return (poems.lines > 0) & marked & ~(poems.lines % 2 > 0) & ~(_others(poems, ~poems.han) > poems.lines)


def han_only(poems: Poems) -> Bools:
    """There is nothing but Han characters and the marks of verse, and at least one character."""
    others = ~poems.han & ~_marks(poems.codes) | poems.replaced
    return (poems.lines > 0) & ~(_others(poems, others) > 0)


def _others(poems: Poems, which: Bools) -> Ints:
    """How many of these characters each text has, but for its end."""
    return np.bincount(poems.poem_of[which & poems.in_text], minlength=poems.count) - 1


def no_echo(poems: Poems) -> Bools:
    """No clause of the couplet is written again."""
    return ~(_different(poems, poems.written) + _different(poems, ~poems.written) > _different(poems))


def no_repeat(poems: Poems) -> Bools:
    """No clause is written twice."""
    return ~(_different(poems, poems.written) < poems.lines)


def _different(poems: Poems, clauses: Bools | slice = slice(None)) -> Ints:
    """How many different clauses, folded, each poem has among these."""
    keys = different(poems.poem[clauses] * len(poems.poem) + poems.kinds[clauses])
    return np.bincount(keys // max(len(poems.poem), 1), minlength=poems.count)


def repeated_characters(poems: Poems) -> Floats:
    """Return the share of the texts' characters that stand earlier in the poem (犯重字); 0 of one that has none.

    One that repeats the character right before it is no fault (疊字, as 青青).
    """
    keys = poems.poem_of * CODES + poems.folded
    written = poems.han & poems.in_text

    def counted(of: Ints) -> Ints:
        return np.bincount(of // CODES, minlength=poems.count)

    characters = counted(keys[written])
    new = counted(different(keys[poems.han])) - counted(different(keys[poems.han & ~poems.in_text]))
    pair = written[1:] & (keys[1:] == keys[:-1])
    return share(characters - new - counted(keys[1:][pair]), characters)


CHECKS: Mapping[str, Check] = {
    "line_length": even_lines,
    **{check.__name__: check for check in (clause_count, punctuation, han_only, no_echo, no_repeat)},
}


def check(poems: Poems, finish_reasons: Sequence[str | None]) -> Mapping[str, Floats]:
    """Return each check as 1 or 0, ``complete`` (the text ended by itself), and ``form``: 1 if all hold.

    Where a text was not generated here and has no ``finish_reason``, ``complete`` is NaN and no part of
    ``form``.
    """
    held = {name: test(poems).astype(float) for name, test in CHECKS.items()}
    complete = np.array([np.nan if reason is None else float(reason == "stop") for reason in finish_reasons])
    form = np.logical_and.reduce([*held.values(), complete != 0]).astype(float)
    return {"form": form, **held, "complete": complete}


def _check(texts: Texts) -> Mapping[str, Floats]:
    return check(texts.once(read_poems), texts.finish_reasons)


def _metric(name: str, en: str, zh: str, flaw: tuple[str, str] | None = None, **more: Any) -> Metric:
    def compute(texts: Texts) -> Floats:
        return texts.once(_check)[name]

    said = dict(zip(("en", "zh"), flaw, strict=True)) if flaw else None
    kind: dict[str, Any] = {"better": "high", "compute": compute} | more
    return Metric(name, {"en": en, "zh": zh}, share=True, flaw=said, **kind)


def _length_match(texts: Texts) -> Bools:
    """As many clauses as the poet wrote. No part of ``form``: any couplet may begin a longer poem."""
    poems, wanted = texts.once(read_poems), texts.of_examples(lambda example: len(clauses(example.reference)))
    same: Bools = poems.lines == np.array(wanted)
    return same


def _copied_clauses(texts: Texts) -> Floats:
    """The share of clauses that stand in a training text."""
    poems = texts.once(read_poems)
    written = np.flatnonzero(poems.written)
    own = [texts.examples[poem].id for poem in poems.poem[written]]
    found = copied(texts.training, [poems.clauses[clause] for clause in written], own)
    return share(poems.counted(written[found]), poems.lines)


FORM = _metric("form", "form: all checks hold", "體式全對", headline=True)
LINE_LENGTH = _metric("line_length", "lines of equal length", "字數整齊", ("line length", "字數不齊"))
CLAUSE_COUNT = _metric("clause_count", "4 or 8 clauses", "四句或八句", ("clause count", "句數"))
PUNCTUATION = _metric("punctuation", "marks of verse", "標點合詩", ("marks", "標點"))
HAN_ONLY = _metric("han_only", "nothing but Han and marks", "只有漢字與標點", ("not only Han", "雜字"))
COMPLETE = _metric("complete", "ended by itself", "自行收尾", ("cut off", "截斷"), headline=True)
NO_ECHO = _metric("no_echo", "no clause of the couplet again", "不重複題聯", ("echo", "重複上聯"))
NO_REPEAT = _metric("no_repeat", "no clause twice", "不重複句子", ("repeat", "自我重複"))
REPEATED_CHARACTERS = _metric(
    "repeated_characters", "characters that repeat", "犯重字", better="low",
    compute=lambda texts: repeated_characters(texts.once(read_poems)),
)  # fmt: skip
_LENGTH, _COPIED = ("other length", "長短不同"), ("copied", "抄襲")
LENGTH_MATCH = _metric(
    "length_match", "as many clauses as the poet", "句數同原作", _LENGTH, headline=True, compute=_length_match
)
_KIND = {"better": "low", "headline": True, "compute": _copied_clauses}
COPIED_CLAUSES = _metric("copied_clauses", "clauses from training", "抄自訓練的句子", _COPIED, **_KIND)
