"""Two or more things measured on the same examples → which differences are real.

In: results folders with scores, or groups measured elsewhere. Out: a frame with one row for each pair ×
metric: the difference, its interval, a randomisation p-value, the same adjusted for the size of the
family, and how many examples would show a difference of a given size. Knows nothing of torch.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Part, groups
from tangeval.analysis.differences import Difference, Pair, differences
from tangeval.analysis.hypothesis_tests import POWER, holm, poems_needed
from tangeval.analysis.intervals import Floats, carrying
from tangeval.analysis.recipes import estimate, runs_needed
from tangeval.core.config import named_knobs
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB, Value, axes_in, written
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics.base import Metrics
from tangeval.results.files import no_url
from tangeval.results.folder import RunFolder

#: What is compared where nobody says, as far as the task has it.
METRICS = ("reference_nll", "bleu", "shared_pairs", "exact", "rouge_l", "form", "rhyme")
#: A smaller difference is no result, and the examples that would show it are beyond counting.
SMALLEST_EFFECT = 1e-6


@dataclass(frozen=True)
class Item:
    """One side of a comparison: a checkpoint, or a recipe's ``runs``, of which ``part`` is the first."""

    name: str
    part: Part
    seed: int | None = None  #: of its noise; None if it was not generated here, or by a server
    data: str | None = None  #: the data's digest, if known
    runs: tuple[Part, ...] = ()

    def value(self, metric: str) -> float:
        return float(np.mean([run.value(metric) for run in self.runs or (self.part,)]))

    def values(self, metric: str) -> Floats:
        """Return the value of each poem ``[P]``, of a recipe in each run ``[k, P]``."""
        return (
            np.stack([run.centred(metric) for run in self.runs]) if self.runs else self.part.centred(metric)
        )

    def carried(self, metric: str) -> bool:
        """Whether enough poems carry the value, in all runs together, for an interval to be believed."""
        kind = self.part.measured.metrics[metric]
        rare = (
            sum(run.rare(metric) for run in self.runs or (self.part,))
            if kind.rarest or kind.rare_from
            else None
        )
        return rare is None or not np.isnan(carrying(np.asarray(rare)))


def _selected(text: str) -> tuple[RunFolder, str, Mapping[str, Value]]:
    """What ``FOLDER[:CHECKPOINT[:KNOB=VALUE,…]]`` names: a checkpoint, and the knobs its settings must have.

    A folder alone is the checkpoint and setting chosen in it; a checkpoint alone the mean over all of its
    settings. In a checkpoint's place may stand ``RECIPE[@STEP]``.
    """
    no_url(Path(text))
    drive = 2 if re.match(r"[A-Za-z]:[\\/]", text) else 0  # C:\\results
    place, _, rest = (text, "", "") if Path(text).is_dir() else text[drive:].partition(":")
    place = text[:drive] * (place != text) + place
    run = RunFolder(Path(place))
    if not run.study_file.is_file():
        raise TangevalError(f"{place} is no results folder; `tangeval run STUDY` makes one")
    name, _, knobs = rest.partition(":")
    if not name:
        selection = run.selection
        if not selection or not selection["setting"]:
            hint = f"say which checkpoint is meant, as in {place}:checkpoint-65"
            raise TangevalError(f"{place}: nothing is chosen there; {hint}")
        chosen = {knob: selection["setting"][knob] for knob in axes_in(selection["setting"])}
        return run, selection["checkpoint"]["checkpoint"], chosen
    return run, name, named_knobs(filter(None, knobs.split(",")), f"{text}:")


def _runs(run: RunFolder, name: str) -> list[str]:
    """The checkpoint of each run of ``RECIPE[@STEP]``: the last, or that of the step; none if it is no recipe."""
    recipe, _, step = name.partition("@")
    own = {name: record for name, record in run.trained.items() if record["recipe"] == recipe}
    found = {record["run"]: name for name, record in own.items() if step in ("", str(record["step"]))}
    if lacking := {record["run"] for record in own.values()} - found.keys():
        raise TangevalError(
            f"{run.path}:{name}: {min(lacking)} has no checkpoint of that step; name one that all have"
        )
    return list(found.values())


def _measure(text: str, run: RunFolder, name: str, wanted: Mapping[str, Value], split: str) -> Item:
    """What ``text`` names, measured."""
    runs = _runs(run, name)
    parts = tuple(_part(text, run, each, wanted, split) for each in runs or [name])
    digest = (run.read_json(run.manifest_file) or {}).get("data", {}).get("digest")
    return Item(text, parts[0], run.study.seed if run.noise_shared else None, digest, parts if runs else ())


def _part(text: str, run: RunFolder, name: str, wanted: Mapping[str, Value], split: str) -> Part:
    """The settings of a checkpoint that have what is wanted."""
    there = run.columns(["checkpoint", "split"]).drop_duplicates()
    here = there.loc[there["split"] == split, "checkpoint"]
    if not len(here):
        have = ", ".join(there["split"].unique())
        raise TangevalError(f"{run.path}: it has no {split} split; it has {have}")
    if name not in list(here):
        have = ", ".join([*dict.fromkeys(record["recipe"] for record in run.trained.values()), *here])
        raise TangevalError(f"{run.path}: it has no checkpoint {name}; it has {have}")
    (group,) = groups(run.scores(name, split), run.likelihood(), run.metrics)
    knobs = group.measured.knobs
    fits = np.ones(len(knobs), bool)
    for knob, value in ({} if name in (RANDOM, REFERENCE) else wanted).items():
        values = knobs[knob].to_numpy() if knob in knobs else np.full(len(knobs), KNOB[knob].off)
        same = values == value if isinstance(value, str) else np.isclose(values.astype(float), value)
        if not same.any():
            have = ", ".join(map(written, sorted(set(values))))
            raise TangevalError(f"{text}: no setting has {knob} {written(value)}; there are {have}")
        fits &= same
    if not fits.any():
        raise TangevalError(f"{text}: no setting has all of these values")
    return Part(group.measured, np.flatnonzero(fits).tolist())


def measure_all(texts: Sequence[str], split: str) -> list[Item]:
    """Measure what the ``texts`` name.

    Raises:
        TangevalError: there is no such folder, split, checkpoint, knob or setting, or nothing was chosen.
    """
    return [_measure(text, *_selected(text), split) for text in texts]


def compare(
    items: Sequence[Item], metrics: Sequence[str] = (), effects: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Return a row for each pair of ``items`` × metric that both have; ``METRICS`` if none is named, or what readers see.

    ``difference`` is a's value less b's, over the same examples; ``low`` and ``high`` are its 95 % interval.
    ``p`` is of a randomisation test over examples, ``p_adjusted`` the same for all rows together.
    ``poems_needed`` are the examples that show a difference of ``effects`` [the metric's unit] with 80 %
    power beside the other rows. ``over`` says what interval and p are over. Where a recipe has several runs these
    are ``recipes.estimate``'s, ``runs_needed`` stands in the place of ``poems_needed``, and Holm's rule adjusts.

    Raises:
        TangevalError: fewer than two items, other examples, an unknown metric, or too small an effect.
    """
    if len(items) < 2:
        raise TangevalError("give two things to compare at least")
    effects, known = effects or {}, items[0].part.measured.metrics
    usual = [name for name in METRICS if name in known] or [m.name for m in known.values() if m.headline]
    metrics = list(metrics) or [*dict.fromkeys((*usual, *effects))]
    _check_metrics(known, metrics, effects)
    _check_same_examples(items)
    sides = product(combinations(items, 2), metrics)
    asked = [(a, b, Pair(a.part, b.part, metric)) for (a, b), metric in sides]
    asked = [each for each in asked if not np.isnan(each[2].value)]  # it was not measured of one of them
    found = _differences(asked)
    rows = [_row(*each, difference) for each, difference in zip(asked, found, strict=True)]
    if effects:
        for row, (a, b, pair) in zip(rows, asked, strict=True):
            row["effect"] = effect = effects.get(row["metric"], np.nan)
            row["poems_needed"] = np.nan
            if effect > 0 and _several(a, b):
                spread = estimate(a.values(pair.metric), b.values(pair.metric)).spread
                row["runs_needed"] = runs_needed(spread, effect, POWER, len(rows))
            elif effect > 0 and pair.spread > 0:
                clusters = poems_needed(pair.spread, effect, power=POWER, family=len(rows))
                row["poems_needed"] = pair.examples_in(clusters)
    return pd.DataFrame(rows)


def _several(a: Item, b: Item) -> bool:
    """Whether a recipe has a second run, which tells how far runs are apart."""
    return max(len(a.runs), len(b.runs)) > 1


def _differences(asked: Sequence[tuple[Item, Item, Pair]]) -> list[Difference]:
    """Each pair's difference: of recipes over poems and runs, beside which Holm's rule adjusts all; else a family's."""
    alone = iter(differences([pair for a, b, pair in asked if not _several(a, b)]))
    found = [_over_runs(a, b, pair.metric) if _several(a, b) else next(alone) for a, b, pair in asked]
    if not any(_several(a, b) for a, b, _ in asked):
        return found
    adjusted = holm(np.array([each.p for each in found]))
    return [replace(each, p_adjusted=float(p)) for each, p in zip(found, adjusted, strict=True)]


def _over_runs(a: Item, b: Item, metric: str) -> Difference:
    found = estimate(a.values(metric), b.values(metric))
    reach = 1 if a.part.measured.metrics[metric].share else np.inf
    ends = np.clip((found.low, found.high), -reach, reach)
    low, high = ends.tolist() if a.carried(metric) and b.carried(metric) else (np.nan, np.nan)
    return Difference(found.value, low, high, found.p, np.nan)


def _row(a: Item, b: Item, pair: Pair, found: Difference) -> dict[str, Any]:
    # Keyed noise is the same where seed and samples are.
    shared = a.seed is not None and a.seed == b.seed and a.part.measured.samples == b.part.measured.samples
    runs = " + ".join(str(len(item.runs)) for item in (a, b) if item.runs)
    over = f"poems, {runs} runs" if _several(a, b) else "poems, one run each" if runs else "poems"
    return {
        "metric": pair.metric, "a": a.name, "b": b.name, "value_a": a.value(pair.metric),
        "value_b": b.value(pair.metric), "difference": found.value, "low": found.low, "high": found.high,
        "poems": len(a.part.measured.examples), "shared_noise": shared, "p": found.p, "p_adjusted": found.p_adjusted,
        "over": over,
    }  # fmt: skip


def _check_metrics(known: Metrics, metrics: Sequence[str], effects: Mapping[str, float]) -> None:
    for metric in (*metrics, *effects):
        if metric not in known:
            raise TangevalError(f"--metric {metric} is no metric; there are {', '.join(known)}")
    for metric, effect in effects.items():
        if not effect >= SMALLEST_EFFECT:
            hint = f"the size of a difference is above 0; give {SMALLEST_EFFECT:g} or more"
            raise TangevalError(f"--effect {metric}={effect:g}: {hint}")


def _check_same_examples(items: Sequence[Item]) -> None:
    first, expected = items[0], items[0].part.measured.examples
    for item in items[1:]:
        own = item.part.measured.examples
        if item.data != first.data:
            raise TangevalError(f"{first.name} and {item.name} were made of different data")
        if own != expected:
            counts = f"{len(expected)} and {len(own)}, {len(set(expected) & set(own))} of them in both"
            raise TangevalError(f"{first.name} and {item.name} are not of the same examples: {counts}")
