"""Pictures for slides: what their titles say is the verdict's own sentence, and what they draw is its evidence."""

import matplotlib.image
import pytest
from matplotlib.font_manager import FontProperties

from tangeval.analysis.verdict import verdict
from tangeval.core.errors import TangevalError
from tangeval.core.words import speaking
from tangeval.reporting import style
from tangeval.reporting.notebook import Results
from tangeval.reporting.sharing import slides, write_slides
from tangeval.results.files import write_json
from tests.support.folders import make_results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides") / "small"
    study, _ = make_results(folder, ("base", "checkpoint-10", "checkpoint-20"))
    verdict(study, Results(folder).run)
    return Results(folder)


def texts(results, lang):
    with speaking(lang):
        return {
            name: [text.get_text() for text in figure.findobj(style.Text) if text.get_text()]
            for name, figure in slides._figures(results, results.verdict)
        }


def test_pictures_are_sixteen_to_nine_in_both_languages(results):
    for lang in ("en", "zh-TW"):
        with speaking(lang):
            files = write_slides(results)
        pictures = [file for file in files if file.suffix == ".png"]
        assert len(pictures) >= 3
        assert {file.parent.name for file in pictures} == {lang}
        assert {matplotlib.image.imread(file).shape[:2] for file in pictures} == {(1080, 1920)}


def test_a_chinese_title_is_bold_where_the_font_is(results):
    with speaking("zh-TW"):
        figures = [figure for _, figure in slides._figures(results, results.verdict)]
    weights = {t.get_fontweight() for f in figures for t in f.texts if t.get_fontsize() == slides._POINTS + 2}
    assert weights == {"bold" if style.chinese_bold() else "normal"}
    if style.chinese_bold():
        found = style.fontManager.findfont(FontProperties(family=style.chinese_font(), weight="bold"))
        assert "bold" in found.lower()


def test_a_title_says_one_metric(results):
    for lang, label in (("en", "en"), ("zh-TW", "zh")):
        with speaking(lang):
            figures = list(slides._figures(results, results.verdict))
        asked = [(name, figure) for name, figure in figures if name.split("_")[1] in ("helped", "random")]
        assert asked
        for name, figure in asked:
            (title,) = [t.get_text() for t in figure.texts if t.get_fontsize() == slides._POINTS + 2]
            said = "".join(title.split())
            known = {
                m.label[label].partition(":")[0].partition("（")[0] for m in results.task.metrics.values()
            }
            named = {each for each in known if each.replace(" ", "") in said}
            assert len({each for each in named if not any(each in other for other in named - {each})}) == 1, (
                name,
                title,
            )


def test_what_is_drawn_is_the_evidence(results):
    with speaking("en"):
        claims = {claim["question"]: claim for claim in results.verdict["claims"]}
        _, chart = slides._helped(claims["helped"], results)
        (row,) = [
            each
            for each in claims["helped"]["evidence"]
            if each["metric"] == chart.metric and each["a"] == chart.marked
        ]
        low, high = chart.ends[chart.marked]
        assert (low, high) == pytest.approx((row["value_b"] + row["low"], row["value_b"] + row["high"]))
        assert chart.values[chart.names.index("base")] == pytest.approx(row["value_b"])
        told_apart = not low <= row["value_b"] <= high
        assert told_apart or not row["better"]


def test_the_other_side_of_a_comparison_is_turned():
    row = {"a": "x", "b": "y", "value_a": 5.0, "value_b": 3.0, "low": 1.0, "high": 4.0}
    assert slides._around(row, "y") == ("x", (4.0, 7.0))
    assert slides._around(row, "x") == ("y", (1.0, 4.0))  # y less x is from -4 to -1, from 5 on


def test_lines_break_between_words_and_before_no_mark():
    assert slides._wrapped("one two three", 8) == "one two\nthree"
    assert slides._wrapped("春眠不覺曉，處處聞啼鳥。", 10) == "春眠不覺曉，\n處處聞啼鳥。"
    assert slides._wrapped("春眠不覺（曉）", 10) == "春眠不覺\n（曉）"


def test_without_claims_there_is_nothing_to_show(results, tmp_path):
    make_results(tmp_path / "small")
    with pytest.raises(TangevalError, match=r"verdict\.json is missing"):
        write_slides(Results(tmp_path / "small"))
    write_json(tmp_path / "small" / "verdict.json", {**results.verdict, "claims": []})
    with pytest.raises(TangevalError, match="claims nothing"):
        write_slides(Results(tmp_path / "small"))
