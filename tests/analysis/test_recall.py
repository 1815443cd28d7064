"""What cuts keep, of a results folder: means, and whether they order the settings."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tangeval.analysis.recall import _fitted, write_recall
from tangeval.core.knobs import Setting, warp_name, warps
from tangeval.results.folder import RunFolder
from tests.support.folders import make_results


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results") / "small"
    study, data = make_results(folder, ("base",))
    names = [warp_name(warp) for warp in warps(study.decoding.settings())]
    generator, rows = np.random.default_rng(0), []
    for split in study.ordered_splits():
        for example in data.split(split):
            recall = generator.random(len(names))
            rows.append(
                {"checkpoint": "base", "step": pd.NA, "split": split, "example_id": example.id, "reference_nll": 1.0,
                 "cuts": names, "cut_recall": recall, "cut_mass": recall**2, "cut_risk": 1 - recall}
            )  # fmt: skip
    run = RunFolder(folder)
    run.write_likelihood(pd.DataFrame(rows).astype({"step": "Int64"}))
    return run


def test_a_row_is_the_mean_over_references(run):
    kept, _ = write_recall(run)
    own = run.likelihood().query("split == 'validation'")
    rows = kept[kept["split"] == "validation"].set_index("cut")
    names = own["cuts"].iloc[0]
    assert list(rows.index) == list(names)
    for measure in ("recall", "mass", "risk"):
        expected = np.stack(own[f"cut_{measure}"]).mean(axis=0)
        assert rows[measure].tolist() == pytest.approx(expected)
        assert ((rows[f"{measure}_low"] < rows[measure]) & (rows[measure] < rows[f"{measure}_high"])).all()
    assert len(pd.read_csv(run.table("recall"))) == len(kept)


def test_the_rank_correlation_is_scipys_over_means_of_settings_that_keep_alike(run):
    kept, orders = write_recall(run)
    summary = pd.read_csv(run.table("summary")).query("split == 'validation' and checkpoint == 'base'")
    summary = summary.assign(cut=[warp_name(Setting.from_row(row)) for row in summary.to_dict("records")])
    means = summary.groupby("cut")[["bleu", "chrf"]].mean()
    told = kept.query("split == 'validation'").set_index("cut").loc[means.index]
    own = orders.query("split == 'validation'").set_index(["metric", "by"])
    for metric in ("bleu", "chrf"):
        for measure in ("recall", "risk"):
            row = own.loc[(metric, measure)]
            assert row["rank_correlation"] == pytest.approx(stats.spearmanr(told[measure], means[metric])[0])
            assert row["low"] <= row["rank_correlation"] + 0.2
            assert row["settings"] == len(means)
    assert set(orders["by"]) == {"recall", "mass", "risk", "fitted"}


def test_what_is_fitted_has_not_seen_the_setting_that_it_foretells():
    """Measures that say nothing foretell nothing, or the contrary: a line through the others leans away from the one left out."""
    generator = np.random.default_rng(0)
    values, told = generator.normal(size=(200, 20)), [generator.normal(size=(200, 20)) for _ in range(3)]
    found = _fitted(told, values)
    assert np.mean([stats.spearmanr(*rows)[0] for rows in zip(found, values, strict=True)]) < 0.05
    known = _fitted([values, *told[1:]], values)
    assert np.mean([stats.spearmanr(*rows)[0] for rows in zip(known, values, strict=True)]) > 0.95


def test_without_cuts_there_is_nothing(tmp_path):
    make_results(tmp_path, ("base",), select=None)
    (tmp_path / "recall.csv").write_text("old")
    assert not any(len(frame) for frame in write_recall(RunFolder(tmp_path)))
    assert not (tmp_path / "recall.csv").exists()
