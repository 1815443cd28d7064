"""What took hours or money is never removed on suspicion: the rule, in one place.

In: paths below a folder that is written. Out: what is there, files that are certainly new, and where what is
suspect was moved to. What cannot be read at the moment is not missing: it stops the command. Knows nothing
of what the files are for.

Raises (all of them):
    TangevalError: something cannot be read, or leads out of its folder; the message names it.
"""

import errno
import os
import re
import secrets
import stat
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from tangeval.core.errors import TangevalError

QUARANTINE, _MOVED = "quarantine", "moved.txt"
#: What says that there is no such file; all else says that it cannot be read.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
DRAFT = re.compile(r"\.tangeval-[0-9a-f]{16}\.unfinished")
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


# Reading


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Let pass what says that ``path`` is not there or is damaged; raise where it cannot be read."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.errno in _ABSENT:
            raise
        raise TangevalError(
            f"{error.filename or path} cannot be read now ({os.strerror(error.errno)}), which does not mean that it is "
            "damaged: nothing was changed; see to the disk, the network or the permissions, and give the command again"
        ) from error


def present(file: Path) -> bool:
    """Return whether there is such a file."""
    try:
        with reading(file):
            return stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return False


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the entries of a folder whose names fit a pattern, in order; none where there is no such folder."""
    try:
        with reading(folder):
            names = os.listdir(folder)  # noqa: PTH208  what a test injects faults into
    except OSError:
        return []
    return sorted(folder / name for name in names if fnmatch(name, pattern))


def below(root: Path, name: str) -> Path:
    """Return ``root / name`` where it lies below ``root``, links followed."""
    plain = "\0" not in name and {"", ".", ".."}.isdisjoint(name.replace(os.sep, "/").split("/"))
    if not plain or not _real(root / name).is_relative_to(_real(root)):
        raise TangevalError(
            f"{name!r} leads out of {root}; rename it, or take it away, and give the command again"
        )
    return root / name


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def check_links(folder: Path) -> None:
    """Refuse links that lead out of a folder which is to be written."""
    for entry in listed(folder):
        if entry.is_symlink():
            below(folder, entry.name)


# Writing


def opened(path: Path, flags: int) -> int:
    """Return the descriptor of a plain file with one name, which no link led to; made where it is not there."""
    try:
        descriptor = os.open(path, flags | os.O_CREAT | _NO_LINKS, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
    else:
        about = os.fstat(descriptor)
        if stat.S_ISREG(about.st_mode) and about.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
    raise TangevalError(f"{path} is a link or no plain file, and is not written; put a copy in its place")


def draft_name() -> str:
    """Return a name that cannot be foretold, of a file that gets its own once it is whole; it fits ``DRAFT``."""
    return f".tangeval-{secrets.token_hex(8)}.unfinished"


def new_draft(folder: Path) -> tuple[Path, int]:
    """Return a draft in ``folder`` and its descriptor."""
    draft = folder / draft_name()
    return draft, opened(draft, os.O_WRONLY | os.O_EXCL)


# Moving aside


def moved(paths: Iterable[Path], root: Path, place: Path) -> None:
    """Move files or folders from below ``root`` to the same names below ``place``."""
    for path in paths:
        target = place / path.relative_to(root)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
            os.utime(target)  # it is new where it is now
        except OSError as error:
            raise TangevalError(
                f"{path} cannot be moved to {target} ({error.strerror}); nothing was removed"
            ) from error


def aside(paths: Sequence[Path], root: Path, why: str) -> None:
    """Move what is suspect to ``quarantine/`` of its folder; warn with the reason and the command that undoes it."""
    if not paths:
        return
    check_links(root)
    place = root / QUARANTINE / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    names = [path.relative_to(root).as_posix() for path in paths]
    place.mkdir(parents=True)
    (place / _MOVED).write_text("\n".join(names), "utf-8")
    moved(paths, root, place)
    told = f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}"
    what = f"{why}; moved aside to {place}: {told}; `tangeval repair {place}` brings back what is there"
    warnings.warn(f"{root}: {what}", stacklevel=3)


def brought_back(name: str, root: Path) -> None:
    """Move all that ``aside`` moved to ``quarantine/NAME`` back; what took its place meanwhile goes aside."""
    place = below(root, f"{QUARANTINE}/{name}")
    if not present(place / _MOVED):
        raise TangevalError(f"{place} holds nothing that was moved aside; see what is in {place.parent}")
    names = (place / _MOVED).read_text("utf-8").splitlines()
    back = [below(root, name) for name in names if os.path.lexists(below(place, name))]
    aside([p for p in back if os.path.lexists(p)], root, "this stood where the old is brought back to")
    moved([place / path.relative_to(root) for path in back], place, root)
