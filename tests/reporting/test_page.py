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

from tangeval.analysis import scoring as score
from tangeval.core.errors import TangevalError
from tangeval.explain import figures as lessons
from tangeval.metrics import METRICS
from tangeval.reporting.page import build as report
from tests.support.folders import HOSTILE, NAME, make_results
from tests.support.lesson import make_lessons


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A results folder with its study and data; not to be changed."""
    folder = tmp_path_factory.mktemp("results") / "small"
    study, data = make_results(folder)
    make_lessons(study, data, folder)
    return study, data, folder


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    report.write(*results, out)
    return out.read_text("utf-8")


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
    assert {"summary.csv", "effects.csv", "checkpoints.csv"} <= set(tables)
    assert all(unpacked(packed) == (folder / name).read_bytes() for name, packed in tables.items())


def test_every_text_is_there_at_its_checkpoint_setting_poem_and_sample(results, page):
    study, _, folder = results
    known, texts = facts(page), units(page)
    frame = score.read_generations(study, folder)
    own = frame.set_index(["checkpoint", "example_id", "sample", *known["knobs"]])["text"]
    seen = 0
    for (example, sample), (distinct, _, at) in zip(known["places"], texts, strict=True):
        for place, code in enumerate(at):
            checkpoint, setting = divmod(place, len(known["settings"]))
            key = (known["checkpoints"][checkpoint], known["examples"][example][0], sample)
            assert own[(*key, *map(float, known["settings"][setting]))] == distinct[code]
            seen += 1
    assert seen == len(frame)


def test_flaws_are_those_of_the_scores(results, page):
    known = facts(page)
    bits = unpacked(known["flaw_bits"])
    units, settings = len(known["places"]), len(known["settings"])
    scores = pd.read_parquet(results[2] / "scores.parquet")
    scores = scores[~scores["checkpoint"].isin(["random", "reference"])]
    assert len(bits) == 2 * len(scores)
    own = scores.set_index(["checkpoint", "example_id", "sample", *known["knobs"]])
    for unit in range(0, units, 7):
        example, sample = known["places"][unit]
        for column in range(len(known["checkpoints"]) * settings):
            at = 2 * (unit * len(known["checkpoints"]) * settings + column)
            checkpoint, setting = divmod(column, settings)
            row = own.loc[(known["checkpoints"][checkpoint], known["examples"][example][0], sample, *map(float, known["settings"][setting]))]  # fmt: skip
            wrong = {
                f
                for bit, f in enumerate(known["flaws"])
                if int.from_bytes(bits[at : at + 2], "little") >> bit & 1
            }
            assert wrong == {
                f for f in report.FLAWS if (row[f] > 0 if f == "copied_clauses" else row[f] == 0)
            }


def test_nothing_from_a_text_or_a_name_is_markup_or_unseen(page):
    assert "onerror=" in unpacked(json.loads(block(page, "tables"))["summary.csv"]).decode()
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert "onerror" not in outside
    for name in ("facts", "strings", "tables"):
        assert not re.search(
            "[<>&\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]", block(page, name)
        )
    assert facts(page)["checkpoints"] == ["base", NAME]
    assert page.count("<script") - page.count('="<script') >= 6
    texts = {text for distinct, _, _ in units(page) for text in distinct}
    assert set(HOSTILE) <= texts


def test_inert_json_is_the_same_content_without_a_dangerous_character():
    content = {"<&>": [*HOSTILE, "\ud800", "\U000e0001\u061c\ufeff"]}
    text = report.inert(content)
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
    whole = facts(page)["places"]
    assert len(whole) == facts(page)["noise"] == 90
    assert [sample for _, sample in whole] == [0] * 45 + [1] * 45
    half = len(page.encode()) - sum(map(len, block(page, "units").splitlines())) // 2
    monkeypatch.setattr(report, "LIMIT", half + 100_000)
    _, about = report.write(study, data, folder, tmp_path / "less.html")
    less = (tmp_path / "less.html").read_text("utf-8")
    kept = facts(less)["places"]
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
    assert (known["has_texts"], known["places"]) == (False, [])


def test_explained_poems_are_there_byte_for_byte_in_the_poems_order(results, page):
    carried = [unpacked(line) for line in block(page, "lessons").splitlines()]
    own = facts(page)["lessons"]
    assert [each["folder"] for each in own] == ["test-1", "test-3"]
    assert carried == [(results[2] / "explain" / each["folder"] / lessons.FILE).read_bytes() for each in own]
    for each, content in zip(own, map(json.loads, carried), strict=True):
        assert (each["example"], each["checkpoint"]) == (content["example_id"], NAME)
        assert each["steps"] == len(content["steps"])


def test_explained_poems_of_other_results_or_versions_are_left_out_and_named(results, tmp_path):
    study, data, folder = results
    copy = shutil.copytree(folder, tmp_path / "small")
    content = json.loads((copy / "explain" / "test-3" / lessons.FILE).read_text("utf-8"))
    changes = {
        "weights": {"checkpoint": {"name": NAME, "fingerprint": "other"}}, "seed": {"seed": 1},
        "base": {"base_model": {"name": "tang-mini", "fingerprint": "other"}}, "poem": {"example_id": "train-1"},
        "old": {"schema": 0},
    }  # fmt: skip
    for name, change in changes.items():
        (copy / "explain" / name).mkdir()
        (copy / "explain" / name / lessons.FILE).write_text(json.dumps(content | change))
    (copy / "explain" / "broken").mkdir()
    (copy / "explain" / "broken" / lessons.FILE).write_text("{")
    path, about = report.write(study, data, copy)
    known = facts(path.read_text("utf-8"))
    assert [each["folder"] for each in known["lessons"]] == ["test-1", "test-3"]
    assert dict(known["lessons_left"]) == {
        "base": "foreign", "broken": "version", "old": "version", "poem": "foreign", "seed": "foreign",
        "weights": "foreign",
    }  # fmt: skip
    assert "2 explained, 6 under explain/ left out" in about


@pytest.mark.parametrize("limit", ["LESSONS", "LESSONS_LIMIT"])
def test_more_explained_poems_than_fit_are_left_out_and_named(results, tmp_path, monkeypatch, limit):
    study, data, folder = results
    packed = report.packed((folder / "explain" / "test-1" / lessons.FILE).read_bytes())
    monkeypatch.setattr(report, limit, {"LESSONS": 1, "LESSONS_LIMIT": len(packed) + 1}[limit])
    path, about = report.write(study, data, folder, tmp_path / "page.html")
    known = facts(path.read_text("utf-8"))
    assert [each["folder"] for each in known["lessons"]] == ["test-1"]
    assert known["lessons_left"] == [["test-3", "room"]]
    assert "1 explained, 1 under explain/ left out" in about


def test_the_documents_javascript_is_the_pages():
    script = (report._ASSETS / "distribution.js").read_text("utf-8")
    document = (Path(__file__).parents[2] / "docs" / "explain.md").read_text("utf-8")
    (code,) = re.findall(r"```js\n(.*?)```", document, re.S)
    assert script.partition("\n\n")[2] == code


@pytest.mark.parametrize("name", [*report.NEEDED, "scores.parquet"])
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


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_words_and_marks_stand_out_from_every_ground_in_both_themes():
    style = (report._ASSETS / "report.css").read_text("utf-8")
    themes = re.findall(r"color-scheme: (\w+);(.*?)}", style, re.S)
    assert [name for name, _ in themes] == ["light", "dark", "dark"]
    colours = [dict(re.findall(r"--([\w-]+): (#\w{6})", text)) for _, text in themes]
    assert colours[1] == colours[2]  # by the system, and by the reader's choice

    def contrast(theme: dict[str, str], one: str, other: str) -> float:
        low, high = sorted(luminance(theme[name]) for name in (one, other))
        return (high + 0.05) / (low + 0.05)

    for theme in colours[:2]:
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


def test_both_languages_say_the_same_things():
    strings = json.loads((report._ASSETS / "strings.json").read_text("utf-8"))
    english, chinese = strings["en"], strings["zh"]
    assert set(chinese) - set(english) == {f"metric.{metric.name}" for metric in METRICS}
    assert set(english) <= set(chinese)
    names = {key: set(re.findall(r"\{(\w+)\}", text)) for key, text in english.items()}
    assert {key: set(re.findall(r"\{(\w+)\}", chinese[key])) for key in english} == names


def test_every_string_that_the_page_asks_for_is_there():
    sources = "".join(
        file.read_text("utf-8") for file in report._ASSETS.glob("*.*") if file.suffix in (".js", ".html")
    )
    asked = re.findall(r'\bt\("([\w.]+)"|data-(?:t|label)="([\w.]+)"', sources)
    strings = json.loads((report._ASSETS / "strings.json").read_text("utf-8"))["en"]
    assert len(asked) > 60
    assert {one or other for one, other in asked} - set(strings) == set()
    assert {f"flaw.{flaw}" for flaw in report.FLAWS} <= set(strings)
    composed = {
        "whose": ("setting", "reference"),
        "text": ("setting", "reference"),
        "left": ("version", "foreign", "room"),
    }
    assert {f"explain.{kind}.{name}" for kind, names in composed.items() for name in names} <= set(strings)
