"""Two texts of hidden sides, and what people prefer.

In: a desk, and votes. Out: ``votes.csv``, as ``tangeval judge --human`` reads it, with sample, setting and rater; and each
side's Bradley–Terry strength. Knows nothing of servers.
"""

import math
import random
import secrets
import threading
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from tangeval.core.config import Section
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, Setting, written
from tangeval.core.types import REFERENCE, Example
from tangeval.doors.playing.asking import Ask
from tangeval.doors.playing.desk import Desk
from tangeval.judge.agreement import TIE, VOTE, read_votes
from tangeval.judge.bradley_terry import strength_intervals
from tangeval.judge.pairwise import by_poem
from tangeval.results.files import append_line, csv_text, write_text

_MORE = ("sample", "setting", "rater")
_OPEN = 1000  # pairs that wait for a vote; older ones are forgotten
#: Poems or raters that an interval takes: of fewer it holds too rarely (`benchmarks/judge.py`: 2 to 4 hold 74 to 100 %).
_FEWEST = 5
_TRIES = 8  # pairs, until the texts of one differ


class Taste(Ask):
    """Which sides and knobs a rater wants to taste; the example is drawn."""

    rater: Annotated[str, Field(pattern=r"^\w[\w .-]*$", max_length=40)] = "me"


class Ballot(Section):
    """Which of a pair's texts its rater prefers."""

    pair: str
    vote: Literal["left", "right", "tie"]


@dataclass(frozen=True)
class _Pair:
    example: str
    sides: tuple[str, str]
    sample: int
    setting: str
    rater: str


class Tasting:
    """See above; ``file`` need not be there yet."""

    def __init__(self, desk: Desk, file: Path) -> None:
        self.desk, self.file = desk, file
        self._pairs: dict[str, _Pair] = {}
        self._alike = Counter[tuple[str, str, frozenset[str]]]()  # the next sample where texts were the same
        self._voting = threading.RLock()  # votes come while models write
        self._chance = random.Random(secrets.randbits(64))  # who sees which pair is no part of any result

    def pair(self, ask: Taste) -> dict[str, str]:
        """Return a pair's name, what was given, and two texts of two of the sides that are asked for, by the same noise.

        It is one that the rater has voted on least often: of the first sample, then of the next. Samples of which both texts
        are the same are passed over.

        Raises:
            TangevalError: there are no two sides, or they write the same.
        """
        sides, setting = sorted(set(ask.checkpoints)), _spelt(self.desk.setting(ask))
        if len(sides) < 2:
            raise TangevalError("checkpoints: two sides are wanted, such as base and reference")
        votes = self._read()
        own = votes[(votes["setting"] == setting) & (votes["rater"] == ask.rater)]
        seen = Counter(
            {(e, pair): next_one for (s, e, pair), next_one in self._alike.items() if s == setting}
        )
        for e, a, b, sample in own[["example_id", "a", "b", "sample"]].itertuples(index=False):
            pair = e, frozenset((a, b))
            seen[pair] = max(seen[pair], int(sample) + 1 if sample.isdecimal() else 1)
        resolved = self.desk.resolved
        wanted = [
            (e, two)
            for e in resolved.examples(resolved.study.ordered_splits()[-1])
            for two in combinations(sides, 2)
        ]
        self._chance.shuffle(wanted)
        wanted.sort(key=lambda each: seen[each[0].id, frozenset(each[1])])
        for example, two in wanted[:_TRIES]:
            left, right = self._chance.sample(two, 2)
            sample = seen[example.id, frozenset(two)]
            texts = self._texts(ask, example, [left, right], sample)
            if texts[left] != texts[right]:
                name = secrets.token_hex(8)
                with self._voting:
                    self._pairs[name] = _Pair(example.id, (left, right), sample, setting, ask.rater)
                    while len(self._pairs) > _OPEN:
                        del self._pairs[next(iter(self._pairs))]
                return {"pair": name, "given": example.input, "left": texts[left], "right": texts[right]}
            self._alike[setting, example.id, frozenset(two)] = sample + 1
        raise TangevalError("the sides write the same texts; raise the temperature, or take others")

    def _texts(self, ask: Ask, example: Example, sides: list[str], sample: int) -> dict[str, str]:
        writers = [side for side in sides if side != REFERENCE]
        asked = Ask(checkpoints=writers, example=example.id, sample=sample, knobs=ask.knobs)
        found = {name: texts[0] for name, texts in self.desk.texts(asked).items()}
        return found | {REFERENCE: self.desk.resolved.task.target(example)}

    def vote(self, ballot: Ballot) -> dict[str, int]:
        """Add a vote to the file; return how many it has.

        Raises:
            TangevalError: the pair is not known, or has its vote; or the file cannot be written or read.
        """
        with self._voting:
            return self._vote(ballot)

    def _vote(self, ballot: Ballot) -> dict[str, int]:
        pair = self._pairs.get(ballot.pair)
        if pair is None:
            raise TangevalError(
                "pair: it is not known any more, or has its vote already; ask for the next one"
            )
        left, right = pair.sides
        preferred = {"left": left, "right": right, "tie": TIE}[ballot.vote]
        row = (pair.example, left, right, preferred, pair.sample, pair.setting, pair.rater)
        frame = pd.DataFrame([row], columns=[*VOTE, *_MORE])
        if self.file.is_file():
            self._read()  # nothing is added to a file that is something else
            frame = frame.reindex(columns=pd.read_csv(self.file, nrows=0, encoding="utf-8-sig").columns)
        head, line = csv_text(frame).splitlines()
        if not self.file.is_file():
            write_text(self.file, f"{head}\n{line}\n")
        else:
            cut = not self.file.read_bytes().endswith(b"\n")
            append_line(self.file, f"\n{line}" if cut else line)
        del self._pairs[ballot.pair]
        return {"votes": len(self._read())}

    def _read(self) -> pd.DataFrame:
        with self._voting:
            if not self.file.is_file():
                return pd.DataFrame(columns=[*VOTE, *_MORE])
            return read_votes(self.file, self.desk.resolved.dataset, *_MORE)

    def standings(self, ask: Ask) -> dict[str, Any]:
        """Return the votes at the setting that is asked for, and each side's strength in log-odds, of mean 0, with its
        95 % intervals by poem and by rater (``strength_intervals``); None where there are too few to have one."""
        votes = self._read()
        votes = votes[votes["setting"] == _spelt(self.desk.setting(ask))]
        sides = sorted({*votes["a"], *votes["b"]})
        turned = votes["a"] > votes["b"]  # pairs in the order of sides
        won = np.select([votes["preferred"] == votes[side] for side in "ab"], [1.0, 0.0], 0.5)
        a, b = (votes[one].where(~turned, votes[other]) for one, other in ("ab", "ba"))
        judged = votes.assign(a=a, b=b, win=np.where(turned, 1 - won, won))
        rows, counts = [{"side": side} for side in sides], {"votes": len(votes)}
        for cluster, column in (("poem", "example_id"), ("rater", "rater")):
            counts[f"{cluster}s"] = votes[column].nunique()
            if not rows:
                continue
            with np.errstate(invalid="ignore"):
                found = strength_intervals(by_poem(judged.assign(example_id=votes[column]), sides))
            for row, *values in zip(rows, *found, strict=True):
                told = [x if math.isfinite(x) else None for x in map(float, values)]
                told[1:] = told[1:] if counts[f"{cluster}s"] >= _FEWEST else [None, None]
                row |= zip((cluster, f"{cluster}_low", f"{cluster}_high"), told, strict=True)
        return {"file": str(self.file), "counts": counts, "sides": rows}


def _spelt(setting: Setting) -> str:
    """The knobs that are on, as they are typed."""
    return " ".join(
        f"{name}={written(value)}" for name, value in setting.as_dict().items() if value != KNOB[name].off
    )
