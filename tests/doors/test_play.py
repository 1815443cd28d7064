"""Checkpoints in a browser: the texts are those of the results, and nobody but the page is answered."""

import csv
import html
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlsplit

import numpy as np
import pandas as pd
import pytest

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOBS, Setting
from tangeval.core.study import SHIPPED
from tangeval.doors.playing.asking import Ask, Branching, opened
from tangeval.doors.playing.desk import Desk
from tangeval.doors.playing.server import Server
from tangeval.doors.playing.tasting import Ballot, Taste, Tasting
from tangeval.doors.write import write
from tangeval.judge.agreement import read_votes
from tangeval.judge.bradley_terry import strength_intervals
from tangeval.results.files import read_parquet
from tests.support.command import refusal, without

COUPLET = "床前明月光，疑是地上霜。"


@contextmanager
def served(desk, folder=None, **options):
    with Server(desk, **options) as server:
        if folder:
            server.tasting = Tasting(desk, folder / "votes.csv")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


@pytest.fixture(scope="module")
def mini():
    return Desk(opened(None))


@pytest.fixture(scope="module")
def desk(finished):
    return Desk(opened(str(finished[1])))


@pytest.fixture(scope="module")
def home(desk):
    with served(desk) as server:
        yield server


def post(server, name, content, secret=None, **headers):
    """The status and the lines of an answer."""
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    sent = {"Content-Type": "application/json"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    line.request("POST", f"/{secret or server.secret}/{name}", body, sent)
    answer = line.getresponse()
    return answer.status, [json.loads(each) for each in answer.read().splitlines()]


def get(server, path, **headers):
    line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    line.request("GET", path, headers=headers)
    answer = line.getresponse()
    return answer.status, answer.read().decode(), answer.headers


def words(text):
    return [word for _, word in text["tokens"]]


def test_a_text_is_the_one_of_the_results(finished, home):
    resolved, folder = finished
    rows = pd.concat(read_parquet(file) for file in sorted((folder / "generations").glob("*.parquet")))
    settings = resolved.study.decoding.settings()
    for setting in (settings[0], settings[-1], settings[9]):
        example = resolved.examples("test")[1].id
        names = [checkpoint.name for checkpoint in resolved.checkpoints]
        knobs = {name: value for name, value in setting.as_dict().items() if name != "constrain"}
        _, lines = post(
            home, "write", {"checkpoints": names, "example": example, "knobs": knobs, "samples": 2}
        )
        done = {line["checkpoint"]: line["done"] for line in lines if "done" in line}
        own = rows[
            (rows["example_id"] == example)
            & np.array([Setting.from_row(row) == setting for row in rows.to_dict("records")])
        ]
        assert len(own) == 2 * len(names)
        for row in own.to_dict("records"):
            assert done[row["checkpoint"]][row["sample"]]["text"] == row["text"]


def test_the_shipped_model_writes_what_tangeval_write_does(mini):
    assert mini.texts(Ask(checkpoints=["base"], couplet=COUPLET, samples=2))["base"] == [
        each.text for each in write(COUPLET, samples=2)
    ]


def test_a_text_comes_as_it_grows(mini):
    lines = []
    mini.write(Ask(checkpoints=["base"], couplet=COUPLET, knobs={"max_length": 60}), lines.append)
    first, *_, last = lines
    assert len(first["texts"][0]) == 1
    assert last["done"][0]["text"].startswith(first["texts"][0])
    assert "".join(words(last["done"][0])) == last["done"][0]["text"]


def test_a_forced_token_stays_and_the_rest_has_the_noise_that_it_would_have_had(mini):
    ask = Ask(checkpoints=["base"], couplet=COUPLET)
    own = [step.token for step in mini.explain(ask).steps]
    other = next(
        each.id for each in mini.explain(ask).steps[2].candidates if each.rank >= 0 and each.id != own[2]
    )
    begun = [*own[:2], other]
    forced = ask.model_copy(update={"forced": begun})
    found = mini.explain(forced)
    assert [step.token for step in found.steps][:3] == begun
    assert found.steps[2].picks[0].id == own[2]  # what noise would have had
    assert all(step.picks[0].id == step.token for step in found.steps[3:])
    assert mini.texts(forced)["base"] == [found.text]
    assert mini.texts(ask.model_copy(update={"forced": own[:3]}))["base"] == mini.texts(ask)["base"]


def test_alternatives_are_the_likeliest_and_each_goes_on_as_if_it_were_forced(mini):
    ask = Branching(checkpoints=["base"], couplet=COUPLET, forced=[], width=3, more=5, knobs={"top_k": 2})
    found = mini.alternatives(ask)
    assert [each["left"] for each in found] == [True, True, False]  # top_k leaves two
    assert [each["p"] for each in found] == sorted((each["p"] for each in found), reverse=True)
    step = mini.explain(Ask(checkpoints=["base"], couplet=COUPLET, knobs={"top_k": 2})).steps[0]
    assert [each["token"][0] for each in found] == [each.id for each in step.candidates if each.rank >= 0][:3]
    for each in found:
        begun = Ask(checkpoints=["base"], couplet=COUPLET, forced=[each["token"][0]], knobs={"top_k": 2})
        assert mini.texts(begun)["base"][0].startswith(each["token"][1] + "".join(words(each)))
        assert len(each["tokens"]) == 5


def test_the_text_of_a_search_is_not_taken_apart(mini):
    with pytest.raises(TangevalError, match="a search of beams draws none"):
        mini.explain(Ask(checkpoints=["base"], couplet=COUPLET, knobs={"num_beams": 2, "temperature": 0}))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"checkpoints": ["nobody"], "example": "test-1"}, "none of that name; there are base"),
        ({"checkpoints": ["base"], "example": "nowhere"}, "none of the id 'nowhere'"),
        (
            {"checkpoints": ["base"], "example": "test-1", "knobs": {"warmth": 1}},
            "knobs: warmth: unknown key",
        ),
        ({"checkpoints": ["base"], "example": "test-1", "knobs": {"top_p": 7}}, "top_p"),
        ({"checkpoints": ["base"], "example": "test-1", "knobs": {"top_p": [0.5, 1]}}, "top_p"),
        (
            {"checkpoints": ["base"], "example": "test-1", "knobs": {"constrain": "haiku"}},
            "tang has no haiku",
        ),
        ({"checkpoints": ["base"], "example": "test-1", "forced": [10**6]}, "1000000 is no token"),
        (
            {"checkpoints": ["base"], "example": "test-1", "knobs": {"max_length": 4096}},
            "more than the context",
        ),
        ({"checkpoints": ["base"], "couplet": "山" * 10_000}, "10,000 characters are no couplet"),
        ({"checkpoints": ["base"], "couplet": "hello"}, "no part of verse"),
        ({"checkpoints": [], "example": "test-1"}, "checkpoints"),
        ({"checkpoints": ["base"], "example": "test-1", "samples": 10**9}, "samples"),
        (b"{", "no JSON"),
        (b"[1]", "checkpoints"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(home, content, said):
    _, lines = post(home, "write", content)
    assert said in lines[-1]["error"]


def test_an_error_is_said_in_the_language_of_the_page(home):
    ask = {"checkpoints": ["base"], "couplet": "hello"}
    assert "裡有詩句不用的字元" in post(home, "write", ask, Accept_Language="zh")[1][0]["error"]
    assert "no part of verse" in post(home, "write", ask, Accept_Language="en")[1][0]["error"]


def test_who_goes_away_or_says_nothing_keeps_nobody_waiting(home):
    content = {"checkpoints": ["base"], "example": "test-1", "knobs": {"max_length": 18}}
    silent = http.client.HTTPConnection("127.0.0.1", home.server_port)
    silent.putrequest("POST", f"/{home.secret}/write")
    silent.putheader("Content-Type", "application/json")
    silent.putheader("Content-Length", "10")
    silent.endheaders()
    gone = http.client.HTTPConnection("127.0.0.1", home.server_port)
    gone.request("POST", f"/{home.secret}/write", json.dumps(content), {"Content-Type": "application/json"})
    gone.close()
    began = time.monotonic()
    assert post(home, "write", content)[1][-1]["done"]
    assert time.monotonic() - began < 10
    silent.close()


def test_only_what_asks_the_models_waits_for_their_answer_to_another_and_is_told_so(desk, tmp_path):
    ask = {"checkpoints": ["base", "reference"], "rater": "me"}
    with served(desk, tmp_path) as server:
        pair = post(server, "pair", ask)[1][-1]["pair"]
        line = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        with desk.lock:  # as a long answer holds it
            assert get(server, f"/{server.secret}/")[0] == 200
            assert post(server, "vote", {"pair": pair, "vote": "tie"})[1] == [{"votes": 1}]
            assert post(server, "standings", {"checkpoints": ["base"]})[1][0]["counts"]["votes"] == 1
            line.request(
                "POST", f"/{server.secret}/pair", json.dumps(ask), {"Content-Type": "application/json"}
            )
            answer = line.getresponse()
            assert json.loads(answer.readline()) == {"waits": True}
        assert {"left", "right"} < json.loads(answer.read()).keys()


def test_a_pair_has_one_vote_however_many_come_at_once(desk, tmp_path):
    ask = {"checkpoints": ["base", "reference"]}
    with served(desk, tmp_path) as server, ThreadPoolExecutor(8) as many:
        pair = post(server, "pair", ask)[1][0]["pair"]
        answers = list(many.map(lambda _: post(server, "vote", {"pair": pair, "vote": "tie"})[0], range(8)))
    assert sorted(answers) == [200] + [400] * 7
    assert len((tmp_path / "votes.csv").read_text("utf-8").splitlines()) == 2


def test_memory_that_does_not_suffice_is_a_line_of_the_answer(home, monkeypatch, capfd):
    monkeypatch.setattr(home.desk, "_write", lambda *a: (_ for _ in ()).throw(MemoryError))
    status, lines = post(home, "write", {"checkpoints": ["base"], "example": "test-1"})
    assert (status, lines) == (200, [{"error": "MemoryError; the terminal has more"}])
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["write", "branches", "pair", "vote", "standings"])
def test_nothing_that_is_said_to_it_is_an_error_of_its_own(home, name, capfd):
    whole = {"checkpoints": ["base"], "example": "test-1", "pair": "x", "vote": "left", "rater": "me"}
    odd = [None, "", [], {}, -1, 1e308, 10**30, True, "x" * 5000, [[]], {"a": {}}, "\u0000", [1e9]]
    changed = [
        whole | {key: value}
        for key in (*whole, "knobs", "forced", "sample", "width", "more", "couplet")
        for value in odd
    ]
    if name == "standings":  # it decodes nothing
        changed += [whole | {"knobs": {knob.name: value}} for knob in KNOBS for value in odd]
    assert {post(home, name, each)[0] for each in changed} <= {200, 400}
    assert "Traceback" not in capfd.readouterr().err


def test_only_the_page_itself_is_answered(home):
    content, own = {"checkpoints": ["base"], "example": "test-1"}, f"127.0.0.1:{home.server_port}"
    assert post(home, "write", content, Origin=f"http://{own}")[0] == 200
    assert post(home, "write", content, Origin="http://evil.example")[0] == 403
    assert post(home, "write", content, Origin="null")[0] == 403
    assert (
        post(home, "write", content, Host="evil.example")[0] == 403
    )  # a name that was bound to this address
    assert post(home, "write", content, secret="guessed")[0] == 404
    assert post(home, "write", content, Content_Type="text/plain")[0] == 415  # what a form can send
    assert post(home, "write", b" " * 70_000)[0] == 413
    assert post(home, "nothing", content)[0] == 404
    assert get(home, "/")[0] == 404
    assert get(home, "x://[")[0] == 404
    assert post(home, "write", content, Origin="http://[")[0] == 403
    assert post(home, "write", b"", Content_Length="9" * 5000)[0] == 413
    status, page, headers = get(home, f"/{home.secret}/")
    assert (status, headers["X-Frame-Options"], headers["Cache-Control"]) == (200, "SAMEORIGIN", "no-store")
    assert "default-src 'none'" in html.unescape(page)
    assert urlsplit(home.url).hostname == home.server_address[0] == "127.0.0.1"


def test_a_proxy_is_answered_where_it_is_named(desk):
    with Server(desk, behind="https://colab.example/") as server:
        assert server.url == f"https://colab.example/{server.secret}/"
        assert "colab.example" in server.hosts
    # A browser leaves out what goes without saying.
    with served(desk, behind="https://Me@Colab.example:443") as server:
        assert (
            get(server, f"/{server.secret}/", Host="colab.example", Origin="https://colab.example")[0] == 200
        )
    with pytest.raises(TangevalError, match="--behind nowhere: give a whole address"):
        Server(desk, behind="nowhere")


def test_every_knob_has_a_widget_made_of_the_list(home):
    page = get(home, f"/{home.secret}/")[1]
    facts = json.loads(page.split('id="facts">')[1].split("</script>")[0])
    assert [each["name"] for each in facts["knobs"]] == [knob.name for knob in KNOBS]


def test_votes_are_kept_as_a_judge_reads_them(desk, tmp_path):
    with served(desk, tmp_path) as server:
        sides = [*desk.checkpoints, "reference"]
        for choice, rater in (("left", "甲"), ("right", "乙 2"), ("tie", "甲"), ("left", "乙 2")):
            _, (pair,) = post(server, "pair", {"checkpoints": sides, "rater": rater})
            assert set(pair) == {"pair", "given", "left", "right"}  # and not whose they are
            assert post(server, "vote", {"pair": pair["pair"], "vote": choice})[0] == 200
        assert "rater" in post(server, "pair", {"checkpoints": sides, "rater": "=cmd()"})[1][0]["error"]
        status, (again,) = post(server, "vote", {"pair": pair["pair"], "vote": "left"})
        assert (status, "its vote already" in again["error"]) == (400, True)
        votes = read_votes(tmp_path / "votes.csv", desk.resolved.dataset, "rater")
        assert len(votes) == 4
        assert list(votes["preferred"] == "tie") == [False, False, True, False]
        assert votes["preferred"][0] == votes["a"][0]
        assert votes["preferred"][1] == votes["b"][1]
        assert list(votes["rater"]) == ["甲", "乙 2", "甲", "乙 2"]
        _, (found,) = post(server, "standings", {"checkpoints": sides})
        assert found["counts"]["votes"] == 4


def test_the_strengths_are_of_the_votes_at_this_setting_by_poem_and_by_rater(desk, tmp_path):
    file = tmp_path / "votes.csv"
    tasting, ask = Tasting(desk, file), Taste(checkpoints=["base", "reference"])
    assert tasting.standings(ask)["counts"] == {"votes": 0, "poems": 0, "raters": 0}
    tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="left"))
    head, line = file.read_text("utf-8").splitlines()
    setting = next(csv.reader([line]))[5]
    example = [each.id for each in desk.resolved.examples("test")]
    won = np.random.default_rng(1).choice(["base", "reference", "tie"], (6, 5))  # by poem and rater
    rows = [
        f"{example[poem]},{a},{b},{won[poem, rater]},0,{setting},rater {rater}"
        for poem in range(6) for rater in range(5)
        for a, b in [("base", "reference") if rater % 2 else ("reference", "base")]
    ]  # fmt: skip
    rows.append(f"{example[0]},base,reference,base,0,temperature=9,rater 0")  # another setting
    file.write_text("\n".join([head, *rows]) + "\n", "utf-8")
    found = tasting.standings(ask)
    assert found["counts"] == {"votes": 30, "poems": 6, "raters": 5}
    assert [row["side"] for row in found["sides"]] == ["base", "reference"]
    points = np.select([won == "base", won == "tie"], [1.0, 0.5], 0.0)
    for cluster, mean in (("poem", points.mean(1)), ("rater", points.mean(0))):
        expected = strength_intervals(np.array([[[np.nan, w], [1 - w, np.nan]] for w in mean]))
        own = [[row[f"{cluster}{end}"] for row in found["sides"]] for end in ("", "_low", "_high")]
        assert own == [pytest.approx(list(each)) for each in expected]
    file.write_text("\n".join([head, *rows[:20]]) + "\n", "utf-8")  # four poems
    assert [row["poem_low"] for row in tasting.standings(ask)["sides"]] == [None, None]
    assert None not in [row["rater_low"] for row in tasting.standings(ask)["sides"]]


def test_nobody_sees_a_pair_twice_while_there_are_others(desk, tmp_path):
    tasting, ask = Tasting(desk, tmp_path / "votes.csv"), Taste(checkpoints=["base", "reference"])
    examples = desk.resolved.examples("test")
    for _ in range(len(examples) + 2):
        tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie"))
    votes = pd.read_csv(tmp_path / "votes.csv")
    assert set(votes["example_id"][: len(examples)]) == {each.id for each in examples}
    assert list(votes["sample"]) == [0] * len(examples) + [1, 1]
    # A judge saw the first samples alone.
    assert len(read_votes(tmp_path / "votes.csv", desk.resolved.dataset)) == len(examples)


def test_pairs_of_the_same_texts_do_not_stand_in_the_way_of_others(desk, tmp_path, monkeypatch):
    alike = {each.id for each in desk.resolved.examples("test")[1:]}

    def texts(ask):
        same = ask.sample == 0 and ask.example in alike
        return {name: ["" if same else name] for name in ask.checkpoints}

    monkeypatch.setattr(desk, "texts", texts)
    tasting, ask = Tasting(desk, tmp_path / "votes.csv"), Taste(checkpoints=list(desk.checkpoints)[:2])
    for _ in range(len(alike) + 1):
        with suppress(TangevalError):  # many were the same, one after another
            tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie"))
    for _ in range(len(alike)):
        tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie"))
    votes = pd.read_csv(tmp_path / "votes.csv")
    assert not votes.duplicated(["example_id", "sample"]).any()
    assert set(votes["example_id"]) >= alike


def test_a_vote_is_added_under_the_columns_that_a_spreadsheet_left(desk, tmp_path):
    file = tmp_path / "votes.csv"
    tasting, ask = Tasting(desk, file), Taste(checkpoints=["base", "reference"])
    tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie"))
    table = pd.read_csv(file, dtype=str)
    table.assign(note="good")[["note", *reversed(list(table))]].to_csv(
        file, index=False, encoding="utf-8-sig"
    )
    assert tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie")) == {"votes": 2}
    assert list(read_votes(file, desk.resolved.dataset, "rater")["rater"]) == ["me", "me"]


def test_a_vote_goes_on_after_a_line_that_was_cut_off_and_other_files_are_left(desk, tmp_path):
    file = tmp_path / "votes.csv"
    tasting = Tasting(desk, file)
    ask = Taste(checkpoints=["base", "reference"])
    tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie"))
    file.write_bytes(file.read_bytes().rstrip(b"\n"))
    assert tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie")) == {"votes": 2}
    file.write_text("name,mark\n甲,90\n", "utf-8")
    with pytest.raises(TangevalError, match=r"votes\.csv: example_id: there is no such column"):
        tasting.vote(Ballot(pair=tasting.pair(ask)["pair"], vote="tie"))
    assert file.read_text("utf-8") == "name,mark\n甲,90\n"


def test_few_checkpoints_stay_loaded_where_they_are_large(desk, monkeypatch):
    every = Ask(checkpoints=list(desk.checkpoints), example="test-1")
    whole = desk.texts(every)
    monkeypatch.setattr("tangeval.doors.playing.desk._ROOM", 1)
    small = Desk(desk.opened)
    assert small.texts(every) == whole
    assert len(small._devices) == 1


def test_a_library_that_is_missing_is_named(tmp_path):
    done = without(["torch"], tmp_path, ["play"])
    assert (done.returncode, "playing needs torch: pip install 'tangeval[local]'" in done.stderr) == (2, True)


def test_what_cannot_be_opened_is_named(tmp_path, desk):
    assert "no results folder: it has no study.yaml" in refusal(tmp_path, "play", ".")
    assert "; results has none" in refusal(tmp_path, "play", "results/nowhere")
    assert "there is no file nowhere.yaml" in refusal(tmp_path, "play", "nowhere.yaml")
    with Server(desk) as server:
        assert f"--port {server.server_port}: " in refusal(tmp_path, "play", "--port", server.server_port)
    served_elsewhere = (SHIPPED / "server.yaml").read_text("utf-8")  # HW5 need not be here
    (tmp_path / "server.yaml").write_text(served_elsewhere.replace("data: hw5", "data: sample"), "utf-8")
    assert "wants logits" in refusal(tmp_path, "play", "server.yaml")


@pytest.mark.browser
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_writes_takes_apart_forces_and_votes(mini, tmp_path, browser, lang):
    with served(mini, tmp_path) as server:
        page, problems = browser.new_page(viewport={"width": 390, "height": 844}), []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(f"{server.url}#lang={lang}")
        page.fill("#own", COUPLET)
        page.locator("#own").blur()
        text = page.locator("[data-text]").first
        text.wait_for()
        page.locator(f'[data-text="{write(COUPLET, samples=1)[0].text}"]').wait_for()
        text.locator(".char").nth(2).click()
        frame = page.frame_locator("#frame")
        rows = frame.locator("#stages tbody tr[data-id]:not(.barred):not(.mine)")
        rows.first.wait_for()
        assert frame.locator("#walk [aria-current]").get_attribute("id") == "walk-3"
        forced = rows.first.locator(".word").inner_text()
        rows.first.click()
        page.locator("[data-text] .mine").wait_for()
        assert page.locator("[data-text] .mine").inner_text() == forced
        page.locator("#alternatives").click()
        page.locator(".branches li").first.wait_for()
        assert page.locator(".branches > li").count() == 4
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.locator("#go-taste").click()
        page.locator('input[name="side"][value="base"]').check()
        page.locator("#next").click()
        page.locator("#vote-left").click()
        page.locator("#voted", has_text="1").wait_for()
        assert problems == []
        assert len((tmp_path / "votes.csv").read_text("utf-8").splitlines()) == 2


@pytest.mark.browser
def test_a_page_that_waits_says_so(mini, tmp_path, browser):
    with served(mini, tmp_path) as server:
        page = browser.new_page()
        with mini.lock:
            page.goto(server.url)
            page.locator("#play-waits", has_text="waits for it").wait_for()
            page.locator("#go-taste").click()
            assert page.locator("#play-waits").is_visible()
            page.locator("#go-play").click()
        page.locator("[data-text]").first.wait_for()
        assert not page.locator("#play-waits").is_visible()
        with mini.lock:
            page.locator("[data-text] .char").first.click()
            page.locator("#play-waits").wait_for()
        page.frame_locator("#frame").locator("#stages tbody tr").first.wait_for()
        page.locator("#play-waits").wait_for(state="hidden")


@pytest.mark.browser
def test_an_error_is_shown_as_text(mini, browser):
    with served(mini) as server:
        page, problems = browser.new_page(), []
        page.goto(server.url)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.fill("#samples", "1.5")
        page.fill("#own", "<b>bold</b>")
        page.locator("#own").blur()
        page.locator("#play-error", has_text="no part of verse").wait_for()
        assert page.locator("#play-error b").count() == 0
        assert problems == []
        page.goto(f"{server.url}#lang=zh")
        page.fill("#own", "hello")
        page.locator("#own").blur()
        page.locator("#play-error", has_text="裡有詩句不用的字元").wait_for()
        assert get(server, f"/{server.secret}/explain?ask={quote('{}')}")[0] == 400
