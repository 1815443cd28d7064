"""The page in a real browser: nothing is asked of the network, numbers are summary.csv's, texts stay texts."""

import csv
import io
import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from tangeval import report
from tests.chromium import NoBrowserError, launched
from tests.results import NAME, make_results

pytestmark = pytest.mark.browser
KNOBS = ("temperature", "top_k", "top_p", "max_length")
TABS = ("glance", "explore", "pictures", "trust")


@pytest.fixture(scope="module")
def browser():
    try:
        with launched() as running:
            yield running
    except NoBrowserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "small"
    report.write(*make_results(folder), folder)
    return folder


@pytest.fixture
def visit(browser, folder):
    """Open the page at a place of its own; what it says or asks for while it is open must be nothing."""
    heard: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-GB")

    def opened(place: str = "", width: int = 1280):
        tab = context.new_page()
        tab.set_viewport_size({"width": width, "height": 900})
        tab.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.on("request", lambda request: heard.append(request.url[:90]))
        address = (folder / "report.html").as_uri()
        tab.goto(f"{address}#{place}")
        tab.wait_for_selector("[data-ready]", state="attached")
        assert [each for each in heard if each.partition("#")[0] != address] == []
        heard.clear()
        return tab

    yield opened
    # A picture on its way to PNG is a data: address, and a download a blob: one; nothing leaves the page.
    assert [each for each in heard if not each.startswith(("data:image/svg+xml", "blob:"))] == []
    context.close()


def summary(folder: Path) -> dict[tuple[str, ...], dict[str, str]]:
    rows = csv.DictReader(io.StringIO((folder / "summary.csv").read_text("utf-8")))
    return {(row["split"], row["checkpoint"], *(row[knob] for knob in KNOBS)): row for row in rows}


def shown(tab) -> list[list[list[str]]]:
    """Every metric's row of the numbers: [metric, then for each column its value, low and high]."""
    return tab.evaluate("""() => [...document.querySelectorAll("#numbers tbody tr")].map((row) => [[row.dataset.metric],
        ...[...row.querySelectorAll("td")].map((cell) => [...cell.querySelectorAll("data")].map((each) => each.value))])""")


def until(tab, condition: str) -> None:
    """Wait for what the page's own policy would not let playwright wait for: it evaluates strings there."""
    for _ in range(100):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(30)
    raise AssertionError(f"never: {condition}")


def now(tab) -> dict[str, str]:
    return tab.evaluate("() => JSON.parse(JSON.stringify(state))")


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("tab", TABS)
def test_every_part_opens_in_both_languages_without_a_word_or_a_request(visit, language, tab):
    page = visit(f"tab={tab}&lang={language}")
    page.wait_for_timeout(300)
    assert page.locator(f"#tab-{tab}").is_visible()
    assert "undefined" not in page.locator("main").inner_text()
    assert page.locator("#failed").is_hidden()
    assert page.evaluate("document.documentElement.lang") == {"en": "en", "zh": "zh-Hant"}[language]
    assert ("Explore" in page.locator("nav").inner_text()) == (language == "en")


@pytest.mark.parametrize("tab", ["glance", "explore", "pictures"])
def test_pictures_far_down_the_page_are_drawn_when_the_reader_pauses(visit, tab):
    page = visit(f"tab={tab}")
    until(page, f"[...document.querySelectorAll('#tab-{tab} .box')].every((box) => box.querySelector('svg'))")
    assert page.locator(f"#tab-{tab} .box").count() >= 3


@pytest.mark.parametrize("width", [360, 1920])
@pytest.mark.parametrize("tab", TABS)
def test_nothing_sticks_out_of_a_phone_or_a_wide_screen(visit, width, tab):
    page = visit(f"tab={tab}&every=1&digits=1&mark=tone", width)
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_sliders_move_the_numbers_to_exactly_those_of_the_summary(visit, folder):
    rows = summary(folder)
    page = visit("tab=explore&every=1&digits=1&t=0&k=5&p=0.6&l=6&split=test")
    columns = ["base", NAME, "floor", "reference"]
    seen = set()
    for knob, steps in (("max_length", 1), ("top_k", 1), ("temperature", 2), ("top_p", 1)):
        slider = page.locator(f"#knob-{knob}")
        for _ in range(steps):
            slider.press("ArrowRight")
            state = now(page)
            cell = [state[key] for key in "tkpl"]
            seen.add(tuple(cell))
            for (metric,), *cells in shown(page):
                for name, got in zip(columns, cells, strict=True):
                    row = rows["test", name, *(cell if name in columns[:2] else [""] * 4)]
                    assert got == [text for end in ("", "_low", "_high") if (text := row[metric + end])]
    assert len(seen) == 5
    first = page.locator("#numbers tbody td data").first
    assert first.inner_text() == first.get_attribute("value")  # all digits


def test_poems_are_those_of_the_sliders_checkpoints_poem_and_sample(visit, folder):
    keys = ["checkpoint", "example_id", "sample", *KNOBS]
    texts = pd.concat(map(pd.read_parquet, (folder / "generations").iterdir())).set_index(keys)["text"]
    scores = pd.read_parquet(folder / "scores.parquet").set_index(keys)
    page = visit("tab=explore&split=test&a=1&b=0&mark=none&poem=test-3&sample=0&t=0&k=0&p=0.6&l=6&digits=0")
    seen = set()
    for knob, times in (("temperature", 2), ("max_length", 1), ("top_k", 1), ("top_p", 1)):
        for _ in range(times):
            page.locator(f"#knob-{knob}").press("ArrowLeft" if knob == "top_k" else "ArrowRight")
            for sample in (0, 1):
                page.evaluate(f"change({{sample: '{sample}'}})")
                until(page, f"document.querySelector('#part').textContent.startsWith('Sample {sample + 1} ')")
                page.wait_for_timeout(60)
                cell = [float(now(page)[key]) for key in "tkpl"]
                for place, name in ((1, NAME), (2, "base")):
                    own = page.locator("#verses .strophe").nth(place)
                    text, row = (
                        texts[(name, "test-3", sample, *cell)],
                        scores.loc[(name, "test-3", sample, *cell)],
                    )
                    written = "".join(own.locator(".verse").inner_text().split())
                    assert written == "".join(page.evaluate("visible", text).split()) or (
                        not text and "empty" in written
                    )
                    flawed = own.locator(".about").inner_text().split(" ", 1)[1].split(", ")
                    assert ("rhyme" in flawed) == (row["rhyme"] == 0)
                    assert ("cut off" in flawed) == (row["complete"] == 0)
                    assert ("copied" in flawed) == (row["copied_clauses"] > 0)
                    seen.add(text)
    assert len(seen) > 6


def test_a_slider_snaps_to_the_grid_and_says_where_it_stands(visit):
    page = visit("tab=explore&t=0.7&k=5")
    assert page.locator("#knob-temperature").get_attribute("aria-valuetext") == "0.7"
    page.locator("#knob-top_k").press("End")
    assert page.locator("#knob-top_k").get_attribute("aria-valuetext") == "off"
    until(page, "document.querySelector('#live').textContent.includes('top-k off')")


def test_a_link_restores_what_its_sender_saw(visit):
    page = visit("tab=explore")
    page.locator("#knob-temperature").press("End")
    page.locator("#knob-max_length").press("Home")
    page.locator("#poems [data-state=b]").select_option("")
    page.locator("[data-radio=mark] input[value=tone]").check(force=True)
    page.locator("[data-tick='0']").uncheck()
    page.locator("[data-state=up]").check()
    page.locator("#lang").select_option("zh")
    page.locator("#theme").select_option("dark")
    page.locator("[data-go='poem,1']").click()
    page.wait_for_timeout(300)
    other = visit(page.url.partition("#")[2])
    assert now(other) == now(page)
    assert (now(other)["t"], now(other)["l"], now(other)["on"], now(other)["up"]) == ("1", "6", "1", True)
    for part in ("#verses", "#numbers", "#pick"):
        assert other.locator(part).inner_text() == page.locator(part).inner_text()
    assert other.locator("#pick").input_value() == page.locator("#pick").input_value()


@pytest.mark.parametrize(
    "changes",
    [
        {"names": ("base",), "select": None, "decoding": {}, "samples": 1, "splits": ["test"]},
        {"decoding": {"temperature": [0.1, 0.9], "top_p": [0.5, 1.0], "only": [[0.1, 0, 1.0, 128], [0.9, 0, 0.5, 128]]},
         "samples": {"validation": 1, "test": 2}},
        {"select": {"cell": {"by": "bleu", "require": {"form": ">= 1.0"}}, "checkpoint": "bleu"}},
    ],
    ids=["one cell, nothing chosen", "a grid with holes", "no cell meets what is required"],
)  # fmt: skip
def test_a_page_of_an_unusual_study_opens_too(browser, tmp_path, changes):
    report.write(*make_results(tmp_path, **changes), tmp_path)
    heard: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("[data-ready]", state="attached")
    for tab in TABS:
        page.locator(f"#go-{tab}").click()
        for slider in page.locator("#knobs input:enabled").all() if tab == "explore" else ():
            slider.press("End")
        page.wait_for_timeout(150)
    page.close()
    assert heard == []


def test_an_address_that_says_nonsense_is_not_believed(visit):
    nonsense = (
        "tab=%3Cimg%3E&t=9&a=77&lang=xx&poem=%3Cscript%3E&on=0.9&pin=0~1~2&sample=-1&__proto__=1&split=train"
    )
    plain, page = visit(""), visit(nonsense)
    assert now(page) == now(plain)


def test_hostile_texts_and_names_are_shown_and_do_nothing(visit):
    page = visit("tab=explore&flaw=han_only&b=0&a=1&t=1&l=18")
    seen = ""
    for place in range(90):
        page.evaluate(
            f"change({{poem: PLACES[{place}].id, split: PLACES[{place}].split, sample: String(PLACES[{place}].sample)}})"
        )
        until(page, f"document.querySelector('#verses .about')?.textContent === PLACES[{place}].id")
        seen += page.locator("#verses").inner_text()
    for tab in TABS:
        page.locator(f"#go-{tab}").click()
        page.wait_for_timeout(100)
        seen += page.locator("main").inner_text()
    assert "</script><script>document.title='broken'" in re.sub(r"\s", "", seen).replace(
        "<script>document", "<script>document"
    )
    for escape in ("⟨U+202E⟩", "⟨U+200B⟩", "⟨U+0007⟩", "⟨U+0000⟩", "⟨U+2028⟩", 'run,"<img src=x'):
        assert escape in seen
    assert not re.search(
        "[\u202a-\u202e\u2066-\u2069\u200b\x00\x07]", page.locator("html").inner_text() + seen
    )
    assert page.title() == "small · tangeval"
    assert page.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0


def test_the_page_works_by_keyboard_alone(visit):
    page = visit("")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "go-glance"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "go-explore"
    assert page.locator("#tab-explore").is_visible()
    before = now(page)["t"]
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "knob-temperature":
            break
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "knob-temperature"
    assert now(page)["t"] == "0.7"
    assert before is not None
    page.locator("[data-go='sample,1']").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.go") == "sample,1"


def test_every_control_has_a_name(visit):
    page = visit("tab=explore")
    for tab in TABS:
        page.locator(f"#go-{tab}").click()
        nameless = page.evaluate("""() => [...document.querySelectorAll("button, select, input, [role=img], summary")]
            .filter((node) => node.checkVisibility() && !(node.labels?.length || node.ariaLabel || node.textContent.trim()))
            .map((node) => node.outerHTML)""")
        assert nameless == []


def test_marks_of_rhyme_are_the_metrics(visit):
    """A text whose endings and couplet's are all marked as rhyming is one that the scores say rhymes."""
    page = visit("")
    wrong, seen = page.evaluate("""async () => {
        const wrong = [], bit = 1 << FACTS.flaws.indexOf("rhyme");
        let seen = 0;
        for (const [place, where] of PLACES.entries()) {
            const example = EXAMPLES[where.id], [texts, copied, at] = await unitOf(place);
            for (const [column, code] of at.entries()) {
                const list = tokens(texts[code]), mark = MARKING.rhyme(list, example, copied[code]);
                const marks = endings(list).map(mark).filter(Boolean);
                const groups = endings(tokens(example.couplet)).map((token) => GROUPS.get(token.character)).filter(Boolean);
                const all = [...groups, ...endings(list).map((token) => GROUPS.get(token.character)).filter(Boolean)];
                const shared = all.length > 1 && all[0].some((group) => all.every((each) => each.includes(group)));
                const flawed = Boolean(FLAWS[place * at.length + column] & bit);
                if (flawed === (marks.length > 0 && shared)) wrong.push(texts[code]);
                if (shared && marks.includes("apart")) wrong.push(texts[code]);
                seen += 1;
            }
        }
        return [wrong, seen];
    }""")
    assert seen > 1000
    assert wrong == []


def test_the_character_where_two_texts_part_is_marked(visit):
    page = visit("")
    assert page.evaluate("""() => [["春眠不覺", "春眠卻覺"], ["春", "春眠"], ["春眠", "春"], ["春", "春"], ["", "春"], ["𠀀春", "𠀀眠"]]
        .map(([one, other]) => partOf(one, other))""") == [2, 1, 1, -1, 0, 1]


def test_a_click_on_a_heat_map_sets_the_knobs(visit):
    page = visit("tab=explore&x=top_p&y=temperature&t=0&p=0.6&metric=form")
    box = page.locator("#heat .box").first
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    box.click(position={"x": size["width"] - 30, "y": 20})  # the last top_p, the highest temperature
    assert (now(page)["p"], now(page)["t"], now(page)["a"]) == ("1", "1", "0")


def test_pictures_and_tables_can_be_saved(visit, folder, tmp_path):
    page = visit("tab=explore")
    for kind in ("SVG", "PNG"):
        with page.expect_download() as waiting:
            page.locator(f"#curves [data-save={kind}]").click()
        waiting.value.save_as(tmp_path / waiting.value.suggested_filename)
    root = ElementTree.parse(tmp_path / "small-curves.svg").getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}svg")) == 4  # a panel a knob
    assert (tmp_path / "small-curves.png").read_bytes().startswith(b"\x89PNG")
    page.locator("#go-trust").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="summary.csv", exact=True).click()
    waiting.value.save_as(tmp_path / "summary.csv")
    assert (tmp_path / "summary.csv").read_bytes() == (folder / "summary.csv").read_bytes()
