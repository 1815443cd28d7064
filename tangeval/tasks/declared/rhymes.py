"""Rhyme of any verse: the share of a text's lines that rhyme, with each other or with what was given.

In: texts, a book of rhymes, and perhaps a given text. Out: a share for each. Knows nothing of task files.
"""

from collections.abc import Callable
from functools import cache
from math import nan

import regex

from tangeval.tasks.tang.prosody import groups, rhyme_groups
from tangeval.tasks.tang.text import HAN

#: 詞林正韻 (戈載, 1821): the groups of 平水韻 that each of its 19 parts joins, by their last characters; one that it parts
#: in two stands in both. Level and oblique groups of a part rhyme in tunes such as 西江月, and are one here.
CILIN = (
    "東冬董腫送宋", "江陽講養絳漾", "支微齊灰紙尾薺賄寘未霽泰隊", "魚虞語麌御遇", "佳灰蟹賄泰卦隊", "真文元軫吻阮震問願",
    "寒刪先元旱潸銑阮翰諫霰願", "蕭肴豪篠巧皓嘯效號", "歌哿箇", "麻佳馬禡卦", "庚青蒸梗迥敬徑", "尤有宥", "侵寢沁",
    "覃鹽咸感琰豏勘豔陷", "屋沃", "覺藥", "質陌錫職緝", "物月曷黠屑葉", "合洽",
)  # fmt: skip
_END = regex.compile(rf"([{HAN}])(?:[。！？\n]|$)")


@cache
def _parts() -> dict[str, frozenset[str]]:
    """The parts of 詞林正韻 that each group of 平水韻 is in."""
    return {group: frozenset(part for part in CILIN if group[-1] in part) for group in groups()}


@cache
def cilin(character: str) -> frozenset[str]:
    """Return the parts of 詞林正韻 that a character rhymes in; none if unknown."""
    return frozenset(part for group in rhyme_groups(character) for part in _parts()[group])


#: Books of rhymes: what a character rhymes in.
BOOKS: dict[str, Callable[[str], frozenset[str]]] = {"pingshui": rhyme_groups, "cilin": cilin}


def rhyming(text: str, book: str, given: str | None = None) -> float:
    """Return the largest share of lines (to 。！？ or a line's end) that rhyme together; or, of a ``given`` text, with its end.

    NaN of one line that has nothing to rhyme with; 0 where the given end is in no group.
    """
    own = BOOKS[book]
    ends = [own(end) for end in _END.findall(text.strip())]
    if given is not None:
        wanted = [own(end) for end in _END.findall(given.strip())[-1:]]
        return sum(bool(end & wanted[0]) for end in ends) / len(ends) if wanted and ends else 0.0
    if len(ends) < 2:
        return nan
    found = [group for end in ends for group in end]
    return max((found.count(group) for group in set(found)), default=0) / len(ends)
