"""Does a judge agree with counted prosody, and with people?

In: pairs of endings of one couplet and which of them a judge prefers; the task's metrics; a file of votes. Out:
shares and Cohen's kappa, with 95 % intervals over examples. Knows nothing of servers and of how a judge was asked.
"""

import io
import math
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import special

from tangeval.analysis.intervals import LEVEL, Floats, rate_interval
from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import read_bytes
from tangeval.metrics.base import Texts
from tangeval.results.files import HARMLESS
from tangeval.tasks.base import Dataset, Task

#: What is counted of 格律, as far as the task has it.
COUNTED = ("form", "rhyme", "tone_opposition", "regulated")
#: The columns of a file of votes, and what says that two are as good.
VOTE, TIE = ("example_id", "a", "b", "preferred"), "tie"


@dataclass(frozen=True)
class Share:
    """A share's mean over ``poems`` examples, with a 95 % interval over them; ``cases`` of it in all."""

    value: float
    low: float
    high: float
    cases: int
    poems: int


@dataclass(frozen=True)
class Counted:
    """How often the ending with the better ``metric`` is preferred, and the prosody that the two are given."""

    metric: str
    preferred: Share
    better: float
    worse: float


@dataclass(frozen=True)
class Human:
    """How often a judge says what people said, and kappa with its ends; ``other`` votes are on no pair with an answer."""

    same: Share
    kappa: float
    low: float
    high: float
    other: int


@dataclass(frozen=True)
class Agreement:
    """With what is counted, and with people where there are votes."""

    counted: tuple[Counted, ...]
    human: Human | None


def read_votes(file: Path, data: Dataset, *more: str) -> pd.DataFrame:
    """Return the votes of a CSV file: a person's ``preferred`` is what a or b says, or ``tie``.

    Without ``more`` columns, which are returned too, those on other samples than the first are left out: a judge saw none.

    Raises:
        TangevalError: it cannot be read, or a field is not as it must be.
    """
    try:
        content = io.BytesIO(read_bytes(file))
        votes = pd.read_csv(content, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        if not isinstance(votes.index, pd.RangeIndex):  # pandas takes the first field for a name then
            raise ValueError("its rows have more fields than its first line")
        votes = votes.fillna("").replace(HARMLESS, "", regex=True)
    except (OSError, ValueError) as error:
        raise TangevalError(f"{file}: not a readable CSV file: {error}") from None
    if missing := [name for name in (*VOTE, *more) if name not in votes]:
        raise TangevalError(
            f"{file}: {missing[0]}: there is no such column; the columns are {', '.join((*VOTE, *more))}"
        )
    a, b, preferred = (votes[name] for name in VOTE[1:])
    right = {
        "example_id": (votes["example_id"].isin(data.by_id), f"give one such as {data.examples[0].id}"),
        "b": ((a != b) & (a != "") & (b != ""), "give two checkpoints as a and b"),
        "preferred": (
            (preferred == a) | (preferred == b) | (preferred == TIE),
            f"give what a or b says, or {TIE}",
        ),
    }
    for name, (as_it_must, remedy) in right.items():
        for row in np.flatnonzero(~as_it_must)[:1]:
            raise TangevalError(f"{file}, vote {row + 1}: {name}: {votes[name][row]!r}; {remedy}")
    first = votes["sample"].isin(("", "0")) if "sample" in votes and not more else slice(None)
    return votes.loc[first, [*VOTE, *more]].reset_index(drop=True)


def pairs_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a row for every two checkpoints' outputs of one example and sample: ``a``, ``b``, and columns ``*_a``, ``*_b``."""
    sides = [part.drop(columns="checkpoint") for _, part in rows.groupby("checkpoint", sort=False)]
    names, on = rows["checkpoint"].unique(), ["example_id", "sample"]
    pairs = [
        sides[i].merge(sides[j], on=on, suffixes=("_a", "_b")).assign(a=names[i], b=names[j])
        for i, j in combinations(range(len(names)), 2)
    ]
    return pd.concat(pairs, ignore_index=True)


def wins(a: "pd.Series", b: "pd.Series") -> "pd.Series":
    """Return 1 where ``a`` is above ``b``, 1/2 where they are equal, 0 below; NaN where one is."""
    return (a > b).astype(float).mask(a == b, 0.5).mask(a.isna() | b.isna())


def share(cases: "pd.Series", examples: "pd.Series") -> Share:
    """Return the mean over examples of their own means of ``cases``, each from 0 to 1; NaN is left out."""
    by_poem = np.asarray(cases.dropna().groupby(examples).mean(), np.float64)
    if not len(by_poem):
        return Share(math.nan, math.nan, math.nan, 0, 0)
    low, high = rate_interval(by_poem, 2)  # a poem's mean need not be 0 or 1, as with two samples
    return Share(float(by_poem.mean()), float(low), float(high), int(cases.notna().sum()), len(by_poem))


def with_counted(pairs: pd.DataFrame, task: Task, data: Dataset) -> tuple[Counted, ...]:
    """Return how often the ending with the better counted prosody is preferred, for each metric that parts some.

    ``win`` of ``pairs`` is 1 where a is preferred, 1/2 for a tie. A judge that does not see the metric reaches
    1/2; twice the share less 1 is Somers' D (*ASR* 27, 1962) of two endings of one couplet. Grades stand in
    ``prosody_a`` and ``prosody_b``, if anywhere.
    """
    found = []
    for metric in (task.metrics[name] for name in COUNTED if name in task.metrics):
        examples, nowhere = [data.by_id[name] for name in pairs["example_id"]], [None] * len(pairs)
        texts = (
            Texts(list(pairs[column]), examples, nowhere, task.normalise) for column in ("text_a", "text_b")
        )
        a, b = (np.asarray(metric.compute(side)) for side in texts)
        told = pairs.assign(ahead=a > b)[(a != b) & pairs["win"].notna()]
        if len(told):
            preferred = share(told["win"].where(told["ahead"], 1 - told["win"]), told["example_id"])
            graded = told.reindex(columns=["prosody_a", "prosody_b"]).set_axis(["a", "b"], axis=1)
            sides = (graded["a"].where(told["ahead"] == a_ahead, graded["b"]) for a_ahead in (True, False))
            means = (float(side.groupby(told["example_id"]).mean().mean()) for side in sides)
            found.append(Counted(metric.name, preferred, *means))
    return tuple(found)


def with_human(pairs: pd.DataFrame, votes: pd.DataFrame) -> Human | None:
    """Return the agreement with people's votes; a ``win`` above 1/2 is a judge's vote for a, below for b.

    Kappa is Cohen's (*Educational and Psychological Measurement* 20, 1960), its interval a jackknife's over
    examples.

    None where no such pair has been answered yet.

    Raises:
        TangevalError: no vote is on two of what is judged.
    """
    said = pairs[pairs["sample"] == 0].groupby(["example_id", "a", "b"], as_index=False)["win"].mean()
    voted = pd.concat([votes, votes.rename(columns={"a": "b", "b": "a"})])
    both = said.merge(voted, on=["example_id", "a", "b"])
    if both.empty:
        sides = ", ".join(dict.fromkeys([*pairs["a"], *pairs["b"]]))
        raise TangevalError(f"--human: a, b: no vote is on two of what is judged: {sides}")
    both = both[both["win"].notna()].assign(judge=lambda rows: np.sign(rows["win"] - 1 / 2))
    if both.empty:
        return None
    both["person"] = (both["preferred"] == both["a"]) * 1.0 - (both["preferred"] == both["b"])
    one, other = (both[name].to_numpy(float) for name in ("judge", "person"))
    value, examples = kappa(one, other), both["example_id"].to_numpy()
    names = np.unique(examples)
    left = np.array([kappa(one[examples != e], other[examples != e]) for e in names if len(names) > 1])
    error = math.sqrt(left.var() * (len(left) - 1)) if len(left) else math.nan
    half = float(special.stdtrit(max(len(left) - 1, 1), (1 + LEVEL) / 2)) * error
    same = share((both["judge"] == both["person"]).astype(float), both["example_id"])
    return Human(same, value, max(value - half, -1), min(value + half, 1), len(votes) - len(both))


def kappa(one: Floats, other: Floats) -> float:
    """Return Cohen's kappa of two raters' categories; NaN where both name a single one."""
    chance = sum(float((one == kind).mean() * (other == kind).mean()) for kind in np.unique(one))
    return float(((one == other).mean() - chance) / (1 - chance)) if chance < 1 else math.nan
