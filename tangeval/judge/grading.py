"""Generations → scores by a language model: metre (格律) and fluency (語意通順), 0 to 10 each.

In: outputs and poets' endings, and any server that speaks OpenAI's chat completions. Out:
``judge.jsonl``, every answer as it came, and ``judge.csv``, a row an output. A text is asked
about a number of times (votes) and no vote twice: what ``judge.jsonl`` holds is not asked
again. Knows nothing of torch, and nothing of the other metrics; the judge is not told who
wrote a text.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import yaml

from tangeval.analysis.stats import mean_interval
from tangeval.core.config import named_numbers
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, COLUMNS
from tangeval.core.types import ASSETS, BASE
from tangeval.core.untrusted import MIB, parsed, read_bytes
from tangeval.engines import client as clients
from tangeval.results.files import read_json, write_csv

if TYPE_CHECKING:
    from openai import AsyncOpenAI

ANSWERS, TABLE = "judge.jsonl", "judge.csv"
PROMPT = ASSETS / "judge" / "prompt.yaml"
SCORES = ("line_length", "fluency")
BEST_SCORE = 10
_LARGEST = 256 * MIB  # bytes of the answers: some 50,000, reasoning included
#: Votes on one text agree if they are no further apart.
AGREE = 1
LABELS = ("checkpoint", "step", *COLUMNS, "split", "example_id", "sample")
#: What could close the marks around a text, or be a chat template's own token, made harmless.
_HARMLESS = str.maketrans("<>[]", "＜＞［］")
#: Codes of a server that refuses a text for what it says: that is an answer, if an unusable one.
_FILTERED = ("content_filter", "content_policy_violation")


class Scores(NamedTuple):
    """What one vote says; both between 0 and 10."""

    line_length: float
    fluency: float


@dataclass(frozen=True)
class Prompt:
    """The judge's instructions, and the question with ``$couplet`` and ``$poem`` in it."""

    system: str
    user: str

    @cached_property
    def digest(self) -> str:
        return _digest([self.system, self.user])

    def messages(self, couplet: str, text: str) -> list[dict[str, str]]:
        """Return the chat that asks about ``text``; what it holds cannot end the marks around it."""
        poem = text.translate(_HARMLESS)
        question = Template(self.user).substitute(couplet=couplet.translate(_HARMLESS), poem=poem)
        return [{"role": "system", "content": self.system}, {"role": "user", "content": question}]


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

    @cached_property
    def host(self) -> str:
        """The endpoint's host and port: what may be written down of it.

        Raises:
            TangevalError: the endpoint is no URL.
        """
        parts = urlsplit(self.endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TangevalError(
                f"--endpoint {self.endpoint}: not a URL; give one such as http://localhost:8000/v1"
            )
        return parts.netloc.rpartition("@")[2]

    def key(self, couplet: str, text: str, vote: int) -> str:
        """Return what one vote is kept under: all that decides the answer, save the server and its noise."""
        return _digest([self.prompt.digest, self.model, self.temperature, self.max_tokens, couplet, text, vote])  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Which outputs are judged; no checkpoints stands for the chosen one, and ``setting`` changes its knobs."""

    checkpoints: tuple[str, ...] = ()
    base: bool = False
    setting: tuple[str, ...] = ()
    split: str = "test"
    samples: int = 1


@dataclass(frozen=True)
class Call:
    """One vote on one text; ``vote`` counts from 1 and is the seed too."""

    key: str
    example_id: str
    couplet: str
    text: str
    vote: int


@dataclass(frozen=True)
class Answer:
    """What a server said: its text as it came, and why it ended."""

    raw: str
    finish: str | None

    @cached_property
    def scores(self) -> Scores | None:
        return parse(self.raw)


# What is judged


def load_prompt(file: Path = PROMPT) -> Prompt:
    """Read a prompt: YAML with ``system`` and ``user``, the latter with ``$couplet`` and ``$poem``.

    Raises:
        TangevalError: the file cannot be read, or lacks one of them.
    """
    try:
        content = yaml.safe_load(read_bytes(file, MIB).decode("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise TangevalError(f"{file}: not a readable YAML file: {error}") from None
    if not isinstance(content, dict) or set(content) != {"system", "user"}:
        raise TangevalError(f"{file}: expected the keys system and user, and no others")
    if not all(isinstance(text, str) for text in content.values()):
        raise TangevalError(f"{file}: system and user must be text")
    template = Template(content["user"])
    if not template.is_valid() or set(template.get_identifiers()) != {"couplet", "poem"}:
        raise TangevalError(
            f"{file}: user: must hold $couplet and $poem, and no other $; a $ itself is written $$"
        )
    return Prompt(content["system"], content["user"])


def outputs(generations: pd.DataFrame, references: pd.DataFrame, folder: Path, wanted: Wanted) -> pd.DataFrame:  # fmt: skip
    """Return the rows to judge, ``LABELS`` and ``text``: ``base`` first, the references last.

    ``generations`` and ``references`` are as ``score`` makes them. The checkpoint and the setting
    are those of ``best/selection.json``, as far as ``wanted`` does not name others; where no
    setting met the requirements, the nearest.

    Raises:
        TangevalError: a name, knob, split or sample that there is not.
    """
    selection = read_json(folder / "best" / "selection.json")
    names = wanted.checkpoints or ((selection["checkpoint"]["checkpoint"],) if selection else ())
    if not names:
        raise TangevalError(
            f"{folder / 'best' / 'selection.json'} is missing; `tangeval select` makes it, or name a --checkpoint"
        )
    names = tuple(dict.fromkeys((*((BASE,) if wanted.base else ()), *names)))
    frame = _known(generations, "split", [wanted.split], "--split")
    frame = _known(frame, "checkpoint", names, "--checkpoint")
    for knob, value in _setting(selection, wanted.setting, folder).items():
        frame = _known(frame, knob, [value], f"--setting {knob}=")
    there = frame["sample"].nunique()
    if wanted.samples > there:
        raise TangevalError(f"--samples {wanted.samples}: {folder} has {there} of each {wanted.split} poem")
    frame = frame[frame["sample"] < wanted.samples]
    place = frame["checkpoint"].map({name: number for number, name in enumerate(names)})
    frame = frame.loc[place.sort_values(kind="stable").index]
    references = references[references["split"] == wanted.split]
    columns = [*LABELS, "text"]
    return pd.concat([frame[columns], references[columns]], ignore_index=True)


def _known(frame: pd.DataFrame, column: str, values: Sequence[Any], option: str) -> pd.DataFrame:
    """The rows with one of ``values`` in ``column``; each of them must be there."""
    there = list(dict.fromkeys(frame[column]))
    for value in values:
        if value not in there:
            given = f"{option}{value:g}" if isinstance(value, float) else f"{option} {value}"
            known = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in there)
            raise TangevalError(f"{given}: the results have {known}")
    return frame[frame[column].isin(values)]


def _setting(selection: Any, changes: Sequence[str], folder: Path) -> dict[str, float]:
    """The chosen setting with ``knob=value`` applied."""
    setting: dict[str, float] = {}
    if selection:
        chosen = selection["setting"] or selection["nearest"][0]
        setting = {knob: float(chosen[knob]) for knob in AXES}
    setting |= named_numbers(changes, "--setting", "temperature=0.7")
    for knob in setting.keys() - set(AXES):
        raise TangevalError(f"--setting {knob}: the knobs are {', '.join(AXES)}")
    missing = [knob for knob in AXES if knob not in setting]
    if missing:
        raise TangevalError(
            f"{folder} has no best/selection.json to take {', '.join(missing)} from; `tangeval select` makes it, "
            "or give every knob with --setting"
        )
    return setting


def calls(rows: pd.DataFrame, couplets: Mapping[str, str], judge: Judge) -> list[Call]:
    """Return every vote that ``rows`` want, each text of a poem once: all first votes, then all second."""
    pairs = list(zip(rows["example_id"], rows["text"], strict=True))
    found: dict[str, Call] = {}
    for vote in range(1, judge.votes + 1):
        for example_id, text in pairs:
            key = judge.key(couplets[example_id], text, vote)
            # The same text of the same poem has the same key, whoever wrote it.
            found.setdefault(key, Call(key, example_id, couplets[example_id], text, vote))
    return list(found.values())


# Answers


def parse(raw: str) -> Scores | None:
    """Return the scores an answer gives, or None: no JSON, no numbers from 0 to 10, or two different pairs.

    What stands around the JSON is left out, and so is what a reasoning model thought aloud.
    """
    found = {_scores(record) for record in _records(raw.rpartition("</think>")[2])}
    return found.pop() if len(found) == 1 else None


def _records(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in ``text`` that have a key of ``SCORES``."""
    decoder, place = json.JSONDecoder(), text.find("{")
    while place >= 0:
        try:
            record, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if any(name in record for name in SCORES):
                yield record
        place = text.find("{", end)


def _scores(record: dict[str, Any]) -> Scores | None:
    values = [record.get(name) for name in SCORES]
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(SCORES) or not all(0 <= number <= BEST_SCORE for number in numbers):
        return None
    return Scores(*numbers)


def read_answers(file: Path) -> dict[str, Answer]:
    """Return the answers a results folder keeps, by key; a last line that was cut off is left out.

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


def ask(
    pending: Sequence[Call], judge: Judge, file: Path, parallel: int, advance: Callable[[Answer], None]
) -> None:
    """Ask for every vote of ``pending``; each answer is appended to ``file`` as it comes.

    The first is asked alone: a server that cannot answer is found out by one call. Answers
    that were kept stay, whatever happens; those in flight are lost if it is interrupted.

    Raises:
        TangevalError: there is no server, or it refuses key, model or request, or stays busy.
    """
    clients.need_package("the judge", "judge")
    with _open(file) as stream:

        def record(call: Call, answer: Answer, usage: dict[str, int] | None) -> None:
            scores = answer.scores._asdict() if answer.scores else dict.fromkeys(SCORES)
            line = {
                "key": call.key, "model": judge.model, "endpoint": judge.host, "prompt": judge.prompt.digest,
                "temperature": judge.temperature, "max_tokens": judge.max_tokens, "vote": call.vote,
                "example_id": call.example_id, "text": call.text, "raw": answer.raw, "finish": answer.finish,
                **scores, "usage": usage,
            }  # fmt: skip
            stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
            stream.flush()
            advance(answer)

        clients.run(_ask_all(pending, judge, parallel, record))


_Record = Callable[[Call, Answer, dict[str, int] | None], None]


async def _ask_all(pending: Sequence[Call], judge: Judge, parallel: int, record: _Record) -> None:
    key = os.environ.get("OPENAI_API_KEY")
    async with clients.connect(judge.endpoint, key, judge.retries) as client:
        listed = await _models(client, judge)
        waiting = iter(pending)

        async def work(call: Call) -> None:
            record(call, *await _ask(client, judge, call, listed))

        for call in waiting:
            await work(call)
            break
        await clients.in_flight(waiting, work, parallel)


async def _models(client: "AsyncOpenAI", judge: Judge) -> list[str]:
    """The models a server lists; none if it keeps no list. Costs no call."""
    import openai

    try:
        page = await client.with_options(max_retries=0).models.list()
        return [model.id for model in page.data or []]
    except openai.APIConnectionError as error:
        raise _explained(error, judge, []) from None
    except (openai.OpenAIError, AttributeError, ValueError):
        return []  # some servers have no list; the first call will tell


async def _ask(
    client: "AsyncOpenAI", judge: Judge, call: Call, listed: list[str]
) -> tuple[Answer, dict[str, int] | None]:
    """One answer, and the tokens it took if the server says so."""
    import openai

    messages: Any = judge.prompt.messages(call.couplet, call.text)
    completion: Any = None
    try:
        completion = await client.chat.completions.create(
            model=judge.model,
            messages=messages,
            temperature=judge.temperature,
            seed=call.vote,
            max_completion_tokens=judge.max_tokens,
        )
    except openai.OpenAIError as error:
        if getattr(error, "code", None) in _FILTERED:
            return Answer("", "content_filter"), None
        raise _explained(error, judge, listed) from None
    except ValueError:
        pass  # it said JSON and was none: explained below
    if getattr(completion, "choices", None) is None:
        raise TangevalError(
            f"--endpoint {judge.endpoint}: what answers there does not speak OpenAI's chat completions; such "
            "addresses mostly end in /v1"
        )
    used = getattr(completion, "usage", None)
    counts = ("prompt_tokens", "completion_tokens")
    usage = {name: getattr(used, name, None) or 0 for name in counts} if used else None
    if not completion.choices:
        return Answer("", None), usage
    choice = completion.choices[0]
    return Answer(choice.message.content or "", choice.finish_reason), usage


def _explained(error: Exception, judge: Judge, listed: list[str]) -> TangevalError:
    """What a server's refusal means, and what to do."""
    kind, said = clients.fault(error)
    if kind == "slow":
        problem = "does not answer in time; give fewer --parallel, or a smaller --max-tokens"
    elif kind == "unreachable":
        problem = f"no server can be reached ({said}); start it, or mend the address"
    elif kind == "key":
        problem = f"the key is refused: set OPENAI_API_KEY to one that may use {judge.model} ({said})"
    elif kind == "refused":
        known = f", such as {', '.join(listed[:10])}" if listed else ""
        problem = (
            f"the request for --model {judge.model} is refused ({said}); name a model that the server has{known}, "
            "and an address that mostly ends in /v1"
        )
    elif kind == "busy":
        problem = f"too many requests, or the quota is used up ({said}); wait, or give fewer --parallel"
    else:
        problem = f"the server fails ({said}); look at its log"
    return TangevalError(f"--endpoint {judge.endpoint}: {problem}. Answers so far are kept")


# What came of it


def evaluate(
    rows: pd.DataFrame, couplets: Mapping[str, str], judge: Judge, folder: Path
) -> tuple[pd.DataFrame, int]:
    """Write ``judge.csv`` of the answers so far; return it, and how many of them were cut off unreadable."""
    answers = read_answers(folder / ANSWERS)
    judged = table(rows, couplets, judge, answers)
    write_csv(folder / TABLE, judged)
    given = [answers[call.key] for call in calls(rows, couplets, judge) if call.key in answers]
    return judged, sum(answer.finish == "length" and answer.scores is None for answer in given)


def table(
    rows: pd.DataFrame, couplets: Mapping[str, str], judge: Judge, answers: Mapping[str, Answer]
) -> pd.DataFrame:
    """Return a row an output: ``LABELS``, then what its votes say.

    ``metre`` and ``fluency`` are means over the votes that could be parsed, empty without one;
    ``_spread`` is the highest less the lowest. ``votes`` were answered, ``parsed`` of them could
    be read. ``agreement`` is the share of pairs of votes, of both scores, no more than ``AGREE``
    apart.
    """
    records = []
    for example_id, text in zip(rows["example_id"], rows["text"], strict=True):
        keys = [judge.key(couplets[example_id], text, vote) for vote in range(1, judge.votes + 1)]
        given = [answers[key] for key in keys if key in answers]
        records.append(_counted([answer.scores for answer in given]))
    measured = pd.DataFrame(records, index=rows.index)
    signature = {"judge": judge.model, "prompt": judge.prompt.digest}
    return pd.concat([rows[list(LABELS)], measured], axis=1).assign(**signature)


def _counted(votes: list[Scores | None]) -> dict[str, float]:
    parsed = np.array([vote for vote in votes if vote], dtype=float).reshape(-1, len(SCORES))
    counted: dict[str, float] = {}
    for place, name in enumerate(SCORES):
        column = parsed[:, place]
        counted[name] = column.mean() if len(column) else np.nan
        counted[f"{name}_spread"] = np.ptp(column) if len(column) else np.nan
    apart = [np.abs(a - b) for a, b in combinations(parsed, 2)]
    agreement = float(np.mean(np.array(apart) <= AGREE)) if apart else np.nan
    return {**counted, "votes": len(votes), "parsed": len(parsed), "agreement": agreement}


def summary(judged: pd.DataFrame) -> pd.DataFrame:
    """Return a row a checkpoint of ``table``'s rows, in their order.

    ``metre`` and ``fluency`` are means over poems, a poem's own being that of its outputs, with
    a 95 % interval over poems (``mean_interval``); a poem without a parsed vote is left out and counted
    in ``missing``. ``unparsable`` is a share of answers, ``agreement`` a mean over outputs.
    """
    records = []
    for name, part in judged.groupby("checkpoint", sort=False):
        poems = part.groupby("example_id", sort=False)[list(SCORES)].mean()
        measured = poems.dropna()
        answered = int(part["votes"].sum())
        record = {
            "checkpoint": name, "poems": len(measured), "missing": len(poems) - len(measured),
            "outputs": len(part), "votes": answered, "agreement": part["agreement"].mean(),
            "unparsable": 1 - part["parsed"].sum() / answered if answered else np.nan,
        }  # fmt: skip
        records.append(record | _intervals(measured.to_numpy()))
    return pd.DataFrame(records)


def _intervals(values: Any) -> dict[str, float]:
    """Mean and interval of each column of ``[poems, 2]``; nothing where there are no poems."""
    names = [f"{name}{end}" for end in ("", "_low", "_high") for name in SCORES]
    if not len(values):
        return dict.fromkeys(names, np.nan)
    ends = (np.clip(end, 0, BEST_SCORE) for end in mean_interval(values))
    return dict(zip(names, np.concatenate([values.mean(axis=0), *ends]).tolist(), strict=True))


def _digest(content: Any) -> str:
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=10).hexdigest()
