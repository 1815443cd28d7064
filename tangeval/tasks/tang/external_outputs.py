"""A file of outputs made elsewhere → one text for each poem, and what is odd about it.

In: a file and the examples it answers: text with an output a line (HW5's ``results.txt``:
``1. couplet+poem``), a JSON list of records (HW5's ``results.json``), or a record a line. A record has
``predict``, the text, and may have ``id``, the example's, or ``input``, which ends with the couplet. Out:
``Outputs``. Knows nothing of scores or models.

An output belongs to the example of its ``id``, of its ``input``, or of the couplet that stands at or near its
beginning and is cut off; where a file has an output for each example in order, these may be left out.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.core.untrusted import MIB, decoded, parsed, read_bytes
from tangeval.tasks.base import Outputs
from tangeval.tasks.tang.text import HAN, MARKS, clauses, fold, han
from tangeval.tasks.tang.wrappers import past, unwrap

#: A couplet of n characters with at most n // EDITS edits is still recognised.
EDITS = 4
#: Han characters within which a couplet that is exact still stands near the beginning: instructions are as long.
NEAR = 60
#: The most bytes and lines of a file, outputs in it, and characters of one (a study's 4,096 tokens have fewer).
_LARGEST, _LINES, _MOST, _LONGEST = 16 * MIB, 100_000, 10_000, 32_768
_LISTED = 5  # lines or poems in a message
_NUMBER = re.compile(r"\s*(\d+)\s*[.．、:：)）]\s*")
_CHARACTER = re.compile(f"[{HAN}]")
_MARK = f"[{''.join(sorted(MARKS))},.;:?!]"
_COUPLET = re.compile(rf"\s*([{HAN}]+)(?:\s|{_MARK})+([{HAN}]+)\s*{_MARK}")


@dataclass
class _Output:
    """One output: as its file has it, then without its couplet."""

    place: str  #: "line 3", or "record 3" of a JSON list
    text: str
    number: int | None = None  #: before it, in a text file
    id: str = ""
    asked: str = ""  #: a record's ``input``
    examples: Sequence[int] = ()  #: places of those that it may belong to; none: it does not say
    way: str = "by order"
    notes: list[str] = field(default_factory=list)


class _Poems:
    """Examples, by what an output may say of them: their id, or their couplet (folded, without marks)."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples
        self.by_id = {example.id: [place] for place, example in enumerate(examples)}
        self.by_couplet: dict[str, list[int]] = {}
        for place, example in enumerate(examples):
            self.by_couplet.setdefault(fold(han(example.input)), []).append(place)
        self.lengths = sorted({len(couplet) for couplet in self.by_couplet}, reverse=True)

    def named(self, output: _Output) -> Sequence[int]:
        """Return the places of the examples with a record's ``id``, or with the couplet that ends its ``input``."""
        if output.id:
            return self.by_id.get(output.id, [])
        letters = fold(han(output.asked))
        ending = next((letters[-n:] for n in self.lengths if letters[-n:] in self.by_couplet), "")
        return self.by_couplet.get(ending, [])

    def begun(self, text: str) -> tuple[str, int]:
        """Return the couplet that ``text`` begins with, whatever its marks, and where the text goes on (0: none)."""
        letters = fold(
            han("".join(c[0] for c in islice(_CHARACTER.finditer(text), max(self.lengths, default=0))))
        )
        found = (
            (letters[:n], past(text, letters[:n])) for n in self.lengths if letters[:n] in self.by_couplet
        )
        return next((each for each in found if each[1]), ("", 0))

    def within(self, text: str) -> list[tuple[str, int]]:
        """Return the couplets that stand in ``text``, each with the place of its first character."""
        places = [found.start() for found in _CHARACTER.finditer(text)]
        letters = fold(han(text))
        every = ((letters[at : at + n], at) for at in range(len(letters)) for n in self.lengths)
        return [(couplet, places[at]) for couplet, at in every if couplet in self.by_couplet]

    def near(self, text: str) -> tuple[str, int, str]:
        """Return the first couplet behind words that are no verse, where the text goes on, and these words."""
        for couplet, at in self.within(text[: 4 * NEAR]):
            before = text[:at]
            lines = [len(clause) for clause in clauses(before)]
            verse = len(lines) % 2 == 0 and set(lines) in ({5}, {7})
            if sum(lines) <= NEAR and not verse and (end := past(text[at:], couplet)):
                return couplet, at + end, before
        return "", 0, ""

    def nearly_begun(self, text: str) -> tuple[str, int, int]:
        """Return the only couplet that the first two clauses nearly are, where the text goes on, and the edits."""
        clauses = _COUPLET.match(text)
        if not clauses:
            return "", 0, 0
        written = fold(clauses[1] + clauses[2])
        found = process.extract(written, list(self.by_couplet), scorer=Levenshtein.distance, limit=2)
        near = [(couplet, clauses.end(), int(n)) for couplet, n, _ in found if n <= len(couplet) // EDITS]
        return near[0] if len(near) == 1 else ("", 0, 0)


@lru_cache(maxsize=2)
def _poems(examples: tuple[Example, ...]) -> _Poems:
    """The examples, looked up once for all files of a class."""
    return _Poems(examples)


def read(file: Path, name: str, examples: Sequence[Example], others: Sequence[Example] = ()) -> Outputs:
    """Read ``file`` as outputs for ``examples``, and call it ``name``.

    ``others`` are the data's other examples: a file that answers those is refused, and names their split.

    Raises:
        TangevalError: the file cannot be read, or outputs and examples are no pairs; with the line or record.
    """
    try:
        outputs, poems, strays = _outputs(file, len(examples)), _poems(tuple(examples)), _poems(tuple(others))
        for output in outputs:
            _match(output, poems, strays)
        _refuse_strays(outputs, strays)
        owners = _owners(outputs, poems)
        _refuse_others(outputs, owners, poems)
    except TangevalError as error:
        raise TangevalError(f"{file}: {error}") from None
    ways = ", ".join(f"{count} {way}" for way, count in Counter(output.way for output in outputs).items())
    ways += ", none with a couplet of the data" * all(output.way == "by order" for output in outputs)
    reordered = "; reordered" if owners != sorted(owners) else ""
    notes = defaultdict(list)
    for output in outputs:
        for note in dict.fromkeys(output.notes):
            notes[note].append(output.place)
    texts = dict(zip(owners, (output.text for output in outputs), strict=True))
    return Outputs(
        name,
        tuple(texts[place] for place in range(len(examples))),
        f"{len(outputs)} outputs for {len(examples)} poems: {ways}{reordered}",
        tuple(f"{_listed(places)}: {note}" for note, places in notes.items()),
    )


def _outputs(file: Path, count: int) -> list[_Output]:
    """The outputs of a file; a blank line is one where there are ``count`` lines."""
    suffix = file.suffix.lower()
    if suffix not in ("", ".txt", ".json", ".jsonl"):
        raise TangevalError("give .txt with an output a line, .json with a list of records, or .jsonl")
    try:
        text = decoded(read_bytes(file, _LARGEST))
    except OSError as error:
        raise TangevalError(error.strerror or str(error)) from None
    if text.count("\n") + text.count("\r") > _LINES:
        raise TangevalError(f"more than {_LINES:,} lines for {count} poems; give one for each poem")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    if form := _form(suffix, text):
        found = list(_records(form, text, lines))
    else:
        kept = [(at, line) for at, line in enumerate(lines, 1) if line.strip() or len(lines) == count > 1]
        found = [_line(at, line) for at, line in kept]
    if not 0 < len(found) <= max(_MOST, 10 * count):
        raise TangevalError(f"{len(found):,} outputs for {count} poems; give one for each poem")
    for output in found:
        if len(output.text) + len(output.asked) > _LONGEST:
            raise TangevalError(f"{output.place}: longer than {_LONGEST:,} characters, as no poem is; cut it")
    return found


def _form(suffix: str, text: str) -> str:
    """``.json``, ``.jsonl``, or "" for lines of text: as the text begins, else as the file's name ends."""
    if re.match(r"\s*\[\s*[{\[\]\"]", text):
        return ".json"
    return ".jsonl" if re.match(r"\s*\{", text) else suffix.removesuffix(".txt")


def _line(at: int, line: str) -> _Output:
    number = _NUMBER.match(line)
    return _Output(f"line {at}", line[number.end() :] if number else line, int(number[1]) if number else None)


def _records(form: str, text: str, lines: Sequence[str]) -> Iterator[_Output]:
    at = 1
    try:
        if form == ".jsonl":
            for at, line in enumerate(lines, 1):
                if line.strip():
                    yield _record(f"line {at}", parsed(line))
            return
        records = parsed(text)
    except ValueError as error:
        at += getattr(error, "lineno", 1) - 1
        raise TangevalError(f"line {at}: not valid JSON ({getattr(error, 'msg', error)})") from None
    if not isinstance(records, list):
        raise TangevalError("no list of records, and no record a line")
    yield from (_record(f"record {at}", record) for at, record in enumerate(records, 1))


def _record(place: str, record: Any) -> _Output:
    known = record if isinstance(record, dict) else {}
    text, name, asked = known.get("predict"), known.get("id") or "", known.get("input") or ""
    if not (isinstance(text, str) and isinstance(name, str) and isinstance(asked, str)):
        raise TangevalError(f"{place}: a record has a text 'predict', and may have texts 'id' and 'input'")
    return _Output(place, text, id=name, asked=asked)


def _match(output: _Output, poems: _Poems, strays: _Poems) -> None:
    """Find whose an output may be, and cut its couplet and all that stands around the poem."""
    given = output.text
    _unwrap(output, whole=True)
    if key := output.id or output.asked:
        output.examples, output.way = poems.named(output), "by id" if output.id else "by couplet"
        if not output.examples:
            split = "".join(f" but {strays.examples[place].split}" for place in strays.named(output)[:1])
            raise TangevalError(f"{output.place}: {key[-60:]!r} is no poem of this split{split}")
    couplet, end = poems.begun(output.text)
    if not couplet:
        couplet, end, before = poems.near(output.text)
        output.notes += [f"{before.strip()[:40]!r} before the couplet cut"] if couplet else []
    if not couplet and not output.examples:
        couplet, end, edits = poems.nearly_begun(output.text)
        output.notes += [f"the couplet was edited: {edits} of {len(couplet)} characters"] if couplet else []
    if not couplet and not output.examples and "the prompt cut" in output.notes:
        output.examples = next((poems.by_couplet[echoed] for echoed, _ in poems.within(given)), ())
        output.way = "by couplet" if output.examples else output.way
    elif couplet and not output.examples:
        output.examples, output.way = poems.by_couplet[couplet], "by couplet"
    elif couplet and output.examples[0] in poems.by_couplet[couplet]:
        output.notes.append("the couplet before the poem cut")
    else:
        end = 0
    output.text = output.text[end:]
    _unwrap(output, whole=False)
    output.notes += [] if output.text else ["an empty output"]


def _unwrap(output: _Output, *, whole: bool) -> None:
    found = unwrap(output.text, whole=whole)
    output.text, output.notes = found.text, [*output.notes, *(f"{what} cut" for what in found.cut)]
    output.number = found.number if output.number is None else output.number


def _refuse_strays(outputs: Sequence[_Output], strays: _Poems) -> None:
    """Refuse a file most of whose outputs begin with couplets of other splits; a few may, by heart."""
    begun = [(o.place, couplet) for o in outputs if not o.examples and (couplet := strays.begun(o.text)[0])]
    if 2 * len(begun) > len(outputs):
        place, couplet = begun[0]
        example = strays.examples[strays.by_couplet[couplet][0]]
        of = f"a poem of the {example.split} split, as {len(begun)} of {len(outputs)} outputs do"
        raise TangevalError(f"{place}: begins with {example.input}, {of}; give that split")


def _refuse_others(outputs: Sequence[_Output], owners: Sequence[int], poems: _Poems) -> None:
    """Refuse an output that its place in the file gave a poem, and that holds the couplet of another."""
    for output, owner in zip(outputs, owners, strict=True):
        own = fold(han(poems.examples[owner].input))
        other = next((c for c, _ in poems.within(output.text) if c != own), "") if not output.examples else ""
        if other:
            theirs = poems.examples[poems.by_couplet[other][0]].input
            what = f"by its place the output for {poems.examples[owner].input}, and holds {theirs}"
            raise TangevalError(f"{output.place}: {what}; put each under its own, or its couplet before it")


def _owners(outputs: Sequence[_Output], poems: _Poems) -> list[int]:
    """The place of each output's example; poems with the same couplet take their outputs in order."""
    owner: dict[int, int] = {}  # place of an example → place of its output
    for at, output in enumerate(outputs):
        free = next((place for place in output.examples if place not in owner), None)
        if free is not None:
            owner[free] = at
        elif output.examples:
            both = _listed([outputs[owner[output.examples[-1]]].place, output.place])
            couplet = poems.examples[output.examples[0]].input
            raise TangevalError(f"{both}: two outputs for one poem, {couplet}; leave one out")
    total = f"{len(outputs)} outputs for {len(poems.examples)} poems"
    loose = [output.place for output in outputs if not output.examples]
    if loose and (len(outputs) != len(poems.examples) or any(place != at for place, at in owner.items())):
        raise TangevalError(
            f"{_listed(loose)}: begins with no poem's couplet, and {total}, not all in order. Give one for each "
            "in the poems' order, or put their couplets before them; an output with line breaks is given in JSON"
        )
    for at, output in enumerate(outputs if loose else ()):
        # Markdown allows every number of a list to be 1.
        first = outputs[0].number
        if first is not None and output.number not in (None, first, first + at):
            what = f"numbered {output.number} where {first + at} is due"
            raise TangevalError(f"{output.place}: {what}; put them in order")
    if loose:
        return list(range(len(outputs)))
    missing = [example.input for place, example in enumerate(poems.examples) if place not in owner]
    if missing:
        hint = "an empty output is one too, after its couplet"
        raise TangevalError(f"{total}: none for {_listed(missing)}; {hint}")
    return sorted(owner, key=lambda place: owner[place])


def _listed(words: Sequence[str]) -> str:
    """``line 7``, ``lines 7 and 9``, or the first of more."""
    unit = words[0].partition(" ")[0] if words[0].startswith(("line", "record")) else ""
    shown = [word.removeprefix(unit).strip() for word in words[:_LISTED]]
    shown += [f"{len(words) - _LISTED} more"] if len(words) > _LISTED else []
    text = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"{unit}{'s' if len(words) > 1 else ''} {text}" if unit else text
