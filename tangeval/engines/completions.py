"""One request to an OpenAI-compatible server → its texts; and what the server honours, found out by asking it.

In: a server's address, a poem, and the knobs of one request. Out: texts with their tokens and how
they ended. Servers leave out in silence what they do not know, so ``settle`` asks each model a
dozen short questions whose answers tell. Knows nothing of files, batches or scores.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from tangeval.core.config import Section
from tangeval.core.errors import TangevalError
from tangeval.core.study import Study
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.engines.client import connect, fault, need_package
from tangeval.tasks.tang.prompt import chat_messages, prompt_text

if TYPE_CHECKING:
    from openai import AsyncOpenAI

HOT = 2.0  # the highest temperature that OpenAI's own servers take
_SHORT, _LONG = 3, 24  # tokens of a probe's texts
_MOST = 2**20  # characters of a text that is taken for one
#: What a server says of a model that stays the same from one listing to the next.
_LASTING = ("id", "owned_by", "root", "parent", "max_model_len", "meta")


class ServerSection(Section):
    """A server that speaks OpenAI's completions and decodes in this process's place."""

    kind: Literal["openai"] = "openai"
    server: str
    models: Annotated[dict[str, str], Field(min_length=1)]
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    n: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    bos: str = ""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    retries: Annotated[int, Field(ge=0)] = 8

    @model_validator(mode="after")
    def _address_and_names(self) -> "ServerSection":
        parts = urlsplit(self.server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"server: {self.server} is no URL; give one such as http://localhost:8000/v1")
        if parts.password or parts.username:
            raise ValueError(
                "server: a key in the URL would be written into results; name the variable that holds it as api_key_env"
            )
        for name in {RANDOM, REFERENCE, ""} & self.models.keys():
            raise ValueError(f"models: {name!r} may not be a checkpoint's name")
        return self

    @property
    def host(self) -> str:
        return urlsplit(self.server).netloc


@dataclass(frozen=True, slots=True)
class Knobs:
    """What one request asks for."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    max_length: int = _LONG
    no_repeat_ngram_size: int = 0
    seed: int = 0
    n: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """One text as the server gave it; ``tokens`` are None where it does not count those of each."""

    text: str
    tokens: int | None
    finish: str
    prompt_tokens: int | None = None


class RefusedError(TangevalError):
    """The server will not do what a request asks."""


# How a request is written. What is off is said to be off: left out, it would be the server's own default.


def _openai(knobs: Knobs) -> dict[str, Any]:
    """OpenAI's own fields alone."""
    return {
        "temperature": knobs.temperature, "top_p": knobs.top_p, "max_tokens": knobs.max_length, "seed": knobs.seed,
        "frequency_penalty": 0, "presence_penalty": 0,
    }  # fmt: skip


def _extended(knobs: Knobs) -> dict[str, Any]:
    """Beside them what vLLM, SGLang and llama.cpp take."""
    more: dict[str, Any] = {"top_k": knobs.top_k or -1, "min_p": 0, "repetition_penalty": 1}
    if knobs.no_repeat_ngram_size:
        more["no_repeat_ngram_size"] = knobs.no_repeat_ngram_size
    return _openai(knobs) | more


def _transformers(knobs: Knobs) -> dict[str, Any]:
    """``transformers serve`` takes a whole GenerationConfig as JSON, and no other field for top_k."""
    config: dict[str, Any] = {
        "do_sample": knobs.temperature > 0, "max_new_tokens": knobs.max_length,
        "no_repeat_ngram_size": knobs.no_repeat_ngram_size, "repetition_penalty": 1.0,
    }  # fmt: skip
    if knobs.temperature > 0:
        config |= {"temperature": knobs.temperature, "top_k": knobs.top_k, "top_p": knobs.top_p}
    return _openai(knobs) | {"generation_config": json.dumps(config)}


#: The forms of a request, in the order in which they are tried.
FORMS: Mapping[str, Callable[[Knobs], dict[str, Any]]] = {
    "extended": _extended, "transformers": _transformers, "openai": _openai,
}  # fmt: skip


class Server:
    """An open connection to the server of a study."""

    def __init__(self, client: "AsyncOpenAI", study: Study, engine: ServerSection) -> None:
        self.client, self.engine, self.chat = client, engine, study.prompt == "chat"

    async def account(self) -> dict[str, Any]:
        """Return what the server says of itself: its ``version``, or None, and its ``models`` by name, none without a list.

        Raises:
            TangevalError: there is no server, or it serves no model that the study names.
        """
        listed = await self._get(self.client, "/models")
        found = listed.get("data") if isinstance(listed, dict) else None
        models = {
            str(each["id"]): {key: each[key] for key in _LASTING if key in each}
            for each in found or []
            if isinstance(each, dict) and "id" in each
        }
        for name, served in self.engine.models.items():
            if models and served not in models:
                raise TangevalError(
                    f"engine.models.{name}: {self.engine.server} serves no {served}; it serves {', '.join(models)}"
                )
        root = self.engine.server.rstrip("/").removesuffix("/v1")
        said = await self._get(self.client.with_options(base_url=root), "/version")
        return {"version": said.get("version") if isinstance(said, dict) else None, "models": models}

    async def _get(self, client: "AsyncOpenAI", path: str) -> Any:
        """What stands at ``path``; None where the server has no such page."""
        import openai

        try:
            return await client.with_options(max_retries=2).get(path, cast_to=object)
        except openai.APIStatusError as error:
            if 400 <= error.status_code < 500 and error.status_code != 429:
                return None
            raise self._explained(error, path) from None
        except openai.OpenAIError as error:
            raise self._explained(error, path) from None
        except ValueError:
            return None  # it said JSON and was none

    async def ask(self, served: str, form: str, example: Example, knobs: Knobs) -> list[Text]:
        """Return ``knobs.n`` texts of the model ``served``.

        Raises:
            RefusedError: the server will not do it.
            TangevalError: there is no answer, or it is none.
        """
        import openai

        body = {"model": served, **FORMS[form](knobs)}
        if self.chat:
            body["messages"] = chat_messages(example)
        else:
            body["prompt"] = self.engine.bos + prompt_text(example)
        if knobs.n > 1:
            # The tokens of each text are told by their logprobs; usage has those of all together.
            body |= {"n": knobs.n, "logprobs": True if self.chat else 1}
        try:
            reply = await self.client.post(
                "/chat/completions" if self.chat else "/completions", body=body, cast_to=object
            )
        except openai.OpenAIError as error:
            raise self._explained(error, served) from None
        except ValueError:
            reply = None  # it said JSON and was none
        return self._checked(_texts(reply, self.chat), knobs, served)

    def _checked(self, texts: list[Text] | None, knobs: Knobs, served: str) -> list[Text]:
        where = f"engine.server: {self.engine.server}: {served}"
        if texts is None:
            raise TangevalError(
                f"{where}: what answers does not speak OpenAI's completions; such addresses mostly end in /v1"
            )
        for text in texts:
            if text.finish not in ("stop", "length"):
                raise TangevalError(
                    f"{where}: a text ended for another reason than its own end or max_tokens: {text.finish}; take a "
                    "server that filters nothing"
                )
            if text.finish == "length" and text.tokens is not None and text.tokens < knobs.max_length:
                raise TangevalError(
                    f"{where}: a text was cut at {text.tokens} tokens where max_tokens was {knobs.max_length}; give "
                    "the server a longer context, or a smaller decoding.max_length"
                )
        return texts

    def _explained(self, error: Exception, what: str) -> TangevalError:
        """What a server's refusal of ``what``, a model or a page, means, and what to do."""
        kind, said = fault(error)
        where = f"engine.server: {self.engine.server}"
        if kind == "refused":
            return RefusedError(f"{where}: a request for {what} is refused ({said})")
        problem = {
            "slow": f"it does not answer within engine.timeout, {self.engine.timeout:g} s; give more, or a smaller "
            "engine.concurrency",
            "unreachable": f"no server can be reached ({said}); start it, or mend the address",
            "key": f"the key is refused ({said}); engine.api_key_env names the variable that holds it",
            "busy": f"too many requests ({said}); give a smaller engine.concurrency, or more engine.retries",
            "broken": f"the server fails at {what} ({said}); look at its log",
        }[kind]
        return TangevalError(f"{where}: {problem}. Batch files that are whole stay; the same command goes on")


@asynccontextmanager
async def opened(study: Study, engine: ServerSection) -> AsyncIterator[Server]:
    """Connect to a study's server.

    Raises:
        TangevalError: the package openai or the key is missing.
    """
    need_package("a server as engine", "server")
    key = os.environ.get(engine.api_key_env) if engine.api_key_env else None
    if engine.api_key_env and not key:
        raise TangevalError(
            f"engine.api_key_env: the variable {engine.api_key_env} is not set; it holds the key"
        )
    async with connect(engine.server, key, engine.retries, engine.timeout) as client:
        yield Server(client, study, engine)


def _texts(reply: Any, chat: bool) -> list[Text] | None:
    """The texts of an answer, in their order; None if it is none."""
    try:
        choices = sorted(reply["choices"], key=lambda choice: choice.get("index") or 0)
        used = reply.get("usage") or {}
        said = [(each["message"]["content"] if chat else each["text"]) or "" for each in choices]
        ends = [str(each["finish_reason"]) for each in choices]
        counts = [_spelt(each, chat) for each in choices]
        total, read = used.get("completion_tokens"), used.get("prompt_tokens")
    except (AttributeError, KeyError, TypeError):
        return None
    numbers = all(count is None or (type(count) is int and count >= 0) for count in (total, read))
    if not numbers or not all(isinstance(text, str) and len(text) <= _MOST for text in said):
        return None
    said = [text.encode("utf-8", "replace").decode("utf-8") for text in said]  # lone surrogates are no text
    if len(choices) == 1:
        counts = [total]
    elif None in counts or sum(filter(None, counts)) != total:
        counts = [None] * len(choices)
    rows = zip(said, counts, ends, strict=True)
    return [Text(*row, read) for row in rows] or None


def _spelt(choice: Any, chat: bool) -> int | None:
    """How many tokens one text of several has, by its logprobs."""
    tokens = (choice.get("logprobs") or {}).get("content" if chat else "tokens")
    return None if tokens is None else len(tokens)


# What a server honours

#: What may be lacking: how it shows, and what to do.
FACULTIES = {
    "usage": ("it does not count a text's tokens (usage.completion_tokens)", "take a server that does"),
    "max_length": ("it writes on beyond max_tokens", "take a server that does not"),
    "finish_reason": ("it does not say when a text was cut (finish_reason length)", "take a server that does"),
    "greedy": ("two texts at temperature 0 differ", "leave 0 out of decoding.temperature"),
    "temperature": ("three draws at temperature 2 are one text, so it is ignored", "decoding.temperature=0"),
    "top_k": ("two draws at top_k 1 differ, so it is ignored, or it is refused", "decoding.top_k=0"),
    "top_p": ("two draws at top_p 1e-6 differ, so it is ignored, or it is refused", "decoding.top_p=1.0"),
    "n": ("n 3 does not give three draws and the tokens of each", "engine.n=auto"),
    "no_repeat_ngram_size": (
        "forbidding every token that was there before changes nothing, so it is ignored, or it is refused",
        "decoding.no_repeat_ngram_size=0",
    ),
}  # fmt: skip


def needs(study: Study, engine: ServerSection) -> list[str]:
    """Return the faculties without which a study's results would not be what it asks for."""
    drawn = [setting for setting in study.decoding.settings() if setting.temperature > 0]
    several = max(map(study.samples_of, study.splits)) > 1 and engine.n not in ("auto", 1)
    wanted = {
        "usage": True, "max_length": True, "finish_reason": True,
        "greedy": len(drawn) < len(study.decoding.settings()),
        "temperature": bool(drawn),
        "top_k": any(setting.top_k for setting in drawn),
        "top_p": any(setting.top_p < 1 for setting in drawn),
        "n": bool(drawn) and several,
        "no_repeat_ngram_size": study.decoding.no_repeat_ngram_size > 0,
    }  # fmt: skip
    return [name for name, needed in wanted.items() if needed]


async def probe(server: Server, served: str, form: str, example: Example) -> dict[str, Any]:
    """Ask a model a dozen short questions in one form; return which of ``FACULTIES`` it has, and ``seed``.

    ``seed`` says whether two of three requests in flight, of one seed, gave one text.
    ``greedy_text`` and ``prompt_tokens`` are what to know the model by.

    Raises:
        RefusedError: the model does not take requests of this form.
    """

    async def tried(**knobs: Any) -> list[Text]:
        try:
            return await server.ask(served, form, example, Knobs(**knobs))
        except RefusedError:
            return []

    def same(some: list[Text], others: list[Text]) -> bool:
        return bool(some) and [text.text for text in some] == [text.text for text in others]

    cold = await server.ask(served, form, example, Knobs())
    again, short = await tried(), await tried(max_length=_SHORT)
    draws = await asyncio.gather(*(tried(temperature=HOT, seed=seed) for seed in (1, 2, 1)))
    by_k = [await tried(temperature=HOT, top_k=1, seed=seed) for seed in (1, 2)]
    by_p = [await tried(temperature=HOT, top_p=1e-6, seed=seed) for seed in (1, 2)]
    three = await tried(temperature=HOT, n=3, seed=1)
    banned = await tried(no_repeat_ngram_size=1)
    greedy, drawn = same(cold, again), len({text.text for draw in draws for text in draw}) > 1
    counted = [each for each in (*cold, *short) if each.tokens is not None]
    cut = bool(short) and len(cold[0].text) > len(short[0].text)
    return {
        "form": form,
        "usage": len(counted) == len(cold) + len(short),
        "max_length": bool(short) and (short[0].tokens or 0) <= _SHORT and (cold[0].tokens or 0) <= _LONG,
        "finish_reason": bool(short) and (not cut or short[0].finish == "length"),
        "greedy": greedy,
        "temperature": drawn,
        "top_k": drawn and same(*by_k),
        "top_p": drawn and same(*by_p),
        "n": len({each.text for each in three}) > 1
        and len(three) == 3
        and None not in {t.tokens for t in three},
        "no_repeat_ngram_size": greedy and bool(banned) and not same(cold, banned),
        "seed": drawn and same(draws[0], draws[2]),
        "prompt_tokens": cold[0].prompt_tokens,
        "greedy_text": cold[0].text,
    }


async def settle(server: Server, study: Study, name: str, example: Example) -> dict[str, Any]:
    """Return what ``probe`` finds in the first form of a request that has all that the study asks for.

    Raises:
        TangevalError: there is no such form; the message says what is lacking in the nearest.
    """
    served, wanted = server.engine.models[name], needs(study, server.engine)
    nearest: tuple[str, list[str]] | None = None
    refusal: RefusedError | None = None
    for form in FORMS:
        try:
            found = await probe(server, served, form, example)
        except RefusedError as error:
            refusal = error
            continue
        lacking = [faculty for faculty in wanted if not found[faculty]]
        if "temperature" in lacking:  # without draws nothing is known of what narrows them
            lacking = [faculty for faculty in lacking if faculty not in ("top_k", "top_p", "n")]
        if not lacking:
            settings = study.decoding.settings()
            hottest = max(setting.temperature for setting in settings)
            longest = max(setting.max_length for setting in settings)
            # What is asked for at the most: a refusal is better heard now than after hours.
            await server.ask(served, form, example, Knobs(temperature=hottest, max_length=longest))
            return found
        if nearest is None or len(lacking) < len(nearest[1]):
            nearest = (form, lacking)
    if nearest is None:
        assert refusal
        raise refusal
    problems = "; ".join(f"{each}: {FACULTIES[each][0]}; remedy: {FACULTIES[each][1]}" for each in nearest[1])
    raise TangevalError(
        f"engine.server: {server.engine.server}: {name}, served as {served}, does not do what the study asks for. {problems}"
    )
