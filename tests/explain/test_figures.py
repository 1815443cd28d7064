"""The pictures that teach: what is drawn where, in which font, from ``explain.json`` alone."""

import copy
import math
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from tangeval.core.errors import TangevalError
from tangeval.explain import figures as lessons
from tangeval.results.files import write_json

MADE_BY_HAND = pytest.mark.usefixtures("font")
TEXTS = ("春山花落鳥。", "春山花落人。", "春水$x$鳥。")


@pytest.fixture
def font():
    """Skip where no Chinese font is installed: the error is tested without one."""
    try:
        return lessons.han_family()
    except TangevalError as error:
        pytest.skip(str(error))


@pytest.fixture
def style():
    with matplotlib.rc_context(
        {"font.family": ["DejaVu Sans", lessons.han_family()], "text.parse_math": False}
    ):
        yield


def stage(p, mass):
    some = p[p > 0]
    return [len(some), mass, float(-(some * np.log(some)).sum()), float(p.max())]


def step(token, temperature=0.5, top_k=3, top_p=0.8):
    """Six tokens of which one is forbidden, and two more that are not stored."""
    logits, rest = np.array([3.0, 2.0, 1.5, 1.0, 0.5, 0.0]), np.array([-1.0, -2.0])
    rank = [0, 1, -1, 2, 3, 4]
    model = np.exp([*logits, *rest])
    heated = np.exp(np.array([3.0, 2.0, 1.0, 0.5, 0.0, -1.0, -2.0]) / temperature)
    barred = 1 - np.exp(1.5) / model.sum()
    model, heated = model / model.sum(), heated / heated.sum()
    second = heated[:top_k] / heated[:top_k].sum()
    kept = max(1, int((second.cumsum() - second < top_p).sum()))
    third = second[:kept] / second[:kept].sum()
    stages = [
        stage(model, 1.0), stage(heated, barred), stage(second, heated[:top_k].sum()), stage(third, second[:kept].sum())
    ]  # fmt: skip
    return {
        "token": token,
        "top": [[place, logit, 0.1, r] for place, (logit, r) in enumerate(zip(logits, rank, strict=True))],
        "rest": {"count": 2, "log_sum": [float(np.logaddexp.reduce(rest / t)) for t in (1.0, temperature)],
                 "mean": [0.0, 0.0], "pick": [6, 6], "score": [0.0, 0.0]},
        "stages": [stages, stages, stages],
    }  # fmt: skip


@pytest.fixture
def content():
    """A lesson made by hand: six steps, temperature with three values, the other knobs with one."""
    setting = {"temperature": 0.5, "top_k": 3, "top_p": 0.8, "max_length": 9}
    settings = [
        {**setting, "temperature": t, "text": text, "finish_reason": reason}
        for t, text, reason in zip((0.5, 0.2, 1.0), TEXTS, ("stop", "stop", "length"), strict=True)
    ]
    return {
        "schema": 1, "checkpoint": {"name": "checkpoint-1"}, "example_id": "test-1", "couplet": "白日依山盡，黃河入海流。",
        "follows": "setting", "sample": 0, "text": TEXTS[0], "step": 2, "setting": setting, "settings": settings,
        "knobs": {"temperature": [1, 0, 2], "top_k": [0], "top_p": [0]}, "temperatures": [1.0, 0.5],
        "steps": [step(place) for place in (0, 1, 3, 4, 5, 0)],
        "vocabulary": dict(zip("01234567", ["春", "山", "花\n", "落", "鳥", "。", "\u202e", " "], strict=True)),
    }  # fmt: skip


def written(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text().strip()]


@MADE_BY_HAND
def test_pictures_are_png_and_svg_for_a_slide_and_the_same_bytes_each_time(content, tmp_path):
    first = lessons.draw(content, tmp_path / "one")
    with matplotlib.rc_context({"font.size": 30, "svg.hashsalt": "other"}):
        second = lessons.draw(content, tmp_path / "two")
    names = [f"{name}.{kind}" for name in ("step", "knobs", "poem", "noise") for kind in ("png", "svg")]
    assert [path.name for path in first] == names
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    height, width, _ = matplotlib.image.imread(first[0]).shape
    assert width / height == pytest.approx(16 / 9, abs=0.01)
    assert "春" in (tmp_path / "one" / "step.svg").read_text("utf-8")


@MADE_BY_HAND
def test_every_character_is_found_in_the_font(content, tmp_path, recwarn):
    lessons.draw(content, tmp_path)
    assert [str(w.message) for w in recwarn if "Glyph" in str(w.message)] == []


@MADE_BY_HAND
def test_without_a_knob_to_turn_step_and_poem_are_left(content, tmp_path):
    content["knobs"] = {knob: [0] for knob in lessons.KNOBS}
    assert {path.stem for path in lessons.draw(content, tmp_path)} == {"step", "poem"}


def test_without_a_chinese_font_the_error_says_what_to_install(monkeypatch, content, tmp_path):
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    with pytest.raises(TangevalError, match="apt-get install fonts-noto-cjk"):
        lessons.draw(content, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_font_that_was_installed_since_is_found(monkeypatch, font):
    """matplotlib's own list of fonts is kept on disk and may be older."""
    if not any(filter(lessons._FILES.search, font_manager.findSystemFonts())):
        pytest.skip("the font is not one of the system's")
    known = [entry for entry in font_manager.fontManager.ttflist if not entry.name.startswith(lessons.FONTS)]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", known)
    assert lessons.han_family().startswith(lessons.FONTS)


def test_bars_are_the_probabilities_of_each_stage(content):
    shown = lessons.bars(content, content["steps"][1])
    assert shown.tokens == [0, 1, 2, 3, 4, 5]
    model, heated, second, third = shown.probability
    whole = np.exp([3.0, 2.0, 1.5, 1.0, 0.5, 0.0, -1.0, -2.0]).sum()
    assert model == pytest.approx(np.exp([3.0, 2.0, 1.5, 1.0, 0.5, 0.0]) / whole)
    whole = np.exp(np.array([3.0, 2.0, 1.0, 0.5, 0.0, -1.0, -2.0]) * 2).sum()
    assert heated == pytest.approx(np.exp([6.0, 4.0, -math.inf, 2.0, 1.0, 0.0]) / whole)
    assert second == pytest.approx(
        np.array([*np.exp([6.0, 4.0, -math.inf, 2.0]), 0, 0]) / np.exp([6, 4, 2]).sum()
    )
    assert third == pytest.approx([1, 0, 0, 0, 0, 0])


def test_at_temperature_1_what_is_forbidden_is_renormalised_away(content):
    content["setting"]["temperature"] = 1.0
    content["steps"][0] = step(0, temperature=1.0, top_k=5)
    model, heated, *_ = lessons.bars(content, content["steps"][0]).probability
    allowed = [0, 1, 3, 4, 5]
    assert heated[allowed] == pytest.approx(model[allowed] / (1 - model[2]))
    assert heated[2] == 0


def test_beyond_the_likeliest_the_cuts_and_the_token_written_are_drawn(content):
    long = copy.deepcopy(content["steps"][0])
    long["top"] = [[place, -place / 10, 0.0, place] for place in range(200)] + [[777, -99.0, 0.0, 5000]]
    long["token"], long["stages"][0][2][0], long["stages"][0][3][0] = 777, 50, 20
    shown = lessons.bars(content, long)
    assert shown.ranks == [*range(12), 19, 20, 49, 50, 5000]
    assert shown.y == pytest.approx([*range(12), 12.45, 13.45, 14.9, 15.9, 17.35])


@pytest.mark.usefixtures("font", "style")
def test_the_step_says_what_stays_and_how_uncertain_it_is(content):
    texts = written(lessons.step_figure(content))
    nats = content["steps"][1]["stages"][0][0][2]
    stays = [text for text in texts if "nats" in text]
    assert stays[0] == f"8 tokens, 100 % kept\n{nats:.2f} nats ≈ {math.exp(nats):.1f} choices"
    assert stays[3].startswith("1 token, ")
    assert {"→ temperature 0.5", "→ top-k 3", "→ top-p 0.8", "picked by noise"} <= set(texts)
    assert any(text.startswith("白日依山盡，黃河入海流。春") for text in texts)


@pytest.mark.usefixtures("font", "style")
def test_noise_marks_where_a_text_parts_from_the_one_above(content):
    figure = lessons.noise_figure(content, ["temperature"])
    boxes = [tuple(np.round(patch.get_xy(), 2)) for patch in figure.axes[0].patches]
    # From 0.2 to 0.5 the fifth character, from 0.5 to 1 the second.
    assert boxes == [(3.5, 0.54), (0.5, 1.54)]
    row = [
        text for text in figure.axes[0].texts if text.get_position()[1] == 2 and text.get_position()[0] >= 0
    ]
    assert "".join(text.get_text() for text in row) == TEXTS[2] + "…"


@pytest.mark.usefixtures("font", "style")
def test_the_poem_stands_on_the_axis_with_its_rhyme_in_red(content):
    content["vocabulary"]["4"], content["vocabulary"]["3"] = "，", "落"
    panel = lessons.poem_figure(content).axes[0]
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["春", "山", "落", "，", "。", "春"]
    assert panel.lines[0].get_ydata() == pytest.approx(
        [math.exp(s["stages"][0][0][2]) for s in content["steps"]]
    )
    tops = [patch.get_y() + patch.get_height() for patch in panel.containers[0]]
    assert tops == pytest.approx([s["stages"][0][3][0] for s in content["steps"]])


def test_rhymes_stand_at_the_end_of_every_second_clause():
    assert lessons.rhyme_steps([" ", *"春山花，鳥落人。月明", "星稀", "，烏鵲南"]) == [7, 12]
    assert lessons.rhyme_steps(["春山，花", "鳥。"]) == [1]
    assert lessons.rhyme_steps(["</s>"]) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [(" ", "␣"), ("\n", "⏎"), ("\u202e春", "\\u202e春"), ("\x00", "\\x00"), ("$a$", "$a$")],
)
def test_what_cannot_be_seen_is_written_out(text, expected):
    assert lessons.label(text) == expected


def test_where_texts_part():
    assert lessons.parting("春山花", "春水花") == 1
    assert lessons.parting("春山", "春山花") == 2


def test_another_file_is_refused(tmp_path):
    write_json(tmp_path / "explain.json", {"schema": 99})
    with pytest.raises(TangevalError, match=r"not an explain\.json of this version"):
        lessons.read(tmp_path / "explain.json")
    with pytest.raises(TangevalError, match=r"explain\.json"):
        lessons.read(tmp_path / "none" / "explain.json")


def test_drawing_needs_no_torch():
    code = "import sys; from tangeval import lessons; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
