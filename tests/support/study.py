"""One small study; tests change what they are about."""

from pathlib import Path
from typing import Any

import yaml

SMALL: dict[str, Any] = {
    "name": "tiny", "data": "sample", "splits": ["test"], "samples": 2,
    "decoding": {"temperature": [0.4, 1.0], "max_length": 12, "no_repeat_ngram_size": 0},
    "select": {"split": "test", "setting": {"by": "bleu"}},
}  # fmt: skip


def write_study(folder: Path, base: Path, run: Path, **changes: Any) -> Path:
    """Write ``tiny.yaml``: the small study of a base model and a Trainer's folder, with some keys otherwise."""
    file = folder / "tiny.yaml"
    study = SMALL | {"base_model": str(base), "checkpoints": str(run)} | changes
    file.write_text(yaml.safe_dump(study, sort_keys=False, default_flow_style=None), "utf-8")
    return file
