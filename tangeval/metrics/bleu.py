"""Character BLEU and chrF of Han characters, by sacrebleu, kept as sufficient statistics.

In: a hypothesis and a reference. Out: counts for one pair; the corpus score of any sum of
counts. Counts are made once, by sacrebleu; a bootstrap sums them again and tokenises
nothing. Pure; knows nothing of cells or files.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics import BLEU, CHRF

from tangeval.poem import fold, han

ORDERS = 4
#: Columns of one pair's statistics: matching n-grams with variants folded, the same without
#: folding, and both lengths in characters (folding changes no length).
MATCH = tuple(f"bleu_match_{n}" for n in range(1, ORDERS + 1))
STRICT = tuple(f"bleu_strict_match_{n}" for n in range(1, ORDERS + 1))
LENGTHS = ("hypothesis_chars", "reference_chars")
COLUMNS = (*MATCH, *STRICT, *LENGTHS, "chrf")

_BLEU = BLEU(tokenize="char", effective_order=True)  # its counts alone are used: order has no part in them
_CHRF = CHRF()


@lru_cache(maxsize=100_000)
def pair_statistics(hypothesis: str, reference: str) -> tuple[float, ...]:
    """Return the values of ``COLUMNS`` for one pair; marks and white space are left out first.

    ``chrf`` is sacrebleu's sentence chrF (0 to 100) on the folded text.
    """
    strict, strict_reference = han(hypothesis), han(reference)
    folded, folded_reference = fold(strict), fold(strict_reference)
    matches = _BLEU.sentence_score(folded, [folded_reference]).counts
    strict_matches = _BLEU.sentence_score(strict, [strict_reference]).counts
    chrf = _CHRF.sentence_score(folded, [folded_reference]).score
    return (*matches, *strict_matches, len(folded), len(folded_reference), chrf)


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
