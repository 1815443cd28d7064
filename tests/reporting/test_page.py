"""The page: what it carries, that all of it is inert, and that it is the folder's own numbers."""

import base64
import hashlib
import json
import re
import shutil
import zlib
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from tangeval import tasks
from tangeval.analysis import scoring, verdict
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import COMMON_AXES
from tangeval.core.words import speaking
from tangeval.metrics import copying
from tangeval.reporting.page import build as report
from tangeval.reporting.page import packing, schema, several, texts
from tangeval.results import explained
from tangeval.results.folder import RunFolder
from tests.support.explained import make_explained
from tests.support.folders import HOSTILE, NAME, make_results
from tests.support.pages import luminance

STATIC = Path(report.__file__).parent / "static"


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A results folder with its study and data; not to be changed."""
    folder = tmp_path_factory.mktemp("results") / "small"
    study, data = make_results(folder)
    make_explained(study, data, RunFolder(folder))
    return study, data, folder


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    report.write(*results, out)
    return out.read_text("utf-8")


def test_the_verdict_stands_on_the_page_in_both_languages_and_bleu_has_its_scale(results, tmp_path):
    study, data, folder = results
    shutil.copytree(folder, own := tmp_path / "own")
    run = RunFolder(own)
    found = verdict.verdict(study, run)
    report.write(study.model_copy(update={"note": "**Mine** <b>"}), data, own)
    content = facts(run.page.read_text("utf-8"))
    assert {"verdict", "note"} <= set(content["carries"])
    assert [len(content["verdict"][lang]["said"]) for lang in ("en", "zh")] == [len(found["claims"])] * 2
    assert content["verdict"]["en"]["said"] != content["verdict"]["zh"]["said"]
    assert content["note"] == [["p", ["strong", "Mine"], " <b>"]]
    assert {each["name"]: each["most"] for each in content["metrics"]}["bleu"] == 100


def block(page: str, name: str) -> str:
    return re.search(rf'<script type="[^"]+" id="{name}">(.*?)</script>', page, re.S).group(1)


def facts(page: str) -> dict:
    return json.loads(block(page, "facts"))


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text), wbits=-15)


def units(page: str) -> list:
    return [json.loads(unpacked(line)) for line in block(page, "units").splitlines() if line]


def test_the_page_carries_the_csv_files_byte_for_byte(results, page):
    folder = results[2]
    tables = json.loads(block(page, "tables"))
    assert {"summary", "effects", "checkpoints"} <= set(tables)
    assert all(unpacked(packed) == (folder / f"{name}.csv").read_bytes() for name, packed in tables.items())


def knobs(setting: dict[str, str]) -> list[float]:
    return list(map(float, setting.values()))


def test_every_text_is_there_at_its_checkpoint_setting_example_and_sample(results, page):
    study, _, folder = results
    known = facts(page)
    names = [knob["name"] for knob in known["knobs"]]
    frame = scoring.read_generations(study, folder)
    own = frame.set_index(["checkpoint", "example_id", "sample", *names])["text"]
    seen = 0
    for unit, content in zip(known["units"], units(page), strict=True):
        for place, code in enumerate(content["at"]):
            checkpoint, setting = divmod(place, len(known["settings"]))
            key = (known["checkpoints"][checkpoint]["name"], unit["example"], unit["sample"])
            assert own[(*key, *knobs(known["settings"][setting]))] == content["texts"][code]
            seen += 1
    assert seen == len(frame)


@pytest.mark.parametrize(("rows", "least", "most"), [(1, 8, 99), (scoring.SCORE_CHUNK_ROWS, 2, 2)])
def test_many_texts_are_looked_for_in_training_at_once_and_parts_change_nothing(
    results, page, monkeypatch, tmp_path, rows, least, most
):
    """Of two samples all examples at once, or one by one."""
    looked = []
    monkeypatch.setattr(scoring, "SCORE_CHUNK_ROWS", rows)
    monkeypatch.setattr(texts, "reach", lambda *given: looked.append(given) or copying.reach(*given))
    report.write(*results, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text("utf-8") == page
    assert least <= len(looked) <= most


def test_flaws_are_those_of_the_scores(results, page):
    known, metrics = facts(page), tasks.load("tang").metrics
    bits = memoryview(unpacked(known["flaw_bits"])).cast("I")
    flaws = [metric["name"] for metric in known["metrics"] if metric["flaw"]]
    scores = pd.read_parquet(results[2] / "scores.parquet")
    scores = scores[~scores["checkpoint"].isin(["random", "reference"])]
    assert len(bits) == len(scores)
    own = scores.set_index(["checkpoint", "example_id", "sample", *(knob["name"] for knob in known["knobs"])])
    settings = known["settings"]
    columns = len(known["checkpoints"]) * len(settings)
    for number in range(0, len(known["units"]), 7):
        unit = known["units"][number]
        for column in range(columns):
            checkpoint, setting = divmod(column, len(settings))
            row = own.loc[(known["checkpoints"][checkpoint]["name"], unit["example"], unit["sample"], *knobs(settings[setting]))]  # fmt: skip
            wrong = {flaw for bit, flaw in enumerate(flaws) if bits[number * columns + column] >> bit & 1}
            assert wrong == {f for f in flaws if (row[f] > 0 if metrics[f].better == "low" else row[f] == 0)}


def test_facts_follow_their_schema_and_the_schema_is_the_models(page):
    assert schema.Facts.model_validate_json(block(page, "facts")).study == "small"
    assert all(schema.UnitTexts.model_validate(unit) for unit in units(page))
    assert schema.FILE.read_text("utf-8") == schema.schema_text()


def test_no_content_is_told_by_its_place_in_a_list():
    def positional(part) -> bool:
        own = part if isinstance(part, list) else list(part.values()) if isinstance(part, dict) else []
        return (isinstance(part, dict) and "prefixItems" in part) or any(map(positional, own))

    assert not positional(json.loads(schema.FILE.read_text("utf-8")))


def test_every_axis_of_the_grid_is_told_by_name(results, page):
    """A knob is added to the list, and nothing else: its baselines' rows are keyed by name."""
    known = facts(page)
    assert [knob["name"] for knob in known["knobs"]] == list(COMMON_AXES)
    assert all(set(setting) == set(COMMON_AXES) for setting in known["settings"])
    scripts = "".join(file.read_text("utf-8") for file in STATIC.rglob("*.js") if "vendor" not in file.parts)
    assert not [name for name in COMMON_AXES if re.search(rf"""["'`]{name}["'`]""", scripts)]


def test_nothing_from_a_text_or_a_name_is_markup_or_unseen(page):
    assert "onerror=" in unpacked(json.loads(block(page, "tables"))["summary"]).decode()
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "onerror" not in outside
    for name in ("facts", "strings", "tables"):
        assert not re.search(
            "[<>&\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", block(page, name)
        )
    assert [each["name"] for each in facts(page)["checkpoints"]] == ["base", NAME]
    assert page.count("<script") - page.count('="<script') >= 6
    assert set(HOSTILE) <= {text for unit in units(page) for text in unit["texts"]}


def test_inert_json_is_the_same_content_without_a_dangerous_character():
    content = {"<&>": [*HOSTILE, "\ud800", "\U000e0001\u061c\ufeff"]}
    text = packing.inert(content)
    assert json.loads(text) == content
    assert text.isprintable()
    assert not set("<>&") & set(text)
    text.encode()


def test_the_policy_names_the_very_scripts_and_forbids_the_rest(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page).group(1)
    policy = policy.replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 2
    digests = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    assert set(re.findall(r"sha256-([^']+)'", policy)) == digests
    assert policy.startswith("default-src 'none'")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert not re.search(r"""(?:src|href)=["'](?!#)""", re.sub(r"<script>.*?</script>", "", page, flags=re.S))


def test_paths_of_the_machine_stay_there(page):
    assert "/secret/" not in page
    assert "path" not in facts(page)["selection"]["checkpoint"]


def test_the_same_folder_gives_the_same_bytes(results, page, tmp_path):
    report.write(*results, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text("utf-8") == page


def test_texts_fill_what_numbers_leave_sample_by_sample(results, page, tmp_path, monkeypatch):
    study, data, folder = results
    whole = facts(page)["units"]
    assert [unit["sample"] for unit in whole] == [0] * 45 + [1] * 45
    half = len(page.encode()) - sum(map(len, block(page, "units").splitlines())) // 2
    monkeypatch.setattr(report, "LIMIT", half + 100_000)
    _, about = report.write(study, data, folder, tmp_path / "less.html")
    less = (tmp_path / "less.html").read_text("utf-8")
    kept = facts(less)["units"]
    assert kept == whole[: len(kept)]
    assert 10 < len(kept) < 80
    assert len(less.encode()) <= half + 100_000
    assert f"{len(kept) / 90:.0%} of the texts" in about
    assert json.loads(block(less, "tables")) == json.loads(block(page, "tables"))


def test_a_folder_without_generations_gives_a_page_that_says_so(results, tmp_path):
    study, data, folder = results
    copy = shutil.copytree(folder, tmp_path / "published", ignore=shutil.ignore_patterns("generations"))
    path, about = report.write(study, data, copy)
    assert path == copy / "report.html"
    assert "no texts" in about
    known = facts(path.read_text("utf-8"))
    assert ("texts" in known["carries"], known["units"]) == (False, [])


def test_explained_poems_are_there_byte_for_byte_in_the_poems_order(results, page):
    carried = [unpacked(line) for line in block(page, "explained").splitlines()]
    own = facts(page)["explained"]
    assert [each["folder"] for each in own] == ["test-1", "test-3"]
    assert carried == [
        (results[2] / "explain" / each["folder"] / explained.FILE).read_bytes() for each in own
    ]
    for each, content in zip(own, map(json.loads, carried), strict=True):
        assert (each["example"], each["checkpoint"]) == (content["example_id"], NAME)


def test_explained_poems_of_other_results_or_versions_are_left_out_and_named(results, tmp_path):
    study, data, folder = results
    copy = shutil.copytree(folder, tmp_path / "small")
    content = json.loads((copy / "explain" / "test-3" / explained.FILE).read_text("utf-8"))
    changes = {
        "weights": {"checkpoint": {"name": NAME, "fingerprint": "other"}}, "seed": {"seed": 1},
        "base": {"base_model": {"name": "tang-mini", "fingerprint": "other"}}, "poem": {"example_id": "train-1"},
        "old": {"schema": 0},
    }  # fmt: skip
    for name, change in changes.items():
        (copy / "explain" / name).mkdir()
        (copy / "explain" / name / explained.FILE).write_text(json.dumps(content | change))
    (copy / "explain" / "broken").mkdir()
    (copy / "explain" / "broken" / explained.FILE).write_text("{")
    path, about = report.write(study, data, copy)
    known = facts(path.read_text("utf-8"))
    assert [each["folder"] for each in known["explained"]] == ["test-1", "test-3"]
    assert {each["folder"]: each["reason"] for each in known["explained_left_out"]} == {
        "base": "foreign", "broken": "version", "old": "version", "poem": "foreign", "seed": "foreign",
        "weights": "foreign",
    }  # fmt: skip
    assert "2 explained, 6 under explain/ left out" in about


@pytest.mark.parametrize("limit", ["EXPLAINED", "EXPLAINED_LIMIT"])
def test_more_explained_poems_than_fit_are_left_out_and_named(results, tmp_path, monkeypatch, limit):
    study, data, folder = results
    packed = packing.packed((folder / "explain" / "test-1" / explained.FILE).read_bytes())
    monkeypatch.setattr(report, limit, {"EXPLAINED": 1, "EXPLAINED_LIMIT": len(packed) + 1}[limit])
    path, about = report.write(study, data, folder, tmp_path / "page.html")
    known = facts(path.read_text("utf-8"))
    assert [each["folder"] for each in known["explained"]] == ["test-1"]
    assert known["explained_left_out"] == [{"folder": "test-3", "reason": "room"}]
    assert "1 explained, 1 under explain/ left out" in about
    with speaking("zh-TW"):
        assert report.write(study, data, folder, tmp_path / "page.html")[1].endswith(
            "，全部文本，拆解 1 篇，explain/ 下略去 1 個"
        )


def test_a_page_of_explained_texts_alone_needs_no_results(results, tmp_path):
    files = sorted(results[2].glob(f"explain/*/{explained.FILE}"))
    alone = report.write_explained(files, tmp_path / "page.html").read_text("utf-8")
    assert facts(alone)["carries"] == ["explained"]
    assert [unpacked(line) for line in block(alone, "explained").splitlines()] == [
        f.read_bytes() for f in files
    ]
    (tmp_path / explained.FILE).write_text("{}")
    with pytest.raises(TangevalError, match="tangeval explain STUDY"):
        report.write_explained([tmp_path / explained.FILE], tmp_path / "other.html")


@pytest.mark.parametrize("name", ["summary.csv", "effects.csv", "checkpoints.csv", "scores.parquet"])
def test_a_folder_that_was_not_summarised_is_an_error(results, tmp_path, name):
    study, data, folder = results
    copy = shutil.copytree(folder, tmp_path / "small", ignore=shutil.ignore_patterns(name))
    with pytest.raises(TangevalError, match=rf"{name} is missing; `tangeval summarize "):
        report.write(study, data, copy)


def test_scores_of_other_generations_are_an_error(results, tmp_path):
    study, data, folder = results
    copy = shutil.copytree(folder, tmp_path / "small")
    scores = pd.read_parquet(copy / "scores.parquet")
    scores.iloc[:-200].to_parquet(copy / "scores.parquet")
    scores[scores["temperature"] != 0.7].to_parquet(copy / "scores.parquet")
    with pytest.raises(TangevalError, match="not of the generations that are there; `tangeval summarize"):
        report.write(study, data, copy)


def test_words_and_marks_stand_out_from_every_ground_in_both_themes():
    style = (STATIC / "report.css").read_text("utf-8")
    themes = re.findall(r"color-scheme: (\w+);(.*?)}", style, re.S)
    assert [name for name, _ in themes] == ["light", "dark"]
    colours = [dict(re.findall(r"--([\w-]+): (#\w{6})", text)) for _, text in themes]

    def contrast(theme: dict[str, str], one: str, other: str) -> float:
        low, high = sorted(luminance(to_rgb(theme[name])) for name in (one, other))
        return (high + 0.05) / (low + 0.05)

    for theme in colours:
        words = [
            (ink, ground) for ink in ("ink", "quiet", "accent", "good") for ground in ("paper", "ground")
        ]
        words += [
            ("ink", "wash"),
            ("ink", "wash2"),
            ("quiet", "wash"),
            ("accent-ink", "accent"),
            ("heat1", "heat4"),
        ]
        assert {
            pair: round(contrast(theme, *pair), 2) for pair in words if contrast(theme, *pair) < 4.5
        } == {}
        lines = [(line, "paper") for line in ("base", "early", "middle", "late")]
        assert {pair: round(contrast(theme, *pair), 2) for pair in lines if contrast(theme, *pair) < 3} == {}


def test_every_shared_string_is_in_both_languages_with_the_same_places():
    strings = json.loads((STATIC / "strings.json").read_text("utf-8"))
    names = [
        {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in own.items()} for own in strings.values()
    ]
    assert names[0] == names[1]


def test_every_view_is_on_the_list():
    assert {file.stem for file in (STATIC / "views").iterdir()} == {*report.VIEWS, *several.VIEWS}
