"""Which checkpoint, with which decoding settings, and is the difference real?

``run``, ``load_results`` and ``differences`` do in a notebook what the command line does;
``load_study`` reads a study file, and what a user can mend is a ``TangevalError``. All are to be
had from ``tangeval`` itself: ``from tangeval import run``.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangeval.api import Picture as Picture
    from tangeval.api import Results as Results
    from tangeval.api import differences as differences
    from tangeval.api import load_results as load_results
    from tangeval.api import run as run
    from tangeval.core.errors import TangevalError as TangevalError
    from tangeval.core.study import Study as Study
    from tangeval.core.study import load_study as load_study

__version__ = "0.1.0"

# No telemetry: the hub's library asks when it is imported, and every room of tangeval imports this file first.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")

_NOTEBOOK = ("Picture", "Results", "differences", "load_results", "run")
_ROOMS = dict.fromkeys(_NOTEBOOK, "api") | {
    "TangevalError": "core.errors", "Study": "core.study", "load_study": "core.study",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Read when asked for: every room imports this file first, and pandas takes a second.
    if name in _ROOMS:
        return getattr(import_module(f"tangeval.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
