"""The analysis of variance against pandas and least squares."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.variance import decompose, measured, write_variance
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG

FACTORS = ["checkpoint", *AXES]

SHAPE = (2, 3, 2, 1, 2, 6, 4)  # checkpoint, temperature, top_k, top_p, max_length, poem, sample


@pytest.fixture
def values() -> np.ndarray:
    generator = np.random.default_rng(0)
    main = [
        generator.normal(size=[n if a == axis else 1 for a in range(7)]) for axis, n in enumerate(SHAPE[:6])
    ]
    return sum(main) + generator.normal(size=SHAPE)


def shares(y) -> dict[str, float]:
    return {row["term"]: row["share"] for row in decompose(y, FACTORS, "chrf")}


def explained(frame: pd.DataFrame, terms: list[str]) -> float:
    """The share of variance that least squares explains by dummies of ``terms``."""
    design = pd.get_dummies(frame[terms].astype(str).agg(" ".join, axis=1)).to_numpy(float)
    y = frame["y"].to_numpy() - frame["y"].mean()
    return float(1 - ((y - design @ np.linalg.lstsq(design, y)[0]) ** 2).sum() / (y**2).sum())


def test_shares_are_what_least_squares_explains_and_sum_to_one(values):
    found = shares(values)
    assert sum(found.values()) == pytest.approx(1)
    names = [*FACTORS, "poem", "sample"]
    frame = pd.DataFrame(product(*map(range, SHAPE)), columns=names).assign(y=values.ravel())
    assert found["temperature"] == pytest.approx(explained(frame, ["temperature"]))
    assert found["poem"] == pytest.approx(explained(frame, ["poem"]))
    pair = explained(frame, ["temperature", "top_k"]) - found["temperature"] - found["top_k"]
    assert found["temperature × top_k"] == pytest.approx(pair)
    assert found["noise"] == pytest.approx(explained(frame, ["poem", "sample"]) - found["poem"])
    assert "top_p" not in found


def test_what_does_nothing_has_the_share_of_chance():
    generator = np.random.default_rng(1)
    rows = [
        {
            row["term"]: (row["share"], row["by_chance"])
            for row in decompose(generator.normal(size=SHAPE), FACTORS, "chrf")
        }
        for _ in range(300)
    ]
    for term in ("temperature", "checkpoint × top_k", "higher"):
        share, chance = np.mean([row[term] for row in rows], axis=0)
        assert share == pytest.approx(chance, rel=0.1)


def test_what_never_varies_has_no_shares(values):
    assert decompose(np.ones(SHAPE), FACTORS, "form") == []
    assert decompose(np.full(SHAPE, np.nan), FACTORS, "form") == []


def make_folder(folder: Path, keep=lambda frame: frame.index >= 0) -> RunFolder:
    """Made-up scores of two checkpoints and the random baseline, of the rows that are kept."""
    generator = np.random.default_rng(3)
    keys = ["checkpoint", *AXES, "example_id", "sample"]
    grid = product(["base", "checkpoint-2"], [0.1, 1.0], [0, 5], [1.0], [96], ["test-0", "test-1"], range(2))
    frame = pd.DataFrame(grid, columns=keys).assign(split="test")
    frame = frame[keep(frame)]
    baseline = frame.assign(checkpoint="random", **dict.fromkeys(AXES, np.nan))
    scores = pd.concat([frame, baseline], ignore_index=True).sample(frac=1, random_state=0)
    for metric in TANG.metrics.values():
        for name in metric.counts or [metric.name]:
            scores[name] = generator.integers(1, 5, len(scores))
    run = RunFolder(folder)
    run.study_file.write_text("name: made-up\n")
    scores.to_parquet(run.scores_file, index=False)
    return run


def test_the_file_holds_each_split_without_baselines(tmp_path):
    run = make_folder(tmp_path)
    variance = write_variance(run)
    assert set(variance["metric"]) == {metric.name for metric in measured(TANG.metrics)}
    assert {"bleu", "chrf", "unique"} < set(variance["metric"])
    assert variance.groupby("metric")["share"].sum().round(9).eq(1).all()
    assert {"checkpoint", "temperature", "temperature × top_k"} < set(variance["term"])
    assert run.read_table("variance").shape == variance.shape


def test_some_points_of_a_grid_are_one_factor(tmp_path):
    variance = write_variance(make_folder(tmp_path, lambda f: (f["top_k"] == 0) | (f["temperature"] > 0.5)))
    terms = {"checkpoint", "setting", "checkpoint × setting"}
    assert terms < set(variance["term"])
    assert "temperature" not in set(variance["term"])
    assert variance.groupby("metric")["share"].sum().round(9).eq(1).all()


def test_rows_that_are_no_whole_grid_are_refused(tmp_path):
    with pytest.raises(
        TangevalError, match=r"scores on test: checkpoint base.*sample 1 is missing, and 0 rows more"
    ):
        write_variance(make_folder(tmp_path, lambda frame: frame.index != 3))
