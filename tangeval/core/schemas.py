"""Where the JSON Schemas are that editors check studies, tasks and fine-tuning configurations by.

In: a kind of file. Out: its schema's path. ``scripts/schemas.py`` makes them of the models; a test holds them to these.
"""

from pathlib import Path

from tangeval.core.types import ASSETS

KINDS = ("study", "task", "finetune")


def file_of(kind: str) -> Path:
    """Return the path of the schema of one of ``KINDS``."""
    return ASSETS / "schemas" / f"{kind}.json"
