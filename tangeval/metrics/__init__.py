"""What is measured: every column of the summary, in the order of its tables.

A metric is a name, a label for pictures, and which way is better. The functions that
compute it stand in this package's modules, a module for each family: ``bleu``, ``form``,
``prosody`` and ``copying`` of one text, ``diversity`` of all samples of a poem and setting.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A column of the summary."""

    name: str
    label: str
    better: Literal["high", "low"]
    share: bool = False  #: a share between 0 and 1
    per_setting: bool = True  #: depends on decoding; if not, one value for each checkpoint


METRICS: tuple[Metric, ...] = (
    Metric("bleu", "character BLEU", "high"),
    Metric("bleu_strict", "character BLEU, variants apart", "high"),
    Metric("chrf", "chrF", "high"),
    Metric("reference_nll", "reference NLL (nats per character)", "low", per_setting=False),
    Metric("form", "form: all checks hold", "high", share=True),
    Metric("line_length", "line_length", "high", share=True),
    Metric("clause_count", "4 or 8 clauses", "high", share=True),
    Metric("punctuation", "marks of verse", "high", share=True),
    Metric("han_only", "nothing but Han and marks", "high", share=True),
    Metric("complete", "ended by itself", "high", share=True),
    Metric("no_echo", "no clause of the couplet again", "high", share=True),
    Metric("no_repeat", "no clause twice", "high", share=True),
    Metric("length_match", "as many clauses as the poet", "high", share=True),
    Metric("rhyme", "couplets rhyme", "high", share=True),
    Metric("rhyme_level", "couplets rhyme in a level tone", "high", share=True),
    Metric("tone_opposition", "tones oppose in a couplet", "high", share=True),
    Metric("prosody_known", "characters with a known reading", "high", share=True),
    Metric("distinct_1", "distinct characters over samples", "high", share=True),
    Metric("distinct_2", "distinct pairs over samples", "high", share=True),
    Metric("self_bleu", "BLEU against the other samples", "low"),
    Metric("unique", "samples that differ", "high", share=True),
    Metric("train_overlap", "longest run from training (characters)", "low"),
    Metric("copied_clauses", "clauses from training", "low", share=True),
)
#: Metrics that are a mean over generations; the others are a corpus's, or a checkpoint's.
MEANS: tuple[str, ...] = tuple(
    metric.name for metric in METRICS if metric.per_setting and metric.name not in ("bleu", "bleu_strict")
)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
