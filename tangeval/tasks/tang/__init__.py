"""The task of homework 5: given a couplet of a Tang poem, write the rest.

Out: ``TANG``, the ``Task``. What it is made of stands in this folder's modules.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tangeval.core.types import Example
from tangeval.metrics import bleu, chrf, copying, diversity, likelihood
from tangeval.metrics.base import Metrics
from tangeval.models.tokens import Prompt
from tangeval.tasks.base import Dataset, Outputs, RhymeGroup, Verse
from tangeval.tasks.tang import data, external_outputs, form, prompt, prosody
from tangeval.tasks.tang.baseline import baseline
from tangeval.tasks.tang.text import HAN, MARKS, as_verse, fold, han, line_length

BLEU_STRICT = bleu.metric(
    "bleu_strict", {"en": "character BLEU, variants apart", "zh": "單字 BLEU（異體不合併）"}, normalise=han
)
#: In the order of the tables.
METRICS = (
    bleu.BLEU, BLEU_STRICT, chrf.CHRF, likelihood.REFERENCE_NLL,
    form.FORM, form.LINE_LENGTH, form.CLAUSE_COUNT, form.PUNCTUATION, form.HAN_ONLY, form.COMPLETE, form.NO_ECHO,
    form.NO_REPEAT, form.LENGTH_MATCH,
    prosody.RHYME, prosody.RHYME_LEVEL, prosody.TONE_OPPOSITION, prosody.PROSODY_KNOWN,
    diversity.DISTINCT_1, diversity.DISTINCT_2, diversity.SELF_BLEU, diversity.UNIQUE,
    copying.TRAIN_OVERLAP, form.COPIED_CLAUSES,
)  # fmt: skip
_NORMALISED = "Han characters only, variants folded (OpenCC t2s by character + assets/tang/variants.tsv)"
_MARKS = "".join(sorted(MARKS))
_CLAUSE = re.compile(f"[^{_MARKS}]*[{_MARKS}]+|[^{_MARKS}]+$")


class Tang:
    """``Task`` of Tang poems."""

    name = "tang"
    templates = ("hw5", "chat")

    def __init__(self) -> None:
        self.metrics: Metrics = {metric.name: metric for metric in METRICS}

    def load(self, spec: str, validation: int | None = None) -> Dataset:
        return data.load(spec, validation)

    def parts(self, example: Example) -> tuple[str, ...]:
        return data.parts(example)

    def identity(self, example: Example) -> str:
        return data.identity(example)

    def prompt(self, example: Example, template: str) -> Prompt:
        return prompt.asked(example, template)

    def target(self, example: Example) -> str:
        return as_verse(example.reference)

    def normalise(self, text: str) -> str:
        return fold(han(text))

    def characters(self, text: str) -> str:
        return han(text)

    def group(self, example: Example) -> int:
        return line_length(example.input)

    def baseline(self, dataset: Dataset, example: Example, seed: int, draws: int) -> list[str]:
        return baseline(dataset, example, seed, draws)

    def signatures(self) -> Mapping[str, str]:
        counted = f"{bleu.signature()}|text:"
        return {
            "bleu": f"{counted}{_NORMALISED}|mean over sample indices",
            "bleu_strict": f"{counted}Han characters only|mean over sample indices",
            "chrf": f"{chrf.signature()}|text:{_NORMALISED}|mean of sentence scores",
        }

    def show(self, text: str) -> str:
        """Two clauses a line; what is no verse stays on its line."""
        parts = _CLAUSE.findall(" ".join(text.split()))
        return "\n".join("".join(parts[place : place + 2]) for place in range(0, len(parts), 2))

    def verse(self, characters: Iterable[str]) -> Verse:
        """Return how the page reads these characters: variants by ``fold``, rhymes by prosody's groups."""
        groups: dict[str, str] = {}
        for character in characters:
            for group in sorted(prosody.rhyme_groups(character)):
                groups[group] = groups.get(group, "") + character
        rhymes = [RhymeGroup(prosody.is_level(group), own) for group, own in groups.items()]
        return Verse(HAN, {c: fold(c) for c in characters if fold(c) != c}, rhymes)

    def read_outputs(
        self, files: Sequence[Path], examples: Sequence[Example], others: Sequence[Example] = ()
    ) -> list[Outputs]:
        return external_outputs.read_outputs(files, examples, others)

    def outputs_file(self, examples: Sequence[Example], texts: Sequence[str]) -> str:
        """HW5's ``results.txt``: ``1. couplet+poem``, one a line; white space in a poem becomes one space."""
        lines = [
            f"{number}. {example.input}{' '.join(text.split())}\n"
            for number, (example, text) in enumerate(zip(examples, texts, strict=True), 1)
        ]
        return "".join(lines)


TANG = Tang()
