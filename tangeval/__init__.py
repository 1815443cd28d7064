"""Which checkpoint, with which decoding settings, and is the difference real?

``run``, ``results`` and ``differences`` do in a notebook what the command line does;
``load_study`` reads a study file, and what a user can mend is a ``TangevalError``. All are to be
had from ``tangeval`` itself: ``from tangeval import run``.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangeval.notebook import Picture as Picture
    from tangeval.notebook import Results as Results
    from tangeval.notebook import differences as differences
    from tangeval.notebook import results as results
    from tangeval.notebook import run as run
    from tangeval.records import TangevalError as TangevalError
    from tangeval.study import Study as Study
    from tangeval.study import load_study as load_study

__version__ = "0.1.0"

# No telemetry: the hub's library asks when it is imported, and every room of tangeval imports this file first.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")

_NOTEBOOK = ("Picture", "Results", "differences", "results", "run")
_ROOMS = dict.fromkeys(_NOTEBOOK, "notebook") | {
    "TangevalError": "records", "Study": "study", "load_study": "study",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Read when asked for: every room imports this file first, and pandas takes a second.
    if name in _ROOMS:
        return getattr(import_module(f"tangeval.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
