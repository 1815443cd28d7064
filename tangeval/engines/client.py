"""A client of servers that speak OpenAI's API: checked replies, many requests at a time.

In: an address and bodies of requests. Out: ``Reply``, or ``RequestError``. The package
``openai`` talks, retries and backs off. Knows nothing of prompts, texts or files.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from tangeval.core.errors import TangevalError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Kind = Literal["slow", "unreachable", "key", "refused", "busy", "broken", "foreign"]
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
    logprobs: dict[str, Any] = {}

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
        TangevalError: the package openai is not installed; ``extra`` brings it.
    """

    def __init__(self, url: str, key: str | None, *, extra: str, retries: int, timeout: float = 600) -> None:
        try:
            import openai
        except ImportError:
            raise TangevalError(
                f"a server is asked by the package openai; `pip install 'tangeval[{extra}]'` brings it"
            ) from None
        limits: dict[str, Any] = {"max_retries": retries, "timeout": timeout}
        self._client = openai.OpenAI(base_url=url, api_key=key or "none", **limits)
        self.close = self._client.close

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
            kind = _BY_STATUS.get(getattr(error, "status_code", None), "broken")
            raise RequestError(kind, said, getattr(error, "code", None)) from None
        except ValueError:  # it said JSON and was none
            reply = None
        if not isinstance(reply, dict):
            raise RequestError("foreign", "no JSON object")
        return reply


def is_url(address: str) -> bool:
    """Say whether an address has the form that a ``Client`` takes."""
    parts = urlsplit(address)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


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
