"""Files that are whole or not there, and readers that stay within bounds.

In: bytes, text, frames. Out: files written under a random name in the same folder, synced, then
renamed, so that a process killed anywhere leaves the old file or the new one. Parquet files are
measured before they are read. Knows nothing of what a file is for: ``folder.py`` does.

Raises (all of them):
    TangevalError: a file cannot be written, or is damaged, or larger than any that tangeval writes;
        the message names the file and the remedy.
"""

import csv
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pandas as pd
import portalocker
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from tangeval.core.errors import DamagedError, TangevalError
from tangeval.core.keeping import DRAFT, check_links, new_draft, opened, present, reading
from tangeval.core.untrusted import inert, parsed, read_bytes

#: What may be read of a Parquet file at a time: values, and bytes of them with every text spelt out.
_VALUES, _BYTES = 2**28, 2**30
#: How a text begins that a spreadsheet takes for a formula (a number is none), and one that was made harmless.
_FORMULA, HARMLESS = re.compile(r"(?!-[\d.]+(e[-+]?\d+)?$)'*[=+\-@\t\r]"), re.compile(r"\A'(?='*[=+\-@\t\r])")
_LOCK, _ABOUT = ".lock", b"tangeval"
DELETE = "delete it, and give the command again that made it"
NO_LOCK = "TANGEVAL_NO_LOCK"  # the variable that, set to 1, lets commands write without one


# Writing


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name once all of it is written."""
    with _writing(path):
        draft, descriptor = new_draft(path.parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                _sync(stream)
            draft.replace(path)
        except BaseException:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Make the folder of ``path``; an OSError becomes a TangevalError with its remedy."""
    no_url(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise TangevalError(
            f"{path} cannot be written ({error.strerror or error}): make room or give another folder; what is whole "
            "there stays, and the same command goes on from it"
        ) from error


def _sync(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, making its folder; whole, or not at all."""
    with _whole(path) as stream:
        stream.write(data)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file. A process killed meanwhile leaves a part of the line, which readers skip."""
    with _writing(path), os.fdopen(opened(path, os.O_WRONLY | os.O_APPEND), "ab") as stream:
        stream.write(f"{line}\n".encode())
        _sync(stream)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON with its keys in the order given and Chinese left readable."""
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame without its index; floats with nine significant digits."""
    write_text(path, csv_text(frame))


def csv_text(frame: pd.DataFrame, digits: int = 9) -> str:
    """Return a frame as CSV; texts that a spreadsheet would take for formulas have a ' before them (OWASP)."""
    safe = _texts_as(frame, lambda text: f"'{text}" if _FORMULA.match(text) else text)
    how: dict[str, Any] = {"index": False, "lineterminator": "\n", "float_format": f"%.{digits}g"}
    text: str = safe.to_csv(**how)
    return str(safe.to_csv(**how, quoting=csv.QUOTE_NONNUMERIC)) if "\r" in text else text


def read_csv(path: Path) -> pd.DataFrame:
    """Return what ``write_csv`` wrote; a checkpoint's name is text, whatever it looks like."""
    with _reading(path):
        frame = pd.read_csv(path, dtype={"checkpoint": str}, keep_default_na=False, na_values=[""])
    return _texts_as(frame, lambda text: HARMLESS.sub("", text))


def _texts_as(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    texts = [str(name) for name, column in frame.items() if not pd.api.types.is_numeric_dtype(column)]
    changed = {name: frame[name].map(lambda v: change(v) if isinstance(v, str) else v) for name in texts}
    return frame.assign(**changed) if changed else frame


def parquet_bytes(frame: pd.DataFrame, about: Mapping[str, Any] | None = None) -> bytes:
    """Return a frame as Parquet without its index, and what it says of itself: the same gives the same bytes."""
    table, stream = pa.Table.from_pandas(frame, preserve_index=False), pa.BufferOutputStream()
    if about:
        told = {_ABOUT: json.dumps(about, ensure_ascii=False, separators=(",", ":"))}
        table = table.replace_schema_metadata((table.schema.metadata or {}) | told)
    pq.write_table(table, stream, compression="zstd")
    data: bytes = stream.getvalue().to_pybytes()
    return data


def parquet_about(path: Path) -> Any:
    """Return what a Parquet file says of itself; None where it says nothing."""
    with _reading(path):
        told = (pq.read_schema(path).metadata or {}).get(_ABOUT)
        return None if told is None else parsed(told)


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write ``parquet_bytes``."""
    write_bytes(path, parquet_bytes(frame))


def write_parts(path: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Write frames of the same columns into one Parquet file, a row group for each."""
    with _whole(path) as stream, ExitStack() as stack:
        writer = None
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                writer = stack.enter_context(pq.ParquetWriter(stream, table.schema, compression="zstd"))
            writer.write_table(table.cast(writer.schema), row_group_size=max(len(frame), 1))


def remove_temp_files(folder: Path) -> None:
    """Remove what a process that was killed left unfinished: files of our own drafts' names alone."""
    for draft in folder.rglob(".tangeval-*"):
        if DRAFT.fullmatch(draft.name) and present(draft):
            draft.unlink()


def no_url(place: Path) -> None:
    """Refuse a URL where only a folder or file will do."""
    if re.match(r"[a-z0-9+.-]{2,}:/", str(place)):  # a path has lost the second stroke
        raise TangevalError(
            f"{place}: only `tangeval run` and `generate` take a URL, as --out; give a folder or file here. What is at a URL "
            "is also in the folder that they name"
        )


# The lock


def this_process() -> str:
    """Return what a lock file says of its owner."""
    return f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the lock goes with the process, however it ends.

    Raises:
        TangevalError: another run is at work there; its file system has no locks; a link leads out of it.
    """
    no_url(folder)
    new = not folder.exists()
    check_links(folder)
    if os.environ.get(NO_LOCK) == "1":
        warnings.warn(f"{folder}: no lock is taken; see that nothing else writes there", stacklevel=3)
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = _locked(folder / _LOCK)
    except OSError as error:
        raise TangevalError(f"{folder} cannot be written ({error.strerror}); give another folder") from error
    with stream:
        stream.truncate(0)
        stream.write(f"{this_process()}\n")
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
        stream = os.fdopen(opened(path, os.O_RDWR), "r+", encoding="utf-8", errors="replace")
        try:
            portalocker.lock(stream, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as error:
            owner = stream.read().strip()
            stream.close()
            if not isinstance(error, portalocker.AlreadyLocked):
                what = f"gives no lock ({error.args[0] if error.args else error}); give a folder on another, or see that"
                remedy = f"nothing else writes there and give --no-lock ({NO_LOCK}=1)"
                raise TangevalError(f"{path.parent}: its file system {what} {remedy}") from error
            raise TangevalError(
                f"{path.parent}: another run is at work there ({owner}); wait for it, or give another folder"
            ) from None
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
        stream.close()


# Reading


def read_json(path: Path, remedy: str = DELETE) -> Any:
    """Return what a JSON file says, or None where there is no such file."""
    if not present(path):
        return None
    try:
        return parsed(read_bytes(path).decode("utf-8"))
    except ValueError as error:
        raise DamagedError(f"{path}: not valid JSON ({error}); {remedy}") from None


def read_parquet(path: Path, filters: list[Any] | None = None) -> pd.DataFrame:
    """Return a Parquet file, or the rows that ``pandas.read_parquet``'s ``filters`` keep."""
    with _reading(path):
        _check_size(path)
        return pd.read_parquet(path, filters=filters)


def read_columns(
    path: Path, names: Sequence[str], categories: Sequence[str], wanted: Mapping[str, Any]
) -> pd.DataFrame:
    """Return some columns of the rows that have every ``wanted`` column's value.

    Those in ``categories`` come as such, which take a byte or two a row.
    """
    words = [name for name in names if name in categories]
    with _reading(path):
        _check_size(path, names=names)
        table = pq.read_table(path, columns=list(names), read_dictionary=words, filters=_condition(wanted))
        frame: pd.DataFrame = table.to_pandas()
    return frame.astype(dict.fromkeys(words, "category"))


def column_names(path: Path) -> list[str]:
    """Return the columns of a Parquet file."""
    with _reading(path):
        return list(pq.read_schema(path).names)


def read_row_groups(path: Path, wanted: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
    """Yield the rows that have every ``wanted`` column's value, a row group at a time.

    Row groups whose statistics exclude a value are not read.
    """
    condition = _condition(wanted)
    with _reading(path):
        (file,) = ds.dataset(path, format="parquet").get_fragments()
        parts = file.split_by_row_group(condition)
    for part in parts:
        with _reading(path):
            _check_size(path, [group.id for group in part.row_groups])
            frame = part.to_table(filter=condition).to_pandas()
        yield frame


def _condition(wanted: Mapping[str, Any]) -> pc.Expression:
    condition = pc.scalar(True)
    for column, value in wanted.items():
        condition &= pc.field(column) == value
    return condition


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        with reading(path):
            yield
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise DamagedError(
            f"{path}: not a {path.suffix[1:]} file that can be read ({inert(str(error))}); delete it, and run the study again"
        ) from None


def _check_size(path: Path, groups: Sequence[int] | None = None, names: Sequence[str] | None = None) -> None:
    """Refuse what would not fit: some hundred bytes can stand for a billion rows, or for one long text many times.

    Counts all row groups or some, and all columns, or those named, whose texts stay categories.
    """
    with pq.ParquetFile(path) as file:
        about, schema = file.metadata, file.schema_arrow
    numbers = list(range(about.num_row_groups)) if groups is None else list(groups)
    some = [about.row_group(number) for number in numbers]
    columns = [group.column(place) for group in some for place in range(group.num_columns)]
    columns = [column for column in columns if names is None or column.path_in_schema in names]
    values = max(sum(group.num_rows for group in some), sum(column.num_values for column in columns))
    size = sum(column.total_uncompressed_size for column in columns)
    texts = [field.name for field in schema if names is None and _is_text(field.type)]
    if values <= _VALUES and size <= _BYTES and texts:
        with pq.ParquetFile(path, read_dictionary=texts) as file:
            size = max(size, sum(map(_spelt_out, file.iter_batches(columns=texts, row_groups=numbers))))
    if values > _VALUES or size > _BYTES:
        raise TangevalError(
            f"{path}: holds more than any file that tangeval writes ({values:,} values, {size / 2**20:,.0f} MiB); it is "
            "not what its name says: delete it, and run the study again"
        )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _spelt_out(batch: pa.RecordBatch) -> int:
    """How many bytes the texts of a batch have, each counted as often as it stands there."""
    lengths = (pc.binary_length(column.dictionary).take(column.indices) for column in batch.columns)
    return sum(pc.sum(pc.cast(each, pa.int64())).as_py() or 0 for each in lengths)
