"""What a results folder records of the machine and the libraries that made it.

In: names of packages, and of a GPU. Out: plain values. Knows nothing of engines and of torch.
"""

import platform
from importlib.metadata import version
from typing import Any

import psutil


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions that a results folder records: of Python, of an engine's ``packages``, of what scores."""
    names = (*packages, "sacrebleu", "opencc", "numpy", "pandas")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def hardware(gpu: str | None) -> dict[str, Any]:
    """Return what a results folder records of this machine."""
    return {
        "machine": platform.machine(), "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1), "gpu": gpu,
    }  # fmt: skip
