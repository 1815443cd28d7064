"""A desk on localhost: one page, and what its scripts ask as JSON.

In: a desk, and requests of this machine's browser. Out: pages, JSON, and texts as they grow, a JSON object a line. What
another site's page could send is refused: the address has a secret in it, and Host, Origin and type must be right.
"""

import hmac
import json
import os
import re
import secrets
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from tangeval.core.config import validated
from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import inert, parsed
from tangeval.core.words import translated
from tangeval.doors.playing.asking import Ask, Branching
from tangeval.doors.playing.desk import Desk, GoneError
from tangeval.doors.playing.page import explained_page, play_page
from tangeval.doors.playing.tasting import Ballot, Taste, Tasting
from tangeval.results.folder import RunFolder

_LARGEST = 64 * 2**10  # bytes of a request
_OF_MODELS = {"write", "branches", "pair", "explain", "turn"}  # what the models answer, one at a time
_HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "SAMEORIGIN", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class _RefusedError(Exception):
    """A request that is not this page's own, or no such request."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class Server(ThreadingHTTPServer):
    """Bound to 127.0.0.1 alone; ``serve_forever`` answers. ``behind`` is the address of a proxy that it is reached through.

    Raises:
        TangevalError: the port is taken; 0 is any free one.
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would let two servers share a port

    def __init__(self, desk: Desk, port: int = 0, behind: str | None = None) -> None:
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or error
            raise TangevalError(
                f"--port {port}: {said}; give another, or leave it out for a free one"
            ) from None
        self.desk, self.tasting = desk, Tasting(desk, RunFolder(desk.opened.folder).votes)
        self.secret = secrets.token_urlsafe(16)
        own = f"127.0.0.1:{self.server_port}"
        self.hosts = {_host(own), _host(f"localhost:{self.server_port}")}
        outside = urlsplit(behind or "")
        if behind and not outside.netloc:
            raise TangevalError(f"--behind {behind}: give a whole address, such as https://example.org")
        self.hosts |= {_host(outside.netloc)} if behind else set()
        self.url = f"{behind.rstrip('/') if behind else f'http://{own}'}/{self.secret}/"

    @cached_property
    def page(self) -> str:
        return play_page(self.desk)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""


def _host(authority: str) -> str:
    """A host with its port as browsers send it: in small letters, without a port that goes without saying."""
    return re.sub(r":(?:80|443)$", "", authority.rpartition("@")[2].lower())


def _unforeseen(error: Exception) -> str:
    """Print what nobody foresaw; what is told of it."""
    traceback.print_exc()
    return f"{type(error).__name__}; the terminal has more"


class _Handler(BaseHTTPRequestHandler):
    timeout = 30
    headed = False

    @property
    def home(self) -> Server:
        return cast(Server, self.server)

    def do_GET(self) -> None:
        asked = parse_qs(self.path.partition("?")[2]).get("ask", ["{}"])[0]
        self._answer({"": self._page, "explain": self._explain}, lambda: self._parsed(asked))

    def do_POST(self) -> None:
        known = {
            "write": self._write, "branches": self._branches, "pair": self._pair, "vote": self._vote,
            "standings": self._standings, "turn": self._json,
        }  # fmt: skip
        self._answer(known, self._body)

    def _answer(self, known: Mapping[str, Callable[[Any], None]], read: Callable[[], Any]) -> None:
        """Answer with what is known by the name that the path ends with; what goes wrong is JSON with an ``error``."""
        try:
            name = self._asked()
            if name not in known:
                raise _RefusedError(404, f"there is no {name[:40]!r}")
            content = read()
            with self._turn(name):  # nobody waits for another's request to be whole
                known[name](content)
        except _RefusedError as error:
            self._json({"error": str(error)}, error.status)
        except (TimeoutError, GoneError, ConnectionError):
            pass
        except (TangevalError, OSError) as error:
            self._json(self._told(error), 400)
        except Exception as error:
            self._json({"error": _unforeseen(error)}, 500)

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        """Where the models are asked it is one request's turn after another's; a script whose request waits is told so."""
        lock = self.home.desk.lock
        if name not in _OF_MODELS:
            yield
            return
        if not lock.acquire(blocking=False):
            if self.command == "POST":
                self._head(200, "application/x-ndjson")
                self._line({"waits": True})
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _asked(self) -> str:
        """The last part of the path of a request that is the page's own."""
        if _host(self.headers.get("Host", "")) not in self.home.hosts:
            raise _RefusedError(403, "Host is not this server's; open the address that tangeval printed")
        origin = self.headers.get("Origin")
        if origin is not None and _host(origin.partition("://")[2]) not in self.home.hosts:
            raise _RefusedError(403, "Origin is another site's")
        _, secret, name = [*self.path.partition("?")[0].split("/", 2), "", ""][:3]
        if not hmac.compare_digest(secret.encode(), self.home.secret.encode()):
            raise _RefusedError(404, "open the address that tangeval printed, with all that follows the port")
        return name

    def _body(self) -> Any:
        """What a request says."""
        if self.headers.get_content_type() != "application/json":
            raise _RefusedError(415, "Content-Type is not application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusedError(411, "Content-Length is missing")
        if len(length) > 9 or int(length) > _LARGEST:
            raise _RefusedError(413, f"a request has at most {_LARGEST // 2**10} KiB")
        return self._parsed(self.rfile.read(int(length)))

    def _parsed(self, data: str | bytes) -> Any:
        try:
            content = parsed(data)
        except ValueError as error:
            raise _RefusedError(400, f"no JSON: {error}") from None
        return content if isinstance(content, dict) else {}

    def _page(self, content: Any) -> None:
        self._send(self.home.page, "text/html; charset=utf-8")

    def _explain(self, content: Any) -> None:
        found = self.home.desk.explain(validated(Ask, content, "request"))
        self._send(explained_page(found), "text/html; charset=utf-8")

    def _write(self, content: Any) -> None:
        """The texts as they grow; an error after the first line is a line."""
        ask = validated(Ask, content, "request")
        self.home.desk.check(ask)
        self._head(200, "application/x-ndjson")
        try:
            self.home.desk.write(ask, self._line)
        except GoneError:
            raise
        except TangevalError as error:
            self._line(self._told(error))
        except Exception as error:  # such as memory that does not suffice
            self._line({"error": _unforeseen(error)})

    def _told(self, error: Exception) -> dict[str, str]:
        """An error, in the language of the page that asks."""
        chinese = self.headers.get("Accept-Language", "").startswith("zh")
        return {"error": inert(translated(str(error), "zh-TW" if chinese else "en"))}

    def _line(self, content: dict[str, Any]) -> None:
        try:
            self.wfile.write(json.dumps(content).encode() + b"\n")
        except OSError:
            raise GoneError from None

    def _branches(self, content: Any) -> None:
        ask = validated(Branching, content, "request")
        self._json({"branches": self.home.desk.alternatives(ask)})

    def _pair(self, content: Any) -> None:
        self._json(self.home.tasting.pair(validated(Taste, content, "request")))

    def _vote(self, content: Any) -> None:
        self._json(self.home.tasting.vote(validated(Ballot, content, "request")))

    def _standings(self, content: Any) -> None:
        self._json(self.home.tasting.standings(validated(Ask, content, "request")))

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(json.dumps(content) + "\n", "application/json", status)

    def _send(self, text: str, kind: str, status: int = 200) -> None:
        self._head(status, kind)
        self.wfile.write(text.encode())

    def _head(self, status: int, kind: str) -> None:
        if self.headed:
            return
        self.headed = True
        self.send_response(status)
        for name, value in {"Content-Type": kind, **_HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "tangeval"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed of a request."""
