"""Which of two endings of one couplet is better: pairs shown to a language model in both orders.

In: a results folder and any server that speaks OpenAI's chat completions. Out: ``judge_pairs.jsonl``, every
answer as it came; ``judge_pairs.csv``, a row a pair of endings; ``judge_contests.csv``, a row a pair of
sides; ``judge_strengths.csv``, a row a side. Knows nothing of torch; the judge is not told who wrote a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from tangeval import tasks
from tangeval.analysis.hypothesis_tests import family_tests
from tangeval.analysis.intervals import Floats
from tangeval.core.errors import TangevalError
from tangeval.judge.agreement import Agreement, Share, pairs_of, read_votes, share, with_counted, with_human
from tangeval.judge.asking import Answer, Asking, Call, Judge, Preference, Tally, collect, parse
from tangeval.judge.bradley_terry import strength_intervals
from tangeval.judge.grading import Wanted, select_rows
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset

_WON = {"A": 1.0, "tie": 0.5, "B": 0.0}
_KEPT = ("a", "b", "example_id", "sample", "vote", "shown_first", "shown_second", "win")


@dataclass(frozen=True)
class Paired:
    """``pairs``, ``contests`` and ``strengths`` are the files; ``order`` is the share that the text shown first wins.

    ``disagree`` is the share of pairs whose two orders say different things; ``unread`` of the answers that came
    could not be read.
    """

    pairs: pd.DataFrame
    contests: pd.DataFrame
    strengths: pd.DataFrame
    order: Share
    disagree: Share
    unread: int
    agreement: Agreement
    tally: Tally


def compare_pairs(folder: RunFolder, data: Dataset, judge: Judge, wanted: Wanted, how: Asking) -> Paired:
    """Ask which of every two sides' endings is better, in both orders, and write the files.

    Raises:
        TangevalError: there are no two sides; else as ``grading.grade``.
    """
    rows = select_rows(folder, data, wanted)
    sides = list(rows["checkpoint"].unique())
    if len(sides) < 2:
        more = "name another --checkpoint, or give --base, --reference or --random"
        raise TangevalError(f"--pairwise: {sides[0]} alone is no pair; {more}")
    votes = read_votes(wanted.human, data) if wanted.human else None
    pairs = pairs_of(rows[["checkpoint", "example_id", "sample", "text"]])
    pairs = pairs.merge(pd.DataFrame({"vote": range(1, judge.votes + 1)}), how="cross")
    pairs = pairs.sort_values(["vote", "sample", "example_id"], kind="stable", ignore_index=True)
    asked = questions(pairs, {example.id: example.input for example in data.examples}, judge)
    every = [call for both in asked for call in both if call.texts[0] != call.texts[1]]
    answers, tally = collect(every, judge, folder.pair_answers, how)
    judged = verdicts(pairs, asked, answers)
    found, strengths = contests(judged, sides, folder.study.seed), strength_table(judged, sides)
    write_csv(
        folder.table("judge_pairs"), judged[list(_KEPT)].assign(judge=judge.model, prompt=judge.prompt_digest)
    )
    write_csv(folder.table("judge_contests"), found)
    write_csv(folder.table("judge_strengths"), strengths)
    counted = with_counted(judged, tasks.load(folder.study.task), data)
    agreed = Agreement(counted, None if votes is None else with_human(judged, votes))
    unread = sum(parse(answer.raw, Preference) is None for answer in answers.values())
    return Paired(judged, found, strengths, *position(judged), unread, agreed, tally)


def questions(pairs: pd.DataFrame, given: Mapping[str, str], judge: Judge) -> list[tuple[Call, Call]]:
    """Return both orders of each row's question, a's text first and b's text first."""
    columns = (pairs[name] for name in ("example_id", "text_a", "text_b", "vote"))
    return [
        (judge.call(e, given[e], (a, b), vote), judge.call(e, given[e], (b, a), vote))
        for e, a, b, vote in zip(*columns, strict=True)
    ]


def verdicts(
    pairs: pd.DataFrame, asked: Sequence[tuple[Call, Call]], answers: Mapping[str, Answer]
) -> pd.DataFrame:
    """Return ``pairs`` with what a won (1, 1/2 for a tie, 0) ``shown_first`` and ``shown_second``, and their mean ``win``.

    Equal texts are a tie without being asked about. What was not answered or cannot be read is NaN, and so is a
    ``win`` without both orders: the first place's advantage would stay in it.
    """
    first = np.array([_won(one, answers) for one, _ in asked])
    second = 1 - np.array([_won(other, answers) for _, other in asked])
    return pairs.assign(shown_first=first, shown_second=second, win=(first + second) / 2)


def _won(call: Call, answers: Mapping[str, Answer]) -> float:
    """What the text shown first won."""
    if call.texts[0] == call.texts[1]:
        return 0.5
    read = parse(answers[call.key].raw, Preference) if call.key in answers else None
    return _WON[read.better] if read else np.nan


def position(judged: pd.DataFrame) -> tuple[Share, Share]:
    """Return the share that the text shown first wins, 1/2 without a bias, and that of pairs whose orders disagree."""
    asked = judged[judged["win"].notna() & (judged["text_a"] != judged["text_b"])]
    first = (asked["shown_first"] + 1 - asked["shown_second"]) / 2
    disagree = (asked["shown_first"] != asked["shown_second"]).astype(float)
    return share(first, asked["example_id"]), share(disagree, asked["example_id"])


def by_poem(judged: pd.DataFrame, sides: Sequence[str]) -> Floats:
    """Return each example's mean wins ``[P, K, K]`` of row over column, NaN where a pair has no answer."""
    means = judged.dropna(subset="win").pivot_table("win", "example_id", ["a", "b"])
    means = means.reindex(judged["example_id"].unique())
    wins = np.full((len(means), len(sides), len(sides)), np.nan)
    for i, j in combinations(range(len(sides)), 2):
        if (sides[i], sides[j]) in means:
            wins[:, i, j] = means[sides[i], sides[j]]
            wins[:, j, i] = 1 - wins[:, i, j]
    return wins


def contests(judged: pd.DataFrame, sides: Sequence[str], seed: int) -> pd.DataFrame:
    """Return a row for every two sides: a's share of wins, ties half, with its interval over examples and tests.

    ``p`` is a sign-flip test's over examples of the wins less 1/2, ``p_adjusted`` the same for all rows together.
    """
    two = list(combinations(sides, 2))
    groups = dict(list(judged.groupby(["a", "b"])))
    found = [share(groups[pair]["win"], groups[pair]["example_id"]) for pair in two]
    wins, (one, other) = by_poem(judged, sides), np.triu_indices(len(sides), 1)
    away = wins[:, one, other] - 0.5
    missing = np.isnan(away)
    # A poem without an answer is as a tie: flipping its sign changes nothing.
    away[missing & ~missing.all(axis=0)] = 0
    tested = family_tests(list(away.T), seed)
    frame = pd.DataFrame(two, columns=["a", "b"]).join(pd.DataFrame(map(asdict, found)))
    frame = frame.rename(columns={"value": "win", "cases": "pairs"})
    return frame.assign(p=tested.p, p_adjusted=tested.adjusted)


def strength_table(judged: pd.DataFrame, sides: Sequence[str]) -> pd.DataFrame:
    """Return each side's Bradley–Terry strength in log-odds, of mean 0, with its interval over examples."""
    found, low, high = strength_intervals(by_poem(judged, sides))
    return pd.DataFrame({"side": list(sides), "strength": found, "low": low, "high": high})
