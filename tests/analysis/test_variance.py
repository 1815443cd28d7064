"""The components of variance against restricted maximum likelihood, simulated truth and hand formulas."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.variance import ONE_SAMPLE, components, decompose, measured, write_variance
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import COMMON_AXES
from tangeval.results.folder import RunFolder
from tangeval.tasks.tang import TANG

FACTORS = ["checkpoint", *COMMON_AXES]

SHAPE = (2, 3, 2, 1, 2, 6, 4)  # checkpoint, temperature, top_k, top_p, max_length, poem, sample
RANDOM_TERMS = ("poem", "poem × setting", "noise", "noise × setting")
#: Their standard deviations in ``made_up``.
TRUTH = dict(zip(RANDOM_TERMS, (1.0, 0.6, 0.5, 0.8), strict=True))


def made_up(seed: int, settings: int, poems: int, samples: int, **sds: float) -> np.ndarray:
    """Scores ``[settings, poems, samples]`` that are the sum of the four random terms, and of 0.3 × setting."""
    generator = np.random.default_rng(seed)
    shapes = ((1, poems, 1), (settings, poems, 1), (1, poems, samples), (settings, poems, samples))
    drawn = {term: generator.normal(size=shape) for term, shape in zip(RANDOM_TERMS, shapes, strict=True)}
    fixed = 0.3 * np.arange(settings)[:, None, None]
    return fixed + sum((TRUTH | sds)[term] * values for term, values in drawn.items())


def shares(y, factors=FACTORS, shared=True) -> dict[str, float]:
    return {row["term"]: row["share"] for row in decompose(y, factors, "chrf", shared)}


def test_components_are_those_of_restricted_maximum_likelihood():
    """Of a balanced table with none below 0 the two are one. By statsmodels 0.15.0:

    mixedlm("y ~ C(t)", frame, groups="p", vc_formula={"tp": "0 + C(t)", "ns": "0 + C(s)"}).fit(reml=True)
    """
    found = components(made_up(5, settings=4, poems=20, samples=3), ["temperature"])
    by_statsmodels = dict(zip(RANDOM_TERMS, (0.552831, 0.278919, 0.241841, 0.625612), strict=True))
    assert {term: found[term] for term in RANDOM_TERMS} == pytest.approx(by_statsmodels, rel=1e-3)


def test_components_are_right_on_average_and_so_are_those_of_the_settings():
    tables = [made_up(seed, settings=4, poems=15, samples=2) for seed in range(400)]
    found = pd.DataFrame([components(y, ["temperature"]) for y in tables])
    expected = {term: sd**2 for term, sd in TRUTH.items()} | {"temperature": np.var(0.3 * np.arange(4))}
    error = found.std() / np.sqrt(len(found))
    for term, value in expected.items():
        assert abs(found[term].mean() - value) < 3 * error[term], term


def test_noise_of_a_server_is_one_term():
    """What two samples of one poem and setting differ by, wherever it comes from."""
    y = made_up(1, settings=4, poems=15, samples=3)
    found = components(y, ["temperature"], shared=False)
    assert list(found) == ["temperature", "poem", "poem × setting", "noise"]
    assert found["noise"] == pytest.approx(y.var(axis=-1, ddof=1).mean())


def test_pure_noise_is_noise():
    """It was printed as half poem × setting, half noise."""
    found = shares(np.random.default_rng(0).normal(size=(40, 30, 2)), ["setting"])
    assert found["noise × setting"] > 0.95
    assert sum(found.values()) == pytest.approx(1)


def test_one_sample_does_not_tell_noise_from_poem_by_setting():
    y = made_up(2, settings=4, poems=15, samples=1)
    found = components(y, ["temperature"])
    assert list(found) == ["temperature", "poem", ONE_SAMPLE]
    rest = y[..., 0] - y[..., 0].mean(axis=0) - y[..., 0].mean(axis=1, keepdims=True) + y.mean()
    assert found[ONE_SAMPLE] == pytest.approx((rest**2).sum() / (3 * 14))


def test_one_setting_has_poems_and_noise():
    y = made_up(3, settings=1, poems=15, samples=4)
    found = components(y, ["temperature"])
    assert list(found) == ["poem", "noise"]
    within = y.var(axis=-1, ddof=1).mean()
    assert found["poem"] == pytest.approx(y.mean(axis=-1).var(ddof=1) - within / 4)


def test_factors_are_taken_apart_and_shares_sum_to_one():
    generator = np.random.default_rng(0)
    sizes = [[n if a == axis else 1 for a in range(7)] for axis, n in enumerate(SHAPE[:6])]
    main = [generator.normal(size=size) for size in sizes]
    found = shares(sum(main) + 1e-6 * generator.normal(size=SHAPE))
    assert sum(found.values()) == pytest.approx(1)
    total = sum(np.var(effects) for effects in main[:5]) + np.var(main[5], ddof=1)
    assert found["temperature"] == pytest.approx(np.var(main[1]) / total, rel=1e-4)
    assert found["poem"] == pytest.approx(np.var(main[5], ddof=1) / total, rel=1e-4)
    assert found["temperature × top_k"] < 1e-9
    assert found["higher"] < 1e-9
    assert "top_p" not in found


def test_no_component_is_below_nought():
    none = {"poem": 0, "poem × setting": 0, "noise": 0}
    tables = [made_up(seed, settings=3, poems=4, samples=2, **none) for seed in range(20)]
    found = [value for y in tables for value in components(y, ["temperature"]).values()]
    assert min(found) == 0


def test_what_never_varies_has_no_shares():
    assert decompose(np.ones(SHAPE), FACTORS, "form") == []
    assert decompose(np.full(SHAPE, np.nan), FACTORS, "form") == []


def test_what_was_not_repeated_has_no_shares():
    for shape in ((3, 1, 2), (1, 5, 1)):
        assert decompose(np.random.default_rng(0).normal(size=shape), ["temperature"], "form") == []


def make_folder(folder: Path, keep=lambda frame: frame.index >= 0) -> RunFolder:
    """Made-up scores of two checkpoints and the random baseline, of the rows that are kept."""
    generator = np.random.default_rng(3)
    keys = ["checkpoint", *COMMON_AXES, "example_id", "sample"]
    grid = product(["base", "checkpoint-2"], [0.1, 1.0], [0, 5], [1.0], [96], ["test-0", "test-1"], range(2))
    frame = pd.DataFrame(grid, columns=keys).assign(split="test")
    frame = frame[keep(frame)]
    baseline = frame.assign(checkpoint="random", **dict.fromkeys(COMMON_AXES, np.nan))
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
    assert {"noise", "noise × setting"} < set(variance.loc[variance["metric"] == "chrf", "term"])
    # All samples of a poem have one value of it.
    assert ONE_SAMPLE in set(variance.loc[variance["metric"] == "unique", "term"])
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
