"""A study file: what to run, validated before anything is loaded.

In: YAML and ``key=value`` overrides. Out: a frozen ``Study``. Checks what the file itself
can tell: keys, types, ranges. Whether names resolve is for `resolve`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pydantic
import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_serializer, model_validator

from tangeval.core.config import Dumper, Section, read_yaml, validated
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, COMMON, KNOB, KNOBS, REGEX, WIDE, Knob, Setting, Value
from tangeval.core.places import NAME, Places, listed
from tangeval.core.types import ASSETS, SPLITS, Load, Split, linked

#: The studies that come with an installation; in a clone, a link to ``studies/``.
SHIPPED = linked(ASSETS / "studies")
_Item = TypeVar("_Item")
#: What says how weights are found and held: of no use where another process holds them.
WEIGHTS = ("base_model", "cache_dir", "checkpoints", "include_base", "load")
_COMPARISON = re.compile(r"\s*(>=|<=|>|<)\s*(-?\d+(?:\.\d+)?)\s*")


class _OneOrMore:
    """Says in the JSON Schema that a value may stand for a list of one."""

    def __get_pydantic_json_schema__(
        self, core: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        several = handler(core)
        return {"anyOf": [several["items"], several]}


#: A scalar stands for a list of one; an empty list is refused.
Several = Annotated[list[_Item], BeforeValidator(listed), Field(min_length=1), _OneOrMore()]
_Count = Annotated[int, Field(ge=1)]
#: The splits that a study may run.
_Held = Literal["validation", "test"]


class LoadSection(Section):
    """How weights are loaded and run."""

    quantization: Literal["none", "nf4", "int8"] = "none"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    merge: bool = False
    compile: bool = False

    @model_validator(mode="after")
    def _never_merge_into_few_bits(self) -> "LoadSection":
        if self.merge and self.quantization == "int8":
            raise ValueError("merging into int8 weights changes outputs; use quantization: nf4 or none")
        return self


class DataSection(Section):
    """A folder with HW5's three files, and how many of its poems are for validation."""

    path: str
    validation: Annotated[int, Field(ge=0)] = 200


def _spelt(value: Any) -> Any:
    """A knob's value as text: ``{regex: …}`` is ``regex:…``."""
    return f"{REGEX}{value['regex']}" if isinstance(value, dict) and [*value] == ["regex"] else value


_Given = dict[Literal["regex"], str]
#: A whole number stays one.
_Point = Annotated[int | Value, BeforeValidator(_spelt, json_schema_input_type=int | Value | _Given)]


class _Grid(Section):
    """The grid of decoding settings: a key for each of ``KNOBS``; ``only`` keeps some of its points."""

    only: (
        Annotated[list[dict[str, _Point | Annotated[list[_Point], Field(min_length=1)]]], Field(min_length=1)]
        | None
    ) = Field(default=None, examples=[[{"temperature": 0.1}]])

    @model_validator(mode="after")
    def _only_points_of_the_grid(self) -> "_Grid":
        for point in self._points():
            if unknown := point.keys() - set(AXES):
                raise ValueError(f"only: {min(unknown)} is no axis of the grid; there are {', '.join(AXES)}")
            if any(self._value(point, name) not in self.values(name) for name in AXES):
                raise ValueError(
                    f"only: {point} is no point of the grid; name a value of the grid for each of its axes"
                )
        return self

    @model_validator(mode="after")
    def _searches_draw_nothing(self) -> "_Grid":
        beams = max(self.values("num_beams"))
        if beams > 1 and any(s.num_beams > 1 and s.temperature > 0 for s in self.settings()):
            raise ValueError(
                f"num_beams: {beams} beams with temperature: a search draws nothing; give temperature: 0, or name in only "
                "the points that are wanted, those with beams at temperature 0"
            )
        if beams == 1 and any(value != KNOB["length_penalty"].off for value in self.values("length_penalty")):
            raise ValueError(
                "length_penalty: it weighs what beams find; give num_beams: 2 or more, or leave it out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """A knob that changes nothing leaves no trace, so that studies stay what they were before there was one."""
        content = {key: value for key, value in handler(self).items() if key not in KNOB or self.sets(key)}
        one = self.wide(WIDE)
        return content if one is None else content | {WIDE: one}

    def sets(self, knob: str) -> bool:
        """Return whether the study's tables have a column for a knob: the common ones, and those that are not off."""
        return knob in COMMON or any(value != KNOB[knob].off for value in self.values(knob))

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the study's tables have; ``WIDE`` is one where it has several values."""
        return tuple(axis for axis in AXES if self.sets(axis) and (axis != WIDE or self.wide(WIDE) is None))

    @property
    def columns(self) -> tuple[str, ...]:
        """The knobs that they have, those of the whole study last."""
        return tuple(filter(self.sets, AXES))

    def wide(self, axis: str) -> Any:
        """Return the value of an axis that has one in the whole study; None where it has several."""
        values = set(self.values(axis))
        return values.pop() if len(values) == 1 else None

    def values(self, axis: str) -> list[Any]:
        """Return the values of an axis, as they were written."""
        found: list[Any] = getattr(self, axis)
        return found

    def _points(self) -> Iterable[dict[str, Value]]:
        """The points of ``only``: an entry with lists stands for all combinations of their values."""
        for entry in self.only or []:
            for values in product(
                *(value if isinstance(value, list) else [value] for value in entry.values())
            ):
                yield dict(zip(entry, values, strict=True))

    def _value(self, point: dict[str, Value], axis: str) -> Any:
        """A point's value on an axis; one that is left out has its only value, or is off where it has that value."""
        values, knob = self.values(axis), KNOB[axis]
        off = knob.off if knob.kind not in ("scale", "length") and knob.off in values else None
        found = point.get(axis, values[0] if len(set(values)) == 1 else off)
        return found if found is None else knob.type(found)

    def settings(self) -> tuple[Setting, ...]:
        """Return every point of the grid once, or those of ``only``, sorted."""
        if self.only:
            points: Iterable[Any] = ([self._value(point, name) for name in AXES] for point in self._points())
        else:
            points = product(*map(self.values, AXES))
        return tuple(sorted({Setting(tuple(point)) for point in points}))


def _field(knob: Knob) -> Any:
    """A knob's key in the study file: a list of values for an axis, else one value."""

    def allowed(value: Any) -> Any:
        if not knob.allows(value):
            raise ValueError(f"{knob.spell(value)} is out of range; give {knob.range}")
        return value

    given = knob.type | _Given if knob.type is str else knob.type
    spelt = BeforeValidator(_spelt, json_schema_input_type=given)
    one = Annotated[knob.type, spelt, AfterValidator(allowed)]  # type: ignore[name-defined]
    values = "" if knob.type is str else f": {knob.range}"
    return Several[one], Field([knob.default], description=f"{knob.label['en']}{values}")


if TYPE_CHECKING:

    class Decoding(_Grid):
        def __getattr__(self, name: str) -> Any: ...

else:
    Decoding = pydantic.create_model(
        "Decoding", __base__=_Grid, **{knob.name: _field(knob) for knob in KNOBS}
    )


class EngineSection(Section, extra="allow"):
    """Who writes the texts: ``kind``, and that engine's own keys, which ``engines.make`` checks.

    ``models`` are the checkpoints that another process holds, by name, and what it calls them; with
    them the study has no weights of its own.
    """

    kind: str | None = None
    models: Annotated[dict[str, str], Field(min_length=1)] | None = Field(
        default=None, examples=[{"a": "lora-a"}]
    )


class SettingRule(Section):
    """Which setting is the best: the metric, and what must hold first."""

    by: str = "bleu"
    require: dict[str, str] = Field(default_factory=dict, examples=[{"form": ">= 0.5"}])

    @model_validator(mode="after")
    def _comparisons_parse(self) -> "SettingRule":
        for metric, text in self.require.items():
            if not _COMPARISON.fullmatch(text):
                raise ValueError(f"require.{metric}: {text!r} is not a comparison like '>= 0.5'")
        return self

    def requirements(self) -> tuple[tuple[str, str, float], ...]:
        """Return each requirement as (metric, comparison, bound)."""
        parsed = {metric: _COMPARISON.findall(text) for metric, text in self.require.items()}
        return tuple((metric, sign, float(bound)) for metric, [(sign, bound)] in parsed.items())


class Selection(Section):
    """How the best checkpoint and setting are chosen."""

    split: _Held = "validation"
    checkpoint: str = "reference_nll"
    setting: SettingRule = SettingRule()
    within: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict, examples=[{"form": 0.05}])
    prefer: Literal["earliest", "shortest", "most_varied"] | None = Field(default=None, examples=["earliest"])

    @model_validator(mode="after")
    def _preference_has_margins(self) -> "Selection":
        if self.prefer and not self.within:
            raise ValueError(
                f"prefer: {self.prefer} of which? say how good is enough, as in within: {{form: 0.05}}"
            )
        return self


class Study(Section):
    """A declared study; every field has the meaning given in docs/study.md."""

    name: Annotated[str, Field(pattern=NAME)]
    note: str | None = None
    base_model: str = "tang-mini"
    cache_dir: str | None = None
    trained_records: _Count | None = None
    checkpoints: Places = Field(default=[], examples=[["runs/a", "runs/b/checkpoint-360"]])
    include_base: bool = True
    load: LoadSection = LoadSection()
    task: str | dict[str, Any] = "tang"
    prompt: str | None = None
    data: str | DataSection = "sample"
    splits: Several[_Held] = Field(default=["validation", "test"])
    decoding: Decoding = Field(default=Decoding(), examples=[{"temperature": [0.1, 0.7]}])
    samples: _Count | dict[_Held, _Count] = 1
    batch_size: Literal["auto"] | _Count = "auto"
    seed: Annotated[int, Field(ge=0)] = 42
    engine: EngineSection | None = Field(default=None, examples=[{"kind": "local"}])
    select: Selection | None = Field(
        default=Selection(), examples=[{"split": "validation", "setting": {"by": "bleu"}}]
    )
    _file: str = pydantic.PrivateAttr("study")

    @model_validator(mode="after")
    def _consistent(self) -> "Study":
        if not self.checkpoints and not self.include_base:
            raise ValueError("checkpoints: there is nothing to run; name some, or set include_base: true")
        if self.select and self.select.split not in self.splits:
            raise ValueError(
                f"select.split: {self.select.split} is not among splits {self.splits}; add it, or select: null"
            )
        if self.validation_size == 0 and "validation" in self.splits:
            raise ValueError("data.validation: 0 leaves no validation split; say splits: [test]")
        if isinstance(self.samples, dict) and set(self.samples) != set(self.splits):
            raise ValueError(f"samples: give one number, or one for each of splits {self.splits}")
        return self

    @property
    def file(self) -> str:
        """The file that it was read from, for messages."""
        return self._file

    @property
    def data_name(self) -> str:
        return self.data if isinstance(self.data, str) else self.data.path

    @property
    def validation_size(self) -> int | None:
        return None if isinstance(self.data, str) else self.data.validation

    def ordered_splits(self) -> tuple[Split, ...]:
        return tuple(split for split in SPLITS if split in self.splits)

    def samples_of(self, split: str) -> int:
        """Return how many samples each poem of ``split`` gets."""
        return self.samples if isinstance(self.samples, int) else dict(self.samples)[split]  # type: ignore[index]

    def loading(self, *, allow_pickle: bool = False) -> Load:
        return Load(**self.load.model_dump(), allow_pickle=allow_pickle)

    def content(self) -> dict[str, Any]:
        """Return the study as plain values, every default written out, without what its engine has no use for."""
        absent = {name for name in ("engine", "note", "trained_records") if getattr(self, name) is None}
        served = self.engine and self.engine.models
        return self.model_dump(mode="json", exclude=absent | set(WEIGHTS if served else ()))

    def to_yaml(self) -> str:
        """Return ``content`` as YAML."""
        return yaml.dump(self.content(), Dumper=Dumper, sort_keys=False, allow_unicode=True)


def load_study(
    path: Path | str,
    overrides: Sequence[str] = (),
    translate: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Study:
    """Read a study file and apply ``key=value`` overrides (``decoding.top_k=[0,5]``).

    ``translate`` is given what the file says, where it is of an earlier schema.

    Raises:
        TangevalError: naming the file, the key, and what would be right.
    """
    path = Path(path)
    content = read_yaml(path, overrides, SHIPPED)
    if "output_dir" in content:
        raise TangevalError(f"{path} is a fine-tuning configuration: `python -m finetune {path}` takes it")
    study = validated(Study, translate(content) if translate else content, path)
    study._file = str(path)
    return study
