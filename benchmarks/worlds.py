"""Studies of real texts, whose truth is known, as the analysis measures them.

In: HW5's poems ($TANGEVAL_DATA) and the texts that results/reference keeps. Out: counts of BLEU of many outputs of
each poem, studies drawn from them, and what studies of that size find on average. Knows nothing of intervals or tests.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tangeval.analysis.aggregate import Corpus, Measured, Part, corpus_scores
from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.metrics.base import Texts
from tangeval.metrics.bleu import BLEU
from tangeval.tasks.tang import TANG, data
from tangeval.tasks.tang.text import clauses, fold, line_length

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
REFERENCE = Path("results/reference")
STUDIES = ("gemma3-270m", "recipes", "tang-mini")
ENDINGS, DRAWS = 2000, 16  # poems, and outputs of each: two sides of eight samples
FEWEST = 32  # poems that a form must have
_TRUTH, _AT_ONCE = 8000, 2_000_000


@cache
def poets(own: float) -> Counts:
    """Return the counts ``[N, DRAWS, K]`` of other poets' endings, each clause the poem's own with probability ``own``."""
    noise = random.Random(f"endings {own}")
    texts, examples = list[str](), list[Example]()
    for ending, others in _endings():
        example = Example("", "", "", "".join(ending), "train")
        for _ in range(DRAWS):
            pairs = zip(ending, noise.choice(others), strict=True)
            texts.append("".join(mine if noise.random() < own else theirs for mine, theirs in pairs))
            examples.append(example)
    counts = BLEU.compute(Texts(texts, examples, [None] * len(texts), str))
    return np.reshape(np.array(counts, np.int32), (-1, DRAWS, len(BLEU.counts)))


@cache
def _endings() -> list[tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Endings of HW5's poems in folded clauses, each with the others of its form."""
    examples = data.load("hw5").split("train")[:ENDINGS]
    endings = [clauses(fold(e.reference)) for e in examples]
    forms: dict[tuple[int, int], list[tuple[str, ...]]] = {}
    keys = [(line_length(e.input), len(ending)) for e, ending in zip(examples, endings, strict=True)]
    for key, ending in zip(keys, endings, strict=True):
        forms.setdefault(key, []).append(ending)
    return [
        (ending, [other for other in forms[key] if other != ending])
        for key, ending in zip(keys, endings, strict=True)
        if len(forms[key]) >= FEWEST
    ]


@cache
def kept() -> dict[str, pd.DataFrame]:
    """Return the texts of the 15 test poems that results/reference keeps, by study: of the chosen setting, eight samples.

    Raises:
        TangevalError: they are not there.
    """
    found = {}
    for study in STUDIES:
        file = REFERENCE / study / "texts.csv"
        if not file.is_file():
            raise TangevalError(f"{file} is missing; run this in a clone of the repository")
        texts = pd.read_csv(file, keep_default_na=False)
        texts = texts[texts["example_id"].str.startswith("test-")]
        found[study] = texts.sort_values(["checkpoint", "example_id", "sample"])
    return found


def chosen() -> dict[str, pd.DataFrame]:
    """Return the texts of each study's chosen setting: 15 poems × 8 samples, in order."""
    return {name: texts[texts["kept"] == "chosen"] for name, texts in kept().items()}


def homework(name: str) -> list[pd.DataFrame]:
    """Return the texts of each checkpoint of a study in the homework's setting: 15 poems × 1 sample, in order."""
    texts = kept()[name]
    of = texts[texts["kept"] == "homework's cell"]
    return [own for _, own in of.groupby("checkpoint") if len(own) == own["example_id"].nunique() == 15]


def computed(texts: pd.DataFrame, metric: str) -> NDArray[Any]:
    """Return a metric of texts, poem by poem ``[15, S]`` or, of BLEU, its counts ``[15, S, K]``."""
    rows = list(texts.itertuples())
    examples = [Example(row.example_id, "", row.couplet, row.reference, "test") for row in rows]
    own = Texts([row.text for row in rows], examples, [None] * len(rows), TANG.normalise)
    values = np.asarray(TANG.metrics[metric].compute(own))
    poems = texts["example_id"].nunique()
    return values.reshape(poems, len(rows) // poems, *values.shape[1:])


def drawn(pool: Counts, poems: int, samples: int, runs: int, seed: int) -> Iterator[Counts]:
    """Yield ``runs`` studies in parts ``[r, P, S, K]``: poems with replacement, a poem's samples without."""
    generator = np.random.default_rng([seed, poems, samples])
    for size in divided(runs, max(1, _AT_ONCE // (poems * samples * pool.shape[-1]))):
        which = generator.integers(0, len(pool), (size, poems))
        draws = generator.random((size, poems, pool.shape[1])).argsort(axis=2)[:, :, :samples]
        yield pool[which[:, :, None], draws]


def truth(pool: Counts, poems: int) -> float:
    """Return the mean BLEU of studies of that many poems; of how many samples does not matter."""
    generator, found = np.random.default_rng(0), []
    for size in divided(_TRUTH, max(1, _AT_ONCE // (poems * pool.shape[-1]))):
        shape = (size, poems)
        some = pool[generator.integers(0, len(pool), shape), generator.integers(0, pool.shape[1], shape)]
        found.append(BLEU.score(some.sum(axis=1).astype(float)))
    return float(np.concatenate(found).mean())


def divided(runs: int, part: int) -> Iterator[int]:
    """Yield ``runs`` in parts."""
    for begin in range(0, runs, part):
        yield min(part, runs - begin)


def corpora(counts: Counts) -> Measured:
    """Return counts ``[C, P, S, K]`` as BLEU of C settings."""
    own = [counts[..., place] for place in range(counts.shape[-1])]
    value = corpus_scores(BLEU, own, np.ones((1, counts.shape[1])))[0]
    content = {"bleu": Corpus(own, corpus_scores(BLEU, own, None))}
    return _measured(counts.shape[:3], {"bleu": value}, {}, content)


def means(by_poem: Floats, metric: str, samples: int) -> Measured:
    """Return poems' values ``[P, C]`` as a metric of C settings."""
    poems, settings = by_poem.shape
    return _measured((settings, poems, samples), {metric: by_poem.mean(axis=0)}, {metric: by_poem}, {})


def _measured(
    shape: Sequence[int], value: dict[str, Floats], by_poem: dict[str, Floats], own: dict[str, Corpus]
) -> Measured:
    settings, poems, samples = shape
    examples = tuple(map(str, range(poems)))
    return Measured(TANG.metrics, pd.DataFrame(index=range(settings)), examples, samples, value, by_poem, own)


def parts(measured: Measured) -> list[Part]:
    """Return each setting alone."""
    return [Part(measured, [place]) for place in range(len(measured.knobs))]


def unlike(samples: int) -> list[tuple[str, ...]]:
    """Return as many other poets' endings of each poem, as texts."""
    noise = random.Random(f"unlike {samples}")
    return [tuple("".join(other) for other in noise.sample(others, samples)) for _, others in _endings()]
