"""An OpenAI-compatible server, asked politely: many requests in flight, busy ones asked again, refusals told apart.

In: an address and what to do with each of many things. Out: whatever the work gives, and of a
refusal the kind and what was said. The package ``openai`` talks and waits longer each time; it is
imported when something is asked. Knows nothing of prompts, poems or files.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from tangeval.core.errors import TangevalError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
#: slow: no answer in time; unreachable: nobody there; key: not allowed in; refused: it will not do what was asked;
#: busy: too many requests; broken: anything else.
Kind = Literal["slow", "unreachable", "key", "refused", "busy", "broken"]


def need_package(who: str, extra: str) -> None:
    """Make sure that there is a client.

    Raises:
        TangevalError: the package openai is not installed; ``extra`` brings it.
    """
    try:
        import openai  # noqa: F401
    except ImportError:
        raise TangevalError(
            f"{who} needs the package openai; `pip install 'tangeval[{extra}]'` brings it"
        ) from None


def connect(url: str, key: str | None, retries: int, timeout: float = 600) -> "AsyncOpenAI":
    """Return a client, to be used with ``async with``; it asks a busy or failing server ``retries`` times again."""
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=url, api_key=key or "none", max_retries=retries, timeout=timeout)


def run(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run ``work`` to its end; in a notebook, whose own loop is running, beside that loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)
    with ThreadPoolExecutor(1) as beside:
        result = beside.submit(loop.run_until_complete, task)
        try:
            return result.result()
        except KeyboardInterrupt:
            loop.call_soon_threadsafe(task.cancel)
            raise
        finally:
            wait([result])
            loop.close()


async def in_flight(
    waiting: Iterator[_Item], work: Callable[[_Item], Awaitable[None]], parallel: int
) -> None:
    """Do ``work`` on all of ``waiting``, ``parallel`` at a time; the first error ends the rest and is raised."""

    async def worker() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(worker())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None


def fault(error: Exception) -> tuple[Kind, str]:
    """Return what kind of refusal a client's error is, and what the server said, on one line."""
    import openai

    body = getattr(error, "body", None)
    said = " ".join(f"{error} {'' if body is None or str(body) in str(error) else body}".split())[:300]
    if isinstance(error, openai.APITimeoutError):
        return "slow", said
    if isinstance(error, openai.APIConnectionError):
        return "unreachable", str(error.__cause__ or said)
    status = getattr(error, "status_code", None)
    kinds: dict[int | None, Kind] = {401: "key", 403: "key", 400: "refused", 404: "refused", 422: "refused", 429: "busy"}  # fmt: skip
    return kinds.get(status, "broken"), said
