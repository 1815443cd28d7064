"""Character BLEU as sacrebleu counts it, kept as sufficient statistics.

In: hypotheses and their references, normalised. Out: counts of each pair; the corpus score of any sum of
counts. A bootstrap sums counts and tokenises nothing, which sacrebleu's own interface cannot do; the
tests hold both to sacrebleu. Pure; knows nothing of tasks, settings or files.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tangeval.metrics.base import Metric, Texts
from tangeval.metrics.ngrams import CODES, NONE, Ints, characters, lengths, shared

Floats = NDArray[np.float64]
Numbers = Floats | Ints
ORDERS = 4
#: chrF counts longer n-grams; both are counted at once.
LONGEST = 6
#: The n-grams of a hypothesis, by order, and the length of its reference.
TOTALS = ("hypothesis_chars", *(f"hypothesis_{n}grams" for n in range(2, ORDERS + 1)))
REFERENCE_LENGTH = "reference_chars"


def matches(texts: Sequence[str], references: Sequence[str]) -> Ints:
    """Return the n-grams of each order in each text and its reference ``[n, LONGEST]``, clipped at the reference's."""
    places = {reference: place for place, reference in enumerate(dict.fromkeys(references))}
    (there, of), (here, text) = characters(list(places)), characters(texts)
    reference = np.fromiter((places[own] for own in references), np.int64, len(texts))[text]
    keys = (
        np.where(codes == NONE, NONE, own * CODES + codes) for own, codes in ((of, there), (reference, here))
    )
    found = np.zeros((len(texts), LONGEST), np.int64)
    for n, ((_, known), (at, ids)) in zip(range(LONGEST), shared(*keys), strict=False):
        size = ids.max(initial=0) + 1
        grams, count = np.unique(text[at] * size + ids, return_counts=True)
        clipped = np.minimum(count, np.bincount(known, minlength=size)[grams % size])
        found[:, n] = np.bincount(grams // size, clipped, len(texts))
    return found


def compared(texts: Texts) -> Ints:
    """Return ``matches`` of the texts as they are compared."""
    return matches(texts.compared, texts.references)


def corpus_bleu(
    matched: Numbers, totals: Numbers, hypothesis_length: Numbers, reference_length: Numbers
) -> Floats:
    """Return BLEU (0 to 100) of summed counts ``[..., 4]`` and lengths ``[...]``, many corpora at once.

    Equal to sacrebleu's with its default exponential smoothing (method 3 of Chen & Cherry, WMT 2014): an
    order without a match counts as a match of 1/2, 1/4, … of an n-gram; a corpus without a match, or with no
    n-gram of some order, scores 0.
    """
    product: Any = 1.0
    smoothed, brevity, none, empty = product, product, True, False
    with np.errstate(divide="ignore", invalid="ignore"):
        for n in range(ORDERS):  # many small corpora: a loop over orders is faster than an axis of four
            found, total = matched[..., n], totals[..., n]
            missing = found == 0
            none &= missing
            if missing.any():  # most corpora have matches of the first orders
                # Products of what is there or not: faster than `where`, and exact, for these are powers of two.
                smoothed = smoothed * (1 - 0.5 * missing)
                found = found + missing * smoothed
                empty |= total == 0
            product = product * (found / total)
        if (hypothesis_length < reference_length).any():
            brevity = np.exp(np.minimum(1 - reference_length / hypothesis_length, 0.0))
        scores: Floats = 100 * brevity * np.sqrt(np.sqrt(product))
    nothing = none | empty
    return np.where(nothing, 0.0, scores) if np.any(nothing) else scores


def metric(
    name: str,
    label: Mapping[str, str],
    normalise: Callable[[str], str] | None = None,
    *,
    headline: bool = False,
) -> Metric:
    """Return character BLEU as a metric; ``normalise`` is used in place of the task's normalisation."""

    def compute(texts: Texts) -> Ints:
        own = texts
        if normalise:
            own = Texts(texts.written, texts.examples, texts.finish_reasons, normalise)
        totals = [np.maximum(lengths(own.compared) - n, 0) for n in range(ORDERS)]
        return np.column_stack([own.once(compared)[:, :ORDERS], *totals, lengths(own.references)])

    counts = (*(f"{name}_match_{n}" for n in range(1, ORDERS + 1)), *TOTALS, REFERENCE_LENGTH)
    return Metric(
        name, label, "high", "corpus", headline=headline, compute=compute, counts=counts, score=score,
        rarest=counts[ORDERS - 1], most=100.0,
    )  # fmt: skip


def score(counts: Floats) -> Floats:
    """Return BLEU of summed counts ``[..., 9]``: matches, n-grams of hypotheses, characters of references."""
    totals = counts[..., ORDERS : 2 * ORDERS]
    return corpus_bleu(counts[..., :ORDERS], totals, totals[..., 0], counts[..., -1])


def signature(name: str, references: Sequence[int] = (1,), **options: str) -> str:
    """Return the signature of one of sacrebleu's metrics, of texts with so many ``references``."""
    from sacrebleu import metrics

    counted = getattr(metrics, name)(**options)
    streams = [["一" if n > place else None for n in references] for place in range(max(references))]
    counted.corpus_score(["一"] * len(references), streams)
    return str(counted.get_signature())


BLEU = metric("bleu", {"en": "character BLEU", "zh": "單字 BLEU"}, headline=True)


#: What BLEU is made of, as a mean over examples: it has an interval where BLEU has none.
SHARED_PAIRS = Metric(
    "shared_pairs",
    {"en": "pairs of characters as in the reference", "zh": "與原作相同的雙字"},
    "high",
    compute=lambda texts: texts.once(compared)[:, 1],
)
