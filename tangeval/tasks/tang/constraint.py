"""What may follow a couplet so that the whole is a poem: its form, its rhyme, its tones.

In: what each token writes, a level, and an example. Out: a ``Constraint``: which tokens may come next. Knows nothing of
models and of how tokens are drawn.

``form`` is all that the metric of that name asks: clauses as long as the couplet's first, a comma and a full stop by
turns (the marks of ``as_verse``), 4 or 8 clauses in all, none of them twice. ``form+rhyme``: every second clause ends
in a group that all of them share, the couplet's among them, and in no character twice. ``form+rhyme+tones``: where
the couplet fits a pattern of regulated verse, what follows keeps it, and the rhyme is level; where it fits none, tones
are free. A text may begin with the space that completions begin with. Characters are read as ``prosody`` reads them.

Nothing leads into a dead end: a rhyme is begun only where as many characters as the poem has clauses rhyme and are
tokens, so one is always left that ends no other clause.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tangeval.core.errors import TangevalError
from tangeval.core.types import Allowed, Constraint, Example
from tangeval.metrics.ngrams import Ints
from tangeval.tasks.tang import prosody, regulated
from tangeval.tasks.tang.form import CLAUSES_OF_A_POEM
from tangeval.tasks.tang.poems import read
from tangeval.tasks.tang.prosody import EITHER, LEVEL, OBLIQUE
from tangeval.tasks.tang.text import ITERATION, clauses, fold, han

LEVELS = ("form", "form+rhyme", "form+rhyme+tones")
#: The classes of characters: these, and from 3 on the kinds of Han characters.
_SPACE, _PAUSE, _STOP, _FIRST = range(4)
_MARKS = {" ": _SPACE, "，": _PAUSE, "。": _STOP}


class _Kind(NamedTuple):
    """Han characters that are read alike: the groups that they rhyme in, as bits, and their tones, 0 if unknown."""

    groups: int
    tones: int


class _Place(NamedTuple):
    """Where a text stands: ``place`` characters of ``line`` are written (-1: nothing at all); ``rhymes`` are the groups
    left, as bits; ``lone`` says that a level tone before the end must not stand alone (孤平)."""

    line: int
    place: int
    rhymes: int
    lone: bool = False


class _Rules(NamedTuple):
    """What decides which place follows which: characters a clause, clauses given, after how many more a text may end,
    and the tone of the poem's first clause at place 2 (0: tones are free)."""

    length: int
    given: int
    ends: tuple[int, ...]
    start: int

    def wanted(self, line: int) -> list[int]:
        """The tones of a line's places, 0 where they are free."""
        wanted = [0] * self.length
        if self.start:
            second = self.start if (self.given + line) % 4 in (0, 3) else EITHER - self.start
            for place in prosody.OPPOSED:
                if place < self.length - 1:
                    wanted[place] = second if place != 3 else EITHER - second
            wanted[-1] = LEVEL if line % 2 else OBLIQUE
            if line % 2 and wanted[-2] == LEVEL:
                wanted[-3] = OBLIQUE  # else three level tones would end it (三平尾)
        return wanted


class State(NamedTuple):
    """A text so far: its place by number, the clause being written, folded, the whole ones, and their rhymes."""

    at: int
    line: str
    clauses: frozenset[str]
    rhymes: frozenset[str]


def _bits(character: str) -> int:
    return sum(_BIT[group] for group in prosody.rhyme_groups(character))


_BIT = {group: 1 << place for place, group in enumerate(prosody.groups())}
_LEVEL = sum(bit for group, bit in _BIT.items() if prosody.is_level(group))


class Tokens:
    """The tokens that verse may be written with, and what one of their characters means at a level."""

    def __init__(self, texts: Sequence[str], level: str) -> None:
        self.texts, self.level = texts, level
        self.size = len(texts)
        usable = [(number, text) for number, text in enumerate(texts) if text and self._is_verse(text)]
        characters = dict.fromkeys(character for _, text in usable for character in text)
        kinds: dict[_Kind, int] = {}
        self.classes = {
            character: _MARKS[character]
            if character in _MARKS
            else _FIRST + kinds.setdefault(self._kind(character), len(kinds))
            for character in characters
        }
        self.kinds = list(kinds)
        self.ids = np.array([number for number, _ in usable], np.int64)
        self.width = max((len(text) for _, text in usable), default=1)
        self.letters = np.full((len(usable), self.width), -1)
        for row, (_, text) in zip(self.letters, usable, strict=True):
            row[: len(text)] = [self.classes[character] for character in text]
        #: How many Han characters stand after a mark within a token: no whole clause may.
        self.after_mark = np.array([_after_mark(text) for _, text in usable], np.int64)
        #: Tokens by the characters that they begin with, folded, and by the one at a place from the end of a clause.
        self.beginning: dict[str, list[int]] = defaultdict(list)
        self.having: dict[tuple[int, str], list[int]] = defaultdict(list)
        for number, text in usable:
            begins = fold(_leading(text))
            for count in range(1, len(begins) + 1):
                self.beginning[begins[:count]].append(number)
                self.having[count, begins[count - 1]].append(number)
        single = {fold(text): self._kind(text) for _, text in usable if len(text) == 1 and text not in _MARKS}
        #: How many characters are tokens, variants made one: by tone, all of them (0), and by rhyme.
        self.toned = {
            tone: sum(not tone or kind.tones & tone > 0 for kind in single.values()) for tone in range(EITHER)
        }
        self.rhyming = Counter(bit for kind in single.values() for bit in _BIT.values() if kind.groups & bit)
        self.masks: dict[bytes, NDArray[np.bool_]] = {}
        self.tables: dict[_Rules, _Table] = {}

    @staticmethod
    def _is_verse(text: str) -> bool:
        own = text.removeprefix(" ").replace("，", "").replace("。", "")
        return han(own) == own and not set(own) & set(ITERATION)

    def _kind(self, character: str) -> _Kind:
        groups = _bits(character)
        tones = LEVEL * bool(groups & _LEVEL) + OBLIQUE * bool(groups & ~_LEVEL)
        return _Kind(groups, tones) if self.level != LEVELS[0] else _Kind(-1, EITHER)

    def enough(self, count: int) -> int:
        """Return the groups that at least so many characters rhyme in, variants made one, as bits."""
        if self.level == LEVELS[0]:
            return -1
        return sum(bit for bit, found in self.rhyming.items() if found >= count)

    def mask(self, usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return an array over all tokens, the same one for the same tokens."""
        found = np.zeros(self.size, np.bool_)
        found[self.ids[usable]] = True
        return self.masks.setdefault(np.packbits(found).tobytes(), found)

    def table(self, rules: _Rules) -> "_Table":
        return self.tables.setdefault(rules, _Table(self, rules))


def _after_mark(text: str) -> int:
    """The most Han characters that follow a mark."""
    return max(map(len, text.replace("。", "，").split("，")[1:]), default=0)


def _leading(text: str) -> str:
    return text.removeprefix(" ").replace("。", "，").partition("，")[0]


class _Table:
    """The places that texts of the same rules come by, by number, and what may follow each; filled as they are reached."""

    def __init__(self, tokens: Tokens, rules: _Rules) -> None:
        self.tokens, self.rules = tokens, rules
        self.places: list[_Place] = []
        self.numbers: dict[_Place, int] = {}
        self.follows: dict[int, Ints] = {}
        self.masks: dict[int, NDArray[np.bool_]] = {}

    def number(self, place: _Place) -> int:
        if place not in self.numbers:
            self.numbers[place] = len(self.places)
            self.places.append(place)
        return self.numbers[place]

    def after(self, number: int) -> Ints:
        """Return the place after each class of characters; -1 where none may follow."""
        if number not in self.follows:
            places = self._after(self.places[number])
            self.follows[number] = np.array([self.number(each) if each else -1 for each in places])
        return self.follows[number]

    def _after(self, at: _Place) -> list[_Place | None]:
        rules, (line, place, rhymes, _) = self.rules, at
        found: list[_Place | None] = [None] * (_FIRST + len(self.tokens.kinds))
        if place == rules.length:
            found[_STOP if line % 2 else _PAUSE] = _Place(line + 1, 0, rhymes)
            return found
        if place == -1:
            found[_SPACE], place = _Place(line, 0, rhymes), 0
        if place == 0 and line in rules.ends:
            longer = [end for end in rules.ends if end > line]
            rhymes = rhymes & self.tokens.enough(rules.given + longer[0]) if longer else 0
            if not rhymes:
                return found
        wanted, kinds = rules.wanted(line), self.tokens.kinds
        if line % 2 and place == rules.length - 1:
            fits = [
                kind.groups & rhymes if not wanted[-1] or kind.tones & wanted[-1] else 0 for kind in kinds
            ]
            found[_FIRST:] = [_Place(line, place + 1, left) if left else None for left in fits]
        else:
            begun = at._replace(place=place, rhymes=rhymes)
            of_tones = [_next(begun, tones, wanted) for tones in range(EITHER + 1)]
            found[_FIRST:] = [of_tones[kind.tones] for kind in kinds]
        return found

    def mask(self, number: int) -> NDArray[np.bool_]:
        """Return which tokens may follow, each walked through character by character."""
        if number not in self.masks:
            letters = self.tokens.letters
            at = self.after(number)[letters[:, 0]] if len(letters) else letters[:, 0]
            at[self.tokens.after_mark >= self.rules.length] = -1
            for place in range(1, self.tokens.width):
                going = (at >= 0) & (letters[:, place] >= 0)
                for each in np.unique(at[going]):
                    own = going & (at == each)
                    at[own] = self.after(each)[letters[own, place]]
            self.masks[number] = self.tokens.mask(at >= 0)
        return self.masks[number]


def _next(at: _Place, tones: int, wanted: Sequence[int]) -> _Place | None:
    """The place after a Han character of these tones that ends no rhyming clause."""
    left, lone = len(wanted) - at.place, at.lone
    if wanted[at.place] and not tones & wanted[at.place]:
        return None
    if at.line % 2 and wanted[-2] == OBLIQUE:  # it ends 平仄仄平
        if left == 3 and lone and not tones & LEVEL:
            return None
        lone = tones == OBLIQUE if left == 5 else lone and left > 3
    return _Place(at.line, at.place + 1, at.rhymes, lone)


def _pattern(couplet: str, given: Sequence[str]) -> tuple[int, int]:
    """The tone of the first clause at place 2 where a couplet fits regulated verse, and the groups that may rhyme then.

    Where it fits none: 0, and all.
    """
    starts = [tone for tone, fit in regulated.starts(read([couplet], [""])).items() if fit[0]]
    first, last = (_bits(clause[-1]) for clause in (given[0], given[-1]))
    # A first clause that ends in a level tone rhymes.
    level = _LEVEL if not first or first & ~_LEVEL else _LEVEL & first
    fits = starts and len(given) == 2 and {*map(len, given)} in ({5}, {7}) and last & level
    return (starts[0], level) if fits else (0, -1)


class Poem:
    """The ``Constraint`` of one couplet."""

    def __init__(self, tokens: Tokens, example: Example) -> None:
        self.tokens = tokens
        given = clauses(fold(example.input))
        length, rhymes, start = len(given[0]), tokens.enough(0), 0
        ends = [
            all_ - len(given)
            for all_ in CLAUSES_OF_A_POEM
            if all_ > len(given) and (all_ - len(given)) % 2 == 0
        ]
        last: list[str] = []
        known: list[str] = []
        if tokens.level != LEVELS[0]:
            last = [clause[-1] for clause in given[1::2]]
            known = [character for character in last if _bits(character)]
            for character in known:
                rhymes &= _bits(character)
            rhymes *= len(set(last)) == len(last)
            ends = [end for end in ends if len(known) + end // 2 > 1]  # what is to rhyme needs another
            if tokens.level == LEVELS[-1]:
                start, level = _pattern(example.input, given)
                rhymes &= level
        rhymes &= tokens.enough(len(given) + ends[0]) if ends else 0
        if not rhymes or not self._spelt:
            raise TangevalError(self._refusal(example, given, ends, known))
        self.table = tokens.table(_Rules(length, len(given), tuple(ends), start))
        self.start = State(self.table.number(_Place(0, -1, rhymes)), "", frozenset(given), frozenset(last))
        clause, most = -(-length // tokens.width) + 1, length + 1
        self.length = ends[0] * clause + 1, ends[-1] * most + 2

    @property
    def _spelt(self) -> bool:
        """Whether both marks are tokens, and more characters of each tone that is asked for than clauses may end in before."""
        toned = self.tokens.toned if self.tokens.level == LEVELS[-1] else {0: self.tokens.toned[0]}
        return {"，", "。"} <= set(self.tokens.texts) and min(toned.values()) >= CLAUSES_OF_A_POEM[-1]

    def _refusal(
        self, example: Example, given: Sequence[str], ends: Sequence[int], known: Sequence[str]
    ) -> str:
        level, name = self.tokens.level, f"{example.id} ({example.input})"
        if not ends:
            return f"decoding.constrain: {level}: {name} has {len(given)} clauses, after which no whole couplets make 4 or 8; leave it out"
        if not self._spelt:
            return f"decoding.constrain: {level}: the tokenizer has no token for ，and 。 or for too few Han characters; take none"
        enough = f"{len(given) + ends[0]} characters that are tokens of the model"
        return f"decoding.constrain: {level}: {name} ends in {'，'.join(known) or 'no known rhyme'}, which fewer than {enough} rhyme with; take form"

    def allowed(self, state: State) -> Allowed:
        place = self.table.places[state.at]
        left, without = self.table.rules.length - len(state.line), list[int]()
        if 0 < left <= self.tokens.width:
            for clause in state.clauses:
                if clause.startswith(state.line):
                    without += self.tokens.beginning.get(clause[len(state.line) :], ())
            for ending in state.rhymes if place.line % 2 else ():
                without += self.tokens.having.get((left, ending), ())
        end = place.place == 0 and place.line in self.table.rules.ends
        return Allowed(self.table.mask(state.at), without, end)

    def advance(self, state: State, token: int) -> State:
        at, line, clauses_, rhymes = state
        for character in self.tokens.texts[token]:
            letter = self.tokens.classes[character]
            if letter in (_PAUSE, _STOP):
                if letter == _STOP and self.tokens.level != LEVELS[0]:
                    rhymes |= {line[-1]}
                clauses_, line = clauses_ | {line}, ""
            elif letter != _SPACE:
                line += fold(character)
            at = int(self.table.after(at)[letter])
        return State(at, line, clauses_, rhymes)


def _writer(level: str, texts: Sequence[str]) -> Callable[[Example], Poem]:
    return partial(Poem, Tokens(texts, level))


#: What makes the constraint of an example, given what each token writes, by level.
CONSTRAINTS: Mapping[str, Callable[[Sequence[str]], Callable[[Example], Constraint]]] = {
    level: partial(_writer, level) for level in LEVELS
}
