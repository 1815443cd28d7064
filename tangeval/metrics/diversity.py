"""How much the samples of one setting differ from each other, example by example.

In: the normalised texts that one checkpoint wrote in one setting for one example. Out: a value for each
metric, which all of these samples share. Pure; knows nothing of tasks.

``self_bleu`` and ``unique`` need two samples; ``distinct_1`` and ``distinct_2`` fall as samples grow:
compare them at equal numbers of samples.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from tangeval.metrics.base import Metric
from tangeval.metrics.bleu import ORDERS, Floats, corpus_bleu
from tangeval.metrics.ngrams import CODES, NONE, Ints, begun, characters, different, lengths, longer, share


@lru_cache(maxsize=1)  # four metrics in a row ask for the same sets
def diversity(sets: tuple[tuple[str, ...], ...]) -> Mapping[str, Floats]:
    """Return ``distinct_1``, ``distinct_2``, ``self_bleu`` and ``unique`` of each set: one example's samples.

    ``distinct_n`` is distinct n-grams ÷ all n-grams, over all samples together (Li et al., NAACL 2016), 0
    where there is none; ``unique`` distinct texts ÷ texts. The last two are NaN for a single sample.

    ``self_bleu`` is the samples' corpus BLEU, each against all others as its references (Zhu et al., SIGIR 2018). As
    sacrebleu counts: a match is clipped at the most that one reference has; the reference's length is the one nearest
    to the sample's, the shorter of two equally near.
    """
    texts = [text for own in sets for text in own]
    of, size = np.repeat(np.arange(len(sets)), lengths(sets)), lengths(texts)
    distinct, matched = _grams(texts, of, len(sets))
    totals = np.stack([np.bincount(of, np.maximum(size - n, 0), len(sets)) for n in range(ORDERS)], axis=-1)
    nearest = np.bincount(of, _nearest(size, of), len(sets))
    ids, _ = pd.factorize(np.array(texts, dtype=object))
    unlike = np.bincount(different(of * len(texts) + ids) // max(len(texts), 1), minlength=len(sets))
    several = lengths(sets) > 1
    return {
        "distinct_1": share(distinct[:, 0], totals[:, 0]),
        "distinct_2": share(distinct[:, 1], totals[:, 1]),
        "self_bleu": np.where(several, corpus_bleu(matched, totals, totals[:, 0], nearest), np.nan),
        "unique": np.where(several, share(unlike, lengths(sets)), np.nan),
    }


def _grams(texts: Sequence[str], own: Ints, sets: int) -> tuple[Floats, Floats]:
    """How many different n-grams each set has, and how many of its samples' another sample has too ``[sets, ORDERS]``.

    From order 3 on only those are different n-grams that are made of what several samples have.
    """
    distinct, matched = np.zeros((sets, ORDERS)), np.zeros((sets, ORDERS))
    codes, text = characters(texts)
    grams, most = begun(np.where(codes == NONE, NONE, own[text] * CODES + codes)), len(codes) + 1
    for n in range(ORDERS):
        at, keys = grams
        ids, found = pd.factorize(keys)
        of = np.empty(len(found), np.int64)
        of[ids] = own[text[at]]
        distinct[:, n] = np.bincount(of, minlength=sets)
        pairs, count = np.unique(ids * len(texts) + text[at], return_counts=True)
        gram, count = np.divmod(np.sort(pairs // max(len(texts), 1) * most + count), most)
        # Each sample has a match for all of its own, but that the one with most is held to the second most.
        less = np.diff(gram, append=NONE) == 0
        second = less & np.diff(less, append=False)
        matched[:, n] = np.bincount(of[gram], count * less + count * second, sets)
        several = np.full(len(found), n == 0)
        several[gram[second]] = True
        grams = longer((at[several[ids]], ids[several[ids]]))
    return distinct, matched


def _nearest(size: Ints, of: Ints) -> Ints:
    """The other length of the same set that is nearest to each, the shorter of two; no meaning where there is none."""
    order = np.lexsort((size, of))
    ordered, far = size[order], np.iinfo(np.int64).max // 2
    gaps = np.where(np.diff(of[order]) == 0, np.diff(ordered), far)
    before, after = np.append(far, gaps)[: len(size)], np.append(gaps, far)[: len(size)]
    nearest = np.empty(len(size), np.int64)
    nearest[order] = np.where(before <= after, ordered - before, ordered + after)
    return nearest


def _metric(name: str, en: str, zh: str, **kind: Any) -> Metric:
    def compute(sets: Sequence[Sequence[str]]) -> Floats:
        return diversity(tuple(map(tuple, sets)))[name]

    return Metric(name, {"en": en, "zh": zh}, level="samples", compute=compute, **kind)


DISTINCT_1 = _metric("distinct_1", "distinct characters over samples", "相異單字", better="high", share=True)
DISTINCT_2 = _metric("distinct_2", "distinct pairs over samples", "相異雙字", better="high", share=True)
#: From 10 on, an example's samples share more than characters.
_SELF: dict[str, Any] = {"better": "low", "headline": True, "rare_from": 10, "most": 100.0}
SELF_BLEU = _metric("self_bleu", "BLEU against the other samples", "樣本間 BLEU", **_SELF)
UNIQUE = _metric("unique", "samples that differ", "相異的樣本", better="high", share=True)
