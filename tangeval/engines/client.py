"""A client of servers that speak OpenAI's API: checked replies, many requests at a time.

In: an address and bodies of requests. Out: ``Reply``, or ``RequestError``. The package ``urllib3`` talks: of what was
measured it costs the least of a core with hundreds of threads. Nothing goes to another host than the address's, an answer
is bounded in bytes, depth and time, and no key is in what comes out. Knows nothing of prompts, texts or files.
"""

import json
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, ValidationInfo, model_validator

from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import MIB, held, hide

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Kind = Literal["slow", "unreachable", "key", "refused", "busy", "broken", "foreign"]
_LARGEST = 64 * MIB  # bytes of an answer: 128 texts with their logprobs have a tenth
_LONGEST_WAIT = 8.0  # seconds between two tries, where the server says nothing else
_AGAIN = (408, 409, 429)  # asked again, as are 500 and above
_BY_STATUS: dict[int | None, Kind] = {
    400: "refused", 401: "key", 403: "key", 404: "refused", 422: "refused", 429: "busy",
}  # fmt: skip
_PROBLEMS: dict[Kind, str] = {
    "slow": "no answer in time", "unreachable": "no server can be reached", "key": "the key is refused",
    "refused": "the request is refused", "busy": "too many requests", "broken": "the server fails",
    "foreign": "what answers does not speak OpenAI's API",
}  # fmt: skip
_REMEDIES: dict[Kind, str] = {
    "unreachable": "start it, or mend the address", "broken": "look at its log",
    "foreign": "such addresses mostly end in /v1",
}  # fmt: skip


def _shown(text: Any, validation: ValidationInfo) -> Any:
    """A text without the secrets that the context names, and with lone surrogates, which are no text, as question marks."""
    if not isinstance(text, str):
        return text
    return hide(text.encode("utf-8", "replace").decode("utf-8"), validation.context or ())


_Text = Annotated[str, BeforeValidator(_shown), Field(max_length=2**20)]


class _Sent(BaseModel):
    """A part of an answer; a field that is null is as one left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, sent: Any) -> Any:
        return {k: v for k, v in sent.items() if v is not None} if isinstance(sent, dict) else sent


class Message(_Sent):
    """What a chat's model said."""

    content: _Text = ""


class Choice(_Sent):
    """One text of a completion (``text``), or one message of a chat."""

    index: int = 0
    text: _Text = ""
    message: Message | None = None  # a default of its own would be copied for every text
    finish_reason: _Text | None = None
    logprobs: Any = None
    token_ids: Any = None

    @property
    def said(self) -> str:
        return self.text or (self.message.content if self.message else "")


class Usage(_Sent):
    """The tokens of a prompt, and those of all texts together."""

    prompt_tokens: Annotated[int, Field(strict=True, ge=0)] | None = None
    completion_tokens: Annotated[int, Field(strict=True, ge=0)] | None = None


class Reply(_Sent):
    """What answers a request for completions."""

    choices: list[Choice]
    usage: Usage = Usage()


class RequestError(TangevalError):
    """A request that failed for good: of which kind, what the server said, and its error code."""

    def __init__(self, kind: Kind, said: str, code: str | None = None) -> None:
        super().__init__(said)
        self.kind, self.said, self.code = kind, said, code

    def explained(self, where: str, remedies: Mapping[Kind, str]) -> TangevalError:
        """Return the error that a user is shown; ``remedies`` are those that ``where`` has of its own."""
        remedy = {**_REMEDIES, **remedies}[self.kind]
        return TangevalError(f"{where}: {_PROBLEMS[self.kind]} ({self.said}); {remedy}")


class Client:
    """Open connections to one server; its methods may be called from several threads.

    Raises:
        TangevalError: the package urllib3 is not installed, and ``extra`` brings it; or key or address is none.
    """

    def __init__(self, url: str, key: str | None, *, extra: str, retries: int, timeout: float = 600) -> None:
        try:
            import urllib3
        except ImportError:
            raise TangevalError(
                f"a server is asked by the package urllib3; `pip install 'tangeval[{extra}]'` brings it"
            ) from None
        given = (key or "").strip()
        self._url, self._retries, self._timeout = url.rstrip("/"), retries, timeout
        self._secrets = held(given)  # what no answer and no error may tell
        if not re.fullmatch("[!-~]*", given):
            raise TangevalError(
                "the key has white space or other characters in it that no key has; set it anew"
            )
        if not is_url(url):
            raise TangevalError(f"{url}: no address of a server; give one such as http://localhost:8000/v1")
        # Of its own accord it would follow redirects with the request, and unpack answers of any size.
        headers = {"authorization": f"Bearer {given or 'none'}", "accept-encoding": "identity"}
        limits: dict[str, Any] = {"maxsize": 1000, "timeout": timeout, "retries": False, "headers": headers}
        parts = urlsplit(url)
        proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
        self._pool = urllib3.ProxyManager(proxy, **limits) if proxy else urllib3.PoolManager(**limits)
        self.close = self._pool.clear

    def complete(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to a request, of a chat where ``body`` has ``messages``; or raise ``RequestError``."""
        path = "/chat/completions" if "messages" in body else "/completions"
        try:
            return Reply.model_validate(
                self._object("POST", path, self._retries, body), context=self._secrets
            )
        except ValidationError as error:
            raise RequestError("foreign", f"choices: {error.errors()[0]['msg']}") from None

    def get(self, url: str) -> dict[str, Any]:
        """Return the JSON object at a path, or at another URL of the server; raises as ``complete``."""
        return self._object("GET", url, min(self._retries, 2))

    def _object(
        self, method: str, url: str, retries: int, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """A JSON object; asked for again where the server is busy, fails or is not there, each time after a longer wait."""
        url, tried = url if is_url(url) else self._url + url, 0
        while True:
            try:
                status, answer, wait = self._once(method, url, body)
                if tried == retries or (status not in _AGAIN and status < 500):
                    return self._read(status, answer)
            except RequestError as error:
                if tried == retries or error.kind not in ("slow", "unreachable"):
                    raise
                wait = None
            longest = min(0.5 * 2**tried, _LONGEST_WAIT)
            time.sleep(longest * random.uniform(0.75, 1) if wait is None else wait)
            tried += 1

    def _once(self, method: str, url: str, body: Mapping[str, Any] | None) -> tuple[int, str, float | None]:
        """Status and text of an answer, and the seconds that it says to wait; read within bounds."""
        from urllib3.exceptions import HTTPError, NewConnectionError
        from urllib3.exceptions import TimeoutError as NoAnswer

        until, data, problem = time.monotonic() + self._timeout, bytearray(), ""
        try:
            response = self._pool.request(method, url, json=body, preload_content=False, redirect=False)
            if location := response.get_redirect_location():
                problem = f"it sends requests on to {location[:200]}; give that address if you trust it"
            elif response.headers.get("content-encoding", "identity") != "identity":
                problem = "its answer is compressed, which was not asked for"
            for chunk in () if problem else response.stream(2**16, decode_content=False):
                data += chunk
                if len(data) > _LARGEST or time.monotonic() > until:
                    problem = f"its answer has more than {_LARGEST // MIB} MiB, or takes more than {self._timeout:g} s"
                    break
        except HTTPError as error:
            slow = isinstance(error, NoAnswer) and not isinstance(error, NewConnectionError)
            raise RequestError("slow" if slow else "unreachable", str(error)) from None
        if problem:
            response.close()
            raise RequestError("foreign", hide(problem, self._secrets))
        response.release_conn()
        return response.status, data.decode("utf-8", "replace"), _wait(response.headers)

    def _read(self, status: int, answer: str) -> dict[str, Any]:
        """The object in an answer; or raise what went wrong, in the server's own words."""
        try:
            reply = json.loads(answer)
            if isinstance(reply, dict) and "choices" not in reply:  # else its texts alone are shown
                reply = json.loads(hide(json.dumps(reply, ensure_ascii=False), self._secrets))
        except (ValueError, RecursionError):  # it said JSON and was none
            reply = None
        wrong = _error_in(reply) if isinstance(reply, dict) and "choices" not in reply else None
        if status >= 400:
            said = wrong.said if wrong else " ".join(hide(answer, self._secrets).split())[:300]
            raise RequestError(
                _BY_STATUS.get(status, "broken"), f"{status}: {said}", wrong.code if wrong else None
            )
        if wrong:
            raise wrong
        if not isinstance(reply, dict):
            raise RequestError("foreign", "no JSON object")
        return reply


def _wait(headers: Mapping[str, str]) -> float | None:
    """The seconds that a busy server says to wait, at most a minute."""
    for name, seconds in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if re.fullmatch(r"\d{1,9}(\.\d+)?", told := headers.get(name, "")):
            return min(float(told) * seconds, 60)
    return None


def _error_in(reply: Mapping[str, Any]) -> RequestError | None:
    """The error that a server tells in an answer that says that all is well."""
    told = reply.get("error") or (reply if reply.get("object") == "error" else reply.get("detail"))
    if not told:
        return None
    fields = told if isinstance(told, dict) else {}
    said, code = " ".join(str(fields.get("message") or told).split())[:300], fields.get("code")
    kind = _BY_STATUS.get(code if isinstance(code, int) else None, "broken")
    return RequestError(kind, said, code if isinstance(code, str) else None)


def is_url(address: str) -> bool:
    """Say whether an address has the form that a ``Client`` takes."""
    try:
        parts = urlsplit(address)
        whole = parts.port != 0 and not re.search(r"[\s\x00-\x1f\x7f\ud800-\udfff]", address)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and whole


def models_in(listing: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the models in what a server says at ``/models``, by name; none where it is no such list."""
    data = listing.get("data")
    return {str(m["id"]): m for m in data if isinstance(m, dict) and "id" in m} if data else {}


def in_flight(
    work: Callable[[_Item], _Result], items: Iterator[_Item], parallel: int
) -> Iterator[tuple[_Item, _Result]]:
    """Yield each item with what ``work`` made of it, as they are done, ``parallel`` at a time.

    The first error ends the rest and is raised. The threads are daemons: one that still waits for a
    server keeps no program from ending.
    """
    results: queue.SimpleQueue[tuple[_Item, _Result] | BaseException | None] = queue.SimpleQueue()
    turn, over = threading.Lock(), threading.Event()

    def worker() -> None:
        try:
            while not over.is_set():
                with turn:
                    item = next(items)
                results.put((item, work(item)))
        except StopIteration:
            results.put(None)
        except BaseException as error:
            results.put(error)

    for _ in range(parallel):
        threading.Thread(target=worker, daemon=True).start()
    try:
        while parallel:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if result is None:
                parallel -= 1
            else:
                yield result
    finally:
        over.set()
