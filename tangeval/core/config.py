"""Configuration files: YAML and ``key=value`` overrides → a validated model.

In: a file of anybody's making. Out: an instance of a pydantic model, or one ``TangevalError`` that names
file, key and what would be right, each problem on a line. Knows nothing of studies.
"""

import difflib
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, KNOB, Value
from tangeval.core.untrusted import MIB, decoded, read_bytes

_Model = TypeVar("_Model", bound=BaseModel)
#: How pydantic writes the members of a union in a location.
_TYPES = {"int", "str", "float", "bool"}
_CONTAINERS = {"dict_type", "list_type"}
_WHOLE = _CONTAINERS | {"model_type", "tuple_type"}
#: What stands in an example of a key that has none, by what pydantic calls its kind.
_ANY: dict[str, Any] = {
    "string_type": "text", "int_type": 1, "float_type": 0.5, "bool_type": True, "dict_type": {"name": "text"},
    "list_type": ["text"], "tuple_type": ["text"],
}  # fmt: skip
#: What people call keys otherwise.
_ALSO = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "max_new_tokens": "decoding.max_length",
    "base": "base_model",
    "n": "samples",
}
_LARGEST = MIB  # bytes of a file
_NUMBER = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)\Z")
#: What YAML 1.2 takes for a value of each kind.
_READ_OTHERWISE = {
    "tag:yaml.org,2002:bool": re.compile("true|True|TRUE|false|False|FALSE"),
    "tag:yaml.org,2002:int": re.compile("[-+]?(0|[1-9][0-9]*)"),
    "tag:yaml.org,2002:float": re.compile(rf"{_NUMBER.pattern}|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}


class Section(BaseModel):
    """A mapping of known keys; anything else in it is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = re.findall(r"\b(int|float|bool)\b", str(cls.model_fields[info.field_name or ""].annotation))
        if kinds and "bool" not in kinds and _has_truth(value):
            raise ValueError("true and false are no numbers")
        return value


def _has_truth(value: Any) -> bool:
    inner = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return isinstance(value, bool) or any(map(_has_truth, inner))


class _Loader(yaml.SafeLoader):
    """Plain values alone: no tags, no aliases, which a few lines of could stand for gigabytes, no key twice.

    Words and numbers are those of YAML 1.2, where 1e-3 is a number; what 1.1 reads otherwise is refused.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        content: dict[Any, Any] = {}
        for key, value in node.value:
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str) or name in content:
                problem = "is given twice" if isinstance(name, str) else "is no text"
                raise yaml.MarkedYAMLError(problem=f"the key {name} {problem}", problem_mark=key.start_mark)
            content[name] = self.construct_object(value, deep=deep)
        return content

    def construct_scalar(self, node: yaml.Node) -> Any:
        text = super().construct_scalar(node)  # type: ignore[arg-type]
        if node.tag in _READ_OTHERWISE and not _READ_OTHERWISE[node.tag].fullmatch(str(text)):
            said = f"{text} is another value in YAML 1.1 than in 1.2; write true, false or a plain number, or quote it"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        return text

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*) are not taken; write the value again")
        return super().compose_node(parent, index)


class Dumper(yaml.SafeDumper):
    """Writes plain values so that they are read here as they were."""


for _kind in (_Loader, Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))


class Given(dict[str, Any]):
    """A file's mapping after ``key=value`` overrides; ``typed`` has each override by its key."""

    typed: Mapping[str, str] = {}

    def source(self, path: Path | str, key: str) -> str:
        """Return where ``key`` comes from: the override that gave it, or a part of it, else the file."""
        own = f"{key}."
        near = (
            t for name, t in self.typed.items() if own.startswith(f"{name}.") or f"{name}.".startswith(own)
        )
        return next(map(repr, near), str(path))


def read_yaml(path: Path, overrides: Sequence[str], shipped: Path) -> dict[str, Any]:
    """Return a YAML file's mapping with ``key=value`` overrides applied.

    ``shipped`` is the folder of such files that comes with the installation, known by their bare names: where ``path``
    is missing, the error says which may be meant.
    """
    own = shipped / f"{path.name.removesuffix('.yaml')}.yaml"
    if path.parent == Path() and not path.exists() and own.is_file():  # a bare name is a shipped file's
        path = own
    if path.is_dir():
        inner = path / "study.yaml"
        what = f"a results folder; its study is {inner}" if inner.is_file() else "a folder"
        raise TangevalError(f"{path} is {what}; give a YAML file")
    try:
        content = yaml.load(_text(path), _Loader)
    except FileNotFoundError:
        raise _not_there(path, shipped) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TangevalError(f"{path}: not a readable YAML file: {error}") from None
    if not isinstance(content, dict):
        raise TangevalError(f"{path}: expected a mapping of keys to values, a line a key, such as name: mine")
    for override in overrides:
        _override(content, override)
    given = Given(content)
    given.typed = {override.partition("=")[0]: override for override in overrides}
    return given


def _text(path: Path) -> str:
    content = read_bytes(path, _LARGEST)
    try:
        return decoded(content)
    except TangevalError as error:
        raise TangevalError(f"{path}: {error}") from None


def _not_there(path: Path, shipped: Path) -> TangevalError:
    """What is said of a file that is not there: the one that was meant, or those that come with tangeval."""
    typed = Path(str(path).replace("\\", "/"))
    near = [file for end in (".yaml", ".yml") if (file := typed.with_suffix(end)).is_file()]
    known = {file.stem: file for file in sorted(shipped.glob("*.yaml"))}
    near += [known[name] for name in difflib.get_close_matches(typed.stem, known, n=1, cutoff=0.8)]
    if near:
        return TangevalError(f"there is no file {path}; did you mean {near[0]}? Looked for in {Path.cwd()}")
    come = (
        f"those that come with tangeval are in {shipped}: {', '.join(file.name for file in known.values())}"
    )
    return TangevalError(f"there is no file {path}; looked for in {Path.cwd()}; {come}")


def validated(model: type[_Model], content: dict[str, Any], path: Path | str, section: str = "") -> _Model:
    """Return ``content`` as ``model``; ``section`` is where it stands in the file."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        # Of a value that is none of several kinds the first kind is told: a mapping or a list is what few meant.
        told = {tuple(problem["loc"][:1]) for problem in error.errors() if problem["type"] not in _CONTAINERS}
        problems = [
            p for p in error.errors() if p["type"] not in _CONTAINERS or tuple(p["loc"][:1]) not in told
        ]
        found = [(_key(section, problem), problem) for problem in problems]
        lines: dict[str, str] = {}
        for key, problem in found:
            # What is wrong between keys is told of the whole, by the name of one of them.
            place = key or _message(problem).partition(": ")[0]
            source = content.source(path, place) if isinstance(content, Given) else path
            line = _explain(model, source, key, problem)
            if not _misformed(problem):
                lines[line] = line
            # Of what is inside something that is wrong too, that alone is told.
            elif not any(other.startswith(f"{key}.") for other, _ in found):
                lines.setdefault(key, line)
        raise TangevalError("\n".join(lines.values())) from None


def named_numbers(texts: Iterable[str], where: str, example: str) -> dict[str, float]:
    """Return what ``name=number`` texts of a command line say; ``where`` is what they stand at."""
    numbers = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            numbers[name] = float(number)
        except ValueError:
            raise TangevalError(f"{where} {text}: give name=number, such as {example}") from None
    return numbers


def named_knobs(texts: Iterable[str], where: str) -> dict[str, Value]:
    """Return what ``knob=value`` texts of a command line say; ``where`` is what they stand at."""
    values: dict[str, Value] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in AXES:
            raise TangevalError(f"{where} {name}: there is no such knob; there are {', '.join(AXES)}")
        values |= {name: value} if KNOB[name].type is str else named_numbers([text], where, "top_k=5")
    return values


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise TangevalError(
            f"{override!r}: an override is written key=value, such as decoding.temperature=0.7"
        )
    try:
        value = yaml.load(text, _Loader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise TangevalError(f"{override!r}: the value is not YAML: {_slip(key, text) or error}") from None
    *sections, last = key.split(".")
    for section in sections:
        inner = content.setdefault(section, {})
        if not isinstance(inner, dict):
            whole = ".".join([*sections, last]).removeprefix(f"{section}.")
            form = (
                f"'{section}={{path: {inner}, {whole}: {text}}}'"
                if section == "data"
                else f"'{section}={{…}}'"
            )
            raise TangevalError(f"{override!r}: {section} holds a value, not keys; give all of it: {form}")
        content = inner
    content[last] = value


def _slip(key: str, text: str) -> str:
    """What is wrong with a value that is no YAML, where it is a common slip."""
    if text.count("[") != text.count("]") or text.count("{") != text.count("}"):
        return f"a bracket is missing; give it in quotes: '{key}=[0.7, 1.2]'"
    if found := re.search(r"(\w+): *([<>]=? *[\d.]+)", text):
        return f"a comparison stands in quotes: '{key}={{{found[1]}: \"{found[2]}\"}}'"
    return ""


def _misformed(problem: Any) -> bool:
    """Whether a mapping, a list or nothing was given for a value, or a value for one of them."""
    kind, given = problem["type"], problem["input"]
    return kind in _WHOLE or (
        isinstance(given, dict | list | None) and (kind.endswith("_type") or kind == "literal_error")
    )


def _key(section: str, problem: Any) -> str:
    """Where a problem lies in a file."""
    # The members of a union stand in the location too: they are types, not keys. An unknown key has any name.
    names = [*section.split("."), *map(str, problem["loc"])]
    unknown = names.pop() if problem["type"] == "extra_forbidden" else ""
    known = [n for n in names if n.isdigit() or (n.isidentifier() and n.lower() == n and n not in _TYPES)]
    key = ".".join(known + [unknown] * bool(unknown))
    # One value stands for a list of one, so that a place in a list may be nowhere in the file.
    return re.sub(r"(\.\d+)+\Z", "", key) if _misformed(problem) else key


def _message(problem: Any) -> str:
    return str(problem["msg"].removeprefix("Value error, "))


def _explain(model: type[BaseModel], path: Path | str, key: str, problem: Any) -> str:
    """One problem that pydantic found, as file, key, and what would be right."""
    names = [str(part) for part in problem["loc"]]
    message = _message(problem)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(model, names[:-1])
        inner = [
            f"{part}.{names[-1]}" for part in known if names[-1] in _known_keys(model, [*names[:-1], part])
        ]
        other = _ALSO.get(names[-1], "")
        also = [other] * (other.partition(".")[0] in known)
        near = difflib.get_close_matches(names[-1], known, n=1)
        slip = difflib.get_close_matches(names[-1], known, n=1, cutoff=0.9)
        close = slip or inner or also or near
        message = (
            f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known: {', '.join(known)}"
        )
    given = problem["input"]
    if _misformed(problem):
        shown = "nothing" if given is None else textwrap.shorten(str(given), 60, placeholder=" …")
        message = f"{shown} has the wrong form; write it as {_example(model, names, problem['type'])}"
    if problem["type"].endswith("_parsing") and re.fullmatch(r"[-.\d]+(, ?[-.\d]+)+", str(given)):
        one = problem["type"] == "float_parsing" and re.fullmatch(r"-?\d+,\d+", given)
        message = f"a point, not a comma: {given.replace(',', '.')}" if one else f"a list: '[{given}]'"
    if problem["type"] == "string_pattern_mismatch":
        fitting = re.sub(r"[^\w.-]+", "-", str(problem["input"])).strip(".-")
        message = f"letters, digits, _, . and - alone, such as {fitting or 'my-study'}"
    return f"{path}: {key}: {message}" if key else f"{path}: {message}"


def _known_keys(model: type[BaseModel], names: list[str]) -> list[str]:
    """The keys of the section that ``names`` leads to."""
    return list(_along(model, names)[0])


def _along(model: type[BaseModel], names: list[str]) -> tuple[dict[str, FieldInfo], str, FieldInfo]:
    """The fields of the section that ``names`` leads to, and the last key on the way with its field."""
    last = "", FieldInfo()
    for name in names:
        if name in (fields := _fields(model)):
            last = name, fields[name]
            kinds = (fields[name].annotation, *get_args(fields[name].annotation))
            model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), model)
    return _fields(model), *last


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _example(model: type[BaseModel], names: list[str], kind: str) -> str:
    """A key as a file may have it: its example, else its default, else any value of its kind."""
    _, name, field = _along(model, names)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    example = field.examples[0] if field.examples else default
    if example in (None, (), [], {}):
        example = _ANY.get(kind)
    value = example.model_dump(mode="json") if isinstance(example, BaseModel) else example
    flow: dict[str, Any] = {"default_flow_style": True, "sort_keys": False, "width": math.inf}
    return str(yaml.dump({name: value}, Dumper=Dumper, **flow)).strip()[1:-1]
