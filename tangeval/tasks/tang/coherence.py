"""Other couplets that could begin the same ending, as far as form goes: what coherence (題意) is measured against.

In: the data and an example. Out: couplets of training poems. Knows nothing of models.
"""

import random
from functools import cache, lru_cache

from tangeval.core.errors import TangevalError
from tangeval.core.types import Example
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang.prosody import rhyme_groups, tones
from tangeval.tasks.tang.text import clauses, fold, han, line_length


@cache
def _sound(couplet: str) -> tuple[frozenset[str], frozenset[str]]:
    """What an ending follows by ear: the last clause's rhyme groups, and the tones of its second place."""
    last = clauses(couplet)[-1]
    return rhyme_groups(last[-1]), frozenset[str]().union(*map(tones, last[1:2]))


@lru_cache(maxsize=1024)  # for every output of an example
def others(dataset: Dataset, example: Example, count: int) -> tuple[str, ...]:
    """Return ``count`` other couplets of training as long as the example's, always the same ones.

    Those that rhyme with it come first, of them those of its tone in place 2 of the last clause: what fits its
    own couplet better than these fits by more than sound.

    Raises:
        TangevalError: training has not so many.
    """
    (groups, tone), length = _sound(example.input), line_length(example.input)
    alike = {fold(han(e.input)): e.input for e in dataset.split("train") if line_length(e.input) == length}
    found = [couplet for folded, couplet in alike.items() if folded != fold(han(example.input))]
    if len(found) < count:
        what = f"other training couplets are as long as that of {example.id}"
        raise TangevalError(f"{dataset.folder}: {len(found)} {what}; coherence needs {count}")
    random.Random(f"others {example.id}").shuffle(found)
    order = {couplet: (not _sound(couplet)[0] & groups, not _sound(couplet)[1] & tone) for couplet in found}
    return tuple(sorted(found, key=order.__getitem__)[:count])
