"""The frozen records that every layer speaks in.

Plain values and arrays only: no files, no torch, no pandas.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError

Split = Literal["train", "validation", "test"]
#: Where results can be logged, by the name of the library and of its extra.
Tracker = Literal["trackio", "wandb", "mlflow", "tensorboard"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def check_split(name: str) -> Split:
    """Return the split of a name.

    Raises:
        TangevalError: there is none of that name, or it is the training split.
    """
    for split in SPLITS[1:]:
        if split == name:
            return split
    raise TangevalError(f"--split {name}: give {' or '.join(SPLITS[1:])}")


#: Names a checkpoint may not have: they stand for rows that no fine-tuning made.
BASE, RANDOM, REFERENCE = "base", "random", "reference"
#: The column of scores that names each example's cluster, where its task does.
CLUSTER = "cluster"
#: The file that holds an adapter's weights, as peft names it.
ADAPTER = "adapter_model.safetensors"


#: What comes with an installation: tang-mini, the sample, tables.
ASSETS = Path(__file__).parents[1] / "assets"


def linked(place: Path) -> Path:
    """Return ``place``, or where it leads if git wrote a link as a file of its text (``core.symlinks=false``)."""
    return place.parent / place.read_text("utf-8").strip() if place.is_file() else place


def user_cache() -> Path:
    """Return where tangeval keeps what it made of a package or a GGUF file: ``$TANGEVAL_CACHE``, or its own place."""
    return Path(os.environ.get("TANGEVAL_CACHE") or Path.home() / ".cache" / "tangeval")


@dataclass(frozen=True, slots=True)
class Example:
    """One text to write.

    ``id`` says where the record stands in the data's files (``train-17`` is the training
    file's 17th record, whichever split it went to); ``instruction`` says what to do, ``input`` is
    what is given, ``reference`` what was written by people, and ``references`` what else was. ``fields`` are those of a
    declared task's record that its prompt and checks take; ``cluster`` is what it shares with others that it is no
    evidence beside: "" where it stands alone.
    """

    id: str
    instruction: str
    input: str
    reference: str
    split: Split
    fields: tuple[tuple[str, str], ...] = ()
    references: tuple[str, ...] = ()
    cluster: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights to evaluate: the base model (no path), an adapter, a full model, or what a server holds (no path).

    ``recipe`` and ``run`` say which training made them, where the study declares recipes. The mean of several has no path of
    its own: ``members`` are their folders. ``digest`` tells weights in this process's memory from others; those of files
    are digested where they lie.
    """

    name: str
    step: int | None
    path: Path | None
    kind: Literal["base", "adapter", "full", "served"]
    recipe: str | None = None
    run: str | None = None
    members: tuple[Path, ...] = ()
    digest: str | None = None

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where its weights lie; nowhere of the base model and of what a server holds."""
        return self.members or ((self.path,) if self.path else ())


@dataclass(frozen=True, slots=True)
class Base:
    """The model before fine-tuning, resolved: ``source`` is a folder or a hub id."""

    name: str
    source: str
    gguf: str | None = None  #: file name within ``source``, where the weights are GGUF
    cache_dir: str | None = None  #: where the hub's library keeps its files; its own place if None
    digest: str | None = None  #: of a model in this process's memory

    @classmethod
    def in_training(cls, source: str) -> "Base":
        """Return what stands for the model that is being trained: it is known by its name, its weights change."""
        return cls(Path(source).name, source, digest=digest(source))

    @property
    def local(self) -> bool:
        return Path(self.source).is_dir()

    def unreachable(self, reason: Exception) -> TangevalError:
        """Return the error that says what to do where a hub model cannot be reached."""
        return TangevalError(
            f"base_model: {self.source} is neither in the local cache nor to be had from the hub. Download it on "
            "a machine with a network (`hf download`; gated models want `hf auth login` first), copy the folder "
            f"here and give its path as base_model. ({(str(reason) or type(reason).__name__).splitlines()[0]})"
        )


@dataclass(frozen=True, slots=True)
class Load:
    """How weights are held and run: quantisation, dtype, whether an adapter is merged into them, and layers compiled."""

    quantization: Literal["none", "nf4", "int8"] = "none"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    merge: bool = False
    compile: bool = False
    allow_pickle: bool = False


class Allowed(NamedTuple):
    """What may come next: ``tokens`` (an array of bool ``[V]``) but those of ``without``, and whether the text may ``end``.

    ``tokens`` is kept by who gave it and may serve many states; it is not changed.
    """

    tokens: Any
    without: Collection[int]
    end: bool


class Constraint(Protocol):
    """What the text of one example may be, token by token; from each state something may follow."""

    @property
    def start(self) -> Any: ...

    @property
    def length(self) -> tuple[int, int | None]:
        """How many tokens a text may have, EOS among them: the fewest and the most; None where there is no bound."""

    def allowed(self, state: Any) -> Allowed: ...

    def advance(self, state: Any, token: int) -> Any:
        """Return the state after a token that was allowed."""
