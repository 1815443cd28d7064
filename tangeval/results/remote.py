"""A results folder at a URL: a local copy of it, sent as it grows, under a lease.

In: a folder's path, or any URL that fsspec opens (``s3://``, ``gs://``, ``file://`` …). Out: a local
folder to work in. A store has no lock that goes with its process and mostly no rename. So whoever works
there writes who it is and until when, and says so again every few seconds; files are put whole, under
another name first where there is a rename. Knows nothing of what the files say.
"""

import _thread
import hashlib
import json
import os
import platform
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from tangeval.core.errors import TangevalError
from tangeval.core.types import user_cache
from tangeval.core.untrusted import parsed
from tangeval.results.files import exclusive_lock, read_json, write_json

_LEASE = ".lease.json"
_LONGEST = 4096  # bytes of one
_SENT = ".sent.json"  # in the copy: what the URL had of it
_TERM = 60.0  # seconds that a lease lasts unless it is renewed
_EVERY = 5.0  # seconds between looks at what is new
_AT_ONCE = 200  # files that are asked for together


def is_url(place: str) -> bool:
    return "://" in place


@contextmanager
def at(place: str) -> Iterator[Path]:
    """Yield the results folder at a path or URL, and keep other runs out of it.

    What is at a URL is copied first, save what was made in the copy since it was last sent. What is
    new in the copy is sent within seconds, and at the end in any case.

    Raises:
        TangevalError: another run is at work there, or the URL cannot be opened or written.
    """
    if not is_url(place):
        with exclusive_lock(Path(place)):
            yield Path(place)
        return
    mirror = _Mirror(place)
    with mirror.beside(), exclusive_lock(mirror.folder):
        mirror.claim()
        keeper = threading.Thread(target=mirror.keep, daemon=True)
        sender = threading.Thread(target=mirror.watch, daemon=True)
        keeper.start()
        try:
            mirror.pull()
            sender.start()
            mirror.working = True
            try:
                yield mirror.folder
            finally:
                mirror.working = False
                mirror.done.set()
                sender.join()
                mirror.finish()
        finally:
            mirror.over.set()
            keeper.join()
            mirror.release()


@contextmanager
def copied(url: str) -> Iterator[Path]:
    """Yield a copy of the results folder at a URL, to look at: nothing there changes."""
    mirror = _Mirror(url)
    with exclusive_lock(mirror.folder):
        mirror.pull()
        yield mirror.folder


class _Mirror:
    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise TangevalError(f"--out {url}: {error}") from error
        self.root = str(root).rstrip("/")
        self.renames = type(self.fs).mv is not AbstractFileSystem.mv  # that one copies
        name = re.sub(r"\W+", "-", url).strip("-")[-40:]
        self.folder = (
            user_cache() / "mirrors" / f"{name}-{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}"
        )
        self.owner = f"process {os.getpid()} on {platform.node()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        self.sent: dict[str, tuple[int, int]] = {}
        self.until = 0.0
        self.working = False
        self.done, self.over = threading.Event(), threading.Event()
        self.lost: TangevalError | None = None

    def beside(self) -> AbstractContextManager[None]:
        """Keep out a run that works in the same folder by its path."""
        return exclusive_lock(Path(self.root)) if isinstance(self.fs, LocalFileSystem) else nullcontext()

    def claim(self) -> None:
        """Write a lease where there is none, or where it ran out."""
        with self._reachable():
            held = self._lease()
            self._refuse(held)
            self._write_lease("overwrite" if held else "create")
            self._refuse(self._lease())  # of two that came at once the second stays

    def _refuse(self, lease: dict[str, Any] | None) -> None:
        if lease and lease["owner"] != self.owner and lease["until"] > time.time():
            raise TangevalError(
                f"{self.url}: another run is at work there ({lease['owner']}); wait for it, or give another place. If "
                f"it was killed, its lease ends in {lease['until'] - time.time():.0f} s"
            )

    def _lease(self) -> dict[str, Any] | None:
        self.fs.invalidate_cache()
        try:
            lease = parsed(self.fs.cat_file(f"{self.root}/{_LEASE}", end=_LONGEST))
            if not isinstance(lease["owner"], str) or not isinstance(lease["until"], float):
                raise TypeError
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError):
            raise TangevalError(
                f"{self.url}: {_LEASE} there is no lease; if no other run is at work there, delete it"
            ) from None
        return dict(lease)

    def _write_lease(self, mode: str = "overwrite") -> None:
        until = time.time() + _TERM
        content = json.dumps({"owner": self.owner, "until": until}).encode()
        path = f"{self.root}/{_LEASE}"
        try:
            if mode == "create":
                self._make_folder(self.root)
                self.fs.pipe_file(path, content, mode="create")
            else:
                self._put(path, content)
        except FileExistsError:
            self._refuse(self._lease())
            raise
        self.until = until

    def pull(self) -> None:
        """Make the local copy what is there, and what was made here since it was last sent."""
        before, here = read_json(self.folder / _SENT) or {}, self._local()
        unsent = {name for name, stat in here.items() if before.get(name) != list(stat)}
        for name in here.keys() - unsent:
            (self.folder / name).unlink()
        with self._reachable():
            start = len(self.root) + 1
            there = (str(file)[start:] for file in self.fs.find(self.root))
            names = [name for name in there if not _hidden(name) and name not in unsent]
            for folder in {(self.folder / name).parent for name in names}:
                folder.mkdir(parents=True, exist_ok=True)
            for first in range(0, len(names), _AT_ONCE):
                some = names[first : first + _AT_ONCE]
                self.fs.get([f"{self.root}/{n}" for n in some], [str(self.folder / n) for n in some])
        now = self._local()
        self.sent = {name: now[name] for name in names}
        self._note()

    def push(self) -> None:
        """Send what is new, what the batch files are read by first, and remove what is gone."""
        there = self._local()
        new = [name for name in there if self.sent.get(name) != there[name]]
        for name in sorted(new, key=lambda name: name.startswith("generations/")):
            if self.lost:
                raise self.lost
            self._put(f"{self.root}/{name}", (self.folder / name).read_bytes())
            self.sent[name] = there[name]
        gone = self.sent.keys() - there.keys()
        for name in gone:
            self.fs.rm_file(f"{self.root}/{name}")
            del self.sent[name]
        if new or gone:
            self._note()

    def _note(self) -> None:
        """Write down what the URL has of the copy, for the next run's ``pull``."""
        write_json(self.folder / _SENT, self.sent)

    def _local(self) -> dict[str, tuple[int, int]]:
        files = (file for file in self.folder.rglob("*") if file.is_file())
        names = {file.relative_to(self.folder).as_posix(): file.stat() for file in files}
        return {n: (stat.st_size, stat.st_mtime_ns) for n, stat in names.items() if not _hidden(n)}

    def _put(self, path: str, content: bytes) -> None:
        """Write a file whole: by a rename where there is one, else by one put, which a store does whole."""
        if not self.renames:
            self.fs.pipe_file(path, content)
            return
        parent, _, name = path.rpartition("/")
        self._make_folder(parent)
        draft = f"{parent}/.{name}.unfinished"
        self.fs.pipe_file(draft, content)
        self.fs.mv(draft, path)

    def _make_folder(self, path: str) -> None:
        if self.renames:  # a store of objects has no folders, and might make a bucket of a slip of the pen
            self.fs.makedirs(path, exist_ok=True)

    def watch(self) -> None:
        """Send what is new until the work is done."""
        while not self.done.wait(_EVERY) and not self.lost:
            # Whatever the store's library raises is tried again; ``keep`` and ``finish`` say what lasts.
            with suppress(Exception):
                self.push()

    def keep(self) -> None:
        """Renew the lease until all is over; end the work where it is lost."""
        while not self.over.wait(_EVERY):
            try:
                self.renew()
            except TangevalError as error:
                self.lost = error
            except Exception as error:  # the store's library's own: tried again while the lease lasts
                if time.time() > self.until:
                    self.lost = self._unreachable(error)
            if self.lost:
                if self.working:
                    # What a shell starts in the background is begun with SIGINT ignored.
                    heard = callable(signal.getsignal(signal.SIGINT))
                    _thread.interrupt_main(signal.SIGINT if heard else signal.SIGTERM)
                return

    def renew(self) -> None:
        lease = self._lease()
        if lease is None or lease["owner"] != self.owner:
            whose = lease["owner"] if lease else "nobody"
            raise TangevalError(
                f"{self.url}: the lease is not this run's any more, but {whose}'s; the same command goes on"
            )
        self._write_lease()

    def finish(self) -> None:
        """Send the last; say so where that cannot be done, or where the lease was lost."""
        if self.lost:
            raise self.lost
        with self._reachable():
            self.renew()
            self.push()

    def release(self) -> None:
        if not self.lost:
            with self._reachable():
                self.fs.rm_file(f"{self.root}/{_LEASE}")

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except TangevalError:
            raise
        except Exception as error:  # each store's library has errors of its own
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> TangevalError:
        return TangevalError(
            f"{self.url} cannot be read or written ({type(error).__name__}: {error}); what was made is in {self.folder} "
            "and is sent by the next run there"
        )


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
