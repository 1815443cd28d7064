"""Who writes the texts: what every engine can do, and what goes in and out of it.

In: a resolved study and jobs (a batch of the plan, or references to score). Out: rows of
generations, negative log-likelihoods, or why a checkpoint cannot be used. Knows nothing of the
results folder: ``generation.py`` plans, asks an engine, and writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import pandas as pd

from tangeval.core.errors import TangevalError, UnusableError
from tangeval.core.study import Section
from tangeval.core.types import Checkpoint, Example
from tangeval.resolve import ResolvedStudy
from tangeval.results.plan import Batch

#: Told, as work goes on, the checkpoint, how many sequences ended since, and the latest text.
OnProgress = Callable[[str, int, str], None]


@dataclass(frozen=True, slots=True)
class ReferenceNLL:
    """A reference's negative log-likelihood: nats in all, tokens, and nats of each character in order.

    ``characters`` is empty where the tokenizer does not spell the reference as it stands.
    """

    nats: float
    tokens: int
    characters: list[float]


@dataclass(frozen=True)
class Job:
    """What an engine does at a time: a batch of one checkpoint, or, without one, the likelihood of ``examples``."""

    checkpoint: Checkpoint
    batch: Batch | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Done:
    """A job's rows (columns ``results.plan.GENERATIONS``) or likelihoods, or why its checkpoint cannot be used."""

    job: Job
    made: "pd.DataFrame | list[ReferenceNLL] | UnusableError"
    seconds: float
    loading: float | None = None  #: seconds, where the base model was loaded for it


@dataclass(frozen=True)
class Description:
    """What a manifest records of an engine.

    ``name`` says on what is computed; ``noise`` how a token is drawn, ``noise_shared`` whether
    settings and checkpoints are drawn under common random numbers.
    """

    name: str
    noise: str
    noise_shared: bool
    versions: Mapping[str, str]
    hardware: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """Writes the texts of a study. Made by ``engines.make(resolved)``; closed by its ``with``."""

    #: The ``engine`` section of a study file that asks for it, ``kind`` apart.
    Config: ClassVar[type[Section]]
    #: Whether sequences that differ in length alone are decoded as one.
    shares_prefixes: ClassVar[bool]
    #: Whether ``run`` takes jobs of likelihoods.
    gives_likelihood: ClassVar[bool]
    #: The knobs whose every value it honours, by name.
    honours: ClassVar[frozenset[str]]

    def __init__(self, resolved: ResolvedStudy) -> None: ...

    def __enter__(self) -> "Engine": ...

    def __exit__(self, *exception: object) -> None: ...

    def check(self) -> None:
        """Refuse now what would fail later: a context too short, a knob not honoured, a server that is not there.

        Raises:
            TangevalError: naming the study's key and the remedy.
        """
        ...

    def describe(self) -> Description: ...

    def cache_key(self, checkpoint: Checkpoint) -> str:
        """Return the digest of all that decides a text but example, sample and setting."""
        ...

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        """Return the digest of all that decides a reference's likelihood but the example."""
        ...

    def sequences_per_batch(self) -> int:
        """Return the most sequences that a batch of the plan may have."""
        ...

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        """Yield each job when it is done; those left of a checkpoint that cannot be used are dropped."""
        ...


def needs_logits(resolved: ResolvedStudy, command: str) -> None:
    """Refuse what looks into the model itself, where a server holds it.

    Raises:
        TangevalError: the study's engine is a server.
    """
    if resolved.study.engine:
        raise TangevalError(
            f"engine: `tangeval {command}` wants logits, which a server does not give; use a study without engine, "
            "whose base_model and checkpoints are here"
        )
