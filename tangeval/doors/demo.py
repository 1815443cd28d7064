"""The demo: fine-tune the shipped model on the embedded sample, then evaluate every checkpoint.

Out: where its parts lie, and the command that fine-tunes. The fine-tuning is a process of its own: the package knows
nothing of it.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.core.study import SHIPPED

#: As it is installed, and as it lies in a clone that is not.
_MODULES = ("tangeval.finetune", "finetune")
STUDY = SHIPPED / "quickstart.yaml"


def finetuning(*arguments: str) -> list[str]:
    """Return the command that fine-tunes; without arguments for the demo, into ``checkpoints/demo`` of where it is run.

    Raises:
        TangevalError: the fine-tuning is not part of this installation.
    """
    for name in _MODULES:
        if (spec := find_spec(name)) and spec.submodule_search_locations:
            config = Path(spec.submodule_search_locations[0]) / "configs" / "demo.yaml"
            return [sys.executable, "-m", name, *(arguments or (str(config),))]
    raise TangevalError("the fine-tuning is not installed; pip install 'tangeval[train]'")
