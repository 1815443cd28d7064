"""Which candidates are as good as the best, up to a margin: shown, not merely not told apart.

In: parts measured on the same examples, and margins. Out: for each an upper bound of how far below the best it
lies, and whether it may be taken in its place. Knows nothing of files.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from tangeval.analysis.aggregate import Part
from tangeval.analysis.hypothesis_tests import joint_critical
from tangeval.analysis.intervals import LEVEL, Floats, rate_interval
from tangeval.analysis.selection_bias import Bools
from tangeval.core.errors import TangevalError
from tangeval.metrics.base import Metrics

VARIETY = "self_bleu"  #: how alike a setting's samples are


def check_margins(margins: Mapping[str, float], prefer: str | None, metrics: Metrics) -> None:
    """Refuse margins of what is no metric or no mean over examples, and a preference that they leave without effect.

    Raises:
        TangevalError: naming the metric and what would do.
    """
    for name, margin in margins.items():
        if name not in metrics:
            raise TangevalError(f"within: {name} is no metric; there are {', '.join(metrics)}")
        if not margin > 0:
            raise TangevalError(f"within: {name}={margin:g}; give a margin above 0, in the metric's unit")
        if metrics[name].level == "corpus":
            means = [m.name for m in metrics.values() if m.level == "text" and not m.share]
            what = "is no mean over examples, so no bound on it can be shown"
            raise TangevalError(f"within: {name} {what}; take one that is, as {' or '.join(means)}")
    if prefer in (None, "earliest"):
        return
    if not any(metrics[name].per_setting for name in margins):
        raise TangevalError(
            f"prefer: {prefer} of settings that within does not tell apart; give a metric that does"
        )
    if prefer == "most_varied" and VARIETY not in metrics:
        raise TangevalError(
            f"prefer: most_varied goes by {VARIETY}, which the task does not measure; take shortest"
        )


def as_good(parts: Sequence[Part], margins: Mapping[str, float]) -> tuple[dict[str, Floats], Bools]:
    """Return the ``shortfall_bounds`` of each metric, and which of the C parts none puts beyond its margin ``[C]``."""
    bounds = {metric: shortfall_bounds(parts, metric) for metric in margins}
    good = np.all([bounds[metric] <= margin for metric, margin in margins.items()], axis=0)
    return bounds, np.broadcast_to(good, len(parts))


def shortfall_bounds(parts: Sequence[Part], metric: str) -> Floats:
    """Return upper bounds ``[C]`` of how far below the best of all C each lies, in the metric's unit, 0 at least.

    All bounds hold at once with probability 0.95: multiple comparisons with the best (Hsu, *Annals of Statistics* 12,
    1984), whose critical value is that of the comparisons with the best one observed, by swapping examples between
    the two. Distances of means are Student's t, those of shares MOVER's, from the shares' own ends as far away.
    """
    kind, poems = parts[0].measured.metrics[metric], parts[0].measured.poems
    sign = 1 if kind.better == "high" else -1
    by_poem = sign * np.stack([part.linear(metric) for part in parts])
    value = by_poem.mean(axis=1)
    apart = by_poem - value[:, None]
    product = apart @ apart.T
    own = np.diag(product)
    critical = joint_critical(apart[value.argmax()] - apart, sides=1)
    if kind.share:
        stretch = critical / special.stdtrit(poems - 1, (1 + LEVEL) / 2)
        outputs = parts[0].outputs_per_poem
        ends = sign * np.stack(rate_interval(sign * by_poem.T, outputs, stretch))[::sign]
        below, above = value - ends[0], ends[1] - value
        spread = np.sqrt(own[:, None] * own)
        alike = product / np.where(spread > 1e-12, spread, np.inf)
        # Row i, column j: how far j may lie above i.
        squares = below[:, None] ** 2 + above**2 - 2 * alike * below[:, None] * above
        margin = np.sqrt(np.maximum(squares, 0))
    else:
        squares = own[:, None] + own - 2 * product
        margin = critical * np.sqrt(np.maximum(squares, 0) / (poems * max(poems - 1, 1)))
    bounds: Floats = value - value[:, None] + margin
    np.fill_diagonal(bounds, 0)
    return np.asarray(bounds.max(axis=1))
