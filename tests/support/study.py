"""Small studies; tests change what they are about."""

from pathlib import Path
from typing import Any

import yaml

SMALL: dict[str, Any] = {
    "name": "tiny", "data": "sample", "splits": ["test"], "samples": 2,
    "decoding": {"temperature": [0.4, 1.0], "max_length": 12, "no_repeat_ngram_size": 0},
    "select": {"split": "test", "setting": {"by": "bleu"}},
}  # fmt: skip
#: Twenty-four settings on both splits.
GRID: dict[str, Any] = {
    "splits": ["validation", "test"], "samples": {"validation": 1, "test": 2}, "batch_size": 160,
    "decoding": {"temperature": [0.0, 0.7, 1.0], "top_k": [0, 5], "top_p": [0.6, 1.0], "max_length": [6, 18]},
    "select": {"setting": {"by": "bleu", "require": {"han_only": ">= 0.0"}}},
}  # fmt: skip

#: Penalties, cuts and constraints at one temperature, and searches without one: all kinds of knobs in one grid.
MIXED: dict[str, Any] = {
    "temperature": [0.0, 0.8], "min_p": [0, 0.1], "repetition_penalty": [1.0, 1.2], "num_beams": [1, 2],
    "constrain": ["none", "form"], "max_length": 64, "no_repeat_ngram_size": 0,
    "only": [
        {"temperature": 0.8, "min_p": [0, 0.1], "repetition_penalty": [1.0, 1.2], "constrain": ["none", "form"]},
        {"temperature": 0.0, "num_beams": 2, "repetition_penalty": 1.2, "constrain": "form"},
    ],
}  # fmt: skip


def write_study(folder: Path, base: object = None, run: object = None, **changes: Any) -> Path:
    """Write ``tiny.yaml``: the small study of a base model and a Trainer's folder, with some keys otherwise."""
    file = folder / "tiny.yaml"
    weights = {"base_model": str(base)} if base else {}
    study = SMALL | weights | ({"checkpoints": str(run)} if run else {}) | changes
    file.write_text(yaml.safe_dump(study, sort_keys=False, default_flow_style=None), "utf-8")
    return file


def decode(file: Path, folder: Path, *overrides: str) -> Any:
    """Make a study's outputs; the resolved study."""
    from tangeval import generation
    from tangeval.core.study import load_study
    from tangeval.resolve import resolve

    resolved = resolve(load_study(file, overrides))
    generation.decode(resolved, folder)
    return resolved


def evaluate(file: Path, folder: Path, *overrides: str) -> Any:
    """What ``tangeval run`` does, without pictures; the resolved study."""
    from tangeval.analysis import scoring, summarize
    from tangeval.results.folder import RunFolder

    resolved = decode(file, folder, *overrides)
    scoring.score(resolved.study, resolved.dataset, folder)
    summarize.summarize(RunFolder(folder))
    return resolved


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the times, by its path."""
    files = [f for f in folder.rglob("*") if f.is_file() and f.name != "timings.jsonl"]
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}
