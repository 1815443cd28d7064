"""Several metrics at once: the settings that none beats in all of them, and those that are shown to be beaten.

In: a results folder with scores, and metrics that are means over examples. Out: a frame, written as ``front.csv``: a
row for each setting, with whether it is on the front and which other is shown to dominate it. Knows nothing of pictures.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Group, Part, groups
from tangeval.analysis.dominance import dominated_by, on_front
from tangeval.analysis.grid import axes_of
from tangeval.analysis.intervals import Floats
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import axes_in, written
from tangeval.metrics.base import Metrics
from tangeval.results.files import write_csv
from tangeval.results.folder import ALL, RunFolder


def front(
    run: RunFolder, names: Sequence[str], split: str = "validation", checkpoint: str | None = None
) -> pd.DataFrame:
    """Write ``front.csv`` and return it: the front first, then what cannot be told from it, then what is dominated.

    Settings of one ``checkpoint`` (default: the chosen one), or of ``ALL``; columns as in docs/results.md.

    Raises:
        TangevalError: fewer than two metrics, one that is no mean or was not measured, or no such checkpoint or split.
    """
    _check_metrics(names, run.metrics, alone=checkpoint != ALL)
    frame, by_poem = _measured(run, names, split, run.named(checkpoint, split))
    best = on_front(np.round(by_poem.mean(axis=1), 12))
    found, items = dominated_by(by_poem, best), _items(frame)
    frame["on_front"] = best.astype(int)
    frame["dominated_by"] = [None if place < 0 else items[place] for place in found]
    order = np.lexsort((-by_poem[0].mean(axis=0), ~best, found >= 0))
    frame = frame.iloc[order].reset_index(drop=True)
    write_csv(run.table("front"), frame)
    return frame


def _measured(
    run: RunFolder, names: Sequence[str], split: str, checkpoints: Sequence[str]
) -> tuple[pd.DataFrame, Floats]:
    """Every setting's values and intervals, a row each, and its examples' values ``[M, P, C]``, of which more is better."""
    rows, parts = list[dict[str, Any]](), list[Floats]()
    signs = [1 if run.metrics[name].better == "high" else -1 for name in names]
    for name in checkpoints:
        (group,) = groups(run.scores(name, split), run.likelihood(), run.metrics)
        rows += [_row(group, place, names) for place in range(len(group.measured.knobs))]
        parts.append(np.stack([s * group.measured.by_poem[n] for s, n in zip(signs, names, strict=True)]))
    frame = pd.DataFrame(rows)
    if missing := [name for name in names if frame[name].isna().any()]:
        raise TangevalError(f"{run.path}: {missing[0]} was not measured for every setting; leave it out")
    return frame, np.concatenate(parts, axis=2)


def _check_metrics(names: Sequence[str], metrics: Metrics, *, alone: bool) -> None:
    if len(set(names)) < 2:
        raise TangevalError("give two metrics at least: --metric form --metric rhyme")
    for name in names:
        if name not in metrics:
            raise TangevalError(f"--metric {name} is no metric; there are {', '.join(metrics)}")
        if metrics[name].level == "corpus":
            means = " or ".join(each for each in ("shared_pairs", "chrf") if each in metrics)
            hint = f"take {means}" if means else "take another metric"
            raise TangevalError(
                f"--metric {name}: it is no mean over examples, so dominance cannot be tested by it; {hint}"
            )
        if alone and not metrics[name].per_setting:
            raise TangevalError(
                f"--metric {name} is the same for every setting of a checkpoint; --checkpoint {ALL} has others"
            )


def _row(group: Group, place: int, names: Sequence[str]) -> dict[str, Any]:
    part, knobs = Part(group.measured, [place]), group.measured.knobs.loc[place]
    row = {"checkpoint": group.checkpoint, "split": group.split} | {
        name: knobs[name] for name in axes_in(knobs)
    }
    for name in names:
        row |= zip(
            (name, f"{name}_low", f"{name}_high"), (part.value(name), *part.interval(name)), strict=True
        )
    return row


def _items(frame: pd.DataFrame) -> list[str]:
    """Each row as ``tangeval compare`` takes it, without the folder: ``checkpoint-65:temperature=0.7,…``."""
    axes = axes_of(frame)
    knobs = (",".join(f"{knob}={written(row[knob])}" for knob in axes) for row in frame.to_dict("records"))
    return [f"{name}:{own}" for name, own in zip(frame["checkpoint"], knobs, strict=True)]
