"""How much better each output follows its own input than others (題意), by a language model on this machine.

In: a results folder, its data, and a ``LocalJudge``. Out: ``coherence.csv``, a row an output, the references and a
random answer of each example among them. Knows nothing of torch, nor of how likelihood is computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd

from tangeval import tasks
from tangeval.analysis import scoring
from tangeval.analysis.intervals import mean_interval
from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE, Example, Split
from tangeval.judge.grading import Wanted, select_rows
from tangeval.results.files import write_csv
from tangeval.results.folder import RunFolder
from tangeval.results.plan import check_data
from tangeval.tasks.base import Dataset, Task

OTHERS = 8  #: inputs that an output is held against


@dataclass(frozen=True)
class LocalJudge:
    """A model by name and ``checkpoints.identity``; ``nats`` gives the negative log-likelihood of each (prompt, text)."""

    name: str
    fingerprint: str
    nats: Callable[[Sequence[tuple[str, str]]], Sequence[float]]


def measure(
    folder: RunFolder, data: Dataset, wanted: Wanted, judge: LocalJudge, on_done: Callable[[int, int], None]
) -> pd.DataFrame:
    """Write and return ``scoring.keys_in``, ``coherence``, ``judge`` and ``own_base`` of each output.

    ``own_base`` marks what a fine-tuning of the judge itself wrote: that is not to be ranked.

    Raises:
        TangevalError: what is wanted is not there, or the task has no ``others``.
    """
    check_data(data, folder)
    task, split = tasks.load(folder.study.task), cast(Split, wanted.split)
    rows = select_rows(folder, data, wanted)
    written = rows[~rows["checkpoint"].isin([RANDOM, REFERENCE])]
    random = scoring.random_rows(task, data, split, folder.study.seed, samples=1, draws=1)
    beside = [scoring.reference_rows(task, data, split), random]
    rows = pd.concat([written, *beside], ignore_index=True).reindex(columns=rows.columns)
    pairs = list(zip(rows["example_id"], rows["text"], strict=True))
    found = dict.fromkeys(pairs, 0.0)
    for number, (name, text) in enumerate(found, 1):
        found[name, text] = coherence(task, data, data.by_id[name], text, judge)
        on_done(number, len(found))
    own = folder.manifest["base_model"]["fingerprint"] == judge.fingerprint
    own &= ~rows["checkpoint"].isin([RANDOM, REFERENCE])
    values = [found[pair] for pair in pairs]
    table = rows[scoring.keys_in(rows)].assign(coherence=values, judge=judge.name, own_base=own)
    write_csv(folder.table("coherence"), table)
    return table


def coherence(task: Task, data: Dataset, example: Example, text: str, judge: LocalJudge) -> float:
    """Return by how many nats a character ``text`` is likelier after its own input than after ``OTHERS``, on average.

    About 0 for a text that has nothing to do with its input; 0 for one without characters.
    """
    if task.others is None:
        raise TangevalError(f"task: {task.name} has no `others`, the inputs that coherence compares with")
    if not (characters := len(task.characters(text))):
        return 0.0
    inputs = (example.input, *task.others(data, example, OTHERS))
    own, *rest = judge.nats([(given, text) for given in inputs])
    return float(np.mean(rest) - own) / characters


def summarize(measured: pd.DataFrame) -> pd.DataFrame:
    """Return a row a checkpoint of ``measure``'s: the mean over examples and its 95 % interval (``mean_interval``)."""
    records = []
    for (name, own), part in measured.groupby(["checkpoint", "own_base"], sort=False):
        poems = part.groupby("example_id")["coherence"].mean()
        low, high = map(float, mean_interval(poems.to_numpy()))
        records.append((name, own, len(poems), poems.mean(), low, high))
    names = ["checkpoint", "own_base", "poems", "coherence", "coherence_low", "coherence_high"]
    return pd.DataFrame(records, columns=names)
