"""Character BLEU and chrF of Han characters, as sacrebleu counts them, kept as sufficient statistics.

In: a hypothesis and a reference. Out: counts for one pair; the corpus score of any sum of
counts. Counts are made once; a bootstrap sums them again and tokenises nothing. They are
sacrebleu's, to which the tests hold them: it would count a reference anew for each of its
hypotheses, and both metrics apart. Pure; knows nothing of settings or files.
"""

from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from tangeval.tasks.tang.text import fold, han

ORDERS = 4
#: Columns of one pair's statistics: matching n-grams with variants folded, the same without
#: folding, and both lengths in characters (folding changes no length).
MATCH = tuple(f"bleu_match_{n}" for n in range(1, ORDERS + 1))
STRICT = tuple(f"bleu_strict_match_{n}" for n in range(1, ORDERS + 1))
LENGTHS = ("hypothesis_chars", "reference_chars")
COLUMNS = (*MATCH, *STRICT, *LENGTHS, "chrf")

#: sacrebleu's own for chrF: n-grams up to this length, and recall weighed as the square of 2.
_CHRF_ORDERS, _RECALL = 6, 4


def pair_statistics(hypothesis: str, reference: str) -> tuple[float, ...]:
    """Return the values of ``COLUMNS`` for one pair; marks and white space are left out first.

    ``chrf`` is sacrebleu's sentence chrF (0 to 100) on the folded text.
    """
    strict, strict_reference = han(hypothesis), han(reference)
    folded, folded_reference = fold(strict), fold(strict_reference)
    matches = _matches(folded, folded_reference, _CHRF_ORDERS)
    strict_matches = _matches(strict, strict_reference, ORDERS)
    lengths = len(folded), len(folded_reference)
    return (*matches[:ORDERS], *strict_matches, *lengths, _chrf(matches, *lengths))


def _matches(text: str, reference: str, orders: int) -> list[int]:
    """How many n-grams of each order stand in both, each as often as the reference has it at most."""
    matches = [0] * orders
    for n, there in enumerate(_grams(reference)[:orders], 1):
        found = Counter(g for g in (text[i : i + n] for i in range(len(text) - n + 1)) if g in there)
        if not found:
            break  # nor can a longer one
        matches[n - 1] = sum(min(count, there[gram]) for gram, count in found.items())
    return matches


@lru_cache(maxsize=4096)
def _grams(text: str) -> list[Counter[str]]:
    lengths = range(1, _CHRF_ORDERS + 1)
    return [Counter(text[i : i + n] for i in range(len(text) - n + 1)) for n in lengths]


def _chrf(matches: list[int], own: int, reference: int) -> float:
    """chrF of texts that are so long, in characters; orders that one of the two is too short for are left out."""
    orders = min(_CHRF_ORDERS, own, reference)
    precision = recall = 0.0
    for n in range(orders):  # one by one, as sacrebleu adds them: a newer Python's sum rounds otherwise
        precision += matches[n] / (own - n)
        recall += matches[n] / (reference - n)
    if not precision + recall:
        return 0.0
    precision, recall = precision / orders, recall / orders
    return 100 * ((1 + _RECALL) * precision * recall / (_RECALL * precision + recall))


def ngram_totals(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many 1- to 4-grams texts of ``lengths`` ``[...]`` characters have: ``[..., 4]``."""
    return np.maximum(lengths[..., None] - np.arange(ORDERS), 0)


def corpus_bleu(
    matches: NDArray[np.float64],
    totals: NDArray[np.float64],
    hypothesis_length: NDArray[np.float64],
    reference_length: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return BLEU (0 to 100) of summed counts, many corpora at once.

    ``matches`` and ``totals`` are ``[..., 4]``, the lengths ``[...]``. Equal to sacrebleu's
    ``BLEU.compute_bleu`` with its default exponential smoothing (method 3 of Chen & Cherry,
    WMT 2014): an order without a match counts as a match of 1/2, 1/4, … of an n-gram; a
    corpus without a match, or with no n-gram of some order, scores 0.
    """
    missing = (matches == 0) & (totals > 0)
    smoothed = np.where(missing, 0.5 ** np.cumsum(missing, axis=-1), matches)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(totals > 0, smoothed / totals, 0.0)
        brevity = np.where(
            hypothesis_length < reference_length, np.exp(1 - reference_length / hypothesis_length), 1.0
        )
        score = 100 * brevity * np.exp(np.log(precision).mean(axis=-1))
    hopeless = (matches.sum(axis=-1) == 0) | (totals == 0).any(axis=-1) | (hypothesis_length == 0)
    return np.where(hopeless, 0.0, score)


def signatures() -> dict[str, str]:
    """Return sacrebleu's own signatures, with what is done to the text before it."""
    bleu, chrf = BLEU(tokenize="char"), CHRF()
    bleu.corpus_score(["一"], [["一"]])
    chrf.corpus_score(["一"], [["一"]])
    before = "Han characters only, variants folded (OpenCC t2s by character + tangeval.poem.VARIANTS)"
    return {
        "bleu": f"{bleu.get_signature()}|text:{before}|mean over sample indices",
        "bleu_strict": f"{bleu.get_signature()}|text:Han characters only|mean over sample indices",
        "chrf": f"{chrf.get_signature()}|text:{before}|mean of sentence scores",
    }
