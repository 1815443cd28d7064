"""The analysis of variance against pandas and least squares; what shared noise saves against simulation."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.variance import FACTORS, OF_A_POEM, coupling, decompose, write_variance
from tangeval.metrics import MEANS
from tangeval.metrics.bleu import LENGTHS, MATCH

SHAPE = (2, 3, 2, 1, 2, 6, 4)  # checkpoint, temperature, top_k, top_p, max_length, poem, sample


@pytest.fixture
def values() -> np.ndarray:
    generator = np.random.default_rng(0)
    main = [
        generator.normal(size=[n if a == axis else 1 for a in range(7)]) for axis, n in enumerate(SHAPE[:6])
    ]
    return sum(main) + generator.normal(size=SHAPE)


def shares(y) -> dict[str, float]:
    return {row["term"]: row["share"] for row in decompose(y, "chrf")}


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
            for row in decompose(generator.normal(size=SHAPE), "chrf")
        }
        for _ in range(300)
    ]
    for term in ("temperature", "checkpoint × top_k", "higher"):
        share, chance = np.mean([row[term] for row in rows], axis=0)
        assert share == pytest.approx(chance, rel=0.1)


def test_what_never_varies_has_no_shares(values):
    assert decompose(np.ones(SHAPE), "form") == []
    assert decompose(np.full(SHAPE, np.nan), "form") == []


def ratios(y, knob) -> list[float]:
    levels = {name: list(range(n)) for name, n in zip(FACTORS, SHAPE[:5], strict=True)}
    return [row["chrf"] for row in coupling({"chrf": y}, levels) if row["knob"] == knob]


def test_noise_of_their_own_has_ratio_one_and_the_same_noise_nought():
    generator = np.random.default_rng(2)
    shape = (*SHAPE[:5], 200, 8)
    apart = generator.normal(size=shape)
    assert np.mean(ratios(apart, "temperature")) == pytest.approx(1, abs=0.05)
    noise = generator.normal(size=(1, 1, 1, 1, 1, 200, 8))
    assert np.allclose(
        ratios(noise + np.arange(3).reshape(1, 3, 1, 1, 1, 1, 1) + np.zeros(shape), "temperature"), 0
    )
    # Equal parts shared and own: half of the variance goes.
    assert np.mean(ratios(noise + apart, "temperature")) == pytest.approx(0.5, abs=0.05)
    assert len(ratios(apart, "checkpoint")) == 1 * 3 * 2 * 1 * 2
    assert ratios(apart, "top_p") == []


def test_one_sample_says_nothing_of_noise(values):
    assert ratios(values[..., :1], "temperature") == []


def test_files_hold_each_split_without_floor_and_reference(tmp_path):
    generator = np.random.default_rng(3)
    keys = ["checkpoint", "temperature", "top_k", "top_p", "max_length", "example_id", "sample"]
    grid = product(["base", "checkpoint-2"], [0.1, 1.0], [0], [1.0], [96], ["test-0", "test-1"], range(2))
    frame = pd.DataFrame(grid, columns=keys).assign(split="test")
    floor = frame.assign(checkpoint="random", temperature=np.nan, top_k=pd.NA, top_p=np.nan, max_length=pd.NA)
    scores = pd.concat([frame, floor], ignore_index=True)
    for name in (*MEANS, *MATCH):
        scores[name] = generator.integers(1, 5, len(scores))
    for name in LENGTHS:
        scores[name] = 20
    shuffled = scores.sample(frac=1, random_state=0)
    variance, coupled = write_variance(lambda names: shuffled[names], tmp_path)
    assert set(variance["metric"]) == set(OF_A_POEM)
    assert variance.groupby("metric")["share"].sum().round(9).eq(1).all()
    assert coupled["knob"].value_counts().to_dict() == {"checkpoint": 2, "temperature": 2}
    assert pd.read_csv(tmp_path / "variance.csv").shape == variance.shape
    assert pd.read_csv(tmp_path / "coupling.csv").shape == coupled.shape
