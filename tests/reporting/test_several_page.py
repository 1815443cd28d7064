"""One page of several results: their own strings and texts, what may be compared, and what is refused."""

import csv
import io
import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from tangeval import tasks
from tangeval.analysis import scoring
from tangeval.analysis.compare import compare, measure_all
from tangeval.core.errors import TangevalError
from tangeval.reporting.page import several
from tangeval.reporting.page.texts import Corpus
from tangeval.results.folder import RunFolder
from tests.reporting.test_page import block, facts, units, unpacked
from tests.support.folders import make_results

SHORT = {"temperature": [0.0, 0.7], "top_k": [0], "top_p": [0.6, 1.0], "max_length": [18]}


def corpus(folder, names=("base", "checkpoint-10"), **changes) -> Corpus:
    study, data = make_results(folder, names, **changes)
    return Corpus(study, data, tasks.load(study.task), RunFolder(folder))


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two results whose grids overlap; not to be changed."""
    root = tmp_path_factory.mktemp("results")
    return [
        corpus(root / "long"),
        corpus(root / "short", decoding=SHORT | {"temperature": [0.7, 1.3]}, samples=1),
    ]


@pytest.fixture(scope="module")
def page(both, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "both.html"
    several.write(both, out)
    return out.read_text("utf-8")


def copied(own: Corpus, folder) -> Corpus:
    shutil.copytree(own.run.path, folder)
    return replace(own, run=RunFolder(folder))


def table(page: str, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(unpacked(json.loads(block(page, "tables"))[name]).decode())))


def test_rows_are_the_folders_very_strings_under_names_of_their_results(both, page):
    rows = {(row["checkpoint"], row["split"], row["temperature"], row["top_k"], row["top_p"], row["max_length"]): row
            for row in table(page, "summary")}  # fmt: skip
    for own in both:
        for row in csv.DictReader(io.StringIO(own.run.table("summary").read_text("utf-8"))):
            name = f"{own.run.path.name}: {row['checkpoint']}"
            there = rows[
                name, row["split"], row["temperature"], row["top_k"], row["top_p"], row["max_length"]
            ]
            assert {key: there[key] for key in row if key != "checkpoint"} == {
                key: value for key, value in row.items() if key != "checkpoint"
            }
    assert sum(name.startswith("short: ") for name, *_ in rows) < sum(
        name.startswith("long: ") for name, *_ in rows
    )


def test_baselines_that_are_the_same_stand_once(both, tmp_path):
    several.write([copied(both[1], tmp_path / name) for name in ("a", "b")], tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text("utf-8")
    assert facts(content)["baselines"] == ["random", "reference"]
    assert [row["checkpoint"] for row in table(content, "checkpoints")].count("random") == 2  # a split each


def test_texts_are_those_of_the_checkpoint_and_setting_and_holes_are_holes(both, page):
    known, content = facts(page), units(page)
    names = [checkpoint["name"] for checkpoint in known["checkpoints"]]
    assert names == ["long: base", "long: checkpoint-10", "short: base", "short: checkpoint-10"]
    axes = [knob["name"] for knob in known["knobs"]]
    written = {}
    for own in both:
        frame = scoring.read_generations(own.study, own.run.path)
        for row in frame.to_dict("records"):
            key = tuple(f"{row[axis]:.9g}" for axis in axes)
            written[f"{own.run.path.name}: {row['checkpoint']}", row["example_id"], row["sample"], *key] = (
                row["text"]
            )
    holes = 0
    for unit, own in zip(known["units"], content, strict=True):
        assert unit["sample"] == 0  # the second has one sample
        for place, code in enumerate(own["at"]):
            checkpoint, setting = divmod(place, len(known["settings"]))
            key = (
                names[checkpoint],
                unit["example"],
                0,
                *(known["settings"][setting][axis] for axis in axes),
            )
            assert written.get(key) == (own["texts"][code] if code >= 0 else None)
            holes += code < 0
    assert holes
    assert len(known["units"]) == len(known["examples"])


def test_what_each_chose_is_compared_as_compare_does_and_said_where_it_is_not(both, page, tmp_path):
    items = [
        replace(item, name=own.run.path.name)
        for own, item in zip(
            both, measure_all([str(own.run.path) for own in both], "validation"), strict=True
        )
    ]
    rows = [row for row in table(page, "paired") if row["split"] == "validation"]
    expected = compare(items, [row["metric"] for row in rows])
    assert pd.to_numeric(pd.Series([row["difference"] for row in rows])).tolist() == pytest.approx(
        expected["difference"].tolist()
    )
    assert [own["compared"] for own in facts(page)["several"]] == [True, True]


def of_other_data(own: Corpus, folder) -> Corpus:
    other, digest = copied(own, folder), folder.name
    content = json.loads(other.run.manifest_file.read_text("utf-8"))
    content["data"]["digest"] = digest
    other.run.manifest_file.write_text(json.dumps(content), "utf-8")
    return replace(other, data=replace(other.data, digest=digest))


def test_other_data_are_not_compared_and_named(both, tmp_path):
    other = of_other_data(both[1], tmp_path / "other")
    several.write([both[0], other], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text("utf-8")
    assert "paired" not in facts(page)["carries"]
    assert [own["compared"] for own in facts(page)["several"]] == [False, False]


def test_other_splits_are_refused(both, tmp_path):
    other = replace(both[1], study=both[1].study.model_copy(update={"splits": ("validation",)}))
    with pytest.raises(TangevalError, match="their splits are validation and test, and validation"):
        several.write([both[0], other], tmp_path / "page.html")


def test_another_task_is_refused_and_no_page_of_one_is_overwritten(both, tmp_path):
    task = replace(both[1].task, digest="another")
    with pytest.raises(TangevalError, match="of other tasks"):
        several.write([both[0], replace(both[1], task=task)], tmp_path / "page.html")
    with pytest.raises(TangevalError, match=r"is the page of .* alone"):
        several.write(both, both[1].run.page)
    with pytest.raises(TangevalError, match="given twice"):
        several.write([both[0], both[0]], tmp_path / "page.html")


def test_two_folders_of_one_name_are_numbered(both, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, said = several.write([copied(both[1], tmp_path / side / "same") for side in "ab"])
    assert [each["name"] for each in facts(path.read_text("utf-8"))["several"]] == ["1 same", "2 same"]
    assert path.name == "1 same+2 same.html"
    assert "2 results" in said


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_every_tab_opens_and_says_what_was_not_run(browser, page, tmp_path, width, lang):
    (tmp_path / "both.html").write_text(page, "utf-8")
    heard: list[str] = []
    for name in ("trust", "pictures", "explore", "glance"):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.on("pageerror", lambda error: heard.append(str(error)))
        tab.goto(f"{(tmp_path / 'both.html').as_uri()}#tab={name}&lang={lang}&temperature=0&a=0&b=2")
        tab.wait_for_selector("[data-ready]", state="attached")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        if name == "explore":  # the second has no temperature 0
            tab.wait_for_selector("#verses .none")
            said = tab.inner_text("#verses")
            assert ("not run at this setting" if lang == "en" else "未在此設定執行") in said
        if name == "glance":
            assert tab.locator("#each > .card").count() == 2
            assert tab.locator("#together-table tbody tr").count() == len(table(page, "checkpoints")) / 2
            assert tab.locator("#pairs-table").is_visible()
        tab.close()
    assert heard == []


@pytest.mark.browser
def test_studies_of_one_name_are_told_apart_by_their_folders(browser, page, tmp_path):
    (tmp_path / "both.html").write_text(page, "utf-8")
    tab = browser.new_page()
    tab.goto(f"{(tmp_path / 'both.html').as_uri()}#tab=trust")
    tab.wait_for_selector("[data-ready]", state="attached")
    assert tab.inner_text("#command").splitlines() == [
        f"tangeval run {name}.yaml --out results/{name}" for name in ("long", "short")
    ]
    assert tab.locator("#downloads button").all_inner_texts()[:2] == ["long.yaml", "short.yaml"]
    told = [tab.locator(f"#{each}").all_text_contents()[0] for each in ("yaml", "made")]
    assert all("long" in each and "short" in each for each in told)
    terms = tab.locator("#tab-trust dt").all_inner_texts()
    assert len(set(terms)) == len(terms)


@pytest.mark.browser
def test_long_names_stay_apart_in_pictures_and_no_table_of_pairs_is_empty(browser, both, tmp_path):
    long = [of_other_data(own, tmp_path / f"an-experiment-of-june-{n}") for n, own in enumerate(both)]
    several.write(long, tmp_path / "page.html")
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto((tmp_path / "page.html").as_uri())
    tab.wait_for_selector("#together svg")
    labels = tab.locator("#together svg").first.locator("text").all_text_contents()
    assert labels.count("checkpoint-10") == 2
    assert {label[-7:] for label in labels if "…" in label} == {"-june-0", "-june-1"}
    assert not tab.locator("#pairs-table").is_visible()
    assert "an-experiment-of-june-0" in tab.locator("#unpaired").inner_text()
