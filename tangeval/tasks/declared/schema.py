"""What a task file may say, validated before any data are opened.

In: the mapping of a YAML file or of a study's ``task:``. Out: ``Declared``. Knows nothing of files and records.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tangeval.core.config import Section
from tangeval.core.study import Several
from tangeval.tasks.tang.prompt import HW5, SYSTEM

_Size = Annotated[int, Field(ge=0)]


class Place(Section):
    """One split of a ``datasets`` folder (``path``) or of a data set of the hub (``hub``)."""

    path: str | None = None
    hub: str | None = None
    split: str = "train"


class Data(Section):
    """Where each split is: a file, a ``Place``, or how many records are taken from training."""

    train: str | Place
    test: str | Place | _Size
    validation: str | Place | _Size = 0


class Fields(Section):
    """Which fields of a record are given, what people wrote, and which records belong together."""

    prompt: Several[str]
    reference: Several[str]
    cluster: str | None = None


class Message(Section):
    role: Literal["system", "user", "assistant"]
    content: str


class Text(Section):
    """How texts are compared: what is made one, then what of it is kept."""

    normalize: tuple[Literal["nfkc", "t2s", "lower", "no_marks"], ...] = Field(
        default=(), examples=[["nfkc"]]
    )
    compare: Literal["characters", "han", "words", "text"] = "characters"


class Same(Section):
    """The random baseline is drawn among the references of records that share this field."""

    same: str


class Asked(Section):
    system: str
    user: str


class Judge(Section):
    """What a judge is told and asked: of a text (``$input``, ``$output`` in ``user``), of two (``$first``, ``$second``)."""

    grades: Asked | None = Field(default=None, examples=[{"system": "Grade it.", "user": "$input $output"}])
    pairs: Asked | None = Field(
        default=None, examples=[{"system": "Which is better?", "user": "$first $second"}]
    )


def _named(item: Any) -> Any:
    """An entry of a list, ``name`` or ``{name: options}``, as a mapping with its ``name``."""
    if isinstance(item, dict) and "name" not in item and len(item) == 1:
        ((name, options),) = item.items()
        return {"name": name, **(options if isinstance(options, dict) else {"is": options})}
    return {"name": item} if isinstance(item, str) else item


def _worded(prompt: str) -> str:
    """The template of a prompt's name, of which there is one, the homework's; else the template itself."""
    fields = {"system": SYSTEM, "instruction": "{{ instruction }}", "couplet": "{{ input }}"}
    return HW5.format(**fields) if prompt == "hw5" else prompt


#: ``name`` and options.
Entry = Annotated[dict[str, Any], BeforeValidator(_named, json_schema_input_type=str | dict[str, Any])]


class Declared(Section):
    """A task; docs/task.md has the meaning of every field."""

    name: Annotated[str, Field(pattern=r"^[\w][\w-]*$")]
    data: Data = Field(examples=[{"train": "train.jsonl", "test": "test.jsonl"}])
    fields_: Fields = Field(alias="fields", examples=[{"prompt": "input", "reference": "output"}])
    prompt: Annotated[str, AfterValidator(_worded)] | None = None
    chat: Annotated[list[Message], Field(min_length=1)] | None = Field(
        default=None, examples=[[{"role": "user", "content": "{{ input }}"}]]
    )
    text: Text = Text()
    checks: tuple[Entry, ...] = Field(default=(), examples=[[{"lines": 3}]])
    metrics: Annotated[tuple[Entry, ...], Field(min_length=1, examples=[["bleu", "chrf"]])]
    baseline: Literal["random", "none"] | Same = "random"
    judge: Judge = Field(
        default=Judge(), examples=[{"grades": {"system": "Grade it.", "user": "$input $output"}}]
    )
