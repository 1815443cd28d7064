"""Which sample a reranker takes, against sacrebleu and by hand."""

import numpy as np
from sacrebleu.metrics import CHRF

from tangeval.analysis.rerank import by_check, by_consensus
from tangeval.metrics.ngrams import lengths

TEXTS = [
    "白日依山盡，黃河入海流。",
    "白日依山盡，黃河流。",
    "黃河入海流，白日山。",
    "春眠不覺曉",
    "春眠不覺曉，處處聞啼鳥。",
    "春",
]


def test_consensus_is_the_largest_mean_chrf_against_the_others():
    generator = np.random.default_rng(0)
    texts = [*TEXTS, ""]
    codes = generator.integers(0, len(texts), (5, 7, 4))  # with the same text twice, too
    score = CHRF()
    expected = np.empty(codes.shape[:2], int)
    for place in np.ndindex(expected.shape):
        own = [texts[code] for code in codes[place]]
        utility = [
            np.mean([score.sentence_score(one, [other]).score for m, other in enumerate(own) if m != n])
            for n, one in enumerate(own)
        ]
        expected[place] = np.round(utility, 9).argmax()
    assert len(set(lengths(texts).tolist())) > 2  # chrF is not the same both ways
    assert by_consensus(codes, texts).tolist() == expected.tolist()


def test_the_first_that_passes_is_taken_and_else_the_first():
    passed = np.array([[[0, 1, 1], [0, 0, 0], [1, 0, 0]]])
    assert by_check(passed).tolist() == [[1, 0, 0]]
