"""Votes of a judge: what is asked of a server, and the file that its answers are kept in.

In: texts, a prompt, a server. Out: answers, each appended to a file of JSON lines as it comes. Knows
nothing of results folders and of what is made of the answers.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from string import Template
from typing import Annotated, Any, BinaryIO, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator

from tangeval.core.config import Section, read_yaml, validated
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import opened, present
from tangeval.core.types import ASSETS
from tangeval.core.untrusted import MIB, parsed, read_bytes
from tangeval.engines.client import Client, Kind, RequestError, in_flight, is_url, models_in

PROMPTS = ASSETS / "judge"
_NO_ANSWER = (ValueError, LookupError, TypeError)  # what reading a line that is none raises
_LARGEST = 256 * MIB  # bytes of the answers: some 50,000, reasoning included
#: What could close the marks around a text, or be a chat template's own token, made harmless.
_HARMLESS = str.maketrans("<>[]", "＜＞［］")
#: Codes of a server that refuses a text for what it says: that is an answer, if an unusable one.
_FILTERED = ("content_filter", "content_policy_violation")
_REMEDIES: dict[Kind, str] = {
    "slow": "give fewer --parallel, or a smaller --max-tokens",
    "key": "set OPENAI_API_KEY to one that may use the model",
    "busy": "wait, or give fewer --parallel",
}
_Grade = Annotated[float, Field(ge=0, le=10, strict=True, allow_inf_nan=False)]


class Scores(BaseModel):
    """Grades of one text."""

    prosody: _Grade
    fluency: _Grade


class Preference(BaseModel):
    """Which of two texts is better, as they were shown."""

    better: Literal["A", "B", "tie"]


SCORES = tuple(Scores.model_fields)
_Reply = TypeVar("_Reply", bound=BaseModel)
#: What is asked for where a server has structured outputs; ``parse`` checks the numbers' range.
_ASKED: dict[str, Any] = {name: {"type": "number"} for name in SCORES}
_ASKED["better"] = {"type": "string", "enum": ["A", "B", "tie"]}


def _format(reply: type[BaseModel]) -> dict[str, Any]:
    """What asks a server for an object of these fields."""
    fields = {name: _ASKED[name] for name in reply.model_fields}
    schema = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    return {
        "type": "json_schema",
        "json_schema": {"name": reply.__name__.lower(), "strict": True, "schema": schema},
    }


def parse(raw: str, reply: type[_Reply]) -> _Reply | None:
    """Return the JSON object of an answer, behind what the model thought aloud; None if it holds no ``reply``."""
    answer = raw.rpartition("</think>")[2]
    if whole := _read(answer[answer.find("{") : answer.rfind("}") + 1], reply):
        return whole
    # Remarks around the object may have braces too; two objects say nothing.
    found = [read for text in re.findall(r"\{[^{}]*\}", answer) if (read := _read(text, reply))]
    return found[0] if len(found) == 1 else None


def _read(text: str, reply: type[_Reply]) -> _Reply | None:
    try:
        return reply.model_validate_json(text)
    except ValidationError:
        return None


class Prompt(Section):
    """The judge's instructions, and the question with ``$input`` and its texts' names in it; ``$$`` is a $."""

    texts: ClassVar[tuple[str, ...]] = ("output",)
    reply: ClassVar[type[BaseModel]] = Scores
    shipped: ClassVar[str] = "prompt.yaml"
    system: str
    user: str

    @model_validator(mode="after")
    def _asks_about_all(self) -> Self:
        template, names = Template(self.user), ("input", *self.texts)
        if not template.is_valid() or set(template.get_identifiers()) != set(names):
            wanted = " and ".join(f"${name}" for name in names)
            raise ValueError(f"user: must hold {wanted}, and no other $; a $ itself is written $$")
        return self

    def messages(self, given: str, *texts: str) -> list[dict[str, str]]:
        """Return the chat that asks about ``texts``; what they hold cannot end the marks around them."""
        shown = zip(("input", *self.texts), (given, *texts), strict=True)
        asked = {name: text.translate(_HARMLESS) for name, text in shown}
        question = Template(self.user).substitute(asked)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": question}]


class PairPrompt(Prompt):
    """The same for two texts, of which ``$first`` is called A."""

    texts = ("first", "second")
    reply = Preference
    shipped = "pairwise.yaml"


_Prompt = TypeVar("_Prompt", bound=Prompt)


def load_prompt(kind: type[_Prompt], file: Path | None = None) -> _Prompt:
    """Return a file's prompt, or the one that comes with tangeval: YAML with ``system`` and ``user``.

    Raises:
        TangevalError: it is not there, or does not ask about the texts.
    """
    path = file or PROMPTS / kind.shipped
    return validated(kind, read_yaml(path, (), PROMPTS), path)


@dataclass(frozen=True)
class Judge:
    """Who is asked, and how."""

    endpoint: str
    model: str
    prompt: Prompt
    votes: int = 3
    temperature: float = 1.0
    max_tokens: int = 2048
    retries: int = 5

    def __post_init__(self) -> None:
        if not is_url(self.endpoint):
            raise TangevalError(
                f"--endpoint {self.endpoint}: not a URL; give one such as http://localhost:8000/v1"
            )

    @property
    def host(self) -> str:
        """The endpoint's host and port: what may be written down of it."""
        return urlsplit(self.endpoint).netloc.rpartition("@")[2]

    @cached_property
    def prompt_digest(self) -> str:
        return digest([self.prompt.system, self.prompt.user])

    def call(self, example_id: str, given: str, texts: Sequence[str], vote: int) -> "Call":
        """Return a vote, kept under all that decides the answer, save the server and its noise."""
        own = [self.prompt_digest, self.model, self.temperature, self.max_tokens]
        return Call(digest([*own, given, *texts, vote]), example_id, given, tuple(texts), vote)


@dataclass(frozen=True)
class Call:
    """One vote on one text, or on two in this order; ``vote`` counts from 1 and is the seed too."""

    key: str
    example_id: str
    given: str
    texts: tuple[str, ...]
    vote: int


@dataclass(frozen=True)
class Answer:
    """What a server said: its text as it came, why it ended, and the tokens it took."""

    raw: str
    finish: str | None
    usage: dict[str, int] | None = None


@dataclass(frozen=True)
class Asking:
    """At most ``limit`` calls, ``parallel`` at a time; ``on_answer`` is called before the first and after each."""

    limit: int = 500
    parallel: int = 8
    on_answer: Callable[[int, int], None] = lambda answered, asked: None


@dataclass(frozen=True)
class Tally:
    """Of the ``wanted`` votes ``kept`` were there, ``asked`` came now, and ``left`` are beyond the limit.

    ``cut_off`` answers ended at ``max_tokens`` before they said anything that can be read.
    """

    wanted: int
    kept: int
    asked: int
    left: int
    cut_off: int


def collect(calls: Sequence[Call], judge: Judge, file: Path, how: Asking) -> tuple[dict[str, Answer], Tally]:
    """Return the answers to ``calls`` by key, those that ``file`` keeps and those that are asked for now.

    Raises:
        TangevalError: as ``ask``, whose answers so far are kept.
    """
    wanted = {call.key: call for call in calls}
    answers = {key: answer for key, answer in read_answers(file).items() if key in wanted}
    pending, kept = [call for key, call in wanted.items() if key not in answers], len(answers)
    now = pending[: how.limit]
    how.on_answer(0, len(now))
    for number, (call, answer) in enumerate(ask(now, judge, file, how.parallel), 1):
        answers[call.key] = answer
        how.on_answer(number, len(now))
    short = [answer for answer in answers.values() if answer.finish == "length"]
    cut_off = sum(parse(answer.raw, judge.prompt.reply) is None for answer in short)
    return answers, Tally(len(wanted), kept, len(now), len(pending) - len(now), cut_off)


def read_answers(file: Path) -> dict[str, Answer]:
    """Return the answers that a file keeps, by key; a last line that was cut off is left out.

    Raises:
        TangevalError: another line is no answer; with its number.
    """
    answers: dict[str, Answer] = {}
    for number, line in enumerate(_lines(read_bytes(file, _LARGEST) if present(file) else b""), 1):
        try:
            key, answer = _kept(line)
        except _NO_ANSWER:
            raise TangevalError(f"{file}, line {number}: not an answer; delete the line") from None
        answers.setdefault(key, answer)
    return answers


def _kept(line: bytes) -> tuple[str, Answer]:
    record = parsed(line)
    return str(record["key"]), Answer(str(record["raw"]), record["finish"])


def _lines(content: bytes) -> list[bytes]:
    """The lines of a file of answers; a last one without its end counts if it is whole: it may have been paid for."""
    *lines, last = content.split(b"\n")
    with suppress(*_NO_ANSWER):
        _kept(last)
        lines.append(last)
    return lines


def _open(file: Path) -> BinaryIO:
    """``file`` to append to, without a last line that was cut off."""
    stream = os.fdopen(opened(file, os.O_RDWR | os.O_APPEND), "ab+")
    stream.seek(0)
    content = stream.read()
    whole = sum(len(line) + 1 for line in _lines(content))
    if whole > len(content):
        stream.write(b"\n")
    else:
        stream.truncate(whole)
    return stream


def ask(pending: Sequence[Call], judge: Judge, file: Path, parallel: int) -> Iterator[tuple[Call, Answer]]:
    """Yield each answer when it is appended to ``file``.

    The first is asked for alone, so that a server that gives none is found out by one call; one without
    structured outputs is asked without.

    Raises:
        TangevalError: there is no server, or it refuses key, model or request, or stays busy.
    """
    if not pending:
        return
    key = os.environ.get("OPENAI_API_KEY")
    client = Client(judge.endpoint, key, extra="judge", retries=judge.retries)
    form: dict[str, Any] = {"response_format": _format(judge.prompt.reply)}
    listed: list[str] = []
    with closing(client), _open(file) as stream:
        try:
            listed = _listed(client)
            try:
                first = _answer(client, judge, pending[0], form)
            except RequestError as error:
                if error.kind != "refused":
                    raise
                form = {}
                first = _answer(client, judge, pending[0], form)
            rest = in_flight(lambda call: _answer(client, judge, call, form), iter(pending[1:]), parallel)
            for call, answer in chain([(pending[0], first)], rest):
                _append(stream, judge, call, answer)
                yield call, answer
        except RequestError as error:
            known = f", such as {', '.join(listed[:10])}" if listed else ""
            refused = f"name a --model that the server has{known}, and an address that mostly ends in /v1"
            told = error.explained(f"--endpoint {judge.endpoint}", {**_REMEDIES, "refused": refused})
            raise TangevalError(f"{told}. Answers so far are kept") from None


def _answer(client: Client, judge: Judge, call: Call, form: Mapping[str, Any]) -> Answer:
    """One answer; an empty one where the server filters the text, or has nothing to say."""
    body = {
        "model": judge.model, "messages": judge.prompt.messages(call.given, *call.texts), "seed": call.vote,
        "temperature": judge.temperature, "max_completion_tokens": judge.max_tokens, **form,
    }  # fmt: skip
    try:
        reply = client.complete(body)
    except RequestError as error:
        if error.code in _FILTERED:
            return Answer("", "content_filter")
        raise
    raw, finish = (reply.choices[0].said, reply.choices[0].finish_reason) if reply.choices else ("", None)
    return Answer(raw, finish, reply.usage.model_dump())


def _append(stream: BinaryIO, judge: Judge, call: Call, answer: Answer) -> None:
    reply = parse(answer.raw, judge.prompt.reply)
    line = {
        "key": call.key, "model": judge.model, "endpoint": judge.host, "prompt": judge.prompt_digest,
        "temperature": judge.temperature, "max_tokens": judge.max_tokens, "vote": call.vote,
        "example_id": call.example_id, **dict(zip(judge.prompt.texts, call.texts, strict=True)),
        "raw": answer.raw, "finish": answer.finish,
        **(reply.model_dump() if reply else dict.fromkeys(judge.prompt.reply.model_fields)), "usage": answer.usage,
    }  # fmt: skip
    stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    stream.flush()


def _listed(client: Client) -> list[str]:
    """The models that the server lists, none where it keeps no list; costs no call, and finds out a server that is not there."""
    try:
        return list(models_in(client.get("/models")))
    except RequestError as error:
        if error.kind == "unreachable":
            raise
        return []
