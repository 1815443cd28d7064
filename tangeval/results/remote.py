"""A results folder at a URL: a local copy to work in, sent at batch boundaries, under a lock file.

In: a path, or any URL that fsspec opens (``s3://``, ``gs://`` …). Out: a local folder, and the function that
sends what is new in it. Knows nothing of what the files say.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.types import user_cache
from tangeval.results.files import exclusive_lock, this_process

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
        here, unsent = self._names(here=True), self._unsent()
        for name in here - unsent:
            (self.folder / name).unlink()
        self._copy("get", self._names() - unsent)

    def push(self) -> None:
        """Send what is new, and remove what is gone."""
        self._check()
        self._copy("put", self._unsent())
        for name in self._names() - self._names(here=True):
            self.do("rm_file", f"{self.root}/{name}")

    def send(self) -> None:
        """Push; what fails is said, and tried again after the next batch and at the end."""
        try:
            self.push()
        except _UnreachableError as error:
            warnings.warn(f"{error}, or after the next batch", stacklevel=2)

    def _copy(self, way: str, names: set[str]) -> None:
        """Copy files by fsspec's ``get`` or ``put``, and mark them as sent."""
        if names:
            here, there = ([f"{place}/{name}" for name in names] for place in (self.folder, self.root))
            self.do(way, *((there, here) if way == "get" else (here, there)))
            for file in here:
                os.utime(file, (_SENT, _SENT))

    def _names(self, *, here: bool = False) -> set[str]:
        """The files at the URL, or in the copy: locks and drafts, which are hidden, apart."""
        root = self.folder.as_posix() if here else self.root
        files = fsspec.filesystem("file").find(root) if here else self.do("find", root)
        names = (str(file)[len(root) + 1 :] for file in files)
        return {name for name in names if "/." not in f"/{name}"}

    def _unsent(self) -> set[str]:
        return {name for name in self._names(here=True) if (self.folder / name).stat().st_mtime != _SENT}
