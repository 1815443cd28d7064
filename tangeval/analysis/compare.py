"""Two or more things measured on the same examples → which differences are real.

In: results folders with scores, or groups measured elsewhere. Out: a frame with one row for each pair ×
metric: the difference, its interval, a permutation p-value, the same corrected for the size of the
family, and how many examples would show a difference of a given size. Knows nothing of torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Part, groups
from tangeval.analysis.hypothesis_tests import flips_for, holm, poems_needed, sign_flip_p
from tangeval.analysis.intervals import Floats
from tangeval.core.config import named_numbers
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics.base import Metrics
from tangeval.results.files import no_url
from tangeval.results.folder import RunFolder

#: What is compared where nobody says, as far as the task has it.
METRICS = ("reference_nll", "bleu", "form", "rhyme")
POWER = 0.8
#: A smaller difference is no result, and the examples that would show it are beyond counting.
SMALLEST_EFFECT = 1e-6


@dataclass(frozen=True)
class Selector:
    """What ``FOLDER[:CHECKPOINT[:KNOB=VALUE,…]]`` names: a checkpoint, and those of its settings that have the knobs."""

    text: str
    run: RunFolder
    checkpoint: str
    knobs: Mapping[str, float]


@dataclass(frozen=True)
class Item:
    """One side of a comparison."""

    name: str
    part: Part
    seed: int | None = None  #: of its noise; None if it was not generated here, or by a server
    data: str | None = None  #: the data's digest, if known


def parse_item(text: str) -> Selector:
    """Return what ``FOLDER[:CHECKPOINT[:KNOB=VALUE,…]]`` names.

    A folder alone is the checkpoint and setting that were chosen in it; a checkpoint alone the mean
    over all of its settings; knobs narrow them.

    Raises:
        TangevalError: there is no such folder, a knob is none, or nothing was chosen.
    """
    no_url(Path(text))
    place, _, rest = (text, "", "") if Path(text).is_dir() else text.partition(":")
    run = RunFolder(Path(place))
    if not run.study_file.is_file():
        raise TangevalError(f"{place} is no results folder; `tangeval run STUDY` makes one")
    name, _, knobs = rest.partition(":")
    if not name:
        selection = run.selection
        if not selection or not selection["setting"]:
            raise TangevalError(
                f"{place}: nothing is chosen there; say which checkpoint is meant, as in {place}:checkpoint-65"
            )
        chosen = {knob: selection["setting"][knob] for knob in AXES}
        return Selector(text, run, selection["checkpoint"]["checkpoint"], chosen)
    wanted = named_numbers(filter(None, knobs.split(",")), f"{text}:", "temperature=0.7")
    for knob in wanted.keys() - set(AXES):
        raise TangevalError(f"{text}: {knob} is no knob; the knobs are {', '.join(AXES)}")
    return Selector(text, run, name, wanted)


def measure(selector: Selector, split: str, seed: int) -> Item:
    """Measure what is selected; ``seed`` draws the bootstrap's resamples, one for all that is compared.

    Raises:
        TangevalError: the folder has no such split, checkpoint or setting.
    """
    run, name = selector.run, selector.checkpoint
    there = run.columns(["checkpoint", "split"]).drop_duplicates()
    here = there.loc[there["split"] == split, "checkpoint"]
    if not len(here):
        raise TangevalError(
            f"{run.path}: it has no {split} split; it has {', '.join(there['split'].unique())}"
        )
    if name not in list(here):
        raise TangevalError(f"{run.path}: it has no checkpoint {name}; it has {', '.join(here)}")
    (group,) = groups(run.scores(name, split), run.likelihood(), run.metrics, seed)
    knobs = group.measured.knobs
    fits = np.ones(len(knobs), bool)
    for knob, value in ({} if name in (RANDOM, REFERENCE) else selector.knobs).items():
        values = knobs[knob].to_numpy(float)
        if not np.isclose(values, value).any():
            have = ", ".join(f"{v:g}" for v in sorted(set(values)))
            raise TangevalError(f"{selector.text}: no setting has {knob} {value:g}; there are {have}")
        fits &= np.isclose(values, value)
    if not fits.any():
        raise TangevalError(f"{selector.text}: no setting has all of these values")
    digest = (run.read_json(run.manifest_file) or {}).get("data", {}).get("digest")
    noise = run.study.seed if run.noise_shared else None
    return Item(selector.text, Part(group.measured, np.flatnonzero(fits).tolist()), noise, digest)


def measure_all(texts: Sequence[str], split: str) -> list[Item]:
    """Measure what the ``texts`` name, resampled with the first one's seed so that all differences are paired."""
    selectors = [parse_item(text) for text in texts]
    return [measure(selector, split, selectors[0].run.study.seed) for selector in selectors]


def compare(
    items: Sequence[Item], metrics: Sequence[str] = (), effects: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Return a row for each pair of ``items`` × metric that both have; ``METRICS`` if none is named.

    ``difference`` is a's value less b's, over the same examples; ``low`` and ``high`` are its 95 %
    interval. ``p`` is a sign-flip permutation's over examples, ``p_holm`` the same corrected for all rows
    together. ``poems_needed`` are the examples that show a difference of ``effects`` [the metric's unit]
    with 80 % power, at the level that Holm begins with.

    Raises:
        TangevalError: there are fewer than two items, they are not of the same examples, a metric is unknown,
            or an effect too small.
    """
    if len(items) < 2:
        raise TangevalError("give two things to compare at least")
    effects, known = effects or {}, items[0].part.measured.metrics
    metrics = list(metrics) or [*dict.fromkeys((*(name for name in METRICS if name in known), *effects))]
    _check_metrics(known, metrics, effects)
    _check_same_examples(items)
    rows: list[dict[str, Any]] = []
    differences: list[Floats] = []
    for (a, b), metric in product(combinations(items, 2), metrics):
        # What rounding left is no difference.
        difference = np.round(a.part.by_poem(metric) - b.part.by_poem(metric), 12)
        if not np.isnan(difference).any():  # else it was not measured of one of them
            differences.append(difference)
            rows.append(_row(a, b, metric))
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    by_poem = np.stack(differences, axis=1)
    frame["p"] = sign_flip_p(by_poem, flips_for(len(rows)), seed=0)
    frame["p_holm"] = holm(frame["p"].to_numpy())
    if effects:
        frame["effect"] = [effects.get(metric, np.nan) for metric in frame["metric"]]
        frame["poems_needed"] = [
            poems_needed(sd, effect, power=POWER, family=len(rows)) if effect > 0 and sd > 0 else np.nan
            for sd, effect in zip(by_poem.std(axis=0, ddof=1), frame["effect"], strict=True)
        ]
    return frame


def _row(a: Item, b: Item, metric: str) -> dict[str, Any]:
    low, high = a.part.difference_interval(b.part, metric)
    values = a.part.value(metric), b.part.value(metric)
    # Keyed noise is the same where seed and samples are.
    shared = a.seed is not None and a.seed == b.seed and a.part.measured.samples == b.part.measured.samples
    return {
        "metric": metric, "a": a.name, "b": b.name, "value_a": values[0], "value_b": values[1],
        "difference": values[0] - values[1], "low": low, "high": high, "poems": a.part.measured.poems,
        "shared_noise": shared,
    }  # fmt: skip


def _check_metrics(known: Metrics, metrics: Sequence[str], effects: Mapping[str, float]) -> None:
    for metric in (*metrics, *effects):
        if metric not in known:
            raise TangevalError(f"--metric {metric} is no metric; there are {', '.join(known)}")
    for metric, effect in effects.items():
        if not effect >= SMALLEST_EFFECT:
            raise TangevalError(
                f"--effect {metric}={effect:g}: the size of a difference is above 0; give {SMALLEST_EFFECT:g} or more"
            )


def _check_same_examples(items: Sequence[Item]) -> None:
    first, expected = items[0], items[0].part.measured.examples
    for item in items[1:]:
        own = item.part.measured.examples
        if item.data != first.data:
            raise TangevalError(f"{first.name} and {item.name} were made of different data")
        if own != expected:
            raise TangevalError(
                f"{first.name} and {item.name} are not of the same poems: {len(expected)} and {len(own)}, "
                f"{len(set(expected) & set(own))} of them in both"
            )
