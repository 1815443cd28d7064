"""Which checkpoint, with which decoding settings, and is the difference real?

Everything that the command line does is a function of ``tangeval.api``; the main ones are here too, as in
``from tangeval import load_results, run``. What a user can mend is a ``TangevalError``.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tangeval.api import Options as Options
    from tangeval.api import Results as Results
    from tangeval.api import compare as compare
    from tangeval.api import generate as generate
    from tangeval.api import load_results as load_results
    from tangeval.api import run as run
    from tangeval.api import score_files as score_files
    from tangeval.api import select as select
    from tangeval.api import summarize as summarize
    from tangeval.core.errors import TangevalError as TangevalError
    from tangeval.core.study import Study as Study
    from tangeval.core.study import load_study as load_study
    from tangeval.tasks.own import check as check
    from tangeval.tasks.own import metric as metric

__version__ = "0.1.0"

# No telemetry: the hub's library asks when it is imported, and every module of tangeval imports this file first.
for _name in ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    os.environ.setdefault(_name, "1")

_API = "Options Results compare generate load_results run score_files select summarize"
_MODULES = dict.fromkeys(_API.split(), "api") | {
    "TangevalError": "core.errors", "Study": "core.study", "load_study": "core.study", "check": "tasks.own", "metric": "tasks.own",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    # Looked up when it is asked for: every module imports this file first, and pandas takes a second.
    if name in _MODULES:
        return getattr(import_module(f"tangeval.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
