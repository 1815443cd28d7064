"""Figures: what stands where in them, which are drawn, and that every run draws the same."""

import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.font_manager import get_font

from tangeval.analysis import summarize
from tangeval.analysis.variance import decompose
from tangeval.core.knobs import COMMON_AXES
from tangeval.core.untrusted import inert
from tangeval.reporting import figures, style
from tests.reporting.test_tables import METRICS, frames
from tests.support.pages import luminance

SHOWN = [metric for metric in METRICS.values() if metric.headline]
HEAT = ("temperature", "top_p")
NO_VARIANCE = pd.DataFrame(columns=["split"])
SMALL = {"temperature": (0.1, 0.7), "top_k": (5,), "top_p": (0.6, 1.0), "max_length": (96,)}


@pytest.fixture(autouse=True)
def drawn_in_style():
    """Sizes of text as ``draw`` sets them."""
    with matplotlib.rc_context(style.STYLE):
        yield


def draw(summary, folder, variance=NO_VARIANCE, by="bleu"):
    return figures.draw(summary, variance, METRICS, folder, by=by)


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title("left") == title or axes.get_title() == title)


def titles_of(figure):
    return [axes.get_title("left") or axes.get_title() for axes in figure.axes]


def lines(axes):
    """Label → (x, y) of each line that has a label."""
    return {line.get_label(): line.get_data() for line in axes.lines}


def written_on(figure):
    """Every text of a figure that is not empty, with where it stands in pixels."""
    figure.draw_without_rendering()
    texts = figure.findobj(matplotlib.text.Text)
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_visible() and t.get_text().strip()]


def test_pictures_are_the_same_bytes_whatever_the_users_settings(tmp_path):
    summary = frames(steps=(50, 200), **(SMALL | {"temperature": (0.1,)}))
    first = draw(summary, tmp_path / "one")
    with matplotlib.rc_context({"font.size": 20, "axes.grid": False, "savefig.facecolor": "red"}):
        second = draw(summary, tmp_path / "two")
        assert matplotlib.rcParams["font.size"] == 20
    assert [path.name for path in first] == [
        f"{kind}_{split}.{suffix}"
        for split in ("validation", "test")
        for kind in ("top_p", "training")
        for suffix in ("png", "svg")
    ]
    assert ">character BLEU</text>" in first[1].read_text()  # text stays text
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in first}


def named(name: str) -> Any:
    """Frames in which a checkpoint has this name."""
    made = frames(steps=(50, 200), **SMALL)
    for frame in (made.settings, made.effects, made.checkpoints):
        frame["checkpoint"] = frame["checkpoint"].replace("checkpoint-50", name)
    return made


@pytest.mark.parametrize("name", ["$a$b$", "a$_$", "$\\frac{$", "x\x07\x1b[31m\n&<y>", "^_{}\\"])
def test_a_name_is_drawn_as_it_is_and_neither_typeset_nor_obeyed(tmp_path, name):
    drawn = [path for path in draw(named(name), tmp_path) if path.suffix == ".svg"]
    texts = [e.text for path in drawn for e in ElementTree.fromstring(path.read_bytes()).iter() if e.text]
    assert style.short(inert(name)) in texts


def test_chinese_names_are_drawn_with_a_font_that_has_them(tmp_path):
    """Noto and others are not on every machine; the glyphs of the name are compared with those of the missing one."""
    if style.chinese_font() is None:
        pytest.skip("no Chinese font on this machine")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph")
        (name, figure), *_ = figures.figures_of(named("唐詩"), NO_VARIANCE, SHOWN, METRICS["bleu"])
        style.save([(name, figure)], tmp_path)
    drawn = [t for t in figure.findobj(matplotlib.text.Text) if t.get_text() == "唐詩"]
    assert drawn
    paths = matplotlib.font_manager.fontManager._find_fonts_by_props(drawn[0].get_fontproperties())
    assert any(get_font(path).get_char_index(ord("詩")) for path in paths)
    assert style.chinese_font() in (tmp_path / f"{name}.svg").read_text()


def test_without_a_chinese_font_a_picture_is_still_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "findSystemFonts", list)
    style.chinese_font.cache_clear()
    try:
        assert style.chinese_font() is None
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Glyph")
            assert draw(named("唐詩"), tmp_path)
    finally:
        style.chinese_font.cache_clear()


def names(**grid):
    return [name for name, _ in figures.figures_of(frames(**grid), NO_VARIANCE, SHOWN, METRICS["chrf"])]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({}, ["temperature", "top_p", "heatmap_chrf", "training"]),
        ({"temperature": (0.7,), "top_p": (0.6,)}, ["training"]),
        ({"temperature": (0.7,), "max_length": (16, 96), "steps": (50,)}, ["top_p", "max_length"]),
    ],
    ids=["a knob of one value has none", "one setting", "one checkpoint"],
)
def test_pictures_are_of_what_varies(grid, expected):
    assert names(**SMALL | grid) == [
        f"{kind}_{split}" for split in ("validation", "test") for kind in expected
    ]


def test_lines_go_through_the_effects_and_bands_are_their_intervals():
    effects = frames().effects
    figure = figures.knob_figure(effects, "temperature", "test", SHOWN)
    axes = panel(figure, "character BLEU")
    for place, name in enumerate(("base", "checkpoint-50", "checkpoint-200")):
        rows = effects.query(f"checkpoint == '{name}' and split == 'test' and knob == 'temperature'")
        rows = rows.sort_values("value")
        x, y = lines(axes)[name]
        assert x.tolist() == [0, 1, 2]
        assert y.tolist() == rows["bleu"].tolist()
        band = axes.collections[place].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == (rows["bleu_low"].min(), rows["bleu_high"].max())
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.1", "0.7", "1.3"]


def test_off_stands_last_and_its_values_with_it():
    effects = frames(top_k=(0, 5, 50)).effects
    axes = panel(figures.knob_figure(effects, "top_k", "test", SHOWN), "chrF")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["5", "50", "off"]
    rows = effects.query("checkpoint == 'base' and split == 'test' and knob == 'top_k'").set_index("value")
    assert lines(axes)["base"][1].tolist() == rows["chrf"].loc[[5, 50, 0]].tolist()


def test_the_floor_line_stands_at_the_floors_value_and_is_named():
    made = frames()
    effects, checkpoints = made.effects, made.checkpoints
    effects.loc[effects["checkpoint"] == "random", "bleu"] = 0.123
    checkpoints.loc[checkpoints["checkpoint"] == "random", "bleu"] = 0.123
    for figure in (
        figures.knob_figure(effects, "top_p", "validation", SHOWN), figures.training_figure(checkpoints, "validation", SHOWN),
    ):  # fmt: skip
        axes = panel(figure, "character BLEU")
        assert set(lines(axes)["_random"][1]) == {0.123}
        assert axes.get_ylim()[0] < 0.123
        assert "random" in [text.get_text() for text in axes.texts]


def test_a_reference_far_off_is_a_note_and_does_not_stretch_the_axis():
    effects = frames().effects
    figure = figures.knob_figure(effects, "temperature", "test", SHOWN)
    axes = panel(figure, "character BLEU")
    assert axes.get_ylim()[1] < 1.5
    assert "_reference" not in lines(axes)
    assert "reference 100" in [text.get_text() for text in axes.texts]
    assert set(lines(panel(figure, "couplets rhyme"))["_reference"][1]) == {1.0}


def test_shares_are_shown_from_0_to_1():
    figure = figures.knob_figure(frames().effects, "temperature", "test", SHOWN)
    for title in ("form: all checks hold", "couplets rhyme", "ended by itself"):
        assert panel(figure, title).get_ylim() == pytest.approx((-0.03, 1.03))


def test_what_does_not_depend_on_decoding_or_was_not_measured_has_no_panel():
    made = frames()
    effects, checkpoints = made.effects, made.checkpoints
    effects["complete"] = np.nan
    titles = titles_of(figures.knob_figure(effects, "top_p", "test", SHOWN))
    assert "character BLEU" in titles
    assert not any("NLL" in title or title == "ended by itself" for title in titles)
    assert "reference NLL (nats per character)" in titles_of(
        figures.training_figure(checkpoints, "test", SHOWN)
    )


def test_base_stands_apart_at_step_0():
    checkpoints = frames(steps=(50, 200, 400)).checkpoints
    axes = panel(figures.training_figure(checkpoints, "test", SHOWN), "reference NLL (nats per character)")
    trained, base = axes.lines[:2]
    assert trained.get_xdata().tolist() == [50, 200, 400]
    row = checkpoints.query("checkpoint == 'base' and split == 'test'")
    assert (base.get_xdata().tolist(), base.get_ydata().tolist()) == ([0], row["reference_nll"].tolist())
    assert base.get_color() != trained.get_color()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["base", "200", "400"]


def test_a_checkpoint_without_a_step_is_named_and_not_drawn():
    checkpoints = frames(steps=(50, 200, 400)).checkpoints
    checkpoints.loc[checkpoints["checkpoint"] == "checkpoint-400", ["checkpoint", "step"]] = [
        "average-50-200",
        None,
    ]
    figure = figures.training_figure(checkpoints, "test", SHOWN)
    axes = panel(figure, "reference NLL (nats per character)")
    assert axes.lines[0].get_xdata().tolist() == [50, 200]
    told = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert told.count("not drawn: average-50-200.") == 1


def test_a_heat_map_is_the_mean_over_the_other_knobs_with_low_temperature_below():
    settings = frames().settings
    figure = figures.heatmap_figure(settings, METRICS["bleu"], "test", HEAT)
    axes = panel(figure, "checkpoint-50")
    own = settings.query("checkpoint == 'checkpoint-50' and split == 'test'")
    expected = own.pivot_table(index="temperature", columns="top_p", values="bleu", aggfunc="mean")
    assert np.asarray(axes.collections[0].get_array()) == pytest.approx(expected.to_numpy())
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.6", "off"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0.1", "0.7", "1.3"]
    assert axes.texts[0].get_text() == f"{expected.iloc[0, 0]:.2f}"
    assert len({axes.collections[0].get_clim() for axes in figure.axes[:3]}) == 1


def test_a_heat_maps_colours_grow_lighter_with_the_value_and_its_numbers_can_be_read():
    figure = figures.heatmap_figure(frames().settings, METRICS["bleu"], "test", HEAT)
    contrasts = []
    for axes in figure.axes[:3]:
        mesh, values = axes.collections[0], np.asarray(axes.collections[0].get_array())
        light = [luminance(to_rgb(colour)) for colour in mesh.to_rgba(np.sort(values, axis=None))]
        assert light == sorted(light)
        for text, value in zip(axes.texts, values.flat, strict=True):
            low, high = sorted((luminance(to_rgb(text.get_color())), luminance(to_rgb(mesh.to_rgba(value)))))
            contrasts.append((high + 0.05) / (low + 0.05))
    assert min(contrasts) > 4.5


def test_a_large_grid_is_not_written_into_its_settings():
    settings = frames(temperature=tuple(t / 10 for t in range(9))).settings
    assert not panel(figures.heatmap_figure(settings, METRICS["bleu"], "test", HEAT), "base").texts


def test_titles_say_how_many_poems_and_samples():
    made = frames()
    settings, effects, checkpoints = made.settings, made.effects, made.checkpoints
    effects["samples"] = effects["samples"].replace(8, 1)
    for figure, on in (
        (figures.knob_figure(effects, "top_p", "test", SHOWN), "on 15 test examples with 1 sample each"),
        (figures.training_figure(checkpoints, "test", SHOWN), "on 15 test examples with 8 samples each"),
        (
            figures.heatmap_figure(settings, METRICS["form"], "test", HEAT),
            "on 15 test examples with 8 samples each",
        ),
    ):
        assert figure.texts[0].get_text().replace("\n", " ").endswith(on)


@pytest.mark.parametrize("count", [1, 14])
def test_nothing_written_is_cut_off_at_the_edge(count):
    made = frames(steps=tuple(range(1000, 1000 * count + 1, 1000)), max_length=(16, 96))
    settings, effects, checkpoints = made.settings, made.effects, made.checkpoints
    for frame in (settings, effects, checkpoints):
        frame["checkpoint"] = frame["checkpoint"].replace(
            "checkpoint-1000", "a-folder/with-a-long-name/checkpoint-1000"
        )
    for figure in (
        figures.knob_figure(effects, "temperature", "validation", SHOWN),
        figures.heatmap_figure(settings, METRICS["bleu"], "validation", HEAT), figures.training_figure(checkpoints, "validation", SHOWN),
    ):  # fmt: skip
        for text, box in written_on(figure):
            assert figure.bbox.x0 <= box.x0, text
            assert box.x1 <= figure.bbox.x1, text
            assert figure.bbox.y0 <= box.y0, text
            assert box.y1 <= figure.bbox.y1, text


def test_an_interval_beside_its_value_can_be_drawn():
    """A bootstrap's percentiles need not enclose the estimate."""
    made = frames(**SMALL)
    for frame in (made.settings, made.effects, made.checkpoints):
        frame["bleu_low"] = frame["bleu"] + 0.05
        frame["form"] = frame["form_low"] = frame["form_high"] = 0.0
    assert list(figures.figures_of(made, NO_VARIANCE, SHOWN, METRICS["form"]))


def test_runs_are_lines_of_their_own_in_training():
    """Two folders with a checkpoint at the same step: nothing joins them."""
    made = frames(steps=(50, 65, 200), **SMALL)
    for frame in (made.settings, made.effects, made.checkpoints):
        frame["checkpoint"] = frame["checkpoint"].replace("checkpoint-65", "hw5/checkpoint-65")
    checkpoints = made.checkpoints
    figure = figures.training_figure(checkpoints, "test", SHOWN)
    drawn = lines(panel(figure, "character BLEU"))
    assert drawn["hw5"][0].tolist() == [65]
    assert drawn["checkpoint-50 to 200"][0].tolist() == [50, 200]
    assert any(
        "Runs: ◆ hw5, ● checkpoint-50 to 200." in " ".join(text.split()) for text, _ in written_on(figure)
    )


def test_a_knob_that_varies_alone_is_averaged_over_nothing():
    one = {"top_k": (5,), "top_p": (0.6,), "max_length": (96,)}
    for grid, said in ((one, False), ({}, True)):
        effects = frames(steps=(50,), **grid).effects
        figure = figures.knob_figure(effects, "temperature", "test", SHOWN)
        assert any("Averaged over the other knobs" in text for text, _ in written_on(figure)) is said


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("checkpoint-65", "checkpoint-65"),
        ("hw5/checkpoint-65", "hw5/checkpoint-65"),
        ("default/checkpoint-65", "default/65"),
        ("a-run-with-a-long-name/checkpoint-65", "…with-a-long-name/65"),
    ],
)
def test_long_names_keep_their_folder_and_step(name, written):
    assert style.short(name) == written


@pytest.fixture
def variance() -> pd.DataFrame:
    generator = np.random.default_rng(0)
    shape = (2, 3, 1, 2, 1, 6, 4)
    factors = ["checkpoint", *COMMON_AXES]
    rows = [row for m in ("bleu", "form") for row in decompose(generator.normal(size=shape), factors, m)]
    return pd.DataFrame(rows).assign(split="validation")


def test_bars_of_variance_are_the_shares_and_reach_the_whole(variance):
    figure = figures.variance_figure(variance, "validation", SHOWN)
    (axes,) = figure.axes
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["form", "character BLEU"]
    key = axes.get_legend()
    assert "example × setting" in {text.get_text() for text in key.get_texts()}
    figure.canvas.draw()
    assert key.get_window_extent().x1 < figure.bbox.x1
    for row, metric in enumerate(("form", "bleu")):
        bars = {bars.get_label(): bars.patches[row].get_width() for bars in axes.containers}
        own = variance[variance["metric"] == metric].set_index("term")["share"]
        assert bars["temperature"] == pytest.approx(own["temperature"])
        crossed = [term for term in own.index if " × " in term and term.partition(" × ")[2] in COMMON_AXES]
        assert bars["interactions"] == pytest.approx(own[crossed].sum() + own["higher"])
        assert sum(bars.values()) == pytest.approx(1)


def likelihood() -> pd.DataFrame:
    """Ten examples of 5 and four of 7 characters a line; the character at place i costs i nats."""
    rows = [
        {
            "checkpoint": name, "step": step, "split": "test", "group": str(length),
            "by_character": [float(place) for place in range(1, (2 if example < few else 6) * length + 1)],
        }
        for (name, step) in (("base", pd.NA), ("checkpoint-5", 5))
        for length, examples, few in ((5, 10, 4), (7, 4, 3))
        for example in range(examples)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"step": "Int64"})


def test_a_line_is_a_stroke_and_a_length_of_lines_a_panel_of_the_likelihood():
    five, seven = figures.likelihood_figure(summarize.curve(likelihood()), "test").axes
    assert "10 examples" in five.get_title(loc="left")
    assert [len(line.get_xdata()) for line in five.lines] == [5] * 6 * 2
    assert [len(line.get_xdata()) for line in seven.lines] == [7] * 2 * 2


def test_a_likelihood_has_no_band_where_few_poems_reach_nor_below_0():
    def banded(panel):
        return [
            path.vertices[:, 1]
            for band in panel.collections
            for path in band.get_paths()
            if len(path.vertices)
        ]

    many, few = figures.likelihood_figure(summarize.curve(likelihood()), "test").axes
    assert "4 examples" in few.get_title(loc="left")
    assert banded(few) == []
    assert min(heights.min() for heights in banded(many)) >= 0


def of_front(*metrics: str) -> tuple[pd.DataFrame, list]:
    """Four settings: two on the front, one that is not told from it, one that is shown to be dominated."""
    values = [[0.9, 0.2, 0.5], [0.3, 0.8, 0.6], [0.3, 0.7, 0.7], [0.1, 0.1, 0.4]]
    frame = pd.DataFrame(values, columns=["form", "rhyme", "complete"])
    frame = frame.assign(split="test", on_front=[1, 1, 0, 0], dominated_by=[None, None, None, "base:top_k=5"])
    return frame, [METRICS[name] for name in metrics]


def test_the_front_is_filled_and_what_it_is_shown_to_beat_small():
    axes = figures.front_figure(*of_front("form", "rhyme")).axes[0]
    worse, untold, best = axes.collections
    assert [points.get_offsets().tolist() for points in (worse, untold, best)] == [
        [[0.1, 0.1]], [[0.3, 0.7]], [[0.9, 0.2], [0.3, 0.8]]
    ]  # fmt: skip
    assert (len(untold.get_facecolors()), len(best.get_facecolors())) == (0, 2)
    assert worse.get_sizes()[0] < untold.get_sizes()[0]
    (line,) = axes.lines
    assert line.get_xdata().tolist() == [0.3, 0.9]
    assert (axes.get_xlabel(), axes.get_ylabel()) == tuple(
        style.label(METRICS[name]) for name in ("form", "rhyme")
    )


def test_a_third_metric_is_the_colour_and_no_line_is_drawn():
    axes, bar = figures.front_figure(*of_front("form", "rhyme", "complete")).axes
    assert not axes.lines
    first, second = axes.collections[2].get_facecolors()[:, :3]
    assert luminance(tuple(first)) < luminance(tuple(second))  # viridis: more is lighter
    assert bar.get_ylabel() == style.brief(METRICS["complete"])
