"""The task of homework 5: given a couplet of a Tang poem, write the rest.

Out: ``TANG``, the ``Task``. What it is made of stands in this folder's modules.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from tangeval.core.types import Example
from tangeval.metrics import bleu, chrf, copying, diversity, likelihood
from tangeval.tasks.base import Dataset, RhymeGroup, Task, Verse
from tangeval.tasks.tang import (
    data,
    external_outputs,
    form,
    parallelism,
    prompt,
    prosody,
    regulated,
    wrappers,
)
from tangeval.tasks.tang.baseline import baseline, nearest
from tangeval.tasks.tang.coherence import others
from tangeval.tasks.tang.constraint import CONSTRAINTS
from tangeval.tasks.tang.text import HAN, MARKS, as_verse, fold, han, line_length, normalise

BLEU_STRICT = bleu.metric(
    "bleu_strict", {"en": "character BLEU, variants apart", "zh": "單字 BLEU（異體不合併）"}, normalise=han
)
#: In the order of the tables.
METRICS = (
    bleu.BLEU, BLEU_STRICT, bleu.SHARED_PAIRS, chrf.CHRF, likelihood.REFERENCE_NLL,
    form.FORM, form.LINE_LENGTH, form.CLAUSE_COUNT, form.PUNCTUATION, form.HAN_ONLY, form.COMPLETE, form.NO_ECHO,
    form.NO_REPEAT, form.LENGTH_MATCH, form.REPEATED_CHARACTERS,
    prosody.RHYME, prosody.RHYME_LEVEL, prosody.TONE_OPPOSITION, prosody.PROSODY_KNOWN,
    regulated.REGULATED, regulated.ALTERNATION, regulated.ADHESION_GIVEN, regulated.ADHESION_INNER,
    regulated.ODD_LINE_TONE, regulated.THREE_LEVEL, regulated.LONE_LEVEL,
    parallelism.PARALLELISM,
    diversity.DISTINCT_1, diversity.DISTINCT_2, diversity.SELF_BLEU, diversity.UNIQUE,
    copying.TRAIN_OVERLAP, form.COPIED_CLAUSES,
)  # fmt: skip
_NORMALISED = "Han characters only, variants folded (OpenCC t2s by character + assets/tang/variants.tsv)"
_MARKS = "".join(sorted(MARKS))
_CLAUSE = re.compile(f"[^{_MARKS}]*[{_MARKS}]+|[^{_MARKS}]+$")


def signatures(_: Dataset) -> Mapping[str, str]:
    counted = f"{bleu.signature('BLEU', tokenize='char')}|text:"
    return {
        "bleu": f"{counted}{_NORMALISED}|mean over sample indices",
        "bleu_strict": f"{counted}Han characters only|mean over sample indices",
        "chrf": f"{bleu.signature('CHRF')}|text:{_NORMALISED}|mean of sentence scores",
    }


def unwrap(text: str, given: str) -> tuple[str, tuple[str, ...]]:
    """Return ``text`` without what stands around the poem, the couplet ``given`` among it, and what was cut."""
    found = wrappers.unwrap(text, normalise(given))
    return (found.text, found.cut) if found.cut else (text, ())


def show(text: str) -> str:
    """Return ``text`` with two clauses a line; what is no verse stays on its line."""
    parts = _CLAUSE.findall(" ".join(text.split()))
    return "\n".join("".join(parts[place : place + 2]) for place in range(0, len(parts), 2))


def verse(characters: Iterable[str]) -> Verse:
    """Return how the page reads these characters: variants by ``fold``, rhymes by prosody's groups."""
    groups: dict[str, str] = {}
    for character in characters:
        for group in sorted(prosody.rhyme_groups(character)):
            groups[group] = groups.get(group, "") + character
    rhymes = [RhymeGroup(prosody.is_level(group), own) for group, own in groups.items()]
    return Verse(HAN, {c: fold(c) for c in characters if fold(c) != c}, rhymes)


def results_txt(examples: Sequence[Example], texts: Sequence[str]) -> str:
    """Return HW5's ``results.txt``: ``1. couplet+poem``, one a line; white space in a poem becomes one space."""
    whole = (f"{e.input}{' '.join(text.split())}" for e, text in zip(examples, texts, strict=True))
    return "".join(f"{number}. {line}\n" for number, line in enumerate(whole, 1))


TANG = Task(
    name="tang",
    templates=("hw5", "chat"),
    metrics={metric.name: metric for metric in METRICS},
    load=data.load,
    prompt=prompt.asked,
    baseline=baseline,
    nearest=nearest,
    parts=data.parts,
    target=lambda example: as_verse(example.reference),
    normalise=normalise,
    characters=han,
    group=lambda example: line_length(example.input),
    signatures=signatures,
    others=others,
    show=show,
    outputs_file=results_txt,
    read_outputs=external_outputs.read,
    unwrap=unwrap,
    verse=verse,
    constraints=CONSTRAINTS,
)
