"""Sentence chrF as sacrebleu counts it.

In: hypotheses and their references, normalised. Out: scores from 0 to 100. Shares BLEU's n-gram counts;
the tests hold it to sacrebleu. Pure; knows nothing of tasks.
"""

import numpy as np

from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.bleu import LONGEST, Floats, compared
from tangeval.metrics.ngrams import Ints, lengths, share

_BETA = 2  # weight of recall, sacrebleu's default


def chrf(matched: Ints, hypothesis_length: Ints, reference_length: Ints) -> Floats:
    """Return chrF (Popović, WMT 2015) of matches ``[n, 6]``; orders longer than one of the texts are left out."""
    orders = np.minimum(LONGEST, np.minimum(hypothesis_length, reference_length))
    precision, recall = np.zeros(len(matched)), np.zeros(len(matched))
    for n in range(LONGEST):  # added one by one, as sacrebleu does
        precision += share(matched[:, n], hypothesis_length - n)
        recall += share(matched[:, n], reference_length - n)
    precision, recall = share(precision, orders), share(recall, orders)
    weighted = _BETA**2 * precision + recall
    return 100 * share((1 + _BETA**2) * precision * recall, weighted)


def _compute(texts: Texts) -> Floats:
    return chrf(texts.once(compared), lengths(texts.compared), lengths(texts.references))


CHRF = Metric(
    "chrf", {"en": "chrF", "zh": "chrF"}, better="high", headline=True, compute=_compute, most=100.0
)
