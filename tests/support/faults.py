"""Faults of a disk or a mount, injected where files are opened, looked at and listed."""

import os
from pathlib import Path
from typing import Any

import pytest


def unreadable(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Let whatever opens or lists a path with ``name`` in it fail with an ``errno``."""
    for owner, attribute in ((Path, "open"), (os, "open"), (os, "listdir")):
        original = getattr(owner, attribute)

        def faulty(path: Any, *arguments: Any, original: Any = original, **named: Any) -> Any:
            if name in str(path):
                raise OSError(number, os.strerror(number), str(path))
            return original(path, *arguments, **named)

        patch.setattr(owner, attribute, faulty)
