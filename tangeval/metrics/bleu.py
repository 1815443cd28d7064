"""Character BLEU as sacrebleu counts it, kept as sufficient statistics.

In: a hypothesis and a reference, normalised. Out: counts of one pair; the corpus score of any sum of
counts. A bootstrap sums counts and tokenises nothing, which sacrebleu's own interface cannot do; the
tests hold both to sacrebleu. Pure; knows nothing of tasks, settings or files.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tangeval.metrics.base import Metric, Output

Floats = NDArray[np.float64]
ORDERS = 4
#: chrF counts longer n-grams; both are counted at once.
LONGEST = 6
#: The n-grams of a hypothesis, by order, and the length of its reference.
TOTALS = ("hypothesis_chars", *(f"hypothesis_{n}grams" for n in range(2, ORDERS + 1)))
REFERENCE_LENGTH = "reference_chars"


@lru_cache(maxsize=16)
def matches(text: str, reference: str) -> tuple[int, ...]:
    """Return the n-grams of each order up to ``LONGEST`` in both texts, clipped at the reference's count."""
    found = [0] * LONGEST
    for n, there in enumerate(_of_reference(reference), 1):
        common = Counter(g for g in (text[i : i + n] for i in range(len(text) - n + 1)) if g in there)
        if not common:
            break  # nor is there a longer one
        found[n - 1] = sum(min(count, there[gram]) for gram, count in common.items())
    return tuple(found)


def ngrams(text: str, longest: int = LONGEST) -> list[Counter[str]]:
    """Return the n-grams of ``text`` with their counts, by order up to ``longest``."""
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in range(1, longest + 1)]


_of_reference = lru_cache(maxsize=4096)(ngrams)


def corpus_bleu(
    matched: Floats, totals: Floats, hypothesis_length: Floats, reference_length: Floats
) -> Floats:
    """Return BLEU (0 to 100) of summed counts ``[..., 4]`` and lengths ``[...]``, many corpora at once.

    Equal to sacrebleu's with its default exponential smoothing (method 3 of Chen & Cherry, WMT 2014): an
    order without a match counts as a match of 1/2, 1/4, … of an n-gram; a corpus without a match, or with no
    n-gram of some order, scores 0.
    """
    product, smoothed = np.ones(hypothesis_length.shape), np.ones(hypothesis_length.shape)
    hopeless = matched.sum(axis=-1) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        for n in range(ORDERS):  # many small corpora: a loop over orders is faster than an axis of four
            found, total = matched[..., n], totals[..., n]
            missing = (found == 0) & (total > 0)
            smoothed = np.where(missing, smoothed / 2, smoothed)
            product *= np.where(missing, smoothed, found) / total
            hopeless |= total == 0
        brevity = np.exp(np.minimum(1 - reference_length / hypothesis_length, 0.0))
    return np.where(hopeless, 0.0, 100 * brevity * np.sqrt(np.sqrt(product)))


def metric(
    name: str,
    label: Mapping[str, str],
    normalise: Callable[[str], str] | None = None,
    *,
    headline: bool = False,
) -> Metric:
    """Return character BLEU as a metric; ``normalise`` is used in place of the task's normalisation."""

    def compute(output: Output) -> tuple[int, ...]:
        text, reference = output.compared, output.reference
        if normalise:
            text, reference = normalise(output.text), normalise(output.example.reference)
        totals = (max(len(text) - n, 0) for n in range(ORDERS))
        return (*matches(text, reference)[:ORDERS], *totals, len(reference))

    counts = (*(f"{name}_match_{n}" for n in range(1, ORDERS + 1)), *TOTALS, REFERENCE_LENGTH)
    return Metric(
        name, label, "high", "corpus", headline=headline, compute=compute, counts=counts, score=score,
        rarest=counts[ORDERS - 1], most=100.0,
    )  # fmt: skip


def score(counts: Floats) -> Floats:
    """Return BLEU of summed counts ``[..., 9]``: matches, n-grams of hypotheses, characters of references."""
    totals = counts[..., ORDERS : 2 * ORDERS]
    return corpus_bleu(counts[..., :ORDERS], totals, totals[..., 0], counts[..., -1])


def signature(name: str, **options: str) -> str:
    """Return the signature of one of sacrebleu's metrics."""
    from sacrebleu import metrics

    counted = getattr(metrics, name)(**options)
    counted.corpus_score(["一"], [["一"]])
    return str(counted.get_signature())


BLEU = metric("bleu", {"en": "character BLEU", "zh": "單字 BLEU"}, headline=True)


def _pairs(output: Output) -> float:
    return float(matches(output.compared, output.reference)[1])


#: What BLEU is made of, as a mean over examples: it has an interval where BLEU has none.
SHARED_PAIRS = Metric(
    "shared_pairs",
    {"en": "pairs of characters as in the reference", "zh": "與原作相同的雙字"},
    "high",
    compute=_pairs,
)
