"""Third-party libraries: which extra installs one, and which of their messages are silenced.

Imports none of them.
"""

import gc
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tangeval.core.errors import TangevalError

#: The extra that a library comes with, if not with ``local``.
_EXTRA = {"datasets": "train", "llguidance": "constrain", "ray": "ray", "urllib3": "server"}


@contextmanager
def needs(what: str, extra: str | None = None) -> Iterator[None]:
    """Return a context for imports of optional libraries; ``what`` is the subject that needs them.

    Raises:
        TangevalError: a library is missing; the message has the command that installs ``extra``, or the
            extra that the library comes with.
    """
    watched = gc.isenabled()
    gc.disable()  # nothing of what they bring is garbage, and looking for it is an eighth of the time
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", "tangeval", "finetune"):
            raise
        extra = extra or _EXTRA.get(library, "local")
        raise TangevalError(f"{what} needs {library}: pip install 'tangeval[{extra}]'") from None
    finally:
        if watched:
            gc.enable()


def quieten() -> None:
    """Silence what libraries print and no user can act on, and what idle threads burn; call it before they are imported."""
    # Threads that spin while they wait for one another stand still beside a job that has the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, in a notebook without widgets
