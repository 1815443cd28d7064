"""What is played with, and what can be asked of it.

In: a study or its results, and a request's JSON. Out: ``Opened``, ``Ask``. Knows nothing of models.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from tangeval import steps
from tangeval.core.config import Section, validated
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting, Value
from tangeval.core.study import Decoding, Study
from tangeval.doors.write import DEFAULT, AsItIs, chosen
from tangeval.engines.base import needs_logits
from tangeval.resolve import ResolvedStudy
from tangeval.results.folder import RunFolder

#: The values that the shipped model's knobs are turned to where a token is taken apart.
_TURNS = {"temperature": [0.1, 0.4, 0.7, 1.0, 1.3], "top_k": [0, 5, 50], "top_p": [0.6, 0.9, 1.0]}


class Ask(Section):
    """What is asked for: of ``example`` or of a ``couplet`` of one's own, ``samples`` texts from ``sample`` on.

    ``knobs`` change the chosen setting; ``forced`` are the tokens that a text begins with.
    """

    checkpoints: Annotated[list[str], Field(min_length=1, max_length=64)]
    example: str = ""
    couplet: str = ""
    knobs: dict[str, Value] = Field(default={})
    sample: Annotated[int, Field(ge=0, le=10**6)] = 0
    samples: Annotated[int, Field(ge=1, le=16)] = 1
    forced: list[Annotated[int, Field(ge=0)]] = Field(default=[], max_length=4096)


class Branching(Ask):
    """How many alternatives after ``forced``, and how many tokens more of each."""

    width: Annotated[int, Field(ge=1, le=10)] = 4
    more: Annotated[int, Field(ge=1, le=64)] = 8


@dataclass(frozen=True)
class Opened:
    """A study to play with: which checkpoints and setting come first, and where its results lie, or would."""

    resolved: ResolvedStudy
    first: tuple[str, ...]
    setting: Setting
    folder: Path


def opened(place: str | None, *, allow_pickle: bool = False) -> Opened:
    """Return the study of a file or of a results folder; without ``place`` the shipped model, asked as `tangeval write` does.

    Checkpoint and setting are those that were chosen, else the last and the first; the base model stands beside.

    Raises:
        TangevalError: there is none, or its weights are not on this machine.
    """
    if place and Path(place).is_dir() and not (Path(place) / "study.yaml").is_file():
        raise TangevalError(
            f"{place} is no results folder: it has no study.yaml; give one that `tangeval run` wrote, or a study"
        )
    steps.not_missing(Path(place or ""))
    inside = Path(place or "") / "study.yaml"
    study = (
        Study.model_validate(DEFAULT | {"name": "play"})
        if place is None
        else str(inside if inside.is_file() else place)
    )
    resolved = steps.resolved(study, (), steps.Options(allow_pickle=allow_pickle))
    needs_logits(resolved, "play")
    folder = inside.parent if place and inside.is_file() else steps.results_of(resolved.study)
    writers, setting = chosen(resolved, RunFolder(folder).selection if folder.is_dir() else None, None)
    if place is None:
        turned = validated(Decoding, DEFAULT["decoding"] | _TURNS, "knobs")
        resolved = AsItIs.of(replace(resolved, study=resolved.study.model_copy(update={"decoding": turned})))
    return Opened(resolved, tuple(each.name for each in writers), setting, folder)
