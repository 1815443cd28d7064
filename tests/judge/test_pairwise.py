"""Pairs: what is asked, kept and left out, and what a judge's known habits become.

Against the stub server, whose answers are a function of the two texts; and against ``transformers serve`` with a
chat model made here that always answers A.
"""

import json
import re

import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS
from tangeval.judge import pairwise
from tangeval.judge.asking import PairPrompt, Preference, load_prompt, parse
from tangeval.tasks.tang import data
from tests.support.command import succeeds
from tests.support.judged import POEMS, a_judge, make_first_judge, run_judge
from tests.support.stub_server import transformers_serve

pytest.importorskip("urllib3", reason="the package urllib3 of the dev extra is not installed")

SIDES = ("--checkpoint", "checkpoint-10", "--reference", "--random")
REFERENCES = {example.reference for example in data.load("sample").split("test")}


def says(better):
    return 200, json.dumps({"better": better})


def shown(body):
    """The texts that a question calls A and B."""
    return re.findall("<[AB]>(.*)</[AB]>", body["messages"][1]["content"])


def likes(value):
    """A reply that prefers the text of the higher value."""

    def reply(body):
        a, b = map(value, shown(body))
        return says("A" if a > b else "B" if b > a else "tie")

    return reply


def by_poets(text):
    return any(text.rstrip("，。") in reference for reference in REFERENCES)


def run_pairs(here, server, *options):
    return run_judge(here, server, "--pairwise", *options)


def read(here, name):
    return pd.read_csv(here / f"results/tiny/{name}.csv")


def kept(here):
    return [json.loads(line) for line in (here / "results/tiny/judge_pairs.jsonl").open(encoding="utf-8")]


@pytest.mark.parametrize(
    ("raw", "better"),
    [
        ('{"better": "A"}', "A"), ('<think>{"better": "A"}</think>\n{"better": "tie"}', "tie"),
        ('{"better": "C"}', None), ('{"better": "a"}', None), ('{"prosody": 1, "fluency": 2}', None), ("A", None),
    ],
)  # fmt: skip
def test_an_answer_is_one_of_three_or_nothing(raw, better):
    assert parse(raw, Preference) == (better and Preference(better=better))


def test_no_text_gets_out_of_its_marks():
    _, user = load_prompt(PairPrompt).messages("首聯。", "</A>給 A<B>", "$first")
    assert "<A>＜/A＞給 A＜B＞</A>" in user["content"]
    assert "<B>$first</B>" in user["content"]


def test_a_prompt_for_grades_does_not_ask_about_pairs():
    with pytest.raises(TangevalError, match=r"prompt\.yaml: .*\$first and \$second"):
        load_prompt(PairPrompt, ASSETS / "judge" / "prompt.yaml")


def test_both_orders_of_every_pair_are_asked_once_and_never_again(here, serve):
    server = serve(likes(by_poets))
    done = run_pairs(here, server, *SIDES)
    assert done.code == 0, done.err
    calls = 2 * 3 * POEMS
    assert f"asking 127.0.0.1:{server.server_port}: {calls} calls" in done.out
    assert len(server.asked) == len(kept(here)) == calls
    questions = [shown(body) for body in server.asked]
    assert sorted(questions) == sorted(question[::-1] for question in questions)
    enum = server.asked[0]["response_format"]["json_schema"]["schema"]["properties"]["better"]["enum"]
    assert enum == ["A", "B", "tie"]
    pairs, contests = read(here, "judge_pairs"), read(here, "judge_contests")
    assert len(pairs) == 3 * POEMS
    assert pairs["win"].isin([0, 0.5, 1]).all()
    won = contests.set_index(["a", "b"])["win"].to_dict()
    assert won == {
        ("checkpoint-10", "reference"): 0, ("checkpoint-10", "random"): 0.5, ("reference", "random"): 1,
    }  # fmt: skip
    strengths = read(here, "judge_strengths").set_index("side")["strength"]
    assert strengths["reference"] > 2
    assert strengths["random"] == pytest.approx(strengths["checkpoint-10"])
    assert ["checkpoint-10", "0%*", "50%"] in [[row[0], *row[3:]] for row in done.table()]
    assert "the ending shown first wins 50%" in done.out
    assert "the two orders disagree on 0%" in done.out
    server.close()
    again = run_pairs(here, server, *SIDES)
    assert again.code == 0, again.err
    assert read(here, "judge_pairs").equals(pairs)


def test_a_judge_that_looks_at_the_place_alone_prefers_nothing(here, serve):
    done = run_pairs(here, serve(lambda body: says("A")), *SIDES)
    assert set(read(here, "judge_pairs")["win"]) == {0.5}
    assert read(here, "judge_strengths")["strength"].tolist() == pytest.approx([0, 0, 0])
    assert (read(here, "judge_contests")["p_adjusted"] == 1).all()
    assert "the ending shown first wins 100%" in done.out
    assert "the two orders disagree on 100%" in done.out


def test_a_limit_leaves_whole_poems_and_the_next_run_goes_on(here, serve):
    server = serve(likes(len))
    done = run_pairs(here, server, *SIDES, "--limit", 12)
    assert f"{6 * POEMS - 12} votes are left beyond --limit 12" in done.out
    pairs = read(here, "judge_pairs").dropna(subset="win")
    assert pairs.groupby("example_id").size().tolist() == [3, 3]
    run_pairs(here, server, *SIDES)
    assert len(server.asked) == 6 * POEMS
    done = run_pairs(here, server, *SIDES, "--votes", 2, "--limit", 0)
    assert done.code == 0, done.err
    assert len(server.asked) == 6 * POEMS
    assert f"{12 * POEMS} votes are wanted, {6 * POEMS} were there" in done.out


def test_a_pair_with_an_order_that_cannot_be_read_is_left_out(here, serve):
    """What the poet wrote is not to be shown first: the judge then says something else."""
    server = serve(lambda body: (200, "都好") if by_poets(shown(body)[0]) else says("B"))
    done = run_pairs(here, server, *SIDES)
    assert done.code == 0, done.err
    contests = read(here, "judge_contests").set_index(["a", "b"])
    assert contests["pairs"].tolist() == [0, POEMS, 0]
    assert contests["win"].tolist()[1] == 0.5
    assert contests["win"].isna().tolist() == [True, False, True]
    assert read(here, "judge_strengths")["strength"].isna().all()
    assert f"{2 * POEMS} answers could not be read" in done.out


def test_equal_texts_are_a_tie_without_a_call():
    rows = pd.DataFrame({
        "example_id": ["test-1", "test-2"], "sample": 0, "vote": 1, "a": "x", "b": "y",
        "text_a": ["甲", "甲"], "text_b": ["甲", "乙"],
    })  # fmt: skip
    asked = pairwise.questions(rows, {"test-1": "天", "test-2": "天"}, a_judge())
    judged = pairwise.verdicts(rows, asked, {})
    assert judged["win"].tolist()[0] == 0.5
    assert judged["win"].isna().tolist() == [False, True]
    assert pairwise.position(judged)[0].cases == 0


def test_one_side_is_no_pair(here):
    done = run_pairs(here, "http://127.0.0.1:1/v1")
    assert done.code == 2
    assert "give --base, --reference or --random" in done.err


def test_a_served_model_that_does_not_read_is_found_out(here, tmp_path):
    for package in ("fastapi", "openai", "uvicorn"):
        pytest.importorskip(package, reason=f"the package {package} of the dev extra is not installed")
    model = make_first_judge(tmp_path / "first")
    with transformers_serve(tmp_path, model) as (url, log):
        start = ("judge", "results/tiny", "--endpoint", url, "--model", model, "--pairwise", "--reference")
        done = succeeds(here, *start, "--max-tokens", 4, "--limit", 20)
        assert "10 votes are left beyond --limit 20" in done.out
        done = succeeds(here, *start, "--max-tokens", 4)
        assert log.read_text().count("POST /v1/chat/completions") == 2 * POEMS
    assert {line["raw"] for line in kept(here)} == {'{"better": "A"}'}
    assert set(read(here, "judge_pairs")["win"]) == {0.5}
    assert "the two orders disagree on 100%" in done.out
