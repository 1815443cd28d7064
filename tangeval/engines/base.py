"""Who writes the texts: what every engine can do, and what goes in and out of it.

In: a resolved study and jobs (a batch of the plan, or references to score). Out: rows of
generations, negative log-likelihoods, or why a checkpoint cannot be used. Knows nothing of the
results folder: ``generation.py`` plans, asks an engine, and writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, Self

import pandas as pd

from tangeval.core.config import Section
from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.knobs import KNOB, KNOBS, Setting, axes_set, written
from tangeval.core.types import Checkpoint, Example
from tangeval.models.tokens import Prompt
from tangeval.resolve import ResolvedStudy
from tangeval.results.plan import Batch

#: Called as work goes on: the checkpoint's name, how many sequences ended since, and the latest text ("" if none).
OnProgress = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class Output:
    """One text: without special tokens, its length in tokens (EOS included), and what ended it."""

    text: str
    tokens: int
    finish: Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class ReferenceNLL:
    """A reference's negative log-likelihood: nats in all, tokens, and nats of each character in order.

    ``characters`` is empty where the tokenizer does not spell the reference as it stands. ``cuts`` says of temperatures
    and cuts, by ``knobs.warp_name``, what they keep of it: recall, mass and risk (``decoding.recall.Kept``).
    """

    nats: float
    tokens: int
    characters: list[float]
    cuts: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One unit of work: a batch of one checkpoint, or, without one, the likelihood of ``examples``."""

    checkpoint: Checkpoint
    batch: Batch | None = None
    examples: tuple[Example, ...] = ()

    @property
    def key(self) -> str:
        """What tells a checkpoint's jobs apart."""
        return self.batch.id if self.batch else "likelihood"


@dataclass(frozen=True)
class Done:
    """A job's rows (as of ``generations``) or likelihoods, or why its checkpoint cannot be used."""

    job: Job
    made: "pd.DataFrame | list[ReferenceNLL] | UnusableError"
    seconds: float
    loading: float | None = None  #: seconds, where the base model was loaded for it
    fitted: int | None = None  #: the most sequences that memory held, where it did not hold the batch
    self_check: str | None = (
        None  #: how its checkpoint's rows are kept, so that they are the model's own texts
    )
    checking: float | None = None  #: seconds, where that was found for it


@dataclass(frozen=True)
class Description:
    """What a manifest records of an engine.

    ``name`` says on what is computed; ``noise`` how a token is drawn; ``noise_shared`` whether
    settings and checkpoints are drawn under common random numbers. ``place`` and ``unused`` are for a reader before
    a run, and ``more`` are further keys of the manifest.
    """

    name: str
    noise: str
    noise_shared: bool
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    place: str = ""
    unused: str = ""  #: why a GPU that is there is not used
    processes: int = 1  #: how many jobs are done at a time, at most
    more: Mapping[str, Any] = field(default_factory=dict)


#: Every knob's name.
ALL_KNOBS = frozenset(knob.name for knob in KNOBS)


class Engine(Protocol):
    """Writes the texts of a study. ``engines.make(resolved)`` makes one; it is opened and closed by ``with``.

    It may decode any study that differs from its own in splits, samples, grid (``only``), selection
    and which of the checkpoints are run; the base model is loaded once for all of them.
    """

    #: The ``engine`` section of a study file, ``kind`` included.
    Config: ClassVar[type[Section]]
    #: Whether sequences that differ in length alone are decoded as one.
    shares_prefixes: ClassVar[bool] = True
    #: Whether ``run`` takes jobs of likelihoods.
    gives_likelihood: ClassVar[bool] = True
    #: The knobs whose every value it honours, by name.
    honours: ClassVar[frozenset[str]] = ALL_KNOBS

    def __init__(self, resolved: ResolvedStudy, config: Any) -> None:
        """Take the study and its validated ``Config``; load nothing and ask nobody."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None: ...

    def check(self) -> None:
        """Refuse now what would fail later: a context too short, a knob not honoured, a server that is not there.

        Raises:
            TangevalError: naming the study's key and the remedy.
        """

    def probe(self) -> None:
        """Refuse what only asking for texts tells, before the first are wanted; ``describe`` then says what was found.

        Nothing where the weights are here.
        """
        return None

    def describe(self) -> Description: ...

    def cache_key(self, checkpoint: Checkpoint) -> str:
        """Return the digest of all that decides a text but example, sample and setting."""

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        """Return the digest of all that decides a reference's likelihood but the example; "" where it gives none."""

    def sequences_per_batch(self) -> int:
        """Return the most sequences that a batch of the plan may have."""

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        """Yield each job when it is done; those left of a checkpoint that cannot be used are dropped."""


def asked(resolved: ResolvedStudy, example: Example) -> Prompt:
    """Return an example's prompt, as ``models.tokens`` takes it."""
    return resolved.task.prompt(example, resolved.template)


def examples_of(resolved: ResolvedStudy) -> list[Example]:
    """Return the examples of all the study's splits."""
    return [e for split in resolved.study.ordered_splits() for e in resolved.examples(split)]


def wording(resolved: ResolvedStudy) -> Prompt:
    """Return the prompt of a made-up example: what it says besides the example's own texts is the wording.

    Of a declared task it is the template.
    """
    if resolved.task.wording:
        return f"{resolved.template}: {resolved.task.wording}"
    return asked(resolved, Example("", "instruction", "input", "reference", "test"))


#: Why servers have no knob of a kind.
_WHY = {
    "search": " (what beams a server has, vLLM's say, are a request of another kind, with rules of its own)",
    "contrast": " (a server gives one model's texts, and no logits to set against those of another)",
}


def check_knobs(resolved: ResolvedStudy, honours: frozenset[str], engine: str) -> None:
    """Raise ``TangevalError`` for a study that sets a knob, not to ``off``, which ``engine`` does not honour."""
    for name in sorted(ALL_KNOBS - honours):
        if any(value != KNOB[name].off for value in resolved.study.decoding.values(name)):
            raise TangevalError(
                f"decoding.{name}: the {engine} engine does not honour it{_WHY.get(KNOB[name].kind, '')}; set it to "
                f"{written(KNOB[name].off)}, or take another engine"
            )


def sequence_of(setting: Setting, sample: int) -> tuple[Any, ...]:
    """Return what decides the tokens of a prompt's output; noise plays no part at temperature 0."""
    return (setting.sequence, 0 if setting.temperature == 0 else sample)


def generations(
    resolved: ResolvedStudy, batch: Batch, output: Callable[[Example, Setting, int], Output]
) -> pd.DataFrame:
    """Return a batch's rows in the plan's order; ``output`` gives each text.

    Columns: ``checkpoint``, ``step``, the knobs, ``split``, ``example_id``, ``sample``, ``text``, ``n_tokens``,
    ``finish_reason``.
    """
    step = next(c.step for c in resolved.checkpoints if c.name == batch.checkpoint)
    axes, rows = axes_set(batch.settings), []
    for example in map(resolved.dataset.by_id.__getitem__, batch.examples):
        for setting in batch.settings:
            for sample in batch.samples:
                made = output(example, setting, sample)
                rows.append(
                    (batch.checkpoint, step, *setting.at(axes), example.split, example.id, sample,
                     made.text, made.tokens, made.finish)
                )  # fmt: skip
    columns = [
        "checkpoint",
        "step",
        *axes,
        "split",
        "example_id",
        "sample",
        "text",
        "n_tokens",
        "finish_reason",
    ]
    return pd.DataFrame(rows, columns=columns).astype({"step": "Int64"})


def needs_logits(resolved: ResolvedStudy, command: str) -> None:
    """Raise ``TangevalError`` where a server holds the model, for a command that looks into the model itself."""
    if resolved.served:
        raise TangevalError(
            f"engine: `tangeval {command}` wants logits, which a server does not give; use a study without engine, "
            "whose base_model and checkpoints are here"
        )
