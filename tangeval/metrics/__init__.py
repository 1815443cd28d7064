"""What is measured: every column of the summary, in the order of its tables.

A metric is a name, a label for pictures, and which way is better. The functions that
compute it stand in this package's modules, in one explicit tuple for each shape:
``form.CHECKS`` (of a text), ``bleu`` (of a text and its reference).
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
    per_cell: bool = True  #: depends on decoding; if not, one value for each checkpoint


METRICS: tuple[Metric, ...] = (
    Metric("bleu", "character BLEU", "high"),
    Metric("bleu_strict", "character BLEU, variants apart", "high"),
    Metric("chrf", "chrF", "high"),
    Metric("reference_nll", "reference NLL (nats per character)", "low", per_cell=False),
    Metric("form", "form: all checks hold", "high", share=True),
    Metric("metre", "metre", "high", share=True),
    Metric("clause_count", "4 or 8 clauses", "high", share=True),
    Metric("punctuation", "marks of verse", "high", share=True),
    Metric("han_only", "nothing but Han and marks", "high", share=True),
    Metric("complete", "ended by itself", "high", share=True),
    Metric("no_echo", "no clause of the couplet again", "high", share=True),
    Metric("no_repeat", "no clause twice", "high", share=True),
)
BY_NAME: dict[str, Metric] = {metric.name: metric for metric in METRICS}
