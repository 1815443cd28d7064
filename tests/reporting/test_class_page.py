"""The class's page and grade book: what they say, what they hide, and that the page asks for nothing."""

import re

import pandas as pd
import pytest

from tangeval import api
from tangeval.analysis import classroom as scored
from tangeval.core.errors import TangevalError
from tangeval.reporting.page import classroom
from tangeval.tasks.tang import TANG, results_txt
from tangeval.tasks.tang import data as dataset

SAMPLE = dataset.load("sample")
POEMS = SAMPLE.split("test")
NAMES = ["b12901001", "王小明", "=cmd()"]


@pytest.fixture(scope="module")
def handed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handed")
    for number, name in enumerate(NAMES):
        texts = [
            TANG.baseline(SAMPLE, poem, number // 2, 1)[0] for poem in POEMS
        ]  # the first two hand in the same
        (folder / f"{name}.txt").write_text(results_txt(POEMS, texts), "utf-8")
    (folder / "zz-broken.txt").write_bytes(b"\xff")
    return folder


@pytest.fixture(scope="module")
def out(handed):
    folder = handed.parent / "out"
    api.score_class([handed], folder, data="sample")
    return folder


def test_the_grade_book_has_a_row_for_every_student_and_no_formula(out):
    grades = pd.read_csv(out / "grades.csv", dtype=str)
    assert sorted(grades["student"]) == sorted(["b12901001", "王小明", "'=cmd()", "zz-broken"])
    broken = grades[grades["student"] == "zz-broken"].iloc[0]
    assert broken["problem"].startswith("line 1: not UTF-8")
    assert pd.isna(broken["form"])
    assert (out / "grades.csv").read_bytes().startswith(b"\xef\xbb\xbf")


def test_pseudonyms_stay_the_same_while_their_key_does(handed, tmp_path):
    with_names = [api.score_class([handed], tmp_path, data="sample", hide_names=True)[1] for _ in range(2)]
    grades = pd.read_csv(tmp_path / "grades.csv", dtype=str)
    assert grades["pseudonym"].str.fullmatch("student-[0-9a-f]{6,}").all()
    assert "b12901001" in set(grades["student"])
    first = with_names[0][0].read_bytes()
    api.score_class([handed], tmp_path, data="sample", hide_names=True)
    assert with_names[0][0].read_bytes() == first
    (tmp_path / "names.key").unlink()
    api.score_class([handed], tmp_path, data="sample", hide_names=True)
    again = pd.read_csv(tmp_path / "grades.csv", dtype=str)
    assert not set(again["pseudonym"]) & set(grades["pseudonym"])


def test_a_broken_key_is_no_reason_for_other_pseudonyms(handed, tmp_path):
    (tmp_path / "names.key").write_text("half", "ascii")
    with pytest.raises(TangevalError, match=r"names\.key: no key of names"):
        api.score_class([handed], tmp_path, data="sample", hide_names=True)


@pytest.fixture
def opened(browser):
    """What opens a page; no script fails and nothing is asked of the network."""
    context, problems = browser.new_context(viewport={"width": 390, "height": 844}), []

    def opened(file, address):
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on(
            "request",
            lambda asked: (
                problems.append(asked.url) if not asked.url.startswith(("file:", "data:")) else None
            ),
        )
        page.goto(f"file://{file}#{address}")
        page.wait_for_selector("main h1:visible")
        return page

    yield opened
    context.close()
    assert problems == []


def texts_of(page, selector):
    return [each.inner_text() for each in page.locator(selector).all()]


@pytest.mark.browser
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_page_sorts_searches_and_opens_a_student_on_a_phone(handed, out, opened, lang):
    page = opened(out / classroom.PAGE, f"lang={lang}")
    rows = "#class-table tbody tr:not(.others) th"
    table = scored.score_class([handed], "sample").table
    assert texts_of(page, rows) == list(table["student"])
    page.locator('[data-by="chrf"]').click()
    assert texts_of(page, rows) == list(table.sort_values("chrf", ascending=False, kind="stable")["student"])
    assert {"en": "· 1 could not be read", "zh": "另有 1 位的檔案讀不出來"}[lang] in page.locator(
        "#count"
    ).inner_text()
    page.fill("#find", "王")
    assert texts_of(page, rows) == ["王小明"]
    page.get_by_role("button", name="王小明").click()
    page.wait_for_selector("#one .verse")
    assert len(texts_of(page, "#one .verse")) == len(POEMS)
    assert page.evaluate("document.documentElement.scrollWidth") == 390


@pytest.mark.browser
def test_the_page_names_who_handed_in_the_same_and_what_is_broken(out, opened):
    page = opened(out / classroom.PAGE, "lang=en&tab=shared")
    (pair,) = texts_of(page, "#shared-table tbody th")
    assert re.split(r"\s*·\s*", pair) == ["b12901001", "王小明"]
    page.locator("summary").click()
    page.wait_for_selector("#shared-table details p")
    assert len(texts_of(page, "#shared-table details p")) == len(POEMS)
    page.locator("#go-broken").click()
    assert "not UTF-8" in page.locator("#broken-table").inner_text()


@pytest.mark.browser
def test_hidden_names_are_nowhere_in_what_the_page_unpacks(handed, tmp_path, opened):
    api.score_class([handed], tmp_path, data="sample", hide_names=True)
    page = opened(tmp_path / classroom.PAGE, "lang=en")
    spelt = page.evaluate(
        "(async () => JSON.stringify(core.tables) + (await core.unpackText(core.packedLines('units')[0])))()"
    )
    assert "student-" in spelt
    assert not any(name in spelt + page.content() for name in (*NAMES, "zz-broken"))
