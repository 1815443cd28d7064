"""Which evaluation of a training to keep, and whether those after it are worse beyond chance.

In: each example's score at every evaluation so far, the same examples at each. Out: the step to keep, and whether to
stop. Knows nothing of training, models or files.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tangeval.analysis.hypothesis_tests import ERROR, FEWEST, swaps
from tangeval.analysis.intervals import Floats
from tangeval.analysis.selection_bias import Bools
from tangeval.core.errors import TangevalError

#: Half of the error rate is spent by this look: a training has some tens of evaluations.
_HALF = 10
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
    """Return the step to keep, that of the best mean, and whether the last ``patience`` evaluations are shown to be worse.

    ``history`` has all evaluations so far, by step. The chance that a training is ever stopped, however long it is, where
    none of those evaluations is truly worse than the kept step is ``alpha`` at most. docs/statistics.md#when-to-stop has
    what was simulated.

    Raises:
        TangevalError: there is no evaluation, steps do not rise, an example has no score at one of them, ``alpha`` is no
            chance, or there are too few examples to tell anything from chance.
    """
    if not 0 < alpha < 1:
        raise TangevalError(
            f"stopping: an alpha of {alpha}; give the chance of a false stop, above 0 and below 1, such as 0.05"
        )
    scores = _table(history)
    fewest = math.ceil(math.log2(2 / alpha))
    if patience < 1 or scores.shape[1] < fewest:
        raise TangevalError(
            f"stopping: {scores.shape[1]} examples and a patience of {patience}; give {fewest} examples at least, better "
            "30, and a patience of 1 or more"
        )
    better = scores if higher else -scores
    best = int(np.round(better.mean(axis=1), 12).argmax())
    after = [f"{mean:.4g}" for mean in scores[best + 1 :].mean(axis=1)]
    said = f"step {history[best].step} has the best mean, {scores[best].mean():.4g}; "
    if len(after) < patience:
        said += f"{len(after)} of the {patience} evaluations after it that could stop the training are there"
        return Decision(history[best].step, False, said)
    stop = bool(falls(better, patience, alpha)[-1, best])
    said += (
        f"the last {patience} ({', '.join(after[-patience:])}) are {'' if stop else 'not '}shown to be worse"
    )
    return Decision(history[best].step, stop, said)


def falls(scores: Floats, patience: int, alpha: float) -> Bools:
    """Return where the last ``patience`` evaluations, t the newest, are shown to be worse than j: ``[T, T]``, row t.

    ``scores`` ``[T, P]`` are higher where they are better. The look at t takes the smallest of the ``patience``
    differences, each over its root sum of squares (Student's t in another scale), and of all earlier j the largest. What it
    could be by chance is seen by swapping examples, as ``family_tests`` does. Of the ways to swap, those that any look
    up to the k-th calls a fall are ``alpha`` × k ÷ (k + 10) at most (Lan & DeMets, *Biometrika* 70, 1983).
    """
    evaluations, examples = scores.shape
    ways = 1 - 2 * swaps(examples, FEWEST, 0)
    sums = (scores - scores.mean(axis=0)) @ ways.T
    shown = np.zeros((evaluations, evaluations), bool)
    spent = np.zeros(2 * len(ways), bool)
    last = deque[Floats](maxlen=patience)
    for now in range(1, evaluations):
        scale = np.sqrt(((scores[:now] - scores[now]) ** 2).sum(axis=1))
        last.append((sums[:now] - sums[now]) / np.where(scale > 0, scale, np.inf)[:, None])
        look = now - patience + 1
        if look < 1:
            continue
        window = [each[:look] for each in last]
        least, most = np.minimum.reduce(window), np.maximum.reduce(window)
        # A way and its opposite are as likely: both are looked at.
        size = np.where(spent, -np.inf, np.concatenate([least.max(axis=0), -most.min(axis=0)]))
        bar = len(size) - 1 - (math.floor(alpha * len(size) * look / (look + _HALF)) - int(spent.sum()))
        critical = np.partition(size, bar)[bar] + _TIE
        spent |= size > critical
        shown[now, :look] = least[:, 0] > critical
    return shown


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
