"""A results folder → the golden numbers, in full precision.

``python -m tests.golden.make RUN`` writes them into ``tests/golden/expected/``; ``tests/test_golden.py``
makes the same of today's code and compares. All that is asked of tangeval's rooms is asked in ``collected``.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval import api
from tangeval.analysis import compare, scoring, select, summarize
from tangeval.core.study import load_study
from tangeval.results.files import read_json, read_parquet
from tangeval.results.folder import RunFolder

EXPECTED = Path(__file__).parent / "expected"
_SETTING = ["temperature", "top_k", "top_p", "max_length"]
#: What tells the rows of each frame apart.
KEYS = {
    "generations": ["checkpoint", *_SETTING, "split", "example_id", "sample"],
    "scores": ["checkpoint", *_SETTING, "split", "example_id", "sample"],
    "likelihood": ["checkpoint", "split", "example_id"],
    "summary": ["checkpoint", *_SETTING, "split"],
    "effects": ["checkpoint", "split", "knob", "value"],
    "checkpoints": ["checkpoint", "split"],
    "likelihood_curve": ["checkpoint", "split", "group", "position"],
    "comparisons": ["family", "split", "metric", "a", "b"],
}
#: What is compared with what, and by which metrics. ``other`` is a copy of the folder ``run``: one seed, two folders.
FAMILIES = {
    "checkpoints": ["run:checkpoint-12", "run:checkpoint-24"],
    "settings": [
        "run:checkpoint-24:temperature=0.1,top_k=0,top_p=1,max_length=48",
        "run:checkpoint-24:temperature=1,top_k=0,top_p=1,max_length=48",
    ],
    "folders": ["run", "other:checkpoint-12", "other:base:temperature=0.7"],
}
METRICS = ["reference_nll", "bleu", "form", "rhyme", "chrf", "unique"]
EFFECTS = {"bleu": 0.1, "form": 0.05}


def collected(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Score, summarise and choose in a folder of generations; return every frame of ``KEYS`` and the selection."""
    study = load_study(folder / "study.yaml")
    data = api.load_results(folder).dataset
    scoring.score(study, data, folder)
    summary = summarize.summarize(RunFolder(folder))
    select.select(study, RunFolder(folder))
    frames = {
        "generations": scoring.read_generations(study, folder),
        "scores": read_parquet(folder / "scores.parquet"),
        # Its key is a digest of what made it, and no number.
        "likelihood": read_parquet(folder / "likelihood.parquet").drop(columns="key", errors="ignore"),
        "summary": summary.settings,
        "effects": summary.effects,
        "checkpoints": summary.checkpoints,
        "likelihood_curve": summary.curve,
        "comparisons": comparisons(folder),
    }
    return frames, read_json(folder / "best" / "selection.json")


def comparisons(folder: Path) -> pd.DataFrame:
    """Return what ``tangeval compare`` finds of each of ``FAMILIES``, on both splits."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(folder, other := Path(place) / "other")
        for family, texts in FAMILIES.items():
            names = {_placed(text, folder, other): text for text in texts}
            for split in ("validation", "test"):
                frame = compare.compare(compare.measure_all(names, split), METRICS, EFFECTS)
                frame = frame.assign(a=frame["a"].map(names), b=frame["b"].map(names))
                rows.append(frame.assign(family=family, split=split))
    return pd.concat(rows, ignore_index=True)


def _placed(text: str, run: Path, other: Path) -> str:
    name, colon, rest = text.partition(":")
    return f"{run if name == 'run' else other}{colon}{rest}"


if __name__ == "__main__":
    frames, selection = collected(Path(sys.argv[1]))
    EXPECTED.mkdir(exist_ok=True)
    for name, frame in frames.items():
        # Of few rows, what a file says of each column is most of it.
        options = {"compression_level": 19, "write_statistics": False, "store_schema": False}
        frame.to_parquet(EXPECTED / f"{name}.parquet", index=False, compression="zstd", **options)
    text = json.dumps(selection, ensure_ascii=False, indent=1)
    (EXPECTED / "selection.json").write_text(text + "\n", encoding="utf-8")
