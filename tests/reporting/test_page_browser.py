"""The page in a real browser: nothing is asked of the network, numbers are summary.csv's, texts stay texts."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

import tangeval
from tangeval import api, tasks
from tangeval.core.knobs import COMMON_AXES
from tangeval.reporting.page import build as report
from tangeval.results import explained
from tangeval.results.files import read_json, write_csv, write_json
from tangeval.results.folder import RunFolder
from tests.support.command import succeeds
from tests.support.explained import make_explained
from tests.support.folders import NAME, make_results
from tests.support.pages import block

pytestmark = pytest.mark.browser
ESCAPES = ("⟨U+202E⟩", "⟨U+200B⟩", "⟨U+0007⟩", "⟨U+0000⟩", "⟨U+2028⟩", 'run,"<img src=x')
TABS = ("glance", "explore", "explain", "pictures", "trust")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "small"
    study, data = make_results(folder)
    make_explained(study, data, RunFolder(folder))
    report.write(study, data, folder)
    return folder


@pytest.fixture(scope="module")
def contents(folder) -> dict[str, explained.Explained]:
    """The explained texts of the page, by their folder."""
    return {
        name: explained.read_explained(folder / "explain" / name / explained.FILE)
        for name in ("test-1", "test-3")
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


def of(folder: Path):
    """The study and the data of a results folder."""
    study = RunFolder(folder).study
    return study, tasks.load(study.task).load(study.data_name, study.validation_size)


def summary(folder: Path) -> dict[tuple[str, ...], dict[str, str]]:
    rows = csv.DictReader(io.StringIO((folder / "summary.csv").read_text("utf-8")))
    return {(row["split"], row["checkpoint"], *(row[knob] for knob in COMMON_AXES)): row for row in rows}


def shown(tab) -> list[list[list[str]]]:
    """Every metric's row of the numbers: [metric, then for each column its value, low and high]."""
    return tab.evaluate("""() => [...document.querySelectorAll("#numbers-table tbody tr")].map((row) => [[row.dataset.metric],
        ...[...row.querySelectorAll("td")].map((setting) => [...setting.querySelectorAll("data")].map((each) => each.value))])""")


def opened_in(browser, page: Path, place: str = ""):
    tab = browser.new_page(locale="en-GB")
    tab.goto(f"{page.as_uri()}#{place}")
    tab.wait_for_selector("[data-ready]", state="attached")
    return tab


def until(tab, condition: str) -> None:
    """Wait for what the page's own policy would not let playwright wait for: it evaluates strings there."""
    for _ in range(100):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(30)
    raise AssertionError(f"never: {condition}")


def now(tab) -> dict[str, str]:
    return tab.evaluate("() => JSON.parse(JSON.stringify(store.state))")


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
    page = visit("tab=explore&every=1&digits=1&temperature=0&top_k=5&top_p=0.6&max_length=6&split=test")
    columns = ["base", NAME, "random", "reference"]
    seen = set()
    for knob, steps in (("max_length", 1), ("top_k", 1), ("temperature", 2), ("top_p", 1)):
        slider = page.locator(f"#knob-{knob}")
        for _ in range(steps):
            slider.press("ArrowRight")
            state = now(page)
            setting = [state[knob] for knob in COMMON_AXES]
            seen.add(tuple(setting))
            for (metric,), *settings in shown(page):
                for name, got in zip(columns, settings, strict=True):
                    row = rows["test", name, *(setting if name in columns[:2] else [""] * 4)]
                    assert got == [text for end in ("", "_low", "_high") if (text := row[metric + end])]
    assert len(seen) == 5
    first = page.locator("#numbers-table tbody td data").first
    assert first.inner_text() == first.get_attribute("value")  # all digits


def test_poems_are_those_of_the_sliders_checkpoints_poem_and_sample(visit, folder):
    keys = ["checkpoint", "example_id", "sample", *COMMON_AXES]
    texts = pd.concat(map(pd.read_parquet, (folder / "generations").iterdir())).set_index(keys)["text"]
    scores = pd.read_parquet(folder / "scores.parquet").set_index(keys)
    page = visit(
        "tab=explore&split=test&a=1&b=0&mark=none&example=test-3&sample=0&temperature=0&top_k=0&top_p=0.6&max_length=6&digits=0"
    )
    seen = set()
    for knob, times in (("temperature", 2), ("max_length", 1), ("top_k", 1), ("top_p", 1)):
        for _ in range(times):
            page.locator(f"#knob-{knob}").press("ArrowLeft" if knob == "top_k" else "ArrowRight")
            for sample in (0, 1):
                page.evaluate(f"store.change({{sample: '{sample}'}})")
                until(page, f"document.querySelector('#part').textContent.startsWith('Sample {sample + 1} ')")
                page.wait_for_timeout(60)
                setting = [float(now(page)[knob]) for knob in COMMON_AXES]
                for place, name in ((1, NAME), (2, "base")):
                    own = page.locator("#verses .strophe").nth(place)
                    text, row = (
                        texts[(name, "test-3", sample, *setting)],
                        scores.loc[(name, "test-3", sample, *setting)],
                    )
                    written = "".join(own.locator(".verse").inner_text().split())
                    assert written == "".join(
                        page.evaluate("(text) => core.visible(text)", text).split()
                    ) or (not text and "empty" in written)
                    flawed = own.locator(".about").inner_text().split(" ", 1)[1].split(", ")
                    assert ("rhyme" in flawed) == (row["rhyme"] == 0)
                    assert ("cut off" in flawed) == (row["complete"] == 0)
                    assert ("copied" in flawed) == (row["copied_clauses"] > 0)
                    seen.add(text)
    assert len(seen) > 6


def test_a_slider_snaps_to_the_grid_and_says_where_it_stands(visit):
    page = visit("tab=explore&temperature=0.7&top_k=5")
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
    page.locator("[data-go='example,1']").click()
    page.wait_for_timeout(300)
    other = visit(page.url.partition("#")[2])
    assert now(other) == now(page)
    assert tuple(now(other)[key] for key in ("temperature", "max_length", "on", "up")) == (
        "1",
        "6",
        "1",
        True,
    )
    for part in ("#verses", "#numbers-table", "#pick"):
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
    for tab in (tab for tab in TABS if tab != "explain"):
        page.locator(f"#go-{tab}").click()
        for slider in page.locator("#knobs input[type=range]:enabled").all() if tab == "explore" else ():
            slider.press("End")
        page.wait_for_timeout(150)
    page.close()
    assert heard == []


def test_an_address_that_says_nonsense_is_not_believed(visit):
    nonsense = "tab=%3Cimg%3E&temperature=9&a=77&lang=xx&example=%3Cscript%3E&on=0.9&pin=0~1~2&sample=-1&__proto__=1&split=train"
    plain, page = visit(""), visit(nonsense)
    assert now(page) == now(plain)


def test_hostile_texts_and_names_are_shown_and_do_nothing(visit):
    page = visit("tab=explore&flaw=han_only&b=0&a=1&temperature=1&max_length=18")
    seen = ""
    for place in range(90):
        page.evaluate(
            f"(({{example, sample}}) => store.change({{example, sample: String(sample), split: texts.examples[example].split}}))(texts.units[{place}])"
        )
        until(page, f"document.querySelector('#verses .about')?.textContent === texts.units[{place}].example")
        seen += page.locator("#verses").inner_text()
    for tab in TABS:
        page.locator(f"#go-{tab}").click()
        page.wait_for_timeout(100)
        seen += page.locator("main").inner_text()
    assert "</script><script>document.title='broken'" in re.sub(r"\s", "", seen).replace(
        "<script>document", "<script>document"
    )
    assert [escape for escape in ESCAPES if escape not in seen] == []
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
    before = now(page)["temperature"]
    for _ in range(4):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "knob-temperature":
            break
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "knob-temperature"
    assert now(page)["temperature"] == "0.7"
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
        const wrong = [], { units, examples, unitOf, tokens, endings, marking, rhymes, flawsOf, has } = texts;
        let seen = 0;
        for (const [place, { example: id }] of units.entries()) {
            const example = examples[id], unit = await unitOf(place), settings = core.facts.settings;
            for (const [column, code] of unit.at.entries()) {
                const text = unit.texts[code], list = tokens(text), mark = marking.rhyme(list, example, unit.copied[code]);
                const marks = endings(list).map(mark).filter(Boolean);
                const groups = endings(tokens(example.input)).map((token) => rhymes.get(token.character)).filter(Boolean);
                const all = [...groups, ...endings(list).map((token) => rhymes.get(token.character)).filter(Boolean)];
                const last = [...endings(tokens(example.input)), ...endings(list)].map(({ character }) => core.facts.verse.variants[character] ?? character);
                const shared = all.length > 1 && new Set(last).size === last.length && all[0].some((group) => all.every((each) => each.includes(group)));
                const checkpoint = Math.floor(column / settings.length), setting = settings[column % settings.length];
                const flawed = Boolean(flawsOf(checkpoint, setting, place) & has("rhyme"));
                if (flawed === (marks.length > 0 && shared)) wrong.push(text);
                if (shared && marks.includes("apart")) wrong.push(text);
                seen += 1;
            }
        }
        return [wrong, seen];
    }""")
    assert seen > 1000
    assert wrong == []


def test_the_page_says_whether_two_texts_had_the_same_noise(visit, browser, folder, tmp_path):
    apart = shutil.copytree(folder, tmp_path / "apart")
    write_json(apart / "manifest.json", read_json(apart / "manifest.json") | {"noise_shared": False})
    report.write(*of(apart), apart)
    pages = {
        "same noise": visit("a=0&b=1"),
        "noise of its own": opened_in(browser, apart / "report.html", "a=0&b=1"),
    }
    for said, page in pages.items():
        for tab, text in (("explore", "#part"), ("glance", "#hero-note")):
            page.locator(f"#go-{tab}").click()
            until(page, f"document.querySelector('{text}').textContent.includes('noise')")
            assert said in page.locator(text).inner_text().lower()


def test_checkpoints_of_two_runs_are_two_lines_of_training(browser, tmp_path):
    """One's only checkpoint lies between another's two: no line goes through it."""
    names = ("base", "one/checkpoint-10", "two/checkpoint-20", "one/checkpoint-30")
    report.write(*make_results(tmp_path, names, samples=1, splits=["test"], select=None), tmp_path)
    page = opened_in(browser, tmp_path / "report.html", "tab=pictures")
    rows = page.evaluate("document.getElementById('training').table().slice(1)")
    measured = {(name, at) for name, at, *values in rows if any(values)}
    one = "one/checkpoint-10 … one/checkpoint-30"
    assert measured == {("base", "base"), (one, "10"), ("two/checkpoint-20", "20"), (one, "30")}
    page.close()


def test_the_character_where_two_texts_part_is_marked(visit):
    page = visit("")
    assert page.evaluate("""() => [["春眠不覺", "春眠卻覺"], ["春", "春眠"], ["春眠", "春"], ["春", "春"], ["", "春"], ["𠀀春", "𠀀眠"]]
        .map(([one, other]) => texts.partOf(one, other))""") == [2, 1, 1, -1, 0, 1]


def test_a_click_on_a_heat_map_sets_the_knobs(visit):
    page = visit("tab=explore&x=top_p&y=temperature&temperature=0&top_p=0.6&metric=form")
    box = page.locator("#heat .box").first
    box.scroll_into_view_if_needed()
    size = box.bounding_box()
    box.click(position={"x": size["width"] - 30, "y": 20})  # the last top_p, the highest temperature
    assert (now(page)["top_p"], now(page)["temperature"], now(page)["a"]) == ("1", "1", "0")


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


def shown_of(tab, folder: str, step: int, turned: int) -> dict:
    """What the tab shows of a step at a setting of the file."""
    return tab.evaluate(
        """async ([explained, step, turned]) => {
        store.change({ tab: "explain", explained, step: String(step), turned: String(turned) });
        for (let turn = 0; turn < 50; turn++) await new Promise((go) => setTimeout(go, 1));
        const all = (query, root = document) => [...root.querySelectorAll(query)].map((each) => each.textContent);
        const rows = [...document.querySelectorAll("#stages tbody tr[data-id]")];
        return {
            stages: [...document.querySelectorAll("#stages thead th")].slice(1, -1).map((head) => all("small", head)),
            rows: rows.map((row) => ({ id: Number(row.dataset.id), cells: [...row.querySelectorAll("td")].map((each) => each.querySelector(".p")?.textContent ?? each.textContent) })),
            mine: all("#drawn .mine"), ids: rows.filter((row) => row.classList.contains("mine")).map((row) => Number(row.dataset.id)),
            instead: all("#walk .instead").map((each) => each.trim()),
            noises: Object.fromEntries([...document.querySelectorAll("#noises tbody tr")].map((row) => [row.dataset.setting, all("td", row).slice(0, 3)])),
        };
    }""",
        [folder, step, turned],
    )


def spelled(tab, content: explained.Explained, token: int) -> str:
    return tab.evaluate(
        "(text) => core.visible(text.replaceAll(' ', '␣').replaceAll('\\n', '⏎'))", content.vocabulary[token]
    )


def near(shown: str, exact: float, digits: float) -> bool:
    """Whether ``exact`` rounds to what is shown; a number on the edge between two may go either way."""
    return (
        ">" in shown or "<" in shown or abs(float(re.sub("[^0-9.-]", "", shown)) - exact) <= digits / 2 + 1e-4
    )


def percents(share: float) -> float:
    return 1 if share >= 0.0995 else 0.1


def stands_for(shown: list[str], stage: explained.Stage) -> bool:
    """Whether what a column's head says is the stored stage."""
    tokens, share, nats, choices = shown
    return (
        int(re.sub("[^0-9]", "", tokens)) == stage.kept
        and near(share, 100 * stage.mass, percents(stage.mass))
        and near(nats, stage.entropy, 0.01)
        and near(choices, stage.choices, 1 if stage.choices >= 9.94 else 0.1)
    )


@pytest.mark.parametrize("name", ["test-1", "test-3"])
def test_the_tab_shows_what_the_file_stores_of_every_step_and_setting(visit, contents, name):
    page, content = visit("tab=explain&lang=en"), contents[name]
    for number, step in enumerate(content.steps, 1):
        for place, setting in enumerate(content.settings):
            found, stages = (
                shown_of(page, name, number, place),
                [step.stages[each] for each in setting.stages],
            )
            assert all(map(stands_for, found["stages"], stages)), (number, place)
            candidates = [each.id for each in step.candidates]
            for row in found["rows"][:: 7 if place else 1]:
                own = [stage.p[candidates.index(row["id"])] for stage in stages]
                drawn = [(cell, p) for cell, p in zip(row["cells"], own, strict=False) if p]
                assert all(near(cell, 100 * p, percents(p)) for cell, p in drawn)
            pick = step.picks[place].id
            expected = spelled(page, content, pick)
            assert (found["mine"], found["ids"]) == ([expected], [pick])
            assert found["instead"][number - 1] == ("" if pick == step.token else expected)
            kept, choices, picked = found["noises"][str(place)]
            assert int(kept.replace(",", "")) == stages[-1].kept
            assert near(choices, stages[-1].choices, 1 if "." not in choices else 0.1)
            assert picked == expected


def test_the_tab_goes_along_the_text_and_turns_knobs_by_keyboard(visit):
    page = visit("tab=explain&lang=en&explained=test-3")
    until(page, "document.querySelector('#walk-2')")
    page.locator("#walk-2").focus()
    for key, place in (("ArrowRight", 3), ("ArrowLeft", 2), ("End", 9), ("Home", 1), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"walk-{place}"
        assert page.locator(f"#walk-{place}").get_attribute("aria-current") == "step"
    page.locator("#walk-5").click()
    assert now(page)["step"] == "5"
    page.locator("#turn-temperature").press("Home")
    assert page.evaluate("document.activeElement.id") == "turn-temperature"
    assert page.locator("#turn-temperature").get_attribute("aria-valuetext") == "0"
    until(page, "document.querySelector('#drawn-live').textContent.startsWith('Temperature 0 uses no noise')")
    page.locator("#turn-top_k").press("End")
    assert page.locator("#turn-top_k").get_attribute("aria-valuetext") == "off"
    assert page.locator("#turn-temperature").get_attribute("aria-valuetext") == "0.7"  # one knob at a time
    page.locator("#noise-top_p-0").press("Enter")
    assert page.evaluate("document.activeElement.id") == "noise-top_p-0"
    assert now(page)["turned"] == "0"


def test_a_link_restores_text_step_and_setting(visit):
    page = visit("tab=explain&explained=test-1&step=7")
    until(page, "document.querySelector('#stages tbody')")
    page.locator("#turn-top_k").press("Home")
    page.wait_for_timeout(300)
    other = visit(page.url.partition("#")[2])
    until(other, "document.querySelector('#stages tbody')")
    assert now(other) == now(page)
    assert (now(other)["explained"], now(other)["step"]) == ("test-1", "7")
    assert now(other)["turned"] != "0"
    for part in ("#stages", "#walk", "#so-far", "#drawn", "#noises", "#turn"):
        assert other.locator(part).inner_text() == page.locator(part).inner_text()


@pytest.mark.parametrize("place", ["explained=..&step=-1&turned=x", "step=99999&turned=999"])
def test_settings_and_steps_that_are_not_there_are_not_believed(visit, place):
    page = visit(f"tab=explain&{place}")
    until(page, "document.querySelector('#stages tbody tr')")
    assert page.locator("#turn output").first.inner_text() == "1"  # test-1's own temperature
    assert page.locator("#failed").is_hidden()


def test_hostile_tokens_are_shown_and_do_nothing(visit, contents):
    page, seen = visit("tab=explain&lang=en"), ""
    for name in contents:
        for step in range(1, 10):
            shown_of(page, name, step, 0)
            seen += page.locator("#tab-explain").inner_text() + page.locator("#walk").inner_html()
    for escape in (*ESCAPES[:-1], "<img src=x", "</script><script>"):
        assert escape in seen
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\x00\x07]", page.locator("html").inner_html())
    assert page.title() == "small · tangeval"
    assert page.evaluate("document.querySelectorAll('main img, main script, main iframe').length") == 0


def test_without_explained_texts_there_is_no_tab_and_trust_names_the_command(browser, folder, tmp_path):
    plain = shutil.copytree(folder, tmp_path / "plain", ignore=shutil.ignore_patterns("explain"))
    report.write(*of(plain), plain)
    page = opened_in(browser, plain / "report.html", "tab=trust")
    assert page.locator("#go-explain").count() == 0
    assert "tangeval explain FOLDER/study.yaml --prompt 1" in page.locator("#left-out").inner_text()
    page.close()


def test_explained_texts_alone_are_a_page_of_one_tab(browser, folder, tmp_path):
    files = sorted(folder.glob(f"explain/*/{explained.FILE}"))
    page = opened_in(browser, report.write_explained(files, tmp_path / "page.html"))
    until(page, "document.querySelector('#stages tbody tr')")
    assert page.locator("nav button").all_inner_texts() == ["Explain"]
    page.close()


def test_a_task_without_verse_has_its_own_lines_and_no_marks(browser, tiny_model, tmp_path):
    few = ["samples=1", "decoding.temperature=0.8", "decoding.max_length=4"]
    succeeds(tmp_path, "run", Path("studies/haiku.yaml").resolve(), f"base_model={tiny_model}", *few)
    page = opened_in(browser, tmp_path / "results/haiku/report.html", "tab=glance&lang=en")
    until(page, "document.querySelector('.verses .strophe')")
    reference = page.locator(".verses .strophe").last.locator(".verse")
    assert reference.locator("br").count() == 2  # three lines
    assert "U+000A" not in reference.inner_text()
    assert page.locator("[data-radio=mark] input").count() <= 1
    page.close()
    for lang in ("en", "zh"):
        for tab in ("glance", "explore", "pictures", "trust"):
            page = opened_in(browser, tmp_path / "results/haiku/report.html", f"tab={tab}&lang={lang}")
            assert not re.search(r"poe(m|t)|verse|rhyme|couplet|[詩韻]", page.inner_text("body")), (lang, tab)
            page.close()


def test_a_view_is_one_file_and_its_name_in_a_list(browser, folder, tmp_path):
    """Done as docs/report.md says, in a copy of the package."""
    package = shutil.copytree(Path(tangeval.__file__).parent, tmp_path / "tangeval")
    build = package / "reporting" / "page" / "build.py"
    (build.parent / "static" / "views" / "tokens.js").write_text(block("docs/report.md", "addView"), "utf-8")
    listed = build.read_text("utf-8").replace('"ties", "trust"', '"ties", "tokens", "trust"')
    build.write_text(listed, "utf-8")
    code = f"""from pathlib import Path
import tangeval.tasks
from tangeval.reporting.page import build
from tangeval.results.folder import RunFolder
study = RunFolder(Path({str(folder)!r})).study
data = tangeval.tasks.load(study.task).load(study.data_name, study.validation_size)
build.write(study, data, Path({str(folder)!r}), Path("page.html"))"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."}, check=True
    )
    page = opened_in(browser, tmp_path / "page.html", "tab=pictures&lang=en")
    assert page.locator("#tokens h2").inner_text() == "Tokens of an output"
    assert page.locator("#tokens tbody tr").count() == 4
    page.locator("#lang").select_option("zh")
    assert page.locator("#tokens h2").inner_text() == "輸出的詞元數"
    page.close()


def test_the_front_that_was_found_is_ringed_as_long_as_it_is_of_these_numbers(browser, folder, tmp_path):
    own = shutil.copytree(folder, tmp_path / "own")
    front = api.front(own, ["chrf", "distinct_2"], checkpoint="base")[0]
    front.loc[0, "on_front"] = 0  # no longer what the page itself would find
    front.loc[0, "dominated_by"] = "base:top_k=5"

    def drawn() -> list[list[str]]:
        write_csv(own / "front.csv", front)
        report.write(*of(own), own)
        page = opened_in(
            browser, own / "report.html", "tab=pictures&quality=distinct_2&diversity=chrf&split=validation"
        )
        until(page, "document.querySelector('#pareto .box svg')")
        rows = page.evaluate("document.querySelector('#pareto').table()")
        page.close()
        return rows[1:]

    assert sum(row[-1] == "1" for row in drawn()) == front["on_front"].sum()
    front["chrf"] += 1  # of other numbers
    assert sum(row[-1] == "1" for row in drawn()) != front["on_front"].sum()


def test_every_string_of_every_view_is_in_both_languages_and_every_heat_is_lighter_when_low(visit):
    page = visit("tab=explore")
    keys = page.evaluate("Object.values(core.strings).map((own) => Object.keys(own).sort().join())")
    assert keys[0] == keys[1]
    light = page.evaluate(
        """() => charts.ramp().map((hex) => [1, 3, 5].reduce((sum, at) => sum + parseInt(hex.slice(at, at + 2), 16), 0))"""
    )
    assert light == sorted(light, reverse=True)


def test_a_sheet_has_every_example_and_is_searched(visit):
    tab = visit("tab=explore")
    assert tab.locator("#sheet tbody tr").count() == 0  # nothing is drawn before it is asked for
    tab.click("#sheet summary")
    until(tab, "document.querySelectorAll('#sheet tbody tr').length > 1")
    rows, columns = (
        tab.locator("#sheet tbody tr").count(),
        tab.locator("#sheet tbody tr:first-child td").count(),
    )
    assert rows == tab.evaluate("core.facts.splits.find(({ name }) => name === store.state.split).examples")
    assert columns == tab.evaluate("store.ticked().length") + 1
    given = tab.evaluate("texts.examples[texts.units[0].example].input")
    tab.fill("#sheet input", given)
    until(tab, "document.querySelectorAll('#sheet tbody tr').length === 1")
    tab.fill("#sheet input", "no poem has this")
    until(tab, "document.querySelectorAll('#sheet tbody tr').length === 0")


def test_printing_takes_all_tabs_with_their_pictures(visit):
    tab = visit("tab=glance&lang=en")
    tab.emulate_media(media="print")
    tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert all(tab.is_visible(f"#tab-{name}") for name in TABS)
    assert tab.evaluate("[...document.querySelectorAll('.picture .box')].filter((b) => b.clientWidth && !b.querySelector('svg')).length") == 0  # fmt: skip
    assert tab.locator("#walk .tower").count() > 0
    tab.set_viewport_size({"width": 760, "height": 1000})  # paper
    assert tab.evaluate("[...document.querySelectorAll('table')].filter((e) => e.clientWidth > innerWidth).length") == 0  # fmt: skip
    tab.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert [name for name in TABS if tab.is_visible(f"#tab-{name}")] == ["glance"]


def test_texts_of_a_tab_that_was_not_opened_are_there_to_be_printed(visit):
    tab = visit("tab=glance")
    assert tab.locator("#verses .verse").count() >= 3


def test_sliders_and_panels_have_question_marks(visit):
    tab = visit("tab=explore&lang=zh")
    tab.click("#knobs .knob[data-knob=top_k] button.help")
    assert "最可能的 k 個詞元" in tab.inner_text("#help")
    tab.keyboard.press("Escape")
    tab = visit("tab=pictures&lang=zh")
    assert tab.locator("#tab-pictures .panel h3 button.help").count() > 0


def test_a_question_mark_says_what_a_metric_means_in_the_readers_language(visit):
    for lang, word in (("en", "rhyme"), ("zh", "韻")):
        tab = visit(f"tab=explore&lang={lang}")
        tab.click("#numbers-table tr[data-metric=rhyme] button.help")
        assert word in tab.inner_text("#help")
        assert tab.locator("#help .example").count() == 2
        tab.keyboard.press("Escape")
        assert not tab.is_visible("#help")
