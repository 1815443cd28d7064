"""Pictures of what samples know and of families: what stands where."""

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.headroom import Headroom
from tangeval.reporting import sampling
from tangeval.tasks.tang import TANG

FORM = TANG.metrics["form"]


def with_ends(frame, metric="form"):
    return frame.assign(**{f"{metric}_low": frame[metric] - 0.1, f"{metric}_high": frame[metric] + 0.1})


def test_the_best_of_k_is_a_line_a_temperature_and_rerankers_stand_beside_the_last():
    keys = {"checkpoint": "base", "split": "test", "top_k": 0}
    best = pd.DataFrame(
        [keys | {"temperature": t, "k": k, "form": t * k / 10} for t in (0.5, 1.0) for k in (1, 2, 4)]
    )
    picked = pd.DataFrame(
        [keys | {"temperature": t, "rerank": how, "form": value}
         for t in (0.5, 1.0) for how, value in (("none", 0.0), ("form", 0.3), ("mbr", 0.2))]
    )  # fmt: skip
    (panel,) = sampling.best_of_figure(Headroom(best, picked, pd.DataFrame()), [FORM]).axes
    lines = [line.get_ydata().tolist() for line in panel.lines if len(line.get_xdata()) == 3]
    assert lines == [pytest.approx([0.05, 0.1, 0.2]), pytest.approx([0.1, 0.2, 0.4])]
    points = [
        (line.get_marker(), float(line.get_ydata()[0])) for line in panel.lines if len(line.get_xdata()) == 1
    ]
    assert points == [("D", 0.3), ("s", 0.2)] * 2


def test_a_family_is_a_line_against_the_budget_and_one_against_temperature():
    keys = {"checkpoint": "base", "split": "test", "poems": 15, "settings": 4}
    rows = [
        keys | {"family": family, "by": by, "at": at, "form": value + at / 10}
        for family, value in (("min_p", 0.2), ("top_k", 0.4))
        for by, places in (
            ("budget", (1, 2, 4)),
            ("temperature", (0.7, 1.0) if family == "min_p" else (1.0,)),
        )
        for at in places
    ]
    tried, hot = sampling.families_figure(with_ends(pd.DataFrame(rows)), [FORM]).axes
    assert [line.get_ydata().tolist() for line in tried.lines] == [
        pytest.approx([0.3, 0.4, 0.6]), pytest.approx([0.5, 0.6, 0.8])
    ]  # fmt: skip
    assert [line.get_xdata().tolist() for line in hot.lines] == [[0, 1], [1]]
    assert [text.get_text() for text in tried.get_figure().axes[1].get_legend().get_texts()] == [
        "min_p",
        "top_k",
    ]
    assert len({line.get_color() for line in tried.lines}) == 2
    assert np.allclose([band.get_paths()[0].get_extents().ymin for band in tried.collections], [0.2, 0.4])
