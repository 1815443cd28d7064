"""The tasks, by name.

In: what a study gives as ``task``. Out: the ``Task``: one of the package, by name; a YAML file, by its path; what the
study itself says; or a Python file, ``path/to/file.py:NAME``, which is run, so it is asked for twice: docs/task.md.
"""

import importlib
import json
import re
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from tangeval.core.config import read_yaml
from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS
from tangeval.tasks import own
from tangeval.tasks.base import Task

#: Where each task that is written is: ``module:OBJECT``. Those that are declared are files of ``DECLARED``.
TASKS = {"tang": "tangeval.tasks.tang:TANG"}
DECLARED = ASSETS / "tasks"


def names() -> list[str]:
    """Return the names of the package's tasks."""
    return [*TASKS, *sorted(file.stem for file in DECLARED.glob("*.yaml"))]


def load(name: str | Mapping[str, Any]) -> Task:
    """Return a task by its name, its file, or what it says of itself; paths in the latter are below this folder.

    Raises:
        TangevalError: there is none, it says what no task can, or it is Python and $TANGEVAL_ALLOW_TASK_FILES is not 1.
    """
    if not isinstance(name, str):
        return _declared(name, Path.cwd(), "task")
    if name in TASKS:
        return _written(name)
    shipped = DECLARED / f"{name}.yaml"
    file = shipped if "/" not in name and shipped.is_file() else Path(name)
    if file.suffix in (".yaml", ".yml"):
        return _declared(read_yaml(file, (), DECLARED), file.resolve().parent, str(file))
    place, _, attribute = name.rpartition(":")
    if not place.endswith(".py") or not Path(place).is_file():
        what = "no YAML file" if Path(name).is_file() else "no file"
        raise TangevalError(
            f"task: {name} is none of {', '.join(names())}, and {what}; give path/to/task.yaml, or path/to/file.py:NAME"
        )
    return _of_python(place, attribute)


@cache
def _written(name: str) -> Task:
    module, _, attribute = TASKS[name].partition(":")
    found: Task = getattr(importlib.import_module(module), attribute)
    return found


@cache
def _of_python(file: str, attribute: str) -> Task:
    found: Task = own.load(Path(file), attribute)
    return found


def _declared(content: Mapping[str, Any], root: Path, file: str) -> Task:
    said = json.dumps(content)
    code = [root / name for name in re.findall(r"([\w./-]+\.py):", said)]
    made = _of_content(said, root, file, "".join(f.read_text("utf-8") for f in code if f.is_file()))
    if made.name in names() and root != DECLARED.resolve():
        raise TangevalError(f"{file}: name: {made.name} is a task of the package; give yours another name")
    return made


@lru_cache(maxsize=8)
def _of_content(content: str, root: Path, file: str, code: str) -> Task:
    from tangeval.tasks import declared

    return declared.task(json.loads(content), root, file, code)
