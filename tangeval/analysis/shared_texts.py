"""The texts of many writers on the same examples → who has the same ones.

In: each writer's normalised texts. Out: pairs of writers, and in how many examples their texts are equal or nearly.
Knows nothing of files.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

#: How alike two texts are that are nearly equal: 1 less the edits, as a share of the longer one's characters.
NEAR = 0.8
#: The share of examples from which on a pair is named.
SHARED = 0.3


def shared_texts(texts: Sequence[Sequence[str]], references: Sequence[str]) -> pd.DataFrame:
    """Return a row for each pair of writers that share ``SHARED`` of the examples, or more, those that share most first.

    ``texts`` are each writer's, one an example; ``references`` the answers, which a model may know by heart: texts equal
    to them, and empty ones, do not count. ``a`` and ``b`` are places in ``texts``; ``equal`` and ``near`` count
    examples, ``of`` all; ``examples`` are the places of both; pairs that share a writer have the same ``group``, from 1.
    """
    writers, examples = len(texts), len(references)
    columns = zip(zip(*texts, strict=True), references, strict=True)
    found = (
        np.stack([_alike(own, reference) for own, reference in columns]) if writers else np.zeros((0, 0, 0))
    )
    equal, near = (np.triu((found == kind).sum(axis=0), 1) for kind in (2, 1))
    a, b = np.nonzero(equal + near >= max(1, np.ceil(SHARED * examples)))
    groups = connected_components(
        csr_array((np.ones(len(a)), (a, b)), shape=(writers, writers)), directed=False
    )[1]
    frame = pd.DataFrame(
        {"group": groups[a], "a": a, "b": b, "equal": equal[a, b], "near": near[a, b], "of": examples}
    )
    frame["examples"] = [np.flatnonzero(found[:, i, j]).tolist() for i, j in zip(a, b, strict=True)]
    together = frame["equal"] + frame["near"]
    order = pd.DataFrame({"most": -together.groupby(frame["group"]).transform("max"), "own": -together})
    frame = (
        frame.assign(**order)
        .sort_values(["most", "group", "own"], kind="stable")
        .drop(columns=["most", "own"])
    )
    frame["group"] = pd.factorize(frame["group"])[0] + 1
    return frame.reset_index(drop=True)


def _alike(texts: Sequence[str], reference: str) -> NDArray[np.int8]:
    """Of each pair of writers' texts for one example: 2 where they are equal, 1 where nearly, else 0."""
    codes, distinct = pd.factorize(np.array(texts, dtype=object))
    near = (
        process.cdist(
            distinct, distinct, scorer=Levenshtein.normalized_similarity, score_cutoff=NEAR, workers=-1
        )
        > 0
    )
    alike = near.astype(np.int8) + np.eye(len(distinct), dtype=np.int8)
    known = [place for place, text in enumerate(distinct) if text in ("", reference)]
    alike[known], alike[:, known] = 0, 0
    return np.asarray(alike[np.ix_(codes, codes)])
