"""How much the samples of one setting differ from each other, example by example.

In: the normalised texts that one checkpoint wrote in one setting for one example. Out: a value for each
metric, which all of these samples share. Pure; knows nothing of tasks.

``self_bleu`` and ``unique`` need two samples; ``distinct_1`` and ``distinct_2`` fall as samples grow:
compare them at equal numbers of samples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tangeval.metrics.base import Metric
from tangeval.metrics.bleu import ORDERS, corpus_bleu, ngrams


@lru_cache(maxsize=1)  # four metrics in a row ask for the same samples
def diversity(texts: tuple[str, ...]) -> Mapping[str, float]:
    """Return ``distinct_1``, ``distinct_2``, ``self_bleu`` and ``unique`` of one example's samples.

    ``distinct_n`` is distinct n-grams ÷ all n-grams, over all samples together (Li et al., NAACL 2016), 0
    where there is none; ``unique`` distinct texts ÷ texts. The last two are NaN for a single sample.
    """
    grams = [ngrams(text, ORDERS) for text in texts]
    several = len(texts) > 1
    return {
        "distinct_1": _distinct([g[0] for g in grams]),
        "distinct_2": _distinct([g[1] for g in grams]),
        "self_bleu": self_bleu(grams, [len(text) for text in texts]) if several else np.nan,
        "unique": len(set(texts)) / len(texts) if several else np.nan,
    }


def self_bleu(grams: Sequence[Sequence[Counter[str]]], lengths: Sequence[int]) -> float:
    """Return the samples' corpus BLEU, each against all others as its references (Zhu et al., SIGIR 2018).

    ``grams`` holds each sample's 1- to 4-grams. As sacrebleu counts: a match is clipped at the most that one
    reference has; the reference's length is the one nearest to the sample's, the shorter of two equally near.
    """
    matches = [_clipped([g[n] for g in grams]) for n in range(ORDERS)]
    closest = [
        min((other for j, other in enumerate(lengths) if j != i), key=lambda other: (abs(other - own), other))
        for i, own in enumerate(lengths)
    ]
    totals = np.array([sum(g[n].total() for g in grams) for n in range(ORDERS)], float)
    own, others = np.array(float(sum(lengths))), np.array(float(sum(closest)))
    return float(corpus_bleu(np.array(matches, float), totals, own, others))


def _clipped(grams: Sequence[Counter[str]]) -> int:
    """N-grams of all samples that another sample has too, each as often as the other has it at most."""
    seen: set[str] = set()
    shared: set[str] = set()
    for counts in grams:
        shared |= seen & counts.keys()
        seen |= counts.keys()
    matched = 0
    for gram in shared:
        *_, second, first = own = sorted(counts[gram] for counts in grams if gram in counts)
        # Each has a match for all of its own, but that the one with most is held to the second most.
        matched += sum(own) - (first - second)
    return matched


def _distinct(grams: Sequence[Counter[str]]) -> float:
    every = sum(counts.total() for counts in grams)
    return len(set().union(*grams)) / every if every else 0.0


def _metric(name: str, en: str, zh: str, **kind: Any) -> Metric:
    def compute(texts: Sequence[str]) -> float:
        return diversity(tuple(texts))[name]

    return Metric(name, {"en": en, "zh": zh}, level="samples", compute=compute, **kind)


DISTINCT_1 = _metric("distinct_1", "distinct characters over samples", "相異單字", better="high", share=True)
DISTINCT_2 = _metric("distinct_2", "distinct pairs over samples", "相異雙字", better="high", share=True)
#: From 10 on, an example's samples share more than characters.
_SELF: dict[str, Any] = {"better": "low", "headline": True, "rare_from": 10, "most": 100.0}
SELF_BLEU = _metric("self_bleu", "BLEU against the other samples", "樣本間 BLEU", **_SELF)
UNIQUE = _metric("unique", "samples that differ", "相異的樣本", better="high", share=True)
