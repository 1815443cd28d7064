"""How large a study must be: what the poems and samples of a pilot differ by → how many of each show an effect.

In: a study, a pilot's results folder, and effects. Out: a frame with a row for each division into poems and
samples, its power, and the smallest effect that it shows. Knows nothing of torch or pictures.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from scipy import special

from tangeval import tasks
from tangeval.analysis.compare import SMALLEST_EFFECT
from tangeval.analysis.grid import grid
from tangeval.analysis.hypothesis_tests import poems_needed, power_of, smallest_effect
from tangeval.analysis.intervals import LEVEL, Floats, mean_interval
from tangeval.analysis.variance import by_poem
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics.base import Metrics
from tangeval.results.folder import RunFolder

#: A pilot's spread is an estimate: planned is with the limit that it is below in this share of pilots (Browne,
#: *Statistics in Medicine* 14, 1995).
LIMIT = 0.8
#: As many times a pilot's samples can be planned: what more do it hardly tells.
FURTHER = 4
#: More samples are worth while until the smallest effect is this near to that of the most.
_NEAR = 1.05


@dataclass(frozen=True)
class Asked:
    """What a plan is asked: ``effects`` (metric → size), and the pilot (default: the study's own results).

    ``family`` comparisons share the level. ``poem_cost`` is what a poem costs beside its samples, in samples.
    """

    effects: Mapping[str, float]
    pilot: Path | None = None
    family: int = 1
    poem_cost: float = 0.0


def plan(study: Study, asked: Asked) -> pd.DataFrame:
    """Return, for each effect and comparison, how many poems and samples show it with 80 % power.

    ``between`` is ``two settings`` (of one checkpoint) or ``two checkpoints`` (averaged over the pilot's
    settings), base left out where there are others; on the split that the study selects on, or its first.
    ``division`` is ``cheapest``; ``cheapest in the split`` where that needs more poems than there are, or
    ``all poems`` where none suffices; and ``as declared``. ``outputs`` are poems × samples.

    Raises:
        TangevalError: a metric has no such plan, or there is no pilot, or it lacks what a plan needs.
    """
    run = RunFolder(asked.pilot or Path("results") / study.name)
    if not run.scores_file.is_file():
        made = f"`tangeval run {study.file} samples=2 --out {run.path}-pilot` makes one"
        raise TangevalError(
            f"{run.path}: there are no scores of a pilot; {made}; then give --from {run.path}-pilot"
        )
    _check(run.metrics, asked.effects)
    split = study.select.split if study.select else study.ordered_splits()[0]
    data = tasks.load(study.task).load(study.data_name, study.validation_size)
    declared = len(data.split(split)), study.samples_of(split)
    rows = []
    for metric, between, y in compared(run, split, asked.effects):
        parts, effect = by_poem(y, run.noise_shared), asked.effects[metric]
        most = FURTHER * y.shape[-1]
        if not deviation(parts, most) > 0:
            raise TangevalError(f"{run.path}: {metric} does not vary between {between}; take another pilot")
        about = {"metric": metric, "between": between, "effect": effect}
        rows += [about | row for row in divisions(parts, effect, declared, most, asked)]
    return pd.DataFrame(rows)


def divisions(
    parts: tuple[Floats, Floats], effect: float, declared: tuple[int, int], most: int, asked: Asked
) -> Iterator[dict[str, Any]]:
    """Yield the divisions that ``plan`` tells, of ``most`` samples at most, and that of ``declared`` poems and samples.

    ``parts`` are what ``variance.by_poem`` found.
    """

    def row(division: str, poems: int, samples: int) -> dict[str, Any]:
        sd, size = deviation(parts, samples), {"poems": poems, "samples": samples, "outputs": poems * samples}
        power = power_of(sd, effect, poems, family=asked.family)
        smallest = smallest_effect(sd, poems, family=asked.family)
        return {"division": division, **size, "power": power, "smallest_effect": smallest}

    sds = {samples: deviation(parts, samples) for samples in range(1, most + 1)}
    needed = {samples: poems_needed(sd, effect, family=asked.family) for samples, sd in sds.items()}
    by_cost = sorted(sds, key=lambda samples: needed[samples] * (asked.poem_cost + samples))
    held = [samples for samples in by_cost if needed[samples] <= declared[0]]
    yield row("cheapest", needed[by_cost[0]], by_cost[0])
    if not held:
        near = (samples for samples, sd in sds.items() if sd <= _NEAR * sds[most])
        yield row("all poems", declared[0], next(near))
    elif held[0] != by_cost[0]:
        yield row("cheapest in the split", needed[held[0]], held[0])
    yield row("as declared", *declared)


def deviation(parts: tuple[Floats, Floats], samples: int) -> float:
    """Return the upper limit of the standard deviation between poems of a difference of means of ``samples``.

    ``parts`` are each poem's in poem × thing and in noise: their sum has the interval of any mean over poems,
    whatever the law of the scores. It is no less than what noise alone makes of it.
    """
    mixed, noise = parts
    limit, end = special.stdtrit(len(mixed) - 1, (LIMIT, (1 + LEVEL) / 2))
    high = float(mean_interval(mixed + noise / samples, limit / end)[1])
    return math.sqrt(2 * max(high, float(noise.mean()) / samples))


def compared(run: RunFolder, split: str, metrics: Iterable[str]) -> Iterator[tuple[str, str, Floats]]:
    """Yield each metric, what is compared, and its scores in the pilot: ``[checkpoint, setting, poem, sample]`` or
    ``[checkpoint, poem, sample]``."""
    axes = list(run.study.decoding.axes)
    keys = run.columns(["checkpoint", "split", *axes, "example_id", "sample"])
    here = (keys["split"] == split) & ~keys["checkpoint"].isin([RANDOM, REFERENCE])
    others = here & (keys["checkpoint"] != BASE)
    here = others if others.any() else here
    own = keys[here]
    names: dict[str, Any] = {
        "checkpoint": own["checkpoint"].astype(str),
        "setting": own.groupby(axes).ngroup(),
    }
    whole = grid(names | {name: own[name] for name in ("example_id", "sample")}, f"{run.path} on {split}")
    checkpoints, settings, poems, samples = whole.shape
    if min(samples, poems, checkpoints * settings) < 2:
        has = f"{poems} examples × {samples} samples of {settings} settings and {checkpoints} checkpoints to compare"
        least = "a pilot has 2 examples, 2 samples, and 2 settings or checkpoints at least"
        raise TangevalError(f"{run.path}: on {split} it has {has}; {least}")
    for metric in metrics:
        y = whole.array(run.columns([metric])[metric][here], float)
        things = {"two settings": y} if settings > 1 else {}
        things |= {"two checkpoints": y.mean(axis=1)} if checkpoints > 1 else {}
        yield from ((metric, between, values) for between, values in things.items())


def _check(metrics: Metrics, effects: Mapping[str, float]) -> None:
    means = ", ".join(m.name for m in metrics.values() if m.level == "text" and m.headline)
    for name, effect in effects.items():
        if name not in metrics:
            raise TangevalError(f"--effect {name} is no metric; there are {', '.join(metrics)}")
        if metrics[name].level != "text":
            why = "it is no mean over outputs, and a corpus's score near its floor hangs on a few lucky examples"
            raise TangevalError(f"--effect {name}: no plan can be made by it: {why}; such means are {means}")
        if not effect >= SMALLEST_EFFECT:
            raise TangevalError(f"--effect {name}={effect:g}: give {SMALLEST_EFFECT:g} or more")
