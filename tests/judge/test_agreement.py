"""Agreement with counted prosody and with people, on poems whose rhymes are known by hand."""

import math

import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.judge import agreement
from tangeval.judge.agreement import VOTE, kappa, read_votes, share, with_counted, with_human
from tangeval.results.files import write_csv
from tangeval.tasks.tang import TANG, data
from tests.support.judged import POEMS, run_judge

pytest.importorskip("urllib3", reason="the package urllib3 of the dev extra is not installed")

SAMPLE = data.load("sample")
NAMES = [example.id for example in SAMPLE.split("test")]


def pairs(wins, **columns):
    """The poets' endings (a) against ones that keep nothing of their form, rhyme and tones (b)."""
    frame = pd.DataFrame(
        {"example_id": NAMES[: len(wins)], "sample": 0, "a": "poet", "b": "none", "win": wins}
    )
    return frame.assign(
        text_a=[SAMPLE.by_id[name].reference for name in frame["example_id"]], text_b="一", **columns
    )


def seen(found):
    return {of.metric: of.preferred.value for of in found}


def test_who_prefers_the_rhyme_is_known_by_its_share():
    found = with_counted(pairs([1.0] * 10), TANG, SAMPLE)
    assert {"form", "rhyme", "tone_opposition"} <= seen(found).keys()
    assert set(seen(found).values()) == {1.0}
    turned = pairs([1.0] * 10).rename(columns={"text_a": "text_b", "text_b": "text_a"})
    found = with_counted(turned, TANG, SAMPLE)
    assert set(seen(found).values()) == {0.0}
    assert all(of.preferred.high < 0.5 for of in found)


def test_a_judge_that_tosses_a_coin_does_not_see_it():
    (form, *_) = with_counted(pairs([1.0, 0.0, 0.5, math.nan] * 3), TANG, SAMPLE)
    assert form.preferred.value == 0.5
    assert form.preferred.low < 0.5 < form.preferred.high
    assert (form.preferred.cases, form.preferred.poems) == (9, 9)


def test_pairs_alike_in_a_metric_are_left_out():
    same = pairs([1.0] * 5).assign(text_b=lambda frame: frame["text_a"])
    assert with_counted(same, TANG, SAMPLE) == ()


def test_the_grades_of_the_better_and_of_the_worse_ending_are_told_apart():
    (form, *_) = with_counted(pairs([0.0] * 4, prosody_a=[7, 7, 7, 8], prosody_b=9), TANG, SAMPLE)
    assert (form.metric, form.better, form.worse) == ("form", 7.25, 9)


def test_a_share_counts_each_poem_once():
    found = share(pd.Series([1, 1, 1, 0, None]), pd.Series(["x", "x", "x", "y", "z"]))
    assert (found.value, found.cases, found.poems) == (0.5, 4, 2)
    assert share(pd.Series([math.nan]), pd.Series(["x"])).poems == 0


def test_kappa_is_that_of_a_textbook_table():
    """Two raters of 50 cases, both yes 20, both no 15, 5 and 10 apart: 0.70 agree, 0.50 by chance."""
    import numpy as np

    one = np.repeat([1.0, 1.0, 0.0, 0.0], [20, 5, 10, 15])
    other = np.repeat([1.0, 0.0, 1.0, 0.0], [20, 5, 10, 15])
    assert kappa(one, other) == pytest.approx(0.4)
    assert math.isnan(kappa(np.ones(3), np.ones(3)))


def votes(*preferred, a="poet", b="none"):
    rows = [(n, a, b, p) for n, p in zip(NAMES, preferred, strict=False)]
    return pd.DataFrame(rows, columns=list(VOTE))


def test_people_and_judge_are_held_against_each_other_in_any_order_of_the_sides():
    judged = pairs([1.0, 0.0, 0.5, 0.75, math.nan])
    found = with_human(judged, votes("poet", "poet", "tie", "poet", "poet"))
    assert (found.same.value, found.same.cases, found.other) == (0.75, 4, 1)
    assert with_human(judged, votes("poet", "poet", "tie", "poet", "poet", a="none", b="poet")) == found
    assert found.low < found.kappa < found.high
    assert with_human(pairs([math.nan]), votes("poet")) is None
    with pytest.raises(TangevalError, match=r"--human: a, b: .*poet, none"):
        with_human(judged, votes("x", "x", a="x", b="y"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("example_id,a,b\ntest-1,x,y\n", r"votes\.csv: preferred: there is no such column"),
        ("example_id,a,b,preferred\ntest-1,x,y,x\ntest-2,x,y,z\n", "votes.csv, vote 2: preferred: 'z'"),
        ("example_id,a,b,preferred\ntest-1,x,x,x\n", "vote 1: b: 'x'; give two"),
        ("example_id,a,b,preferred\nnone-1,x,y,x\n", "vote 1: example_id: 'none-1'; give one such as train-"),
        ("example_id,a,b,preferred\ntest-1,x\n", "vote 1: b: ''; give two"),
        ("", "not a readable CSV"),
        (b"\xff\xfe", "not a readable CSV"),
        (None, "not a readable CSV"),
        ("example_id,a,b,preferred\n,est-1,x,y,tie\n", "more fields than its first line"),
    ],
)
def test_a_vote_that_says_nothing_is_named(tmp_path, content, problem):
    file = tmp_path / "votes.csv"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TangevalError, match=problem):
        read_votes(file, SAMPLE)


def test_votes_may_have_columns_of_their_own(tmp_path):
    (tmp_path / "votes.csv").write_text(
        f"\ufeffwho,example_id,a,b,preferred\nLi,{NAMES[0]},x,y,tie\n", "utf-8"
    )
    assert read_votes(tmp_path / "votes.csv", SAMPLE).equals(votes("tie", a="x", b="y"))


def test_a_name_that_a_spreadsheet_would_take_for_a_formula_is_the_one_that_was_written(tmp_path):
    told = votes("=x", a="=x", b="+y")
    write_csv(tmp_path / "votes.csv", told)
    assert "'=x" in (tmp_path / "votes.csv").read_text("utf-8")
    assert read_votes(tmp_path / "votes.csv", SAMPLE).equals(told)


@pytest.mark.parametrize("options", [[], ["--pairwise", "--reference"]], ids=["grades", "pairs"])
def test_both_judges_are_held_against_prosody_and_people(here, serve, options):
    """The judge prefers the shorter text, which of these is no verse; people prefer the poets."""

    def reply(body):
        asked = body["messages"][1]["content"]
        if options:
            a, b = (len(asked.partition(f"<{side}>")[2].partition("</")[0]) for side in "AB")
            return 200, f'{{"better": "{"A" if a < b else "B"}"}}'
        long = len(asked.partition("<poem>")[2].partition("</")[0]) > 8
        return 200, f'{{"prosody": {2 if long else 9}, "fluency": {3 if long else 8}}}'

    lines = [f"{name},reference,checkpoint-10,reference" for name in NAMES]
    (here / "votes.csv").write_text("\n".join(["example_id,a,b,preferred", *lines]))
    done = run_judge(here, serve(reply), *options, "--checkpoint", "checkpoint-10", "--human", "votes.csv")
    assert done.code == 0, done.err
    rows = {row[0]: row[1:] for row in done.table()}
    assert rows["form"][0] == f"{POEMS} of {POEMS} examples"
    assert rows["form"][1:3] == (["", ""] if options else ["2.00", "9.00"])
    assert rows["form"][3].startswith("0% [0%,")
    assert rows["form"][4] == "overrates what is broken"
    assert (
        f"it agrees with 0% [0%, 23%] of {POEMS} votes of people on {POEMS} examples, kappa 0.00" in done.out
    )
    (here / "votes.csv").write_text("example_id,a,b\n")
    assert run_judge(here, serve(reply), *options, "--human", "none.csv").code == 2


def test_counted_metrics_are_those_that_the_task_has():
    assert set(agreement.COUNTED) <= TANG.metrics.keys()
