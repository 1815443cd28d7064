"""How much the samples of one setting differ from each other, example by example.

In: the normalised texts that one checkpoint wrote in one setting for one example. Out: a value for each
metric, which all of these samples share. Pure; knows nothing of tasks.

``self_bleu`` and ``unique`` need two samples; ``distinct_1`` and ``distinct_2`` fall as samples grow:
compare them at equal numbers of samples.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from tangeval.metrics.base import Metric
from tangeval.metrics.bleu import ORDERS, corpus_bleu, ngram_totals


def diversity(texts: Sequence[str]) -> Mapping[str, float]:
    """Return ``distinct_1``, ``distinct_2``, ``self_bleu`` and ``unique`` of one example's samples.

    ``distinct_n`` is distinct n-grams ÷ all n-grams, over all samples together (Li et al.,
    NAACL 2016), 0 where there is none; ``unique`` distinct texts ÷ texts; for ``self_bleu`` see
    that function. The last two are NaN for a single sample.
    """
    return _diversity(tuple(texts))


@lru_cache(maxsize=1)  # four metrics in a row ask for the same samples
def _diversity(texts: tuple[str, ...]) -> Mapping[str, float]:
    grams = [[Counter(ngrams(text, n)) for n in range(1, ORDERS + 1)] for text in texts]
    several = len(texts) > 1
    return {
        "distinct_1": _distinct([g[0] for g in grams]),
        "distinct_2": _distinct([g[1] for g in grams]),
        "self_bleu": self_bleu(grams, [len(text) for text in texts]) if several else np.nan,
        "unique": len(set(texts)) / len(texts) if several else np.nan,
    }


def ngrams(text: str, n: int) -> list[str]:
    """Return the runs of ``n`` characters in ``text``, in order."""
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def self_bleu(grams: Sequence[Sequence[Counter[str]]], lengths: Sequence[int]) -> float:
    """Return the samples' corpus BLEU, each against all others as its references (Zhu et al., SIGIR 2018).

    ``grams`` holds each sample's 1- to 4-grams. 100 where all samples are one text. As
    sacrebleu counts: a match is clipped at the most that one reference has; the reference's
    length is the one nearest to the sample's, the shorter of two equally near.
    """
    matches = [_clipped([g[n] for g in grams]) for n in range(ORDERS)]
    closest = [
        min((other for j, other in enumerate(lengths) if j != i), key=lambda other: (abs(other - own), other))
        for i, own in enumerate(lengths)
    ]
    totals = ngram_totals(np.array(lengths, float)).sum(axis=0)
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


def _of(name: str) -> Callable[[Sequence[str]], float]:
    return lambda texts: diversity(texts)[name]


DISTINCT_1 = Metric(
    "distinct_1", {"en": "distinct characters over samples", "zh": "相異單字"},
    better="high", level="samples", share=True, compute=_of("distinct_1"),
)  # fmt: skip
DISTINCT_2 = Metric(
    "distinct_2", {"en": "distinct pairs over samples", "zh": "相異雙字"},
    better="high", level="samples", share=True, compute=_of("distinct_2"),
)  # fmt: skip
SELF_BLEU = Metric(
    "self_bleu", {"en": "BLEU against the other samples", "zh": "樣本間 BLEU"},
    better="low", level="samples", headline=True, compute=_of("self_bleu"),
)  # fmt: skip
UNIQUE = Metric(
    "unique", {"en": "samples that differ", "zh": "相異的樣本"},
    better="high", level="samples", share=True, compute=_of("unique"),
)  # fmt: skip
