"""Does the output look like the rest of a Tang poem? Checks of a text beside its couplet.

In: the couplet given and the text written. Out: a metric for each check, 1 or 0. Pure. Characters are
compared folded.

With ``no_repeat_ngram_size: 3`` and one token a character, ``no_echo`` and ``no_repeat``
can hardly fail: the decoding itself forbids any three characters twice.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tangeval.metrics.base import Metric, Output
from tangeval.metrics.copying import copied_share
from tangeval.tasks.tang.text import HAN, MARKS, PAUSES, STOPS, clauses, fold, han, line_length

Check = Callable[[str, str], bool]

_PUNCTUATED = re.compile(f"(?:[{HAN}]+[{PAUSES}][{HAN}]+[{STOPS}])+")
_DOUBLED = re.compile(f"([{HAN}])(?=\\1)")

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


def repeated_characters(couplet: str, text: str) -> float:
    """Return the share of the text's characters that stand earlier in the poem (犯重字); 0 if it has none.

    One that repeats the character right before it is no fault (疊字, as 青青).
    """
    written = clauses(fold(text))
    characters = "".join(written)
    new = set(characters).difference(fold(han(couplet)))
    doubled = len(_DOUBLED.findall(" ".join(written)))
    return (len(characters) - len(new) - doubled) / len(characters) if characters else 0.0


CHECKS: Mapping[str, Check] = {
    "line_length": even_lines,
    **{check.__name__: check for check in (clause_count, punctuation, han_only, no_echo, no_repeat)},
}


@lru_cache(maxsize=1)  # eight metrics in a row ask for the same text
def check(couplet: str, text: str, finish_reason: str | None) -> Mapping[str, float | None]:
    """Return each check as 1 or 0, ``complete`` (the text ended by itself), and ``form``: 1 if all hold.

    Where the text was not generated here and has no ``finish_reason``, ``complete`` is None and no part of
    ``form``.
    """
    held = {name: float(test(couplet, text)) for name, test in CHECKS.items()}
    complete = None if finish_reason is None else float(finish_reason == "stop")
    form = float(all(held.values()) and complete != 0.0)
    return {"form": form, **held, "complete": complete}


def _metric(name: str, en: str, zh: str, flaw: tuple[str, str] | None = None, **more: Any) -> Metric:
    def compute(output: Output) -> float | None:
        return check(output.example.input, output.text, output.finish_reason)[name]

    said = dict(zip(("en", "zh"), flaw, strict=True)) if flaw else None
    kind: dict[str, Any] = {"better": "high", "compute": compute} | more
    return Metric(name, {"en": en, "zh": zh}, share=True, flaw=said, **kind)


def _length_match(output: Output) -> float:
    """As many clauses as the poet wrote. No part of ``form``: any couplet may begin a longer poem."""
    return float(len(clauses(output.text)) == len(clauses(output.example.reference)))


def _copied_clauses(output: Output) -> float:
    return copied_share(output.training, clauses(fold(output.text)), output.example.id)


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
    compute=lambda output: repeated_characters(output.example.input, output.text),
)  # fmt: skip
_LENGTH, _COPIED = ("other length", "長短不同"), ("copied", "抄襲")
LENGTH_MATCH = _metric(
    "length_match", "as many clauses as the poet", "句數同原作", _LENGTH, headline=True, compute=_length_match
)
_KIND = {"better": "low", "headline": True, "compute": _copied_clauses}
COPIED_CLAUSES = _metric("copied_clauses", "clauses from training", "抄自訓練的句子", _COPIED, **_KIND)
