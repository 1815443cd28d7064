"""One of several outputs, picked without the reference: which sample of an example and setting a reranker takes.

In: scores or texts of C settings × P examples × S samples. Out: the place of the sample picked, ``[C, P]``. Knows nothing
of files or of what the picked ones are worth.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tangeval.analysis.intervals import Floats
from tangeval.metrics.bleu import matches
from tangeval.metrics.chrf import chrf
from tangeval.metrics.ngrams import Ints, lengths

_AT_ONCE = 20_000  # pairs that are compared at a time


def by_check(passed: NDArray[np.floating]) -> Ints:
    """Return the first sample of those that pass a check most ``[C, P]``, of ``passed`` ``[C, P, S]``."""
    return np.asarray(passed.argmax(axis=2))


def by_consensus(codes: Ints, texts: Sequence[str]) -> Ints:
    """Return the sample ``[C, P]`` that is most like the others of its setting and example by chrF; of equals the first.

    Minimum Bayes risk with the samples themselves as references (Eikema & Aziz, EMNLP 2022; Jinnai & Ariu, arXiv
    2401.02749, whose fast form is not needed for a few samples). ``codes`` ``[C, P, S]`` say which of ``texts``, as
    they are compared, each output is.
    """
    utility, size = np.zeros(codes.shape), lengths(texts)
    first, second = np.triu_indices(codes.shape[2], 1)
    for example in range(codes.shape[1]):  # settings write the same text often, of the same example alone
        own = codes[:, example]
        sides = own[:, first], own[:, second]
        pairs, place = np.unique(np.minimum(*sides) * len(texts) + np.maximum(*sides), return_inverse=True)
        alike = _alike(pairs // len(texts), pairs % len(texts), texts, size)
        in_order = (sides[0] <= sides[1]).astype(int)
        place = place.reshape(sides[0].shape)
        for pair, (one, other) in enumerate(zip(first, second, strict=True)):
            at = place[:, pair], in_order[:, pair]
            utility[:, example, one] += alike[1 - at[1], at[0]]
            utility[:, example, other] += alike[at[1], at[0]]
    return np.asarray(np.round(utility, 9).argmax(axis=2))


def _alike(first: Ints, second: Ints, texts: Sequence[str], size: Ints) -> Floats:
    """ChrF of each first text against its second, and of the second against the first: ``[2, n]``."""
    found = list[Floats]()
    for begin in range(0, len(first), _AT_ONCE):
        one, other = (side[begin : begin + _AT_ONCE] for side in (first, second))
        shared = matches([texts[place] for place in one], [texts[place] for place in other])
        found.append(np.stack([chrf(shared, size[one], size[other]), chrf(shared, size[other], size[one])]))
    return np.concatenate(found, axis=1)
