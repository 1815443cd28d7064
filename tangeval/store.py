"""Files that are whole or not there: the results folder's atomic writes.

In: bytes, text, frames. Out: files written under a temporary name in the same folder,
synced, then renamed, so that a run cut off anywhere leaves either the old file or the new
one.
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.records import TangevalError

SCORES, LIKELIHOOD = "scores.parquet", "likelihood.parquet"
#: Likelihoods of what no model wrote.
NO_LIKELIHOOD = pd.DataFrame(columns=["checkpoint", "split", "example_id", "reference_nll"])
_UNFINISHED = ".unfinished"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, making its folder; whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}{_UNFINISHED}")
    with draft.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with its keys in the order given and Chinese left readable."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame without its index; floats with nine significant digits."""
    write_text(path, frame.to_csv(index=False, lineterminator="\n", float_format="%.9g"))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as parquet without its index: the same frame gives the same bytes."""
    write_bytes(path, frame.to_parquet(None, index=False, compression="zstd"))


def read_json(path: Path) -> Any:
    """Return what a JSON file says, or None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_scores(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a results folder's scores and likelihoods; the latter may have no rows.

    Raises:
        TangevalError: the folder holds no scores.
    """
    if not (folder / SCORES).is_file():
        raise TangevalError(f"{folder / SCORES} is missing; `tangeval run STUDY` makes it")
    likelihood = folder / LIKELIHOOD
    return (
        pd.read_parquet(folder / SCORES),
        pd.read_parquet(likelihood) if likelihood.is_file() else NO_LIKELIHOOD,
    )


def sweep(folder: Path) -> None:
    """Remove what a run that was cut off left unfinished."""
    for draft in folder.rglob(f".*{_UNFINISHED}"):
        draft.unlink()
