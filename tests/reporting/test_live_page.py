"""The page of a run that goes on: whole checkpoints with their final numbers, a line that says how far it is, no verdict."""

import csv
import io
import json

import pytest

from tangeval.reporting.page import live
from tangeval.results.folder import RunFolder
from tests.reporting.test_page import block, facts, unpacked
from tests.support.folders import make_results

DECODING = {"temperature": [0.0, 0.7], "top_k": [0], "top_p": [1.0], "max_length": [18]}


@pytest.fixture
def going(tmp_path, monkeypatch):
    """A folder in which the batches of the second checkpoint are not there yet, and what brings them."""
    monkeypatch.setattr(live, "EVERY", 0.0)
    monkeypatch.setattr(live, "SHARE", 1e9)
    folder = tmp_path / "small"
    study, data = make_results(folder, ("base", "checkpoint-10"), decoding=DECODING, samples=1)
    run = RunFolder(folder)
    later = [
        file for file in run.batch_files() if int(file.stem.removeprefix("w")) >= len(run.batch_files()) // 2
    ]
    for file in later:
        file.rename(tmp_path / file.name)

    def arrive(files=None):
        for file in later if files is None else files:
            (tmp_path / file.name).rename(file)

    return study, data, run, arrive, later


def summary(page: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(unpacked(json.loads(block(page, "tables"))["summary"]).decode())))


def test_only_whole_checkpoints_are_shown_with_the_numbers_of_the_end(going):
    study, data, run, arrive, later = going
    whole = list(csv.DictReader(io.StringIO(run.table("summary").read_text("utf-8"))))
    with live.Live(study, data, run.path) as show:
        arrive(later[:1])
        show()
        page = run.page.read_text("utf-8")
        known = facts(page)
        assert [each["name"] for each in known["checkpoints"]] == ["base"]
        assert summary(page) == [row for row in whole if row["checkpoint"] != "checkpoint-10"]
        assert (known["live"]["done"], known["live"]["waiting"]) == (
            len(run.batch_files()),
            ["checkpoint-10"],
        )
        assert (known["verdict"], known["selection"]) == ({}, None)
        arrive(later[1:])
        show()
        page = run.page.read_text("utf-8")
        assert summary(page) == whole
        assert facts(page)["live"]["waiting"] == []


def test_nothing_is_scored_anew_while_no_checkpoint_became_whole(going, monkeypatch):
    study, data, run, arrive, later = going
    scored = []
    monkeypatch.setattr(
        live.scoring, "score", lambda *given, score=live.scoring.score: scored.append(1) or score(*given)
    )
    with live.Live(study, data, run.path) as show:
        show()
        arrive(later[:1])
        show()
    assert len(scored) == 1


def test_a_writing_waits_until_it_is_a_small_part_of_the_time(going, monkeypatch):
    study, data, run, *_ = going
    monkeypatch.setattr(live, "SHARE", 1e-6)
    with live.Live(study, data, run.path) as show:
        show()
        run.page.unlink()
        show()
        assert not run.page.exists()


def test_a_run_that_stops_leaves_a_page_that_says_so_and_reloads_no_more(going):
    study, data, run, *_ = going
    show = live.Live(study, data, run.path)
    show.__enter__()
    show()
    show.__exit__(KeyboardInterrupt)
    assert facts(run.page.read_text("utf-8"))["live"]["every"] is None


@pytest.mark.browser
def test_the_page_reloads_itself_at_the_readers_place_until_the_run_is_done(going, browser, monkeypatch):
    study, data, run, *_ = going
    monkeypatch.setattr(live, "EVERY", 0.5)
    tab, heard = browser.new_page(viewport={"width": 390, "height": 500}), []
    tab.on("pageerror", lambda error: heard.append(str(error)))
    with live.Live(study, data, run.path) as show:
        show()
        tab.goto(f"{run.page.as_uri()}#tab=explore&lang=zh")
        tab.wait_for_selector("[data-ready]", state="attached")
        assert "自動重新載入" in tab.text_content("#progress")
        tab.evaluate("window.scrollTo(0, 300); window.before = true")
        with tab.expect_navigation():
            pass
        tab.wait_for_selector("[data-ready]", state="attached")
        assert (tab.evaluate("window.scrollY"), tab.evaluate("store.state.tab")) == (300, "explore")
    tab.close()
    assert heard == []
