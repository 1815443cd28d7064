"""Outputs made elsewhere: files of texts → one text for each poem, and what was done to them.

In: a file (HW5's ``results.txt`` or ``results.json``, JSONL of the same records, or one
poem a line) and the examples it answers. Out: ``Outputs``. Outputs are matched by the
couplet they carry, leniently (marks, variants, a few wrong characters); what is handed on
is as it was written, without the couplet, white space around it, and what ``notes`` says
was cut. Knows nothing of scores, prompts or models.
"""

import codecs
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.core.untrusted import MIB, parsed, read_bytes
from tangeval.tasks.base import Outputs
from tangeval.tasks.tang.text import HAN, MARKS, fold, han

#: A couplet of n characters with at most n // EDITS of them wrong is still recognised.
EDITS = 4
#: How many lines or poems a message lists.
_LISTED = 5
#: The most bytes of a file, lines and outputs in it, characters of one (a study's 4,096 tokens have fewer), and
#: lines of a prompt before it.
_LARGEST, _LINES, _MOST, _LONGEST, _PROMPT = 16 * MIB, 100_000, 10_000, 32_768, 50
# Longest first: UTF-32's mark begins with UTF-16's.
_ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NUMBERED = re.compile(r"\s*(\d+)\s*[.．、:：)）]\s*")
_ECHO = re.compile(r"\[INST\].*?\[/INST\]", re.DOTALL)
_TOKEN = r"<s>|</s>|<pad>|<bos>|<eos>|<\|endoftext\|>|<\|im_end\|>|<\|eot_id\|>|<end_of_turn>"
_FIRST, _LAST = re.compile(_TOKEN), re.compile(f"({_TOKEN})$")
_LETTER = re.compile(rf"[{HAN}]|[^\W_]")
_OWN_MARK = re.compile(rf"[ \t\u3000]*[{''.join(sorted(MARKS))},.;:?!．｡､]")
# Beside white space, what an editor or a concatenation leaves unseen.
_UNSEEN = "\ufeff\u200b"


@dataclass(frozen=True)
class _Entry:
    """One output as it stands in its file."""

    unit: str  #: "line", or "record" in a JSON list
    at: int  #: which line or record, from 1
    written: str
    asked: str = ""  #: JSON's ``input``
    number: int | None = None  #: the number before it, in a text file
    blank: bool = False  #: a blank line, which is an output only if no other reading fits
    broken: bool = False  #: it goes on over several lines

    @property
    def place(self) -> str:
        return f"{self.unit} {self.at}"


@dataclass(frozen=True)
class _Found:
    """An entry, the folded couplet it belongs to (None: it carries none), and its poem."""

    entry: _Entry
    key: str | None
    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Match:
    """A couplet at a text's beginning: where it ends, its own mark included, and how far it is off."""

    key: str
    end: int
    edits: int


@dataclass(frozen=True)
class _Couplets:
    """Folded couplets to look for."""

    keys: tuple[str, ...]

    @cached_property
    def known(self) -> frozenset[str]:
        return frozenset(self.keys)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        return tuple(sorted({len(key) for key in self.keys}, reverse=True))


def read_outputs(
    files: Sequence[Path], examples: Sequence[Example], others: Sequence[Example] = ()
) -> list[Outputs]:
    """Return what each file holds; arguments and errors as in ``read``.

    A file is named by its name, and by as many of its folders as tell it from the others.

    Raises:
        TangevalError: a file is given twice, or cannot be read as ``examples``' outputs.
    """
    return [read(file, name, examples, others) for file, name in zip(files, names(files), strict=True)]


def names(files: Sequence[Path]) -> list[str]:
    """Return a name for each file, distinct from the others and from ``random`` and ``reference``.

    Raises:
        TangevalError: a file is given twice.
    """
    count = Counter(file.parent.resolve() / file.name for file in files)
    for file in files:
        if count[file.parent.resolve() / file.name] > 1:
            raise TangevalError(f"{file}: given twice; give each file once")
    whole = [[part for part in file.absolute().parts if part != file.anchor] for file in files]
    depth = [1] * len(files)
    while True:
        shown = ["/".join(parts[-d:]) for parts, d in zip(whole, depth, strict=True)]
        taken = Counter([*shown, RANDOM, REFERENCE])
        alike = [n for n, name in enumerate(shown) if taken[name] > 1 and depth[n] < len(whole[n])]
        if not alike:
            return shown
        for n in alike:
            depth[n] += 1


def read(file: Path, name: str, examples: Sequence[Example], others: Sequence[Example] = ()) -> Outputs:
    """Read ``file`` as outputs for ``examples``, and call it ``name``.

    An output belongs to the example whose couplet is its JSON ``input`` (or ends it, after an
    instruction), or stands at its beginning; outputs without a couplet are taken in order.
    ``others`` are the data's other examples: a file that answers those is refused by name.

    Raises:
        TangevalError: the file cannot be read, an example has no output or two, or an output
            has no example; with the line (of a JSON list: the number of the record).
    """
    couplets = _Couplets(tuple(_key(example.input) for example in examples))
    text = _decoded(file)
    if text.count("\n") > _LINES:
        raise TangevalError(
            f"{file}: more than {_LINES:,} lines for {len(examples)} poems; give one for each poem"
        )
    if file.suffix.lower() in (".json", ".jsonl"):
        entries = _json_entries(file, text)
    else:
        entries = _line_entries(text, len(examples), couplets)
    if not entries:
        raise TangevalError(f"{file}: 0 outputs for {len(examples)} poems; the file is empty")
    _check_size(file, entries, len(examples))
    instructions = frozenset(_letters(example.instruction) for example in examples)
    found = [_found(file, entry, couplets, instructions, others) for entry in entries]
    _refuse_others(file, found, others)
    found, owners = _owners(file, found, examples)
    texts = dict(zip(owners, (output.text for output in found), strict=True))
    loose = sum(output.key is None for output in found)
    return Outputs(
        name,
        tuple(texts[place] for place in range(len(examples))),
        _matched(len(found) - loose, loose, owners != sorted(owners)),
        _notes(found),
    )


def _matched(by_couplet: int, by_order: int, reordered: bool) -> str:
    ways = ", ".join(f"{n} {way}" for n, way in ((by_couplet, "by couplet"), (by_order, "by order")) if n)
    total = by_couplet + by_order
    return f"{total} outputs for {total} poems: {ways}" + ("; reordered" if reordered else "")


def _check_size(file: Path, entries: Sequence[_Entry], count: int) -> None:
    """Refuse what no model wrote for these poems, and what would take hours to look at."""
    if len(entries) > max(_MOST, 10 * count):
        raise TangevalError(f"{file}: {len(entries):,} outputs for {count} poems; give one for each poem")
    for entry in entries:
        if len(entry.written) + len(entry.asked) > _LONGEST:
            raise TangevalError(
                f"{file}, {entry.place}: longer than {_LONGEST:,} characters, which no output for a poem is; cut it"
            )


def _decoded(file: Path) -> str:
    """The file's text, line ends made one; UTF-8, or what its byte order mark says."""
    try:
        content = read_bytes(file, _LARGEST)
    except OSError as error:
        raise TangevalError(f"{file}: {error.strerror}") from None
    mark, encoding = next(((m, e) for m, e in _ENCODINGS if content.startswith(m)), (b"", "utf-8"))
    content = content.removeprefix(mark)
    try:
        return _one_line_end(content.decode(encoding))
    except UnicodeDecodeError as error:
        before = _one_line_end(content[: error.start].decode(encoding, "ignore"))
        raise TangevalError(
            f"{file}, line {before.count(chr(10)) + 1}: not {encoding[:6].upper()}; save the file as UTF-8"
        ) from None


def _one_line_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json_entries(file: Path, text: str) -> list[_Entry]:
    """The records of a JSON list, or of JSONL."""
    unit, at = "record", 1
    try:
        if text.lstrip().startswith("["):
            records = list(enumerate(parsed(text), 1))
        else:
            unit, records = "line", []
            for at, line in enumerate(text.split("\n"), 1):
                if line.strip():
                    records.append((at, parsed(line)))
    except ValueError as error:
        at += getattr(error, "lineno", 1) - 1
        raise TangevalError(
            f"{file}, line {at}: not valid JSON ({getattr(error, 'msg', error)}); give a list of records, or "
            "one record a line"
        ) from None
    return [_json_entry(file, unit, at, record) for at, record in records]


def _json_entry(file: Path, unit: str, at: int, record: Any) -> _Entry:
    where = f"{file}, {unit} {at}"
    if not isinstance(record, dict) or not isinstance(record.get("predict"), str):
        raise TangevalError(f"{where}: no text field 'predict'; a record has 'input' and 'predict'")
    asked = record.get("input")
    if not isinstance(asked, str | None):
        raise TangevalError(f"{where}: 'input' is no text; give the couplet, or leave it out")
    entry = _Entry(unit, at, record["predict"], asked or "")
    try:
        (entry.asked + entry.written).encode()
    except UnicodeEncodeError:
        raise TangevalError(f"{where}: half of a surrogate pair is no character; write it whole") from None
    return entry


def _line_entries(text: str, count: int, couplets: _Couplets) -> list[_Entry]:
    """The outputs of a text file, one a line; blank lines too where there are ``count`` lines."""
    lines = text.removesuffix("\n").split("\n")
    entries = []
    for at, line in _whole_prompts(lines):
        if _bare(line):
            numbered = _NUMBERED.match(line.lstrip(_UNSEEN))
            rest = line.lstrip(_UNSEEN)[numbered.end() :] if numbered else line
            entries.append(_Entry("line", at, rest, number=int(numbered[1]) if numbered else None))
        elif len(lines) == count:
            entries.append(_Entry("line", at, "", blank=True))
    return _with_line_breaks(entries, count, couplets)


def _whole_prompts(lines: Sequence[str]) -> Iterable[tuple[int, str]]:
    """The lines and which they are; a prompt that was written before an answer is one line with it.

    A prompt that does not end before the next numbered line is left as it stands.
    """
    at = 0
    while at < len(lines):
        last = at
        if lines[at].rfind("[INST]") > lines[at].rfind("[/INST]"):
            after = range(at + 1, min(at + _PROMPT, len(lines)))
            last = next((n for n in after if "[/INST]" in lines[n] or _NUMBERED.match(lines[n])), at)
            last = last if "[/INST]" in lines[last] else at
        yield at + 1, "\n".join(lines[at : last + 1])
        at = last + 1


def _with_line_breaks(entries: list[_Entry], count: int, couplets: _Couplets) -> list[_Entry]:
    """In a file whose numbers are those of all poems, a line without one goes on with the output above it."""
    numbers = [entry.number for entry in entries if entry.number is not None]
    whole = len(numbers) == count < len(entries) and entries[0].number is not None
    if not whole or numbers != list(range(numbers[0], numbers[0] + count)):
        return entries
    joined: list[_Entry] = []
    for entry in entries:
        if entry.number is not None or _at_start(entry.written, couplets):
            joined.append(entry)
        else:
            above = joined[-1]
            joined[-1] = replace(above, written=f"{above.written}\n{entry.written}", broken=True)
    return joined


def _found(
    file: Path,
    entry: _Entry,
    couplets: _Couplets,
    instructions: frozenset[str],
    others: Sequence[Example],
) -> _Found:
    """Whose output this is, and its text without what stands before and after the poem."""
    notes = ["goes on over several lines"] if entry.broken else []
    key = _at_end(entry.asked, couplets)
    if key is None and _letters(entry.asked) and _letters(entry.asked) not in instructions:
        stray = next((e for e in others if _letters(entry.asked).endswith(_key(e.input))), None)
        raise TangevalError(f"{file}, {entry.place}: {_not_asked(entry.asked, stray)}")
    text = entry.written.replace("\\r\\n", "\n").replace("\\n", "\n")
    if text != entry.written:
        notes.append("\\n read as a line break")
    carried = False  # one couplet is the file's way of naming the poem; a second is the model's
    for _ in range(2):
        text, echo, cuts = _peeled(text)
        notes += cuts
        key = key or _at_end(echo, couplets)
        match = _at_start(text, _Couplets((key,)) if key else couplets)
        if match is None or (carried and not echo):
            break
        if key:
            notes.append("the couplet before the poem cut")
        if match.edits:
            notes.append(f"the couplet was edited: {match.edits} of {len(match.key)} characters differ")
        key, text, carried = match.key, _bare(text[match.end :]), True
    if not text:
        notes.append("a blank line, taken as an empty output" if entry.blank else "an empty output")
    return _Found(entry, key, text, tuple(notes))


def _not_asked(asked: str, stray: Example | None) -> str:
    shown = " ".join(asked.split())
    if stray:
        return f"'input' is {stray.input}, a poem of the {stray.split} split; give that split"
    return (
        f"'input' ends with no poem's couplet: {shown[-60:]}; it must be one, or be left out in all records"
    )


def _peeled(text: str) -> tuple[str, str, list[str]]:
    """Text without special tokens and white space at its ends and the prompt before it; the prompt; notes."""
    echo = ""
    notes: list[str] = []
    while True:
        text = _bare(text)
        first, last, prompt = _FIRST.match(text), _LAST.search(text), _ECHO.match(text)
        if first:
            text = text[first.end() :]
        elif last:
            text = text[: last.start()]
        elif prompt:
            text, echo = text[prompt.end() :], prompt.group()
        else:
            return text, echo, notes
        cut = "the prompt before the poem" if prompt else (first or last or [""])[0]
        notes.append(f"{cut} cut")


def _bare(text: str) -> str:
    """Text without white space around it, and without what nobody sees there."""
    start, end = 0, len(text)
    while start < end and (text[start].isspace() or text[start] in _UNSEEN):
        start += 1
    while start < end and (text[end - 1].isspace() or text[end - 1] in _UNSEEN):
        end -= 1
    return text[start:end]


def _key(couplet: str) -> str:
    return fold(han(couplet))


def _letters(text: str) -> str:
    """What is compared: Han characters folded, other letters and digits; no marks."""
    return fold("".join(_LETTER.findall(text)))


def _at_start(text: str, couplets: _Couplets) -> _Match | None:
    """The couplet that ``text`` begins with, or the only one that it nearly begins with."""
    span = couplets.lengths[0] + couplets.lengths[0] // EDITS
    ends = [found.end() for _, found in zip(range(span + 1), _LETTER.finditer(text), strict=False)]
    letters = _letters(text[: ends[-1]]) if ends else ""
    for length in couplets.lengths:
        if len(letters) >= length and letters[:length] in couplets.known:
            return _Match(letters[:length], _past_mark(text, ends[length - 1]), 0)
    pauses = frozenset(n for n, end in enumerate(ends, 1) if not _LETTER.match(text, end))
    near = _only_near(letters, couplets, pauses)
    if near is None:
        return None
    key, edits, length = near
    return _Match(key, _past_mark(text, ends[length - 1]), edits)


def _past_mark(text: str, end: int) -> int:
    """Where the couplet's own mark ends, if it has one."""
    mark = _OWN_MARK.match(text, end)
    return mark.end() if mark else end


def _at_end(text: str, couplets: _Couplets) -> str | None:
    """The couplet that ends ``text``; else the only one in it; else the only one that nearly ends it."""
    letters = _letters(text)
    ending = [key for key in couplets.known if letters.endswith(key)]
    within = ending or [key for key in couplets.known if key in letters]
    if ending or len(within) == 1:
        return max(within, key=len)
    backwards = _Couplets(tuple(key[::-1] for key in couplets.keys))
    near = _only_near(letters[::-1], backwards, frozenset())
    return near[0][::-1] if near else None


def _only_near(letters: str, couplets: _Couplets, pauses: frozenset[int]) -> tuple[str, int, int] | None:
    """The only couplet whose edits suffice to be a beginning of ``letters``, their number, and its length."""
    near = []
    for key in couplets.known:
        allowed = len(key) // EDITS
        start = letters[: len(key) + allowed]
        if sum(letter in start for letter in key) >= len(key) - allowed:
            edits, length = _edits(key, start, pauses)
            if length and edits <= allowed:
                near.append((key, edits, length))
    return near[0] if len(near) == 1 else None


def _edits(key: str, letters: str, pauses: frozenset[int]) -> tuple[int, int]:
    """The fewest edits (Levenshtein) from ``key`` to a beginning of ``letters``, and its length.

    Of beginnings that are as near, one that ends where a clause does, then the one whose
    length is nearest to ``key``'s.
    """
    row = list(range(len(letters) + 1))
    for number, wanted in enumerate(key, 1):
        above, row = row, [number]
        for place, letter in enumerate(letters):
            row.append(min(above[place + 1] + 1, row[place] + 1, above[place] + (wanted != letter)))
    best = min(range(len(row)), key=lambda n: (row[n], n not in pauses, abs(n - len(key))))
    return row[best], best


def _refuse_others(file: Path, found: Sequence[_Found], others: Sequence[Example]) -> None:
    """Refuse a file of which most outputs begin with couplets of other splits.

    A few may: a model can know a training poem by heart.
    """
    if not others:
        return
    of_key = {_key(example.input): example for example in others}
    # Nearly the same is not asked for: training has thousands of poems.
    exact = _Couplets(tuple(of_key))
    strays = []
    for output in found:
        letters = _letters(output.text[:200]) if output.key is None else ""
        key = next((letters[:n] for n in exact.lengths if letters[:n] in exact.known), None)
        strays += [(output, of_key[key])] if key else []
    if 2 * len(strays) > len(found):
        output, example = strays[0]
        raise TangevalError(
            f"{file}, {output.entry.place}: begins with {example.input}, a poem of the {example.split} "
            f"split, as {len(strays)} of {len(found)} outputs do; give that split"
        )


def _owners(
    file: Path, found: Sequence[_Found], examples: Sequence[Example]
) -> tuple[list[_Found], list[int]]:
    """The outputs, and for each the place of its example: by couplet, the rest in order.

    Poems with the same couplet take their outputs in order. In a file that is not in the
    examples' order a blank line is no output.
    """
    waiting: dict[str, deque[int]] = defaultdict(deque)
    for place, example in enumerate(examples):
        waiting[_key(example.input)].append(place)
    owner: dict[int, int] = {}
    for at, output in enumerate(found):
        if output.key is not None:
            if not waiting[output.key]:
                raise _twice(file, found, at, examples)
            owner[at] = waiting[output.key].popleft()
    written = [output for output in found if not output.entry.blank]
    if len(written) < len(found) and any(at != place for at, place in owner.items()):
        return _owners(file, written, examples)
    loose = [at for at in range(len(found)) if at not in owner]
    free = sorted(place for places in waiting.values() for place in places)
    if len(loose) != len(free):
        raise _unequal(file, found, loose, [examples[place].input for place in free], len(examples))
    owner.update(zip(loose, free, strict=True))
    owners = [owner[at] for at in range(len(found))]
    # One that is left over is the one poem's that is left over, whatever the order.
    if len(loose) > 1 and owners == sorted(owners):
        _check_numbers(file, found, loose)
    elif len(loose) > 1:
        raise TangevalError(
            f"{file}, {_places([found[at].entry for at in loose])}: without a couplet, in a file that has the "
            "poems in another order, so nothing says whose they are; put their couplets before them"
        )
    return list(found), owners


def _check_numbers(file: Path, found: Sequence[_Found], loose: Sequence[int]) -> None:
    """Refuse outputs that are taken in order and whose own numbers say another."""
    numbered = [
        (output.entry.number - at) for at, output in enumerate(found) if output.entry.number is not None
    ]
    for at in loose:
        entry = found[at].entry
        due = at + numbered[0] if numbered else 0
        # Markdown allows every number of a list to be 1.
        if entry.number not in (None, due) and any(f.entry.number != found[0].entry.number for f in found):
            raise TangevalError(
                f"{file}, {entry.place}: numbered {entry.number} where {due} is due, and without a couplet; "
                "put the outputs into the poems' order, or their couplets before them"
            )


def _twice(file: Path, found: Sequence[_Found], at: int, examples: Sequence[Example]) -> TangevalError:
    """The error that ``found[at]`` is one output too many for its couplet."""
    same = [output.entry for output in found[: at + 1] if output.key == found[at].key]
    couplet = next(example.input for example in examples if _key(example.input) == found[at].key)
    return TangevalError(f"{file}, {_places(same[-2:])}: two outputs for one poem, {couplet}; leave one out")


def _unequal(
    file: Path, found: Sequence[_Found], loose: Sequence[int], missing: Sequence[str], count: int
) -> TangevalError:
    """The error that outputs and poems are not as many."""
    total = f"{len(found)} outputs for {count} poems"
    if len(loose) > len(missing):
        # Where no output carries a couplet, those that fit are the first.
        surplus = found[loose[len(missing)]] if len(loose) == len(found) else found[loose[0]]
        what = "the first one too many" if len(loose) == len(found) else "begins with no poem's couplet"
        return TangevalError(
            f"{file}, {surplus.entry.place}: {what}; {total}, and an output is one line (write a line break as \\n)"
        )
    if len(loose) == len(found):
        return TangevalError(
            f"{file}: {total}; outputs without a couplet are taken in order, so there must be one for each poem"
        )
    rest = f" (and {_places([found[at].entry for at in loose])} without a couplet)" if loose else ""
    return TangevalError(
        f"{file}: {total}: none begins with {_listed(missing)}{rest}; add what is missing, if only "
        "its couplet: an empty output is one too"
    )


def _notes(found: Sequence[_Found]) -> tuple[str, ...]:
    """Each note once, with its lines, in the order of the first of them."""
    by_note: dict[str, list[_Entry]] = {}
    mixed = any(output.key is not None for output in found)
    for output in found:
        extra = ("without a couplet, taken in order",) if mixed and output.key is None else ()
        for note in dict.fromkeys((*output.notes, *extra)):
            by_note.setdefault(note, []).append(output.entry)
    return tuple(f"{_places(entries)}: {note}" for note, entries in by_note.items())


def _places(entries: Sequence[_Entry]) -> str:
    """``line 7``, ``lines 7 and 9``, or the first of more."""
    unit = entries[0].unit + ("s" if len(entries) > 1 else "")
    return f"{unit} {_listed([str(entry.at) for entry in entries])}"


def _listed(words: Sequence[str]) -> str:
    shown = list(words[:_LISTED])
    if len(words) > _LISTED:
        shown.append(f"{len(words) - _LISTED} more")
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
