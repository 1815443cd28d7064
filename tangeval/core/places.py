"""Where checkpoints lie, as a study says it: folders, averages of several, or the runs of each recipe.

In: the value of the study's ``checkpoints``. Out: the same, each average an ``Average``. Nothing is opened.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_serializer

from tangeval.core.config import Section

NAME = r"^[\w][\w.-]*$"


class Average(Section):
    """The mean of the weights of some checkpoints, as one more: by name where the study has them, else by folder."""

    average: Annotated[list[str], Field(min_length=2)]
    name: Annotated[str, Field(pattern=NAME)] | None = None

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"average": self.average} | ({"name": self.name} if self.name else {})


def listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _place(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    members, name = value.get("average"), value.get("name", "average")
    texts = [each for each in members if isinstance(each, str)] if isinstance(members, list) else []
    if value.keys() - {"average", "name"} or not texts == members or len(set(texts)) < max(2, len(texts)):
        raise ValueError(
            f"{value} is no average; it names two checkpoints or more, each once: "
            "{average: [checkpoint-360, checkpoint-405]}, and may have a name"
        )
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(f"average: name: {name!r} has more than letters, digits, _, . and -")
    return Average(**value)


def _places(value: Any) -> Any:
    """Places of checkpoints, or those of each recipe."""
    if not isinstance(value, dict):
        return [_place(each) for each in listed(value)]
    for name, runs in value.items():
        if name == "average":
            raise ValueError("average: it stands in a list: checkpoints: [FOLDER, {average: […]}]")
        if not re.fullmatch(NAME, str(name)) or not runs:
            what = "letters, digits, _, . and -, and has its runs' folders in a list"
            raise ValueError(f"recipe {name}: a recipe is named by {what}")
    return {name: listed(runs) for name, runs in value.items()}


#: Of checkpoints: a folder, some, averages among them, or a recipe's.
_Given = str | list[str | Average] | dict[str, str | list[str]]
Places = Annotated[
    list[str | Average] | dict[str, list[str]], BeforeValidator(_places, json_schema_input_type=_Given)
]
