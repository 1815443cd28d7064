"""Clusters are resampled whole: against a bootstrap by hand, against each alone, and against what intervals promise."""

import numpy as np
import pandas as pd
import pytest

from tangeval.analysis.aggregate import Part, ends, gathered
from tangeval.analysis.contest import contest
from tangeval.analysis.differences import Pair, differences
from tangeval.analysis.intervals import Clusters, resample_weights
from tangeval.analysis.oracle import room
from tangeval.analysis.select import put_together
from tangeval.tasks.tang import TANG

METRICS = {name: TANG.metrics[name] for name in ("chrf", "form", "bleu")}


def world(seed, clusters=25, within=0.7, settings=2, apart=0.0):
    """Measured settings whose examples share ``within`` of their variance with their cluster, and the clusters."""
    generator = np.random.default_rng(seed)
    of = np.repeat(np.arange(clusters), generator.integers(1, 8, clusters))
    shape = (len(of), settings)
    shared, own = generator.normal(size=(clusters, settings))[of], generator.normal(size=shape)
    latent = np.sqrt(within) * shared + np.sqrt(1 - within) * own
    values = {"chrf": 50 + 8 * latent + apart * np.arange(settings), "form": (latent > 0.5).astype(float)}
    matched = np.clip(np.round(6 + 3 * latent.T[..., None]), 0, 20).astype(np.int32)
    names = METRICS["bleu"].counts
    counts = {
        n: np.maximum(matched - place % 4, 0) if place < 4 else np.full_like(matched, 20)
        for place, n in enumerate(names)
    }
    return values, counts, Clusters(of)


def measured(values, counts, clusters):
    knobs, examples = pd.DataFrame({"temperature": [0.5, 1.0]}), tuple(map(str, range(len(values["form"]))))
    return gathered(METRICS, knobs, examples, 1, values, counts, clusters)


def test_examples_that_are_clusters_of_one_are_measured_to_the_last_digit_as_without():
    values, counts, _ = world(1)
    alone = Clusters.named([""] * len(values["form"]))
    found = []
    for each in (None, alone):
        own = measured(values, counts, each)
        parts, families = [Part(own, [0]), Part(own, [1])], {"a": [0], "b": [1]}
        apart = differences([Pair(*parts, metric) for metric in METRICS])
        fought = [contest(own, families, metric, [1], 1, 7).low for metric in METRICS]
        picked = [put_together(parts, metric, np.arange(own.poems) % 3 - 1) for metric in METRICS]
        found.append([own.value, [ends(parts, metric) for metric in METRICS], apart, fought, picked])
        found[-1].append(room(np.stack([values["chrf"].T] * 2, axis=2), 3, each))
    with np.printoptions(precision=17):
        assert str(found[0]) == str(found[1])


def test_the_parts_of_any_metric_vary_as_its_value_does():
    """Pseudo-values of BLEU are independent values already; means of clusters of unequal size are made so."""
    values, counts, clusters = world(4, clusters=60)
    own = measured(values, counts, clusters)
    for metric in METRICS:
        part = Part(own, [0])
        error = part.linear(metric).std(ddof=1) / np.sqrt(own.poems)
        assert error == pytest.approx(part.on(metric, resample_weights(own.poems, 3, 2000)).std(), rel=0.12)


def test_resampled_values_are_those_of_the_clusters_examples_taken_together():
    """The oracle draws clusters by hand and scores all of their examples anew."""
    values, counts, clusters = world(2)
    own = measured(values, counts, clusters)
    weights = resample_weights(own.poems, 5, 40)
    for metric in METRICS:
        found = own.on(metric, weights)
        for row, weight in zip(found, weights, strict=True):
            drawn = np.concatenate(
                [
                    np.flatnonzero(clusters.of == c)
                    for c in np.repeat(np.arange(own.poems), weight.astype(int))
                ]
            )
            if metric == "bleu":
                sums = np.stack(
                    [counts[name][:, drawn].sum(axis=(1, 2)) for name in METRICS["bleu"].counts], axis=-1
                )
                assert row == pytest.approx(METRICS["bleu"].score(sums.astype(float)))
            else:
                assert row == pytest.approx(values[metric][drawn].mean(axis=0))


@pytest.mark.parametrize("metric", METRICS)
def test_an_interval_is_about_as_wide_as_a_bootstrap_of_clusters(metric):
    own = measured(*world(3, clusters=120))
    low, high = np.array(ends([Part(own, [0])], metric)[0])
    drawn = own.on(metric, resample_weights(own.poems, 5, 1000))[:, 0]
    wide = np.diff(np.quantile(drawn, [0.025, 0.975]))[0]
    assert high - low == pytest.approx(wide, rel=0.12)


def test_intervals_of_clustered_examples_hold_with_clusters_and_not_without():
    """95 % promised: of a mean, a share and a difference, each in 250 worlds."""
    held = {"clusters": np.zeros(3), "none": np.zeros(3)}
    truth = np.array([50, 1 - 0.6914625, 0])
    for seed in range(250):
        values, counts, clusters = world(100 + seed)
        for name, each in (("clusters", clusters), ("none", None)):
            own = measured(values, counts, each)
            parts = [Part(own, [0]), Part(own, [1])]
            apart = differences([Pair(*parts, "chrf")])[0]
            found = [*(ends(parts, m)[0] for m in ("chrf", "form")), (apart.low, apart.high)]
            low, high = np.array(found).T
            held[name] += (low <= truth) & (truth <= high)
    assert (held["clusters"] / 250 > 0.93 - 0.014).all()  # an error of 1.4 points
    assert (held["none"] / 250 < 0.85).all()
