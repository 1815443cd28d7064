"""Which checkpoint, with which decoding settings, and is the difference real?

``run``, ``results`` and ``differences`` do in a notebook what the command line does; ``load_study``
reads a study file, and what a user can mend is a ``TangevalError``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangeval.notebook import Picture, Results, differences, results, run
    from tangeval.records import TangevalError
    from tangeval.study import Study, load_study

__version__ = "0.1.0"
__all__ = ["Picture", "Results", "Study", "TangevalError", "differences", "load_study", "results", "run"]

_ROOMS = {"TangevalError": "records", "Study": "study", "load_study": "study"}


def __getattr__(name: str) -> Any:
    # Read when asked for: every room imports this file first, and pandas takes a second.
    if name in __all__:
        return getattr(import_module(f"tangeval.{_ROOMS.get(name, 'notebook')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
