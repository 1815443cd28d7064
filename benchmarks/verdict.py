"""How often a verdict claims what is not there, and how often it says what is.

    python -m benchmarks.verdict [--quick] [--out results/bench/verdict.json]

Makes up studies whose truth is known: a base model and four checkpoints × 9 settings of verse that is not there, on
poems that are alike in part. Needs no torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from scipy import special

from benchmarks.command import command_line
from tangeval.analysis.aggregate import Measured
from tangeval.analysis.questions import NATS, SHARE, Asked, Model, Row
from tangeval.analysis.verdict import Claim, claims
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.results.files import write_json
from tangeval.tasks.tang import TANG

POEMS, SAMPLES, RUNS = (15, 30, 100), 2, 400
STEPS = (10, 20, 30, 40)
TEMPERATURES, TOP_PS = (0.1, 0.7, 1.3), (0.6, 0.9, 1.0)
ASKED = Asked(
    "reference_nll",
    ("reference_nll", "shared_pairs", "form", "rhyme"),
    {"reference_nll": NATS, "form": SHARE, "rhyme": SHARE},
)
#: Standard deviations of what all have in common of a poem, a checkpoint, a setting, and a sample.
_POEM, _OWN, _SETTING, _SAMPLE = 1.0, 0.4, 0.4, 1.0


@dataclass(frozen=True)
class World:
    """The truth: each checkpoint's NLL, shares of form and rhyme and pairs, and what temperature 1.3 takes of form."""

    nll: Sequence[float]
    form: Sequence[float]
    pairs: Sequence[float]
    harm: float = 0.0
    rhyme: float = 0.6
    random_pairs: float = 0.1

    def value(self, row: Row, name: str) -> float:
        """The true value of one side of a comparison."""
        if name == RANDOM:
            return self.random_pairs if row.metric == "shared_pairs" else 0.05
        if row.question == "settings":  # of the last checkpoint, or of any where all are alike
            lost = self.harm if (row.metric, row.knob, name) == ("form", "temperature", "1.3") else 0.0
            return {"form": self.form[-1], "rhyme": self.rhyme, "shared_pairs": self.pairs[-1]}[
                row.metric
            ] - lost
        place = 0 if name == "base" else STEPS.index(int(name)) + 1
        own: Mapping[str, Sequence[float]] = {
            "reference_nll": self.nll,
            "form": self.form,
            "shared_pairs": self.pairs,
        }
        return (
            own[row.metric][place] - (self.harm / 3 if row.metric == "form" else 0)
            if row.metric in own
            else self.rhyme
        )


ALIKE = (0.7,) * 5
WORLDS = {
    "nothing differs": World((4.0,) * 5, ALIKE, (0.1,) * 5),
    "all is well at once": World((4.0,) * 5, (0.98,) * 5, (0.1,) * 5, rhyme=0.95),
    "fine-tuning helps, 30 and 40 alike": World((4.8, 4.3, 4.1, 4.0, 4.0), (0.2, 0.6, 0.8, 0.9, 0.9), (0.1, 0.2, 0.3, 0.3, 0.3), harm=0.2),
    "it helps little": World((4.05, 4.02, 4.0, 4.0, 4.0), (0.85, 0.9, 0.9, 0.9, 0.9), (0.1, 0.12, 0.12, 0.12, 0.12), harm=0.05),
}  # fmt: skip


def main() -> None:
    options = command_line(__file__, __doc__, quick="studies", out=True).parse_args()
    runs = RUNS // 10 if options.quick else RUNS
    rows = [row(name, poems, runs) for name, poems in product(WORLDS, POEMS)]
    write_json(options.out, rows)
    table = Table(
        "world", "poems", "false", "helped", "30 or 40 leads", "worse told", "ties equal", "harm", "random"
    )
    for each in rows:
        table.add_row(each["world"], str(each["poems"]), *(f"{each[k]:.1%}" for k in ("false", *TOLD)))
    Console(width=120).print(table)


TOLD = ("helped", "leader", "worse", "equal", "settings", "random")


def row(name: str, poems: int, runs: int) -> dict[str, Any]:
    """The share of studies with a false claim, and of those that say each thing that may be there."""
    world, found = WORLDS[name], []
    for run in range(runs):
        made = claims(
            *study(world, poems, np.random.default_rng([run, poems, list(WORLDS).index(name)])), ASKED
        )
        by = {claim.question: claim for claim in made}
        shown = {question: by[question].status == "shown" for question in ("helped", "settings", "random")}
        checkpoint = by["checkpoint"].values
        told = {"leader": checkpoint["checkpoint"] in ("30", "40"), "worse": "10" in checkpoint["worse"]}
        equal = by["checkpoint"].status == "no_difference"
        found.append({"false": any(map(bool, false(world, made))), **shown, **told, "equal": equal})
    return {"world": name, "poems": poems, "runs": runs, **pd.DataFrame(found).mean().to_dict()}


def false(world: World, made: Sequence[Claim]) -> list[Row]:
    """Return the comparisons that are told wrongly: better where it is not, or within a margin where it is not."""
    wrong = []
    for each in (row for claim in made for row in claim.evidence):
        truth = round(world.value(each, each.a) - world.value(each, each.b), 9)
        towards = np.sign(truth) * (1 if TANG.metrics[each.metric].better == "high" else -1)
        if (each.better and each.better != towards) or (each.equal and abs(truth) > (each.margin or 0)):
            wrong.append(each)
    return wrong


def study(
    world: World, poems: int, generator: np.random.Generator
) -> tuple[list[Model], dict[str, Measured]]:
    """Return a study of a world: its checkpoints and baselines."""
    knobs = pd.DataFrame(list(product(TEMPERATURES, TOP_PS)), columns=["temperature", "top_p"])
    harm = np.where(knobs["temperature"] == TEMPERATURES[-1], world.harm, 0)
    common = {metric: generator.normal(size=(poems, 1)) * _POEM for metric in ASKED.metrics}
    models = []
    for place, step in enumerate((None, *STEPS)):
        by_poem = {
            "reference_nll": np.repeat(world.nll[place] + 0.5 * common["reference_nll"] + generator.normal(size=(poems, 1)) * 0.1, len(knobs), axis=1),
            "form": _shares(world.form[place] - harm, common["form"], generator),
            "rhyme": _shares(np.full(len(knobs), world.rhyme), common["rhyme"], generator),
            "shared_pairs": _counts(np.full(len(knobs), world.pairs[place]), common["shared_pairs"], SAMPLES, generator),
        }  # fmt: skip
        models.append(Model("base" if step is None else str(step), step, _measured(by_poem, knobs, SAMPLES)))
    none = pd.DataFrame({"temperature": [math.nan]})
    pairs = _counts(np.array([world.random_pairs]), common["shared_pairs"], 32, generator)
    random = {"shared_pairs": pairs, "form": np.ones((poems, 1)), "rhyme": np.full((poems, 1), 0.05)}
    reference = {
        "shared_pairs": np.full((poems, 1), 20.0),
        "form": np.ones((poems, 1)),
        "rhyme": np.full((poems, 1), 0.05),
    }
    return models, {RANDOM: _measured(random, none, 32), REFERENCE: _measured(reference, none, 1)}


def _shares(rates: Any, common: Any, generator: np.random.Generator) -> Any:
    """Means over samples ``[P, C]`` of a check that holds at these rates ``[C]``."""
    poems, settings = len(common), len(rates)
    own = (
        common
        + generator.normal(size=(poems, 1)) * _OWN
        + generator.normal(size=(poems, settings)) * _SETTING
    )
    bar = special.ndtri(rates) * math.sqrt(_POEM**2 + _OWN**2 + _SETTING**2 + _SAMPLE**2)
    return (own + generator.normal(size=(SAMPLES, poems, settings)) * _SAMPLE < bar).mean(axis=0)


def _counts(means: Any, common: Any, samples: int, generator: np.random.Generator) -> Any:
    """Means over samples ``[P, C]`` of rare events, which some poems have more of."""
    rate = means * np.exp(common - 0.5)
    return generator.poisson(rate, (samples, *rate.shape)).mean(axis=0)


def _measured(by_poem: dict[str, Any], knobs: pd.DataFrame, samples: int) -> Measured:
    value = {metric: own.mean(axis=0) for metric, own in by_poem.items()}
    examples = tuple(map(str, range(len(by_poem["form"]))))
    return Measured(TANG.metrics, knobs, examples, samples, value, by_poem, {})


if __name__ == "__main__":
    main()
