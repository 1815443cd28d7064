"""A results folder at a URL: a local copy to work in, sent at batch boundaries, under a lock file.

In: a path, or any URL that fsspec opens (``s3://``, ``gs://`` …). Out: a local folder, and the function that
sends what was changed in it. A file is copied under a random name, its size is compared, and it gets its own:
either side has the whole of it or nothing. Knows nothing of what the files say.
"""

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import DRAFT, aside, below, draft_name, moved
from tangeval.core.types import user_cache
from tangeval.results.files import exclusive_lock, remove_temp_files, this_process

#: What took hours or money; all else is made of it in minutes.
_COSTLY = (".parquet", ".jsonl")
_SENT = 1_000_000_000  # the modification time of a local file that is at the URL as it is here


class _UnreachableError(TangevalError):
    """The URL cannot be read or written at the moment."""


def is_url(place: str) -> bool:
    """Return whether a place is worked on in a local copy; ``file://`` is a path."""
    return "://" in place and not place.startswith("file://")


@contextmanager
def at(place: str) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Yield a local results folder, and what to call when a batch is written; keep other runs out of it.

    Raises:
        TangevalError: another run is at work there, or the URL cannot be read or written.
    """
    if not is_url(place):
        folder = Path(place.removeprefix("file://"))
        with exclusive_lock(folder):
            yield folder, lambda: None
        return
    remote = _Remote(place)
    with exclusive_lock(remote.folder):
        remote.claim()
        try:
            remote.remove_drafts()
            remote.fetch()
            try:
                yield remote.folder, remote.send
            finally:
                remote.push()
        finally:
            if remote.holder() == remote.owner:
                remote.do("rm_file", remote.lock)


@contextmanager
def copied(url: str) -> Iterator[Path]:
    """Yield a copy of the results folder at a URL, to look at: nothing there changes."""
    remote = _Remote(url)
    with exclusive_lock(remote.folder):
        remote.fetch()
        yield remote.folder


def break_lock(url: str) -> str:
    """Remove the lock that a killed run left at a URL; return whose it was, "" where there is none."""
    remote = _Remote(url)
    if holder := remote.holder():
        remote.do("rm_file", remote.lock)
    return holder


class _Remote:
    def __init__(self, url: str) -> None:
        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise TangevalError(f"--out {url}: {error}") from error
        self.url, self.root, self.folder = url, str(root).rstrip("/"), user_cache() / "remote" / digest(url)
        self.lock = f"{self.root}/.lock"
        self.known = set[str]()  # what this run fetched or sent: nothing else is removed there
        self.owner = this_process()

    def do(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call the file system; each store's library has errors of its own, which become one."""
        try:
            return getattr(self.fs, method)(*arguments, **options)
        except FileExistsError:
            raise
        except Exception as error:
            raise _UnreachableError(
                f"{self.url} cannot be read or written ({type(error).__name__}: {error}); what was made is in "
                f"{self.folder} and is sent by the next run there"
            ) from error

    def holder(self) -> str:
        """Return who holds the lock, "" if nobody does."""
        self.fs.invalidate_cache()
        return str(self.do("cat_file", self.lock), "utf-8", "replace") if self.do("exists", self.lock) else ""

    def claim(self) -> None:
        """Create the lock file; it is looked at before and after, as not every store creates atomically."""
        if not self.holder():
            with suppress(FileExistsError):
                self.do("pipe_file", self.lock, self.owner.encode(), mode="create")
        self._check()

    def _check(self) -> None:
        if (holder := self.holder()) != self.owner:
            raise TangevalError(
                f"{self.url}: another run is at work there ({holder or 'it removed the lock'}); wait for it, or give "
                f"another place. If it was killed, `tangeval unlock {self.url}` removes its lock"
            )

    def fetch(self) -> None:
        """Make the copy what is at the URL, but for what was made in the copy and is not sent yet."""
        remove_temp_files(self.folder)
        there = self._names()
        for name in sorted(self._unsent() & there):
            if self._size(name) > (self.folder / name).stat().st_size:
                what = f"{name} was not sent yet and is smaller than at {self.url}"
                if name.endswith(_COSTLY):
                    aside([self.folder / name], self.folder, f"{what}, which is taken")
                else:
                    warnings.warn(f"{what}; it is sent", stacklevel=3)
        if gone := [self.folder / n for n in sorted(self._names(here=True) - self._unsent() - there)]:
            place = self.folder.with_name(f"{self.folder.name}-gone-{time.strftime('%Y%m%d-%H%M%S')}")
            moved(gone, self.folder, place)
            what = f"{len(gone)} files are there no longer; the copies are in {place}"
            warnings.warn(f"{self.url}: {what}", stacklevel=3)
        self._copy("get", sorted(there - self._unsent()))

    def push(self) -> None:
        """Send what is new, and remove what is gone."""
        self._check()
        self._copy("put", sorted(self._unsent()))
        for name in self.known & self._names() - self._names(here=True):
            self.do("rm_file", f"{self.root}/{name}")

    def send(self) -> None:
        """Push; what fails is said, and tried again after the next batch and at the end."""
        try:
            self.push()
        except _UnreachableError as error:
            warnings.warn(f"{error}, or after the next batch", stacklevel=2)

    def _copy(self, way: str, names: list[str]) -> None:
        """Copy files by fsspec's ``get`` or ``put`` to drafts, name those that are whole, and mark them as sent."""
        drafts = [f"{name.rpartition('/')[0]}/{draft_name()}".lstrip("/") for name in names]
        sides = (self.root, self.folder) if way == "get" else (self.folder, self.root)
        if names:
            self.do(
                way, *([f"{s}/{n}" for n in part] for s, part in zip(sides, (names, drafts), strict=True))
            )
        for name, draft in zip(names, drafts, strict=True):
            there, here = (name, draft) if way == "get" else (draft, name)
            if self._size(there) != (self.folder / here).stat().st_size:
                raise _UnreachableError(
                    f"{self.url}: {name} was not copied whole; the same command tries again"
                )
            if way == "put":
                self.do("mv", f"{self.root}/{draft}", f"{self.root}/{name}")
            os.utime(self.folder / here, (_SENT, _SENT))
            (self.folder / here).replace(self.folder / name)
            self.known.add(name)

    def _size(self, name: str) -> int:
        return int(self.do("info", f"{self.root}/{name}")["size"])

    def remove_drafts(self) -> None:
        """Remove what a run that was killed while it sent has left there."""
        for path in self.do("find", self.root):
            if DRAFT.fullmatch(str(path).rpartition("/")[2]):
                self.do("rm_file", path)

    def _names(self, *, here: bool = False) -> set[str]:
        """The files at the URL, or in the copy: locks and drafts, which are hidden, apart."""
        root = self.folder.as_posix() if here else self.root
        files = fsspec.filesystem("file").find(root) if here else self.do("find", root)
        names = [str(file).removeprefix(f"{root}/") for file in files]
        return {name for name in names if below(self.folder, name) and "/." not in f"/{name}"}

    def _unsent(self) -> set[str]:
        """What was changed in the copy: nothing else is ever sent."""
        return {name for name in self._names(here=True) if (self.folder / name).stat().st_mtime != _SENT}
