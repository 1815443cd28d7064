"""A client of servers that speak OpenAI's API: checked replies, many requests at a time.

In: an address and bodies of requests. Out: ``Reply``, or ``RequestError``. The package
``openai`` talks, retries and backs off. Nothing goes to another host than the address's, an answer is bounded
in bytes, depth and time, and no key is in what comes out. Knows nothing of prompts, texts or files.
"""

import queue
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from tangeval.core.errors import TangevalError
from tangeval.core.untrusted import MIB, redacted

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Kind = Literal["slow", "unreachable", "key", "refused", "busy", "broken", "foreign"]
_LARGEST = 64 * MIB  # bytes of an answer: 128 texts with their logprobs have a tenth
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


def _whole(text: Any) -> Any:
    """Lone surrogates, which are no text, as question marks."""
    return text.encode("utf-8", "replace").decode("utf-8") if isinstance(text, str) else text


_Text = Annotated[str, BeforeValidator(_whole), Field(max_length=2**20)]


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
    message: Message = Message()
    finish_reason: str | None = None
    logprobs: Any = None

    @property
    def said(self) -> str:
        return self.text or self.message.content


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
    """An open connection; its methods may be called from several threads.

    Raises:
        TangevalError: the package openai is not installed, and ``extra`` brings it; or key or address is none.
    """

    def __init__(self, url: str, key: str | None, *, extra: str, retries: int, timeout: float = 600) -> None:
        try:
            import openai
        except ImportError:
            raise TangevalError(
                f"a server is asked by the package openai; `pip install 'tangeval[{extra}]'` brings it"
            ) from None
        given, self._timeout = (key or "").strip(), timeout
        self._own = given  # what no answer and no error may tell
        if not re.fullmatch("[!-~]*", given):
            raise TangevalError(
                "the key has white space or other characters in it that no key has; set it anew"
            )
        # Of its own accord it would follow redirects with the request, and unpack answers of any size.
        http = openai.DefaultHttpxClient(
            follow_redirects=False, headers={"accept-encoding": "identity"}, event_hooks={"response": [self._within]}
        )  # fmt: skip
        limits: dict[str, Any] = {"max_retries": retries, "timeout": timeout, "http_client": http}
        try:
            self._client = openai.OpenAI(base_url=url, api_key=given or "none", **limits)
        except Exception as error:
            raise TangevalError(f"{url}: no address of a server ({error})") from None
        # Else those of the environment's variables go to whatever server this is.
        self._client.organization = self._client.project = None
        self.close = self._client.close

    def _within(self, response: Any) -> None:
        """Read an answer within bounds, and leave keys out of it."""
        import openai

        until, body, problem = time.monotonic() + self._timeout, bytearray(), ""
        if response.has_redirect_location:
            problem = f"it sends requests on to {response.headers['location'][:200]}; give that address if you trust it"
        elif response.headers.get("content-encoding", "identity") != "identity":
            problem = "its answer is compressed, which was not asked for"
        for chunk in () if problem else response.iter_raw():
            body += chunk
            if len(body) > _LARGEST or time.monotonic() > until:
                problem = (
                    f"its answer has more than {_LARGEST // MIB} MiB, or takes more than {self._timeout:g} s"
                )
                break
        if problem:
            response.close()
            raise openai.OpenAIError(problem)  # which is not asked for again
        response._content = redacted(body.decode("utf-8", "replace"), self._own).encode()

    def complete(self, body: Mapping[str, Any]) -> Reply:
        """Return the answer to a request, of a chat where ``body`` has ``messages``; or raise ``RequestError``."""
        path = "/chat/completions" if "messages" in body else "/completions"
        reply = self._object(lambda: self._client.post(path, body=dict(body), cast_to=object))
        try:
            return Reply.model_validate(reply)
        except ValidationError as error:
            raise RequestError("foreign", f"choices: {error.errors()[0]['msg']}") from None

    def get(self, url: str) -> dict[str, Any]:
        """Return the JSON object at a path, or at another URL of the server; raises as ``complete``."""
        client = self._client.with_options(max_retries=min(self._client.max_retries, 2))
        return self._object(lambda: client.get(url, cast_to=object))

    def _object(self, ask: Callable[[], object]) -> dict[str, Any]:
        import openai

        try:
            reply = ask()
        except openai.APITimeoutError as error:
            raise RequestError("slow", str(error)) from None
        except openai.APIConnectionError as error:
            raise RequestError("unreachable", str(error.__cause__ or error)) from None
        except openai.OpenAIError as error:
            said = " ".join(f"{error} {getattr(error, 'body', None) or ''}".split())[:300]
            status = getattr(error, "status_code", None)
            kind = _BY_STATUS.get(status, "broken" if status else "foreign")
            raise RequestError(kind, redacted(said, self._own), getattr(error, "code", None)) from None
        except (ValueError, RecursionError):  # it said JSON and was none
            reply = None
        if not isinstance(reply, dict):
            raise RequestError("foreign", "no JSON object")
        if "choices" not in reply and (wrong := _error_in(reply)):
            raise wrong
        return reply


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
