"""What must stand in the JSON files of results and of trainings for whoever reads them.

In: what such a file says, under today's names. Out: the same, or a ``DamagedError`` that names file and field.
Keys that nobody reads may be anything. Knows nothing of where the files lie.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, TypeAdapter, ValidationError

from tangeval.core.errors import DamagedError
from tangeval.core.knobs import AXES, COMMON, Value
from tangeval.results.files import DELETE, read_json


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Model(_Record):
    name: str
    fingerprint: str


class _Checkpoint(_Model):
    kind: str
    step: int | None
    seen: dict[str, int] | None
    recipe: str = ""
    run: str = ""


class _Data(_Record):
    name: str
    digest: str


class _Manifest(_Record):
    tangeval: str
    seed: int
    signature: str
    noise: str
    noise_shared: bool = True
    engine: Any
    data: _Data
    base_model: _Model
    checkpoints: list[_Checkpoint]
    left_out: list[dict[Literal["path", "reason"], str]]
    versions: dict[str, Any]
    hardware: dict[str, Any]
    self_check: dict[str, dict[str, str]] = {}


def _of_all_knobs(setting: dict[str, Value]) -> dict[str, Value]:
    if lacking := [name for name in AXES if name in COMMON and name not in setting]:
        raise ValueError(f"{lacking[0]} is missing")
    return setting


_Setting = Annotated[dict[str, Value], AfterValidator(_of_all_knobs)]


class _Chosen(_Record):
    checkpoint: str


class _Selection(_Record):
    checkpoint: _Chosen
    setting: _Setting | None
    nearest: list[dict[str, Any]] = []


class _Training(_Record):
    settings: dict[str, Any]
    finished: int | None = None


#: What each file must hold, by its name.
_KINDS: dict[str, TypeAdapter[Any]] = {
    "manifest.json": TypeAdapter(_Manifest),
    "selection.json": TypeAdapter(_Selection),
    "signatures.json": TypeAdapter(dict[str, Any]),
    "run.json": TypeAdapter(_Training),
    "timings.json": TypeAdapter(dict[str, str | float | None]),
}


def read_record(file: Path) -> Any:
    """Return what a file says, ``checked``; None where there is none."""
    content = read_json(file)
    return None if content is None else checked(file, content, DELETE)


def checked(file: Path, content: Any, remedy: str) -> Any:
    """Return what a JSON file says, where it has all that is read of it.

    Raises:
        DamagedError: a field is missing or is none of its kind.
    """
    try:
        if file.name in _KINDS:
            _KINDS[file.name].validate_python(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or "content"
        raise DamagedError(
            f"{file}: {where}: {problem['msg'].removeprefix('Value error, ')}; {remedy}"
        ) from None
    return content
