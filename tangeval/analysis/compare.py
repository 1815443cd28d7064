"""Two or more things measured on the same poems → which differences are real.

In: results folders with scores, or groups measured elsewhere. Out: a frame with one row for
each pair × metric: the difference, its interval, a permutation p-value, the same corrected
for the size of the family, and how many poems would show a difference of a given size. Knows
nothing of torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Part, groups
from tangeval.analysis.stats import flips_for, holm, poems_needed, sign_flip_p
from tangeval.core.config import named_numbers
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.metrics import BY_NAME
from tangeval.results.files import no_url
from tangeval.results.folder import RunFolder

METRICS = ("reference_nll", "bleu", "form", "rhyme")
POWER = 0.8


@dataclass(frozen=True)
class Item:
    """One side of a comparison."""

    name: str
    part: Part
    seed: int | None = None  #: of its noise; None if it was not generated here, or by a server
    data: str | None = None  #: the data's digest, if known


def read_item(text: str, split: str) -> Item:
    """Return what ``FOLDER[:CHECKPOINT[:KNOB=VALUE,…]]`` names, measured on ``split``.

    A folder alone is the checkpoint and setting that were chosen in it; a checkpoint alone the mean
    over all of its settings; knobs narrow them.

    Raises:
        TangevalError: there is no such folder, checkpoint, split or setting, or nothing was chosen.
    """
    no_url(Path(text))
    place, _, rest = (text, "", "") if Path(text).is_dir() else text.partition(":")
    run = RunFolder(Path(place))
    seed = run.study.seed
    name, _, knobs = rest.partition(":")
    wanted = _knobs(text, knobs)
    if not name:
        selection = run.selection
        if not selection or not selection["setting"]:
            raise TangevalError(
                f"{place}: nothing is chosen there; say which checkpoint is meant, as in {place}:checkpoint-65"
            )
        name = selection["checkpoint"]["checkpoint"]
        wanted = {knob: selection["setting"][knob] for knob in AXES}
    all_rows = run.columns(["checkpoint", "split"])
    here = all_rows.loc[all_rows["split"] == split, "checkpoint"]
    if not len(here):
        raise TangevalError(
            f"{place}: it has no {split} split; it has {', '.join(all_rows['split'].unique())}"
        )
    if name not in (names := list(here.unique())):
        raise TangevalError(f"{place}: it has no checkpoint {name}; it has {', '.join(names)}")
    (group,) = groups(run.scores(name, split), run.likelihood(), seed)
    fits = np.ones(len(group.measured.knobs), bool)
    for knob, value in wanted.items():
        there = group.measured.knobs[knob].to_numpy(float)
        if not np.isclose(there, value).any():
            values = ", ".join(f"{v:g}" for v in sorted(set(there)))
            raise TangevalError(f"{text}: no setting has {knob} {value:g}; there are {values}")
        fits &= np.isclose(there, value)
    if name in (RANDOM, REFERENCE):
        fits[:] = True
    data = (run.read_json(run.manifest_file) or {}).get("data", {}).get("digest")
    return Item(
        text,
        Part(group.measured, np.flatnonzero(fits).tolist()),
        seed if run.noise_shared else None,
        data,
    )


def _knobs(text: str, knobs: str) -> dict[str, float]:
    wanted = named_numbers(filter(None, knobs.split(",")), f"{text}:", "temperature=0.7")
    for knob in wanted.keys() - set(AXES):
        raise TangevalError(f"{text}: {knob} is no knob; the knobs are {', '.join(AXES)}")
    return wanted


def compare(
    items: Sequence[Item], metrics: Sequence[str] = METRICS, effects: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Return a row for each pair of ``items`` × metric that both have.

    ``difference`` is a's value less b's, over the same poems; ``low`` and ``high`` are its 95 %
    interval. ``p`` is a sign-flip permutation's over poems, ``p_holm`` the same corrected for
    all rows together. ``poems_needed`` are the poems that show a difference of ``effects``
    [the metric's unit] with 80 % power, at the level that Holm begins with.

    Raises:
        TangevalError: there are fewer than two items, they are not of the same poems, or an unknown metric.
    """
    if len(items) < 2:
        raise TangevalError("give two things to compare at least")
    for metric in (*metrics, *(effects or {})):
        if metric not in BY_NAME:
            raise TangevalError(f"--metric {metric} is no metric; there are {', '.join(BY_NAME)}")
    for metric, effect in (effects or {}).items():
        if not effect > 0:
            raise TangevalError(f"--effect {metric}={effect:g}: the size of a difference is above 0")
    poems = [item.part.measured.examples for item in items]
    for item, own in zip(items, poems, strict=True):
        if item.data != items[0].data:
            raise TangevalError(f"{items[0].name} and {item.name} were made of different data")
        if own != poems[0]:
            raise TangevalError(
                f"{items[0].name} and {item.name} are not of the same poems: {len(poems[0])} and {len(own)}, "
                f"{len(set(poems[0]) & set(own))} of them in both"
            )
    rows: list[dict[str, Any]] = []
    differences = []
    for a, b in combinations(items, 2):
        for metric in metrics:
            # What rounding left is no difference.
            difference = np.round(a.part.by_poem(metric) - b.part.by_poem(metric), 12)
            if np.isnan(difference).any():
                continue  # was not measured of one of them
            low, high = a.part.difference_interval(b.part, metric)
            values = a.part.value(metric), b.part.value(metric)
            differences.append(difference)
            rows.append(
                {
                    "metric": metric, "a": a.name, "b": b.name, "value_a": values[0],
                    "value_b": values[1], "difference": values[0] - values[1],
                    "low": low, "high": high, "poems": len(difference), "shared_noise": _share_noise(a, b),
                }
            )  # fmt: skip
    frame = pd.DataFrame(rows)
    if not rows:
        return frame
    by_poem = np.stack(differences, axis=1)
    frame["p"] = sign_flip_p(by_poem, flips_for(len(rows)), seed=0)
    frame["p_holm"] = holm(frame["p"].to_numpy())
    if effects:
        spread = by_poem.std(axis=0, ddof=1)
        frame["effect"] = [effects.get(metric, np.nan) for metric in frame["metric"]]
        frame["poems_needed"] = [
            poems_needed(sd, effect, power=POWER, family=len(rows)) if effect > 0 and sd > 0 else np.nan
            for sd, effect in zip(spread, frame["effect"], strict=True)
        ]
    return frame


def _share_noise(a: Item, b: Item) -> bool:
    """Keyed noise is the same where seed and samples are."""
    return a.seed is not None and a.seed == b.seed and a.part.measured.samples == b.part.measured.samples
