"""What ``judge`` prints: grades or pairs, and how far the judge sees prosody and agrees with people.

In: what ``api.judge`` returns. Out: lines and tables on the console.
"""

import pandas as pd

from tangeval.analysis.hypothesis_tests import ERROR
from tangeval.cli.render import estimate, interval, say, show_table
from tangeval.judge.agreement import Agreement, Share
from tangeval.judge.asking import Judge
from tangeval.judge.grading import Graded
from tangeval.judge.pairwise import Paired


def show_judged(found: Graded | Paired, judge: Judge, split: str) -> None:
    """What a judge was asked and said, what that agrees with, and what is left out."""
    tally = found.tally
    there = f"{tally.wanted:,} votes are wanted, {tally.kept:,} were there"
    say(f"{there}; asked {judge.host} for {tally.asked:,}")
    _show_pairs(found, judge, split) if isinstance(found, Paired) else _show_grades(found, judge, split)
    _show_agreement(found.agreement)
    if tally.cut_off:
        say(f"{tally.cut_off} answers were cut off before their scores; give more --max-tokens", "yellow")
    if tally.left:
        left = f"{tally.left:,} votes are left beyond --limit {tally.asked}"
        say(f"{left}; the same command goes on", "yellow")
    named = "judge_pairs" if isinstance(found, Paired) else "judge"
    say(f"every output is in {named}.csv, every answer in {named}.jsonl")


def _show_grades(graded: Graded, judge: Judge, split: str) -> None:
    """Each checkpoint's mean grades."""
    rows = []
    for row in graded.summary.to_dict("records"):
        grades = [interval(row, name) if row["poems"] else "" for name in ("prosody", "fluency")]
        shares = ["" if pd.isna(row[name]) else f"{row[name]:.0%}" for name in ("unparsable", "agreement")]
        poems = f"{row['poems']} of {row['poems'] + row['missing']}"
        rows.append((row["checkpoint"], *grades, poems, *shares))
    columns = ("checkpoint", "prosody 格律", "fluency 語意通順", "poems", "unparsable", "votes agree")
    title = f"Judged by {judge.model} on the {split} split, {judge.votes} votes an output"
    show_table(title, columns, rows, right=5)
    unread = graded.outputs[(graded.outputs["parsed"] == 0) & (graded.outputs["votes"] == judge.votes)]
    if len(unread):
        some = ", ".join(f"{row.example_id} of {row.checkpoint}" for row in unread.head(5).itertuples())
        some += f" and {len(unread) - 5} more" * (len(unread) > 5)
        say(f"no vote could be read for {some}; they are missing above", "yellow")


def _show_pairs(paired: Paired, judge: Judge, split: str) -> None:
    """Each side's strength and wins over each other, and the first place's advantage."""
    sides = paired.strengths["side"].tolist()
    cells = {(side, side): "" for side in sides}
    for row in paired.contests.to_dict("records"):
        star = "*" if row["p_adjusted"] <= ERROR else " "
        won = {(row["a"], row["b"]): row["win"], (row["b"], row["a"]): 1 - row["win"]}
        cells |= {at: "" if pd.isna(share) else f"{share:.0%}{star}" for at, share in won.items()}
    rows = [
        (r["side"], estimate(r | {"value": r["strength"]}), *(cells[r["side"], other] for other in sides))
        for r in paired.strengths.to_dict("records")
    ]
    title = f"Pairs judged by {judge.model} on the {split} split, both orders"
    show_table(title, ("", "strength", *(f"beats {side}" for side in sides)), rows, right=1 + len(sides))
    say("strength: Bradley–Terry, log-odds, mean 0. *: real at the 5 % level, all pairs of sides together.")
    say(
        f"the ending shown first wins {_percent(paired.order)}; the two orders disagree on {_percent(paired.disagree)}"
    )
    if paired.unread:
        say(f"{paired.unread:,} answers could not be read; their pairs are missing above", "yellow")


def _percent(share: Share) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]" if share.poems else "–"


def _show_agreement(agreement: Agreement) -> None:
    """Whether the judge prefers what counted prosody and people prefer."""
    rows = []
    for of in agreement.counted:
        blind = "overrates what is broken" if of.preferred.high < 0.5 else "is not shown to see it"
        grades = ["" if pd.isna(grade) else f"{grade:.2f}" for grade in (of.better, of.worse)]
        pairs = f"{of.preferred.cases} of {of.preferred.poems} examples"
        sees = "sees it" if of.preferred.low > 0.5 else blind
        rows.append((of.metric, pairs, *grades, _percent(of.preferred), sees))
    if rows:
        columns = ("counted 格律", "pairs", "grade of better", "of worse", "better preferred", "the judge")
        show_table("Of two endings, is the one with better prosody preferred?", columns, rows, right=5)
    if human := agreement.human:
        kappa = estimate({"value": human.kappa, "low": human.low, "high": human.high})
        votes = f"{human.same.cases} votes of people on {human.same.poems} examples"
        say(
            f"it agrees with {_percent(human.same)} of {votes}, kappa {kappa}; {human.other} are on other pairs"
        )
