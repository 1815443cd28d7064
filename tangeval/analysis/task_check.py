"""A task before its first run: what is asked, what is compared, and whether its own references pass.

In: a task, its data, and a tokenizer's encoding. Out: ``Checked``, plain values. Decodes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tangeval.analysis import scoring
from tangeval.analysis.external import Data
from tangeval.core.types import SPLITS, Example
from tangeval.models.tokens import Prompt
from tangeval.tasks.base import Task

#: Examples that are shown, and references that are measured, at most.
SHOWN, MEASURED = 3, 2_000
#: The runs of four that a text has, of which BLEU is made.
FOURS = "bleu_4grams"
#: Returns the token ids of a prompt, and of an answer that follows it.
Encode = Callable[[Prompt], list[int]]
EncodeAnswer = Callable[[Prompt, str], list[int]]


@dataclass(frozen=True)
class Asked:
    """An example as a model is asked, and its reference as it is compared."""

    example: Example
    prompt: Prompt
    ids: Sequence[int]
    compared: str


@dataclass(frozen=True)
class Checked:
    """``passed`` has for each check the share of references that pass, and the id of the first that does not (or "").

    ``tokens`` are the lengths of prompts and references, EOS among them, ``[n, 2]``.
    """

    data: Data
    asked: Sequence[Asked]
    passed: Mapping[str, tuple[float, str]]
    tokens: np.ndarray
    without_4grams: float  #: share of references too short for BLEU's runs of four; 0 where it is no metric


def check_task(task: Task, data: Data, template: str, encode: Encode, encode_answer: EncodeAnswer) -> Checked:
    """Return what is found of a task; at most ``MEASURED`` examples of each split are measured.

    Raises:
        TangevalError: a prompt cannot be rendered, or a metric fails for a reference.
    """
    examples = [e for split in SPLITS for e in data.dataset.split(split)[:MEASURED]]
    shown = sorted(examples, key=lambda e: SPLITS[::-1].index(e.split))[:SHOWN]
    prompts = {e.id: task.prompt(e, template) for e in examples}
    asked = [Asked(e, prompts[e.id], encode(prompts[e.id]), task.normalise(e.reference)) for e in shown]
    rows = [(e, 0, task.target(e), 0) for e in examples]
    scores = scoring.score_texts(scoring.frame_of("reference", rows), task, data.dataset)
    lengths = [
        [len(encode(prompts[e.id])), len(encode_answer(prompts[e.id], task.target(e)))] for e in examples
    ]
    checks = [m.name for m in task.metrics.values() if m.flaw and m.better == "high" and m.name != "complete"]
    short = float((scores[FOURS] == 0).mean()) if FOURS in scores else 0.0
    return Checked(data, asked, {name: _passed(scores, name) for name in checks}, np.array(lengths), short)


def _passed(scores: pd.DataFrame, name: str) -> tuple[float, str]:
    failed = scores.loc[scores[name] == 0, "example_id"].tolist()
    return float(scores[name].mean()), failed[0] if failed else ""
