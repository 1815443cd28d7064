"""The page in a real browser: nothing is asked of the network, numbers are summary.csv's, texts stay texts."""

import csv
import io
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from tangeval.reporting.page import build as report
from tangeval.results.files import read_json, write_json
from tests.support.chromium import NoBrowserError, launched
from tests.support.folders import NAME, make_results
from tests.support.lesson import Lesson, make_lessons

pytestmark = pytest.mark.browser
KNOBS = ("temperature", "top_k", "top_p", "max_length")
TABS = ("glance", "explore", "explain", "pictures", "trust")


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
    study, data = make_results(folder)
    write_json(folder.with_name("picks.json"), {
        name: lesson.picks for name, lesson in make_lessons(study, data, folder).items()
    })  # fmt: skip
    report.write(study, data, folder)
    return folder


@pytest.fixture(scope="module")
def lessons(folder) -> dict[str, Lesson]:
    picks = read_json(folder.with_name("picks.json"))
    return {
        name: Lesson(read_json(folder / "explain" / name / "explain.json"), picks[name]) for name in picks
    }


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
        ...[...row.querySelectorAll("td")].map((setting) => [...setting.querySelectorAll("data")].map((each) => each.value))])""")


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
    columns = ["base", NAME, "random", "reference"]
    seen = set()
    for knob, steps in (("max_length", 1), ("top_k", 1), ("temperature", 2), ("top_p", 1)):
        slider = page.locator(f"#knob-{knob}")
        for _ in range(steps):
            slider.press("ArrowRight")
            state = now(page)
            setting = [state[key] for key in "tkpl"]
            seen.add(tuple(setting))
            for (metric,), *settings in shown(page):
                for name, got in zip(columns, settings, strict=True):
                    row = rows["test", name, *(setting if name in columns[:2] else [""] * 4)]
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
                setting = [float(now(page)[key]) for key in "tkpl"]
                for place, name in ((1, NAME), (2, "base")):
                    own = page.locator("#verses .strophe").nth(place)
                    text, row = (
                        texts[(name, "test-3", sample, *setting)],
                        scores.loc[(name, "test-3", sample, *setting)],
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
        {"decoding": {"temperature": [0.1, 0.9], "top_p": [0.5, 1.0], "only": [{"temperature": 0.1, "top_p": 1.0}, {"temperature": 0.9, "top_p": 0.5}]},
         "samples": {"validation": 1, "test": 2}},
        {"select": {"setting": {"by": "bleu", "require": {"form": ">= 1.0"}}, "checkpoint": "bleu"}},
    ],
    ids=["one setting, nothing chosen", "a grid with holes", "no setting meets what is required"],
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
                const groups = endings(tokens(example.input)).map((token) => GROUPS.get(token.character)).filter(Boolean);
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


@pytest.mark.parametrize(("shared", "said"), [(True, "Same noise"), (False, "noise of its own")])
def test_the_page_says_whether_two_texts_had_the_same_noise(browser, tmp_path, shared, said):
    study, data = make_results(tmp_path)
    write_json(tmp_path / "manifest.json", read_json(tmp_path / "manifest.json") | {"noise_shared": shared})
    report.write(study, data, tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri() + "#a=0&b=1")
    page.wait_for_selector("[data-ready]", state="attached")
    for text in ("#part", "#hero-note"):
        page.locator("#go-explore" if text == "#part" else "#go-glance").click()
        until(page, f"document.querySelector('{text}').textContent.includes('noise')")
        assert said.lower() in page.locator(text).inner_text().lower()
    page.close()


def test_checkpoints_of_two_runs_are_two_lines_of_training(browser, tmp_path):
    """One's only checkpoint lies between another's two: no line goes through it."""
    names = ("base", "one/checkpoint-10", "two/checkpoint-20", "one/checkpoint-30")
    report.write(*make_results(tmp_path, names), tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri() + "#tab=pictures")
    page.wait_for_selector("[data-ready]", state="attached")
    rows = page.evaluate("document.getElementById('training').table().slice(1)")
    measured = {(name, at) for name, at, *values in rows if any(values)}
    one = "one/checkpoint-10 … one/checkpoint-30"
    assert measured == {("base", "base"), (one, "10"), ("two/checkpoint-20", "20"), (one, "30")}
    page.close()


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


def explained(tab, lesson: str, step: int, setting: dict) -> dict:
    """What the tab shows of a step at a setting."""
    return tab.evaluate(
        """async ([lesson, step, own]) => {
        change({ tab: "explain", lesson, step: String(step), et: String(own.temperature), ek: String(own.top_k), ep: String(own.top_p) });
        for (let turn = 0; turn < 50 && !OPENED.has(lesson); turn++) await new Promise((go) => setTimeout(go, 20));
        await new Promise((go) => setTimeout(go, 0));
        const all = (query, root = document) => [...root.querySelectorAll(query)];
        return {
            stages: all("#stages thead th").slice(1, 5).map((head) => all("small", head).map((each) => each.textContent)),
            first: all("#stages tbody tr:first-child .p").map((each) => each.textContent),
            mine: all("#drawn .mine").map((each) => each.textContent), said: document.querySelector("#drawn").textContent,
            ids: all("#stages tbody tr.mine").map((row) => row.dataset.id),
            instead: all("#walk .instead").map((each) => each.textContent.trim()),
            lucks: Object.fromEntries(all("#lucks tbody tr").map((row) => [row.dataset.setting, all("td", row).slice(0, 3).map((each) => each.textContent)])),
        };
    }""",
        [lesson, step, setting],
    )


def spelled(tab, content: dict, token: int) -> str:
    return tab.evaluate(
        "(text) => visible(text.replaceAll(' ', '␣').replaceAll('\\n', '⏎'))",
        content["vocabulary"][str(token)],
    )


def near(shown: str, exact: float, digits: float) -> bool:
    """Whether ``exact`` rounds to what is shown; a number on the edge between two may go either way."""
    return abs(float(re.sub("[^0-9.]", "", shown)) - exact) <= digits / 2 + 1e-4


def stands_for(shown: list[str], stage: list[float]) -> bool:
    """Whether what a column's head says is the stored ``[kept, mass, entropy, largest]``."""
    kept, mass, entropy, _ = stage
    tokens, share, nats, choices = shown
    count = math.exp(entropy)
    return (
        int(re.sub("[^0-9]", "", tokens)) == kept
        and (">" in share or "<" in share or near(share, 100 * mass, 1 if mass >= 0.0995 else 0.1))
        and near(nats, entropy, 0.01)
        and near(choices, count, 1 if count >= 9.94 else 0.1)
    )


@pytest.mark.parametrize("name", ["test-1", "test-3"])
def test_every_stage_of_every_setting_is_the_stored_one(visit, lessons, name):
    page, content = visit("tab=explain&lang=en"), lessons[name].content
    for number, step in enumerate(content["steps"], 1):
        for setting, stages in zip(content["settings"], step["stages"], strict=True):
            found = explained(page, name, number, setting)
            pairs = list(zip(found["stages"], stages, strict=True))
            assert all(stands_for(*pair) for pair in pairs), (number, setting, pairs)
            assert near(found["first"][0], 100 * stages[0][3], 1 if stages[0][3] >= 0.0995 else 0.1)


def test_the_poems_own_setting_picks_what_was_written(visit, lessons):
    page, content = visit("tab=explain&lang=en"), lessons["test-3"].content
    for number, step in enumerate(content["steps"], 1):
        found = explained(page, "test-3", number, content["setting"])
        assert found["ids"] == [str(step["token"])]
        assert found["mine"] == [spelled(page, content, step["token"])]
        assert found["instead"] == [""] * len(content["steps"])


@pytest.mark.parametrize("name", ["test-1", "test-3"])
def test_the_same_noise_picks_at_every_setting_what_all_logits_say(visit, lessons, name):
    page, (content, picks) = visit("tab=explain&lang=en"), (lessons[name].content, lessons[name].picks)
    told = 0
    for number, (step, own) in enumerate(zip(content["steps"], picks, strict=True), 1):
        for place, setting in enumerate(content["settings"]):
            found = explained(page, name, number, setting)
            kept, choices, picked = found["lucks"][str(place)]
            assert int(kept.replace(",", "")) == step["stages"][place][3][0]
            assert near(choices, math.exp(step["stages"][place][3][2]), 1 if "." not in choices else 0.1)
            expected = spelled(page, content, own[place])
            told += picked != "?"
            assert picked in ("?", expected)
            assert found["mine"] in ([], [expected])
            assert bool(found["mine"]) == (picked != "?")
            instead = found["instead"][number - 1]
            assert instead == ("" if own[place] == step["token"] else picked)
    every = len(content["steps"]) * len(content["settings"])
    assert told == every if name == "test-3" else told > every / 2


def test_where_top_p_cuts_among_tokens_that_are_not_stored_bounds_are_shown_as_such(visit, lessons):
    page, content = visit("tab=explain&lang=en"), lessons["test-1"].content
    found = explained(page, "test-1", 3, {"temperature": 1, "top_k": 0, "top_p": 0.77})
    tokens, share, nats, choices = found["stages"][3]
    most = content["steps"][2]["stages"][0][1]
    assert tokens.startswith("≥ ")
    assert share.startswith("≈ 77 %")
    assert float(nats.split()[1]) < most[2]
    assert choices.startswith("≥ ")
    whole = explained(page, "test-1", 3, {"temperature": 1, "top_k": 300, "top_p": 0.77})
    assert [len(stage) for stage in whole["stages"]] == [4, 4, 1, 1]
    assert "beyond" in whole["stages"][2][0]


def test_the_tab_goes_along_the_poem_and_turns_knobs_by_keyboard(visit, lessons):
    page = visit("tab=explain&lang=en&lesson=test-3")
    until(page, "document.querySelector('#walk-2')")
    page.locator("#walk-2").focus()
    for key, place in (("ArrowRight", 3), ("ArrowLeft", 2), ("End", 9), ("Home", 1), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"walk-{place}"
        assert page.locator(f"#walk-{place}").get_attribute("aria-current") == "step"
    page.locator("#walk-5").click()
    assert now(page)["step"] == "5"
    page.locator("#turn-temperature").press("Home")
    assert page.locator("#turn-temperature").get_attribute("aria-valuetext") == "0"
    until(page, "document.querySelector('#drawn-live').textContent.startsWith('Temperature 0 uses no noise')")
    page.locator("#turn-temperature").press("ArrowRight")
    assert now(page)["et"] == "0.1"
    page.locator("#turn-top_k").press("End")
    assert page.locator("#turn-top_k").get_attribute("aria-valuetext") == "off"
    page.locator("#noise-top_p-0").press("Enter")
    assert page.evaluate("document.activeElement.id") == "noise-top_p-0"
    assert (now(page)["et"], now(page)["ek"], now(page)["ep"]) == ("0.7", "5", "0.6")


def test_a_link_restores_step_poem_and_knobs(visit):
    page = visit("tab=explain&lesson=test-1&step=7&et=1.3&ek=17&ep=0.85")
    until(page, "document.querySelector('#stages tbody')")
    page.locator("#turn-top_p").press("ArrowRight")
    page.wait_for_timeout(300)
    other = visit(page.url.partition("#")[2])
    until(other, "document.querySelector('#stages tbody')")
    assert now(other) == now(page)
    assert [now(other)[key] for key in ("lesson", "step", "et", "ek", "ep")] == [
        "test-1",
        "7",
        "1.3",
        "17",
        "0.86",
    ]
    for part in ("#stages", "#walk", "#so-far", "#drawn", "#lucks", "#turn"):
        assert other.locator(part).inner_text() == page.locator(part).inner_text()


@pytest.mark.parametrize(
    "place", ["lesson=..&step=-1&et=x&ek=1.5&ep=0", "step=99999&et=0.123&ek=9999999&ep=1.5"]
)
def test_knobs_and_steps_that_are_not_there_are_not_believed(visit, place):
    page = visit(f"tab=explain&{place}")
    until(page, "document.querySelector('#stages tbody tr')")
    assert page.locator("#turn output").first.inner_text() == "1"  # test-1's own temperature
    assert page.locator("#failed").is_hidden()


def test_hostile_tokens_are_shown_and_do_nothing(visit, lessons):
    page, seen = visit("tab=explain&lang=en"), ""
    for name, lesson in lessons.items():
        for step in range(1, 10):
            explained(page, name, step, lesson.content["setting"])
            seen += page.locator("#tab-explain").inner_text() + page.locator("#walk").inner_html()
    for escape in (
        "⟨U+202E⟩",
        "⟨U+200B⟩",
        "⟨U+0007⟩",
        "⟨U+0000⟩",
        "⟨U+2028⟩",
        "<img src=x",
        "</script><script>",
    ):
        assert escape in seen
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00\x07]", page.locator("html").inner_html())
    assert page.title() == "small · tangeval"
    assert page.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0


def test_without_explained_poems_the_tab_names_the_command_and_nothing_else(browser, tmp_path):
    report.write(*make_results(tmp_path), tmp_path)
    page = browser.new_page(locale="en-GB")
    page.goto(f"{(tmp_path / 'report.html').as_uri()}#tab=explain")
    page.wait_for_selector("[data-ready]", state="attached")
    said = page.locator("#tab-explain").inner_text().splitlines()
    assert [line for line in said if line.strip()][1:] == [page.locator("#no-lesson").inner_text()]
    assert said[-1].endswith("tangeval explain small.yaml --prompt 1")
    page.close()
