"""Which evaluation of a training to keep, and whether those after it are worse beyond luck.

In: each example's score at every evaluation so far, the same examples at each. Out: the best step, and whether to
stop. Knows nothing of training, models or files.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tangeval.analysis.hypothesis_tests import ERROR, MOST, swaps
from tangeval.analysis.intervals import Floats
from tangeval.analysis.selection_bias import Bools
from tangeval.core.errors import TangevalError

_TIE = 1e-6  # of a scaled statistic: rounding breaks no tie


@dataclass(frozen=True)
class Evaluation:
    """One metric at a step of the training: each example's mean over settings and samples, by its id."""

    step: int
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Decision:
    """The step to keep, whether to stop now, and why, in a sentence."""

    best: int
    stop: bool
    reason: str


def decide(
    history: Sequence[Evaluation], *, patience: int = 3, alpha: float = ERROR, higher: bool = True
) -> Decision:
    """Return the step to keep, and stop where each of the last ``patience`` evaluations is shown to be worse than it.

    ``history`` is in the order of steps, and grows from call to call. The step to keep is that of the best mean.
    Where all evaluations are truly alike a training of any length is stopped with a probability of ``alpha`` at most.
    docs/statistics.md#when-to-stop says how.

    Raises:
        TangevalError: there is no evaluation, an example is missing at a step or has no number, or steps do not rise.
    """
    scores = _table(history) * (1 if higher else -1)
    means = scores.mean(axis=1)
    best = int(means.argmax())
    worse = shown_worse(scores, patience, alpha)[best + 1 :, best]
    run = next((back for back, shown in enumerate(worse[::-1]) if not shown), len(worse))
    said = f"step {history[best].step} has the best mean, {abs(means[best]):.4g}"
    if run >= patience:
        said += f"; the last {run} evaluations are worse beyond luck"
    else:
        said += f"; of the {len(worse)} evaluations after it the last {run} are worse beyond luck, {patience} stop"
    return Decision(history[best].step, run >= patience, said)


def shown_worse(scores: Floats, patience: int, alpha: float) -> Bools:
    """Return where evaluation t is shown to be worse than an earlier one j: ``[T, T]``, row t, column j.

    ``scores`` ``[T, P]`` are higher where they are better.
    """
    evaluations, examples = scores.shape
    ways = 1 - 2 * swaps(examples, MOST, 0)
    sums = ways @ (scores - scores.mean(axis=0)).T
    worse = np.zeros((evaluations, evaluations), bool)
    gone = np.zeros(2 * len(ways), bool)  # ways that an earlier look has found
    for now in range(1, evaluations):
        scale = np.sqrt(((scores[:now] - scores[now]) ** 2).sum(axis=1))
        apart = (sums[:, :now] - sums[:, now, None]) / np.where(scale > 0, scale, np.inf)
        # A way and its opposite are as likely: both are looked at.
        largest = np.concatenate([apart.max(axis=1), -apart.min(axis=1)])
        may = math.floor(alpha * len(gone) * now / (now + patience)) - gone.sum()
        left = np.where(gone, -np.inf, largest)
        bar = np.partition(left, len(left) - 1 - may)[len(left) - 1 - may] + _TIE
        gone |= left > bar
        worse[now, :now] = apart[0] > bar
    return worse


def _table(history: Sequence[Evaluation]) -> Floats:
    """Scores ``[T, P]``, or an error that names the step and the example."""
    if not history:
        raise TangevalError("stopping: there is no evaluation yet; evaluate once before you ask")
    names, before = history[0].scores, -math.inf
    for each in history:
        if each.step <= before:
            raise TangevalError(
                f"stopping: step {each.step} follows step {before}; give each step once, in order"
            )
        before = each.step
        lacking = sorted(names.keys() ^ each.scores.keys())
        lacking += [name for name, value in each.scores.items() if not math.isfinite(value)]
        if lacking:
            raise TangevalError(
                f"stopping: step {each.step} has no score of {lacking[0]}; all steps are compared on the same examples, so "
                "leave this evaluation out, or take a metric that every text has"
            )
    return np.array([[each.scores[name] for name in names] for each in history], float)
