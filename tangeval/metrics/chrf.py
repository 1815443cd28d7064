"""Sentence chrF as sacrebleu counts it.

In: a hypothesis and a reference, normalised. Out: a score from 0 to 100. Shares BLEU's n-gram counts;
the tests hold it to sacrebleu. Pure; knows nothing of tasks.
"""

from collections.abc import Sequence

from tangeval.metrics.base import Metric, Output
from tangeval.metrics.bleu import LONGEST, matches

_BETA = 2  # weight of recall, sacrebleu's default


def chrf(matched: Sequence[int], hypothesis_length: int, reference_length: int) -> float:
    """Return chrF (Popović, WMT 2015) of matches ``[6]``; orders longer than one of the texts are left out."""
    orders = min(LONGEST, hypothesis_length, reference_length)
    precision = recall = 0.0
    for n in range(orders):  # added one by one, as sacrebleu does: newer Pythons' sum() rounds otherwise
        precision += matched[n] / (hypothesis_length - n)
        recall += matched[n] / (reference_length - n)
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * ((1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall))


def _compute(output: Output) -> float:
    matched = matches(output.compared, output.reference)
    return chrf(matched, len(output.compared), len(output.reference))


CHRF = Metric("chrf", {"en": "chrF", "zh": "chrF"}, better="high", headline=True, compute=_compute)
