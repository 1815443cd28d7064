"""The pictures of variance, shared noise and likelihood, read back from matplotlib's own objects."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis import summarize
from tangeval.analysis.variance import FACTORS, coupling, decompose
from tangeval.core.knobs import AXES
from tangeval.reporting import insights
from tangeval.reporting import style as canvas

SHAPE = (2, 3, 1, 2, 1, 6, 4)


@pytest.fixture(autouse=True)
def drawn_as_all():
    with canvas.style():
        yield


@pytest.fixture
def variance() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = [row for m in ("bleu", "form") for row in decompose(generator.normal(size=SHAPE), m)]
    return pd.DataFrame(rows).assign(split="validation")


@pytest.fixture
def coupled() -> pd.DataFrame:
    values = {m: np.random.default_rng(1).normal(size=SHAPE) for m in ("bleu", "form")}
    levels = {name: list(range(n)) for name, n in zip(FACTORS, SHAPE, strict=False)}
    return pd.DataFrame(coupling(values, levels)).assign(split="validation")


def likelihood() -> pd.DataFrame:
    """Ten poems of 5 and four of 7 characters a clause; the character at place i costs i nats."""
    rows = [
        {
            "checkpoint": name, "step": step, "split": "test", "line_length": line_length,
            "by_character": [float(place) for place in range(1, (2 if poem < few else 6) * line_length + 1)],
        }
        for (name, step) in (("base", pd.NA), ("checkpoint-5", 5))
        for line_length, poems, few in ((5, 10, 4), (7, 4, 3))
        for poem in range(poems)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"step": "Int64"})


def test_bars_are_the_shares_and_reach_the_whole(variance):
    (panel,) = insights.variance_figure(variance, "validation").axes
    assert [t.get_text() for t in panel.get_yticklabels()] == ["form: all checks hold", "character BLEU"]
    for row, metric in enumerate(("form", "bleu")):
        bars = {bars.get_label(): bars.patches[row].get_width() for bars in panel.containers}
        own = variance[variance["metric"] == metric].set_index("term")["share"]
        assert bars["temperature"] == pytest.approx(own["temperature"])
        crossed = [term for term in own.index if " × " in term and term.partition(" × ")[2] in (*AXES,)]
        assert bars["interactions"] == pytest.approx(own[crossed].sum() + own["higher"])
        assert sum(bars.values()) == pytest.approx(1)


def test_dots_are_medians_and_bars_the_middle_of_the_pairs(coupled):
    figure = insights.coupling_figure(coupled, "validation")
    assert [a.get_title(loc="left") for a in figure.axes] == [
        "next checkpoint",
        "next temperature",
        "next top_p",
    ]
    part = coupled[coupled["knob"] == "temperature"]
    dots = figure.axes[1].lines[0].get_xdata()
    assert dots == pytest.approx([part["form"].median(), part["bleu"].median()])
    (bar,) = (s for s in figure.axes[1].collections[0].get_segments() if s[0][1] == 1)
    assert bar[:, 0] == pytest.approx(part["bleu"].quantile([0.1, 0.9]).to_numpy())


def test_the_curve_is_the_mean_of_the_poems_that_reach_so_far():
    frame = summarize.curve(likelihood())
    own = frame[(frame["checkpoint"] == "checkpoint-5") & (frame["line_length"] == 5)].set_index("position")
    assert own.index.tolist() == list(range(1, 31))
    assert own.loc[1, "poems"] == 10
    assert own.loc[30, "poems"] == 6
    assert (own["nll"] == own.index).all()
    assert (own["nll_low"] <= own["nll"]).all()
    assert (own["nll"] <= own["nll_high"]).all()
    # Three of four poems of 7 end after two clauses.
    assert frame[frame["line_length"] == 7]["position"].max() == 14


def test_a_clause_is_a_stroke_and_a_metre_a_panel():
    figure = insights.likelihood_figure(summarize.curve(likelihood()), "test")
    five, seven = figure.axes
    assert "10 poems" in five.get_title(loc="left")
    assert [len(line.get_xdata()) for line in five.lines] == [5] * 6 * 2
    assert [len(line.get_xdata()) for line in seven.lines] == [7] * 2 * 2


def test_results_of_an_earlier_version_have_no_curve():
    assert not len(summarize.curve(likelihood().drop(columns="by_character")))
    assert not len(summarize.curve(pd.DataFrame()))


def test_the_same_frames_give_the_same_bytes(variance, coupled, tmp_path):
    curve = summarize.curve(likelihood())
    one, two = (insights.draw(variance, coupled, curve, tmp_path / n) for n in "ab")
    names = [
        f"{n}.{k}"
        for n, k in product(("variance_validation", "coupling_validation", "likelihood_test"), ("png", "svg"))
    ]
    assert [path.name for path in one] == names
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    assert insights.draw(variance[:0], coupled[:0], curve[:0], tmp_path / "c") == []
