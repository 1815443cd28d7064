"""Two texts of hidden sides, and what people prefer.

In: a desk, and votes. Out: ``votes.csv``, as ``tangeval judge --human`` reads it, with sample, setting and rater; and each
side's Bradley–Terry strength. Knows nothing of servers.
"""

import math
import random
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from tangeval.core.config import Section
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, Setting, written
from tangeval.core.types import REFERENCE
from tangeval.doors.playing.asking import Ask
from tangeval.doors.playing.desk import Desk
from tangeval.judge.agreement import TIE, VOTE, read_votes
from tangeval.judge.bradley_terry import strength_intervals
from tangeval.judge.pairwise import by_poem
from tangeval.results.files import append_line, csv_text, write_text

_MORE = ("sample", "setting", "rater")
_OPEN = 1000  # pairs that wait for a vote; older ones are forgotten
_TRIES = 8  # of a pair whose texts differ
_SAMPLES = 1000  # noises that pairs are drawn with


class Ballot(Section):
    """Which of a pair's texts a rater prefers."""

    pair: str
    vote: Literal["left", "right", "tie"]
    rater: Annotated[str, Field(min_length=1, max_length=40)]


@dataclass(frozen=True)
class _Pair:
    example: str
    sides: tuple[str, str]
    sample: int
    setting: str


class Tasting:
    """See above; ``file`` need not be there yet."""

    def __init__(self, desk: Desk, file: Path) -> None:
        self.desk, self.file = desk, file
        self._pairs: dict[str, _Pair] = {}
        self._chance = random.Random(secrets.randbits(64))  # who sees which pair is no part of any result

    def pair(self, ask: Ask) -> dict[str, str]:
        """Return a pair's name, what was given, and two texts of two of the sides that are asked for, by the same noise.

        Raises:
            TangevalError: there are no two sides, or they write the same.
        """
        sides = list(dict.fromkeys(ask.checkpoints))
        if len(sides) < 2:
            raise TangevalError("checkpoints: two sides are wanted, such as base and reference")
        setting = _spelt(self.desk.setting(ask))
        study = self.desk.resolved.study
        examples = self.desk.resolved.examples(study.ordered_splits()[-1])
        for _ in range(_TRIES):
            example, sample = self._chance.choice(examples), self._chance.randrange(_SAMPLES)
            one, other = self._chance.sample(sides, 2)
            asked = ask.model_copy(update={
                "example": example.id, "couplet": "", "sample": sample, "samples": 1, "forced": [],
                "checkpoints": [side for side in (one, other) if side != REFERENCE],
            })  # fmt: skip
            texts = {name: found[0] for name, found in self.desk.texts(asked).items()}
            texts[REFERENCE] = self.desk.resolved.task.target(example)
            if texts[one] != texts[other]:
                name = secrets.token_hex(8)
                self._pairs[name] = _Pair(example.id, (one, other), sample, setting)
                while len(self._pairs) > _OPEN:
                    del self._pairs[next(iter(self._pairs))]
                return {"pair": name, "given": example.input, "left": texts[one], "right": texts[other]}
        raise TangevalError(
            "the sides wrote the same texts again and again; raise the temperature, or take others"
        )

    def vote(self, ballot: Ballot) -> dict[str, int]:
        """Add a vote to the file; return how many it has.

        Raises:
            TangevalError: the pair is not known, or has its vote; or the file cannot be written or read.
        """
        pair = self._pairs.get(ballot.pair)
        if pair is None:
            raise TangevalError(
                "pair: it is not known any more, or has its vote already; ask for the next one"
            )
        left, right = pair.sides
        preferred = {"left": left, "right": right, "tie": TIE}[ballot.vote]
        row = (pair.example, left, right, preferred, pair.sample, pair.setting, ballot.rater)
        head, line = csv_text(pd.DataFrame([row], columns=[*VOTE, *_MORE])).splitlines()
        if not self.file.is_file():
            write_text(self.file, f"{head}\n{line}\n")
        else:
            self._read()  # nothing is added to a file that is something else
            cut = not self.file.read_bytes().endswith(b"\n")
            append_line(self.file, f"\n{line}" if cut else line)
        del self._pairs[ballot.pair]
        return {"votes": len(self._read())}

    def _read(self) -> pd.DataFrame:
        if not self.file.is_file():
            return pd.DataFrame(columns=[*VOTE, *_MORE])
        return read_votes(self.file, self.desk.resolved.dataset, *_MORE)

    def standings(self, ask: Ask) -> dict[str, Any]:
        """Return the votes at the setting that is asked for, and each side's strength in log-odds, of mean 0, with its
        95 % intervals by poem and by rater (``strength_intervals``); None where there is none."""
        votes = self._read()
        votes = votes[votes["setting"] == _spelt(self.desk.setting(ask))]
        sides = sorted({*votes["a"], *votes["b"]})
        order = np.where(votes["a"] < votes["b"], 1.0, -1.0)  # pairs in the order of sides
        won = np.select(
            [votes["preferred"] == votes["a"], votes["preferred"] == votes["b"]], [1.0, -1.0], 0.0
        )
        both = votes[["a", "b"]].to_numpy().astype(str)
        both.sort(axis=1)
        judged = votes.assign(a=both[:, 0], b=both[:, 1], win=(1 + won * order) / 2)
        rows = [{"side": side} for side in sides]
        for cluster, column in (("poem", "example_id"), ("rater", "rater")):
            if not rows or votes[column].nunique() < 2:
                continue
            wins = by_poem(judged.assign(example_id=votes[column]), sides)
            for row, *found in zip(rows, *strength_intervals(wins), strict=True):
                ends = zip(("", "_low", "_high"), found, strict=True)
                row |= {f"{cluster}{end}": float(x) if math.isfinite(x) else None for end, x in ends}
        counts = {
            "votes": len(votes),
            "poems": votes["example_id"].nunique(),
            "raters": votes["rater"].nunique(),
        }
        return {"file": str(self.file), "counts": counts, "sides": rows}


def _spelt(setting: Setting) -> str:
    """The knobs that are on, as they are typed."""
    return " ".join(
        f"{name}={written(value)}" for name, value in setting.as_dict().items() if value != KNOB[name].off
    )
