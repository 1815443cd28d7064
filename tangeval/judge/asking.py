"""Votes of a judge: what is asked of a server, and the file that its answers are kept in.

In: texts, a prompt, a server. Out: answers, each appended to a file of JSON lines as it comes. Knows
nothing of results folders and of what is made of the scores.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from string import Template
from typing import Annotated, Any, BinaryIO, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, model_validator

from tangeval.core.config import Section, read_yaml, validated
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS
from tangeval.core.untrusted import MIB, parsed, read_bytes
from tangeval.engines.client import Client, Kind, RequestError, in_flight, is_url, models_in

PROMPT = ASSETS / "judge" / "prompt.yaml"
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
    """What one vote says."""

    prosody: _Grade
    fluency: _Grade


SCORES = tuple(Scores.model_fields)
#: Asks for an object of these numbers, where a server has structured outputs; ``parse`` checks their range.
_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "scores", "strict": True,
        "schema": {
            "type": "object", "properties": {name: {"type": "number"} for name in SCORES},
            "required": list(SCORES), "additionalProperties": False,
        },
    },
}  # fmt: skip


def parse(raw: str) -> Scores | None:
    """Return the scores in the JSON object of an answer, behind what the model thought aloud; None without any."""
    answer = raw.rpartition("</think>")[2]
    try:
        return Scores.model_validate_json(answer[answer.find("{") : answer.rfind("}") + 1])
    except ValidationError:
        return None


class Prompt(Section):
    """The judge's instructions, and the question with ``$input`` and ``$output`` in it; ``$$`` is a $."""

    system: str
    user: str

    @model_validator(mode="after")
    def _asks_about_both(self) -> Self:
        template = Template(self.user)
        if not template.is_valid() or set(template.get_identifiers()) != {"input", "output"}:
            raise ValueError("user: must hold $input and $output, and no other $; a $ itself is written $$")
        return self

    def messages(self, given: str, text: str) -> list[dict[str, str]]:
        """Return the chat that asks about ``text``; what it holds cannot end the marks around it."""
        asked = {"input": given.translate(_HARMLESS), "output": text.translate(_HARMLESS)}
        question = Template(self.user).substitute(asked)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": question}]


def load_prompt(file: Path = PROMPT) -> Prompt:
    """Return a file's prompt, YAML with ``system`` and ``user``; or raise ``TangevalError``."""
    return validated(Prompt, read_yaml(file, (), PROMPT.parent), file)


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

    def key(self, given: str, text: str, vote: int) -> str:
        """Return what one vote is kept under: all that decides the answer, save the server and its noise."""
        return digest([self.prompt_digest, self.model, self.temperature, self.max_tokens, given, text, vote])


@dataclass(frozen=True)
class Call:
    """One vote on one text; ``vote`` counts from 1 and is the seed too."""

    key: str
    example_id: str
    given: str
    text: str
    vote: int


@dataclass(frozen=True)
class Answer:
    """What a server said: its text as it came, why it ended, and the tokens it took."""

    raw: str
    finish: str | None
    usage: dict[str, int] | None = None

    @cached_property
    def scores(self) -> Scores | None:
        return parse(self.raw)


def read_answers(file: Path) -> dict[str, Answer]:
    """Return the answers that a file keeps, by key; a last line that was cut off is left out.

    Raises:
        TangevalError: another line is no answer; with its number.
    """
    lines = read_bytes(file, _LARGEST).split(b"\n")[:-1] if file.is_file() else []
    answers: dict[str, Answer] = {}
    for number, line in enumerate(lines, 1):
        try:
            record = parsed(line)
            answers.setdefault(record["key"], Answer(str(record["raw"]), record["finish"]))
        except (ValueError, KeyError, TypeError):
            raise TangevalError(f"{file}, line {number}: not an answer; delete the line") from None
    return answers


def _open(file: Path) -> BinaryIO:
    """``file`` to append to, without a last line that was cut off."""
    stream = file.open("ab+")
    stream.seek(0)
    stream.truncate(stream.read().rfind(b"\n") + 1)
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
    form: dict[str, Any] = {"response_format": _FORMAT}
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
        "model": judge.model, "messages": judge.prompt.messages(call.given, call.text), "seed": call.vote,
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
    line = {
        "key": call.key, "model": judge.model, "endpoint": judge.host, "prompt": judge.prompt_digest,
        "temperature": judge.temperature, "max_tokens": judge.max_tokens, "vote": call.vote,
        "example_id": call.example_id, "text": call.text, "raw": answer.raw, "finish": answer.finish,
        **(answer.scores.model_dump() if answer.scores else dict.fromkeys(SCORES)), "usage": answer.usage,
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
