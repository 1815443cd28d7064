"""Files of records → mappings of text, each with the place that it stands at.

In: a path below a folder, or a data set of the hub's. Out: ``(place, record)``, a record at a time. Knows nothing of
what a record means. A file outside the folder is refused, and so are values that are too long.
"""

import csv
import math
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs
from tangeval.core.untrusted import MIB, listed, parsed, read_text
from tangeval.tasks.declared.schema import Place

#: Bytes of a file, and characters of a value: a study's 4,096 tokens have fewer.
LARGEST, LONGEST = 512 * MIB, 32_768
Records = Iterator[tuple[str, Mapping[str, Any]]]


def below(root: Path, path: str) -> Path:
    """Return ``root / path``.

    Raises:
        TangevalError: it is not below ``root``, links followed, or not there.
    """
    file = (root / path).resolve()
    if not file.is_relative_to(root.resolve()):
        raise TangevalError(f"{path}: outside {root}, the task's folder; put the file there")
    if not file.exists():
        raise TangevalError(
            f"{root / path} is missing; the task names it: put it there, or change the task's data"
        )
    return root / path


def read(source: str | Place, root: Path) -> Records:
    """Yield the records of a file (.jsonl, .json, .csv, .tsv, .parquet), or of a ``datasets`` folder or name.

    Raises:
        TangevalError: naming file and line or record: it cannot be read, or a record is no mapping.
    """
    if isinstance(source, Place) or (root / source).is_dir():
        yield from _datasets(source if isinstance(source, Place) else Place(path=source), root)
        return
    file = below(root, source)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        raise TangevalError(f"{file}: give a folder of `datasets`, or {', '.join(_READERS)}")
    for place, record in reader(file):
        if not isinstance(record, dict):
            raise TangevalError(f"{file}, {place}: expected a mapping of fields to texts")
        yield f"{file}, {place}", record


def value(record: Mapping[str, Any], name: str, where: str) -> str:
    """Return a field of a record as text; a ``TangevalError`` names ``where`` it is not there, no text, or too long."""
    if name not in record:
        raise TangevalError(f"{where}: there is no field {name}; it has {', '.join(map(str, record))}")
    found = record[name]
    number = isinstance(found, int | float) and not isinstance(found, bool) and math.isfinite(found)
    if not number and not isinstance(found, str):
        told = found if isinstance(found, float) else type(found).__name__
        raise TangevalError(f"{where}: {name} is {told}; give a text")
    if len(str(found)) > LONGEST:
        raise TangevalError(
            f"{where}: {name} has {len(str(found)):,} characters; at most {LONGEST:,} are taken"
        )
    return str(found)


def lines(file: Path) -> list[str]:
    """Return the lines of a text file."""
    return read_text(file, LARGEST).removesuffix("\n").split("\n")


def _jsonl(file: Path) -> Records:
    for number, line in enumerate(lines(file), 1):
        if line.strip():
            try:
                yield f"line {number}", parsed(line)
            except ValueError as error:
                raise TangevalError(f"{file}, line {number}: not valid JSON ({error})") from None


def _json(file: Path) -> Records:
    yield from ((f"line {line}", record) for line, record in listed(read_text(file, LARGEST), file))


def _csv(file: Path) -> Records:
    text = StringIO(read_text(file, LARGEST), newline="")
    rows = csv.DictReader(text, delimiter="\t" if file.suffix == ".tsv" else ",")
    try:
        if len(names := rows.fieldnames or []) > len(set(names)):
            raise csv.Error(f"two columns of one name: {', '.join(names)}")
        for row in rows:
            if None in row or None in row.values():
                raise csv.Error("another number of columns than the first line")
            yield f"line {rows.line_num}", row
    except csv.Error as error:
        raise TangevalError(f"{file}, line {rows.line_num}: {error}") from None


def _parquet(file: Path) -> Records:
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        for batch in parquet.ParquetFile(file).iter_batches():
            for record in batch.to_pylist():
                number += 1
                yield f"record {number}", record
    except ArrowException as error:
        raise TangevalError(f"{file}: not a readable Parquet file ({error})") from None


def _datasets(place: Place, root: Path) -> Records:
    with needs("a data set of `datasets`"):
        import datasets
    try:
        if place.hub:
            found = datasets.load_dataset(place.hub, split=place.split)
        else:
            found = datasets.load_from_disk(str(below(root, place.path or ".")))
            found = found[place.split] if isinstance(found, dict) else found
    except TangevalError:
        raise
    except Exception as error:
        raise TangevalError(f"data: {place.hub or place.path}, split {place.split}: {error}") from None
    for number, record in enumerate(found, 1):
        yield f"{place.hub or place.path}, record {number}", record


_READERS = {".jsonl": _jsonl, ".json": _json, ".csv": _csv, ".tsv": _csv, ".parquet": _parquet}
