"""How well coherence tells the poets' own endings from others, on HW5's validation poems.

    python -m benchmarks.coherence [--by tang-mini] [--data hw5] [--split validation] [--any-sound]

Prints the figures of ``docs/judge.md``. Minutes on a CPU.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.command import command_line
from tangeval.core.types import Example
from tangeval.engines.likelihood import scorer
from tangeval.judge.coherence import LocalJudge, coherence
from tangeval.models.checkpoints import resolve_base
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang import TANG
from tangeval.tasks.tang.poems import read
from tangeval.tasks.tang.prosody import shared_groups
from tangeval.tasks.tang.text import clauses, line_length


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("--by", default="tang-mini")
    parser.add_argument("--data", default="hw5")
    parser.add_argument("--split", default="validation")
    parser.add_argument(
        "--any-sound", action="store_true", help="hold against couplets whether they rhyme or not"
    )
    options = parser.parse_args()
    task = replace(TANG, others=of_any_sound) if options.any_sound else TANG
    data = TANG.load(options.data, None)
    judge = LocalJudge(options.by, "", scorer(resolve_base(options.by)))
    kinds: dict[str, Callable[[Example], str]] = {
        "the poet's own ending": TANG.target,
        "another poem's": lambda example: TANG.baseline(data, example, 42, 1)[0],
        "another poem's that rhymes with the couplet": lambda example: rhyming(data, example),
    }
    print(
        f"| {options.data}, {options.split} | mean | standard deviation | AUC of the poets' |\n| --- | --- | --- | --- |"
    )
    own: list[float] = []
    for name, ending in kinds.items():
        examples = data.split(options.split)
        found = [coherence(task, data, e, ending(e), judge) for e in examples]
        own = own or found
        auc = mannwhitneyu(own, found).statistic / len(found) ** 2
        print(f"| {name} | {np.mean(found):.3f} | {np.std(found):.3f} | {auc:.3f} |", flush=True)


def rhyming(data: Dataset, example: Example) -> str:
    """Return a random training ending of the example's form that rhymes with its couplet, any of the form if none does."""
    shape = line_length(example.input), len(clauses(example.reference))
    alike = [e for e in data.split("train") if (line_length(e.input), len(clauses(e.reference))) == shape]
    rhyme = shared_groups(read([example.input] * len(alike), [TANG.target(e) for e in alike])).any(axis=1)
    fitting = [e for e, rhymes in zip(alike, rhyme, strict=True) if rhymes]
    return TANG.target(random.Random(f"rhyming {example.id}").choice(fitting or alike))


def of_any_sound(data: Dataset, example: Example, count: int) -> list[str]:
    """Return couplets of training as long as the example's, without regard to rhyme and tone."""
    length, own = line_length(example.input), TANG.normalise(example.input)
    alike = [e.input for e in data.split("train") if line_length(e.input) == length]
    found = [couplet for couplet in alike if TANG.normalise(couplet) != own]
    return random.Random(f"any sound {example.id}").sample(found, count)


if __name__ == "__main__":
    main()
