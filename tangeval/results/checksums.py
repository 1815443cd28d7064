"""Checksums of files, as ``sha256sum -c`` reads them.

In: files, and what records their digests. Out: digests by name, and what does not fit them. Knows nothing of
what the files hold.
"""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.core.keeping import listed, present, reading
from tangeval.core.untrusted import read_bytes
from tangeval.results.files import write_text

#: What a checkpoint of a fine-tuning has once all of its parts are written.
SEAL = "parts.sha256"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def read_sums(file: Path, remedy: str) -> dict[str, list[str]]:
    """Return the digests that a file records of each path, the newest last; a last line that was cut off is none.

    Raises:
        TangevalError: another line is no checksum; with its number and the ``remedy``.
    """
    found: dict[str, list[str]] = {}
    text = read_bytes(file).decode("utf-8", "replace") if present(file) else ""
    for number, line in enumerate(text.split("\n")[:-1], 1):
        match = _LINE.fullmatch(line.rstrip("\r"))
        if match is None:
            raise TangevalError(f"{file}, line {number}: no checksum; {remedy}")
        found.setdefault(match[2], []).append(match[1])
    return found


def digest_of(path: Path) -> str:
    """Return a file's SHA-256; one that has not changed since is not read again."""
    with reading(path):
        about = path.stat()
        return _digest_of(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=2**16)
def _digest_of(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Sync the files of a folder and record their checksums in it: from then on all of it is there."""
    lines = []
    for path in (path for path in listed(folder) if path.name != SEAL and present(path)):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        lines.append(f"{digest_of(path)}  {path.name}\n")
    write_text(folder / SEAL, "".join(lines))


def broken_part(folder: Path) -> str:
    """Return the name of a file that is missing or is not as ``seal`` found it, "" if all are; "" without a seal."""
    sums = read_sums(folder / SEAL, "delete it, and the checkpoint is taken as it is")
    return next((n for n in sums if not present(folder / n) or digest_of(folder / n) not in sums[n]), "")
