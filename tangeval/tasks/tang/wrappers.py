"""What stands around a poem and is none of it: numbers, labels, special tokens, Markdown, introductions, quotes.

In: a text as a model, a server or a file gives it. Out: the poem, its number, and what was cut. Single source of
truth for what is known to be no verse: a clause that is not in the tables is left where it is.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import islice

from tangeval.tasks.tang.text import HAN, MARKS, fold, han

_TOKEN = r"(?:</?s>|<(?:pad|bos|eos|unk|(?:start|end)_of_turn)>|<[|｜][^<>\n]{1,30}[|｜]>)"
_ROLE = r"(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<[|｜])\s*"
_DIGITS, _NUMERALS = r"\d{1,6}", r"[零〇一二三四五六七八九十百]{1,4}"
_AFTER = r"\s*(?:[.．、:：,，)）\]】\s]|(?=[*「『《\"“]))+"
_MARKS = "".join(sorted(MARKS))
_MARK, _OPENS = f"[{_MARKS}]", rf"[{HAN}「『《“\"(（【\[#①-⑳\dA-Za-z]"
_CIRCLED = "①-⑳⑴-⒛㉑-㉟㈠-㈩㊀-㊉㊱-㊿❶-❿➀-➓"
_LABELS = (
    "答案?|回答|回覆|輸出|输出|生成|結果|结果|助手|助理|模型|使用者|用戶|用户|[續续][寫写]|[後后][續续]|接下[來来]|"
    "[詩诗][句題题]?|[全原唐][詩诗]|完整的?唐?[詩诗]|[題题]目|下[半一]?[句首聯联]"
)
#: What may stand before a poem, by what it is called, again and again; a group is the poem's number.
HEADS = {
    "the prompt": rf"(?s:\[INST\].*?\[/INST\]|<<SYS>>.*?<</SYS>>|###\s*Instruction.*?###\s*Response:?|{_ROLE}(?:system|user)\b.*?"
    rf"{_ROLE}(?:assistant|model)\b(?:[|｜]>|<\|end_header_id\|>)?)",
    "its thoughts": r"(?s:<think>.*?</think>)",
    "special tokens": rf"(?:{_TOKEN}\s*)+(?:(?:assistant|model|user|system|final)(?![a-z]))?|\[/?INST\]",
    "a number": rf"(?:第\s*({_DIGITS}|{_NUMERALS})\s*[首題题句則则篇條条個个號号]{_AFTER}"
    rf"|[(（\[【〔]\s*({_DIGITS}|{_NUMERALS})\s*[)）\]】〕]\s*[.．、:：]?|({_DIGITS})\s*[.．、:：)）]"
    rf"|({_NUMERALS})\s*[.．、:：)）]|([{_CIRCLED}])\s*[.．、:：]?"
    rf"|(?:No\.?|Poem|Q|\#|[題题]目|[編编][號号])\s*({_DIGITS}){_AFTER})",
    "an introduction": r"(?:好的|[當当]然(?:可以)?|[沒没][問问][題题]|[您你]好)\s*[，,。！!：:~～]"
    r"|(?:以下|下面|[這这])就?[是為为][^：:\n]{0,60}[：:]|根[據据][^：:\n]{0,60}[：:]",
    "a label": rf"(?:{_LABELS})\s*[：:]|[A-Za-z][A-Za-z ,.!'’\-]{{0,160}}[：:]|[【\[](?:{_LABELS})[\]】]",
    "a title": rf"《[^》\n]{{1,20}}》(?:[ \t]*[{HAN}]{{2,4}}[ \t]*(?=\n))?[：:]?(?=\s*\S)",
    "Markdown": rf"```\w*|`|\*{{1,3}}(?=\s*(?:\*{{1,3}}\s*)?{_OPENS})|(?:>|\#{{1,6}}|[-*•])\s+(?=\S)|---+\s",
    "a closing quote": rf"[」』”’]+|\"(?=\s*{_OPENS})(?![^\"]*\"\s*\Z)",
}
_TURN = "the next turn"
#: The same for what stands after it.
TAILS = {
    _TURN: rf"(?s:(?:{_ROLE}(?:system|user|assistant|model)\b|\[/?INST\]).*)",
    "special tokens": rf"(?<![>\s])\s*(?:{_TOKEN}\s*)+",
    "a remark": rf"(?s:\n\s*(?:希望|以上|[註注][：:]|[說说]明[：:]|[賞赏]析|解析|[譯译]文|[A-Za-z]).*)|(?<=[{_MARKS}\s])希望[您你][^\n]*+"
    rf"|(?<={_MARK})\s*以上就?是[^\n]*|[（(【\[](?:[註注][：:]|[說说]明|[賞赏]析|解析|[譯译]文|完[)）】\]])[^\n]*",
    "Markdown": rf"```|(?<=[{HAN}「」『』]|{_MARK})(?:\s*\*{{1,3}}|`)",
}
_HEADS = {what: re.compile(rf"\s*(?:{pattern})\s*") for what, pattern in HEADS.items()}
_TAILS = {what: re.compile(rf"(?:{pattern})\s*\Z") for what, pattern in TAILS.items()}
#: The most characters of what is looked at, as no poem has; and the most things in a row that are cut.
_LONGEST, _ROUNDS = 32_768, 16
_QUOTES = ("「」", "『』", "“”", "‘’", '""', "''")
_CHARACTER, _WORD = re.compile(f"[{HAN}]"), re.compile(rf"[^\W_{HAN}]")
_OWN_MARK = re.compile(rf"\s*[{_MARKS},.;:?!]")


@dataclass(frozen=True)
class Unwrapped:
    """A poem without what stood around it, its number if it had one, and what was cut."""

    text: str
    number: int | None = None
    cut: tuple[str, ...] = ()


def unwrap(text: str, couplet: str = "", *, whole: bool = False) -> Unwrapped:
    """Return ``text`` without what the tables know, and without the ``couplet`` (Han, folded) that it begins with.

    ``whole``: a couplet may still stand before the poem, so that a turn in the middle may be the poem's own.
    """
    number, cut = None, list[str]()
    text = text.strip()
    for _ in range(_ROUNDS if len(text) <= _LONGEST else 0):
        before = text
        if len(text) > 1 and any(text[0] == q[0] and text.find(q[1], 1) == len(text) - 1 for q in _QUOTES):
            text, cut = text[1:-1].strip(), [*cut, "quotes"]
        for what, pattern in _HEADS.items():
            if found := pattern.match(text):
                text, cut = text[found.end() :], [*cut, what]
                number = next((_value(g) for g in found.groups() if g), None) if number is None else number
        if end := past(text, couplet):
            text, cut, couplet = text[end:].strip(), [*cut, "the couplet before the poem"], ""
        if text != before:  # what ends a head may look like a tail
            continue
        for what, pattern in _TAILS.items():
            if (found := pattern.search(text)) and not (whole and what == _TURN):
                text, cut = text[: found.start()].rstrip(), [*cut, what]
        if text == before:
            break
    return Unwrapped(text, number, tuple(dict.fromkeys(cut)))


def past(text: str, couplet: str) -> int:
    """Return where ``text`` goes on after the ``couplet`` (Han, folded) that it begins with, whatever its marks; 0: with none."""
    first = _CHARACTER.search(text)
    if not first or fold(first[0]) != couplet[:1]:
        return 0
    ends = [found.end() for found in islice(_CHARACTER.finditer(text), len(couplet))]
    if fold(han(text[: ends[-1]])) != couplet or _WORD.search(text[: ends[-1]]):
        return 0
    mark = _OWN_MARK.match(text, ends[-1])
    return mark.end() if mark else ends[-1]


def _value(numeral: str) -> int:
    """The number of digits, Han numerals or a circled number: 十二, 12 and ⑫ are 12."""
    total, unit = 0, 0
    for value in (int(unicodedata.numeric(character)) for character in numeral):
        if value < 10:
            unit = 10 * unit + value
        else:
            total, unit = total + (unit or 1) * value, 0
    return total + unit
