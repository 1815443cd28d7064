"""Files that are whole or not there: the results folder's atomic writes.

In: bytes, text, frames. Out: files written under a temporary name in the same folder,
synced, then renamed, so that a run cut off anywhere leaves either the old file or the new
one.
"""

import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pandas as pd
import portalocker
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import inert, parsed, read_bytes

SCORES, LIKELIHOOD, TIMINGS = "scores.parquet", "likelihood.parquet", "timings.json"
#: Likelihoods of what no model wrote.
NO_LIKELIHOOD = pd.DataFrame(columns=["checkpoint", "split", "example_id", "reference_nll"])
#: What may be read of a parquet file at a time: numbers or texts, and bytes of texts. A part of scores has 8 million.
_VALUES, _BYTES = 2**28, 2**30
_POEM = ["checkpoint", "split", "example_id"]
_UNFINISHED = ".unfinished"
_LOCK = ".lock"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, making its folder; whole, or not at all.

    Raises:
        TangevalError: the disk is full, or the folder cannot be written.
    """
    with _whole(path) as stream:
        stream.write(data)


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that is there under its name once all is written, and never if it is not."""
    no_url(path)
    draft = path.with_name(f".{path.name}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise TangevalError(
            f"{path} cannot be written ({error.strerror or error}): make room or give another folder; what is whole "
            "there stays, and the same command goes on from it"
        ) from error


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


def write_parts(path: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Write frames of the same columns one after another into one parquet file, each a row group of it."""
    with _whole(path) as stream, ExitStack() as stack:
        writer = None
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(stream, table.schema, compression="zstd"))
            writer.write_table(table.cast(writer.schema), row_group_size=max(len(frame), 1))


def write_batch_file(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as ``write_parquet`` does, and its checksum into the file beside its folder."""
    write_parquet(path, frame)
    sums = (_sums(path.parent) or _found(path.parent)) | {path.name: _digest(path)}
    there = {
        file.name for file in path.parent.glob("*.parquet")
    }  # of batch files that are gone nothing is said
    lines = (f"{sums[name]}  {path.parent.name}/{name}\n" for name in sorted(there & sums.keys()))
    write_text(sums_file(path.parent), "".join(lines))


def damaged(folder: Path) -> list[Path]:
    """Return the batch files in a folder that are not as they were written: cut short, altered, or not recorded.

    Of a folder without any checksums, which an earlier version made, nothing can be said.
    """
    sums = _sums(folder)
    return [folder / name for name, digest in _found(folder).items() if sums and sums.get(name) != digest]


def weed(folder: Path) -> None:
    """Remove the batch files of a results folder that are not as they were written, so that they are made again, and say so."""
    broken = damaged(folder / "generations")
    for batch_file in broken:
        batch_file.unlink()
    if broken:
        warnings.warn(
            f"{folder}: {len(broken)} batch files of generations were cut short or altered, and are made again",
            stacklevel=2,
        )


def _found(folder: Path) -> dict[str, str]:
    return {path.name: _digest(path) for path in sorted(folder.glob("*.parquet"))}


def sums_file(folder: Path) -> Path:
    """Return what says how the batch files of a folder were when they were written, as ``sha256sum -c`` reads it."""
    return folder.with_name(f"{folder.name}.sha256")


def _sums(folder: Path) -> dict[str, str]:
    file = sums_file(folder)
    lines = read_bytes(file).decode("utf-8", "replace").splitlines() if file.is_file() else []
    return {name.rpartition("/")[2]: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the lock goes with the process, however it ends.

    Raises:
        TangevalError: another run is at work there; the message names it.
    """
    no_url(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = _locked(folder / _LOCK)
    except OSError as error:
        raise TangevalError(f"{folder} cannot be written ({error.strerror}); give another folder") from error
    with stream:
        stream.truncate(0)
        stream.write(
            f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        )
        stream.flush()
        try:
            yield
        finally:
            with suppress(OSError):  # the folder may be gone
                (folder / _LOCK).unlink()
                if new:
                    folder.rmdir()  # a run that was refused leaves nothing; a folder with files stays


def _locked(path: Path) -> IO[str]:
    """Open and lock a file that its last owner may be removing."""
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            portalocker.lock(stream, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException:
            stream.seek(0)
            owner = stream.read().strip()
            stream.close()
            raise TangevalError(
                f"{path.parent}: another run is at work there ({owner}); wait for it, or give another folder"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
        stream.close()


def read_json(path: Path) -> Any:
    """Return what a JSON file says, or None where there is no such file.

    Raises:
        TangevalError: it is no JSON, or larger than any that tangeval writes.
    """
    if not path.is_file():
        return None
    try:
        return parsed(read_bytes(path).decode("utf-8"))
    except ValueError as error:
        raise TangevalError(
            f"{path}: not valid JSON ({error}); delete it, and give the command again that made it"
        ) from None


def read_parquet(path: Path, **options: Any) -> pd.DataFrame:
    """Return a parquet file as a frame; ``options`` are ``pandas.read_parquet``'s.

    A few hundred bytes can stand for a billion rows, or for one long text a thousand times:
    what comes out is counted before it is read.

    Raises:
        TangevalError: the file is damaged, or holds more than any that tangeval writes.
    """
    with _told(path):
        _check_size(path)
        return pd.read_parquet(path, **options)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise TangevalError(
            f"{path}: not a parquet file that can be read ({inert(str(error))}); delete it, and run the study again"
        ) from None


def _check_size(path: Path, group: int | None = None, names: Sequence[str] | None = None) -> None:
    """Count what would be read: of all row groups or one, of all columns or those named, whose texts stay categories."""
    with pq.ParquetFile(path) as bare:
        about, schema = bare.metadata, bare.schema_arrow
        numbers = list(range(about.num_row_groups)) if group is None else [group]
        groups = [about.row_group(n) for n in numbers]
        columns = [one.column(n) for one in groups for n in range(one.num_columns)]
        columns = [column for column in columns if names is None or column.path_in_schema in names]
    values = max(sum(one.num_rows for one in groups), sum(column.num_values for column in columns))
    size = sum(column.total_uncompressed_size for column in columns)
    texts = (
        [field.name for field in schema if pa.types.is_string(_plain(field.type))] if names is None else []
    )
    if values <= _VALUES and size <= _BYTES and texts:
        with pq.ParquetFile(path, read_dictionary=texts) as packed:
            batches = packed.iter_batches(columns=texts, row_groups=numbers)
            size = max(size, sum(map(_spelt_out, batches)))
    # A column of all scores: a file of honest size has a byte or more for each row.
    most = _VALUES if names is None else max(_VALUES, len(names) * path.stat().st_size)
    if values > most or size > _BYTES:
        raise TangevalError(
            f"{path}: holds more than any file that tangeval writes ({values:,} values, {size / 2**20:,.0f} MiB); it is "
            "not what its name says: delete it, and run the study again"
        )


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _spelt_out(batch: pa.RecordBatch) -> int:
    """How many bytes the texts of a batch have, each counted as often as it stands there."""
    lengths = (pc.binary_length(column.dictionary).take(column.indices) for column in batch.columns)
    return sum(pc.sum(pc.cast(each, pa.int64())).as_py() or 0 for each in lengths)


def read_scores(
    folder: Path, checkpoint: str | None = None, split: str | None = None
) -> tuple[Iterator[pd.DataFrame], pd.DataFrame]:
    """Return a results folder's scores and likelihoods; the latter may have no rows.

    The scores come in parts, each with whole poems of checkpoints, in the order in which they were
    scored; of one checkpoint, or one split, alone if it is named.

    Raises:
        TangevalError: the folder holds no scores.
    """
    likelihood = folder / LIKELIHOOD
    return (
        _parts(_scores(folder), {"checkpoint": checkpoint, "split": split}),
        read_parquet(likelihood) if likelihood.is_file() else NO_LIKELIHOOD,
    )


def record_seconds(folder: Path, kind: str, name: str, seconds: float) -> None:
    """Write down in ``timings.json`` what something took."""
    timings = read_json(folder / TIMINGS) or {}
    timings.setdefault(kind, {})[name] = round(seconds, 3)
    write_json(folder / TIMINGS, timings)


def shares_noise(folder: Path) -> bool:
    """Whether the settings and checkpoints of a results folder were drawn under the same noise, as a server's are not."""
    return bool((read_json(folder / "manifest.json") or {}).get("noise_shared", True))


def read_columns(folder: Path, names: Sequence[str]) -> pd.DataFrame:
    """Return some columns of all of a folder's scores; text is read as categories, which take a byte or two a row.

    Raises:
        TangevalError: the folder holds no scores.
    """
    file = _scores(folder)
    words = [name for name in names if name in _POEM]
    with _told(file):
        _check_size(file, names=names)
        frame: pd.DataFrame = pq.read_table(file, columns=list(names), read_dictionary=words).to_pandas()
    return frame.astype(dict.fromkeys(words, "category"))


def _scores(folder: Path) -> Path:
    if not (folder / SCORES).is_file():
        raise TangevalError(f"{folder / SCORES} is missing; `tangeval run STUDY` makes it")
    return folder / SCORES


def _parts(file: Path, wanted: dict[str, str | None]) -> Iterator[pd.DataFrame]:
    """The rows that are wanted, a row group at a time.

    A row group may end within a poem, in a file that was written in one go: what begins there is
    given out with its end.
    """
    asked = {column: value for column, value in wanted.items() if value is not None}
    begun: pd.DataFrame | None = None
    with _told(file):
        groups = pq.ParquetFile(file)
    with groups:
        for number in range(groups.num_row_groups):
            if not _may_hold(groups, number, asked):
                continue
            with _told(file):
                _check_size(file, number)
                part = groups.read_row_group(number).to_pandas()
            for column, value in asked.items():
                part = part[part[column] == value]
            if begun is not None:
                part = pd.concat([begun, part], ignore_index=True)
            of_last = part[_POEM].eq(part[_POEM].iloc[-1:].squeeze()).all(axis=1)
            begun = part[of_last]
            if not of_last.all():
                yield part[~of_last]
    if begun is not None:
        yield begun


def _may_hold(groups: Any, number: int, asked: dict[str, str]) -> bool:
    """Say by a row group's own statistics whether some of its rows may be wanted."""
    columns = (groups.metadata.row_group(number).column(c) for c in range(groups.metadata.num_columns))
    ranges = {c.path_in_schema: c.statistics for c in columns if c.path_in_schema in asked}
    return all(
        (known := ranges.get(column)) is None or not known.has_min_max or known.min <= value <= known.max
        for column, value in asked.items()
    )


def no_url(place: Path) -> None:
    """Refuse a URL where only a folder or file will do.

    Raises:
        TangevalError: it is one.
    """
    if re.match(r"[a-z0-9+.-]{2,}:/", str(place)):  # a path has lost the second stroke
        raise TangevalError(
            f"{place}: only `tangeval run` and `generate` take a URL, as --out; give a folder or file here. What is at a URL "
            "is also in the folder that they name"
        )


def sweep(folder: Path) -> None:
    """Remove what a run that was cut off left unfinished."""
    for draft in folder.rglob(f".*{_UNFINISHED}"):
        draft.unlink()
