"""The tasks, by name.

In: what a study gives as ``task``. Out: the ``Task``. A task of one's own is a Python file, given as
``path/to/file.py:NAME``; it is run, so it is asked for twice: docs/extending.md.
"""

import importlib
import os
import runpy
from functools import cache
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.tasks.base import Task

#: Where each task is: ``module:OBJECT``.
TASKS = {"tang": "tangeval.tasks.tang:TANG"}
#: A study file may come from elsewhere; code that it names is not run without this variable.
ALLOW_FILES = "TANGEVAL_ALLOW_TASK_FILES"


@cache
def load(name: str) -> Task:
    """Return a task by its name in ``TASKS``, or by ``path/to/file.py:NAME``.

    Raises:
        TangevalError: there is none, or it is a file and $TANGEVAL_ALLOW_TASK_FILES is not 1.
    """
    if name in TASKS:
        module, _, attribute = TASKS[name].partition(":")
        found: Task = getattr(importlib.import_module(module), attribute)
        return found
    file, _, attribute = name.rpartition(":")
    if not file.endswith(".py") or not Path(file).is_file():
        raise TangevalError(
            f"task: {name} is neither {' nor '.join(TASKS)} nor a file; give path/to/file.py:NAME"
        )
    if os.environ.get(ALLOW_FILES) != "1":
        raise TangevalError(
            f"task: {file} is Python code and would be run; look at it, and set {ALLOW_FILES}=1 if you trust it"
        )
    try:
        own: Task = runpy.run_path(file, run_name=f"tangeval_task_{Path(file).stem}")[attribute]
    except Exception as error:
        raise TangevalError(f"task: {file}:{attribute} cannot be loaded: {error!r}") from error
    return own
