"""The engine of models that a server holds, asked by OpenAI's completions or chat completions.

In: a study whose ``engine`` section names a server and the models that it serves. Out: rows of
generations. Noise is the server's own, a seed for each request, so that settings and checkpoints do
not share it; likelihoods are not to be had. Knows nothing of torch, metrics or weights.
"""

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

import pandas as pd
from pydantic import Field, model_validator

from tangeval.core.config import Section
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, KNOBS, Setting
from tangeval.core.study import WEIGHTS
from tangeval.core.types import RANDOM, REFERENCE, Checkpoint, Example
from tangeval.engines import base
from tangeval.engines.base import Description, Done, Job, OnProgress, Output, asked, sequence_of
from tangeval.engines.client import Client, Kind, RequestError, in_flight, is_url, models_in
from tangeval.engines.completions import DIALECTS, dialect_of, echoes, read_reply
from tangeval.engines.knob_checks import check_honoured
from tangeval.models.tokens import completion_text
from tangeval.resolve import ResolvedStudy
from tangeval.results.plan import Batch, hardware, versions_of
from tangeval.tasks.base import cut_note

#: Raised when what is asked of a server changes: older batch files are then made again.
VERSION = 2
#: Sequences of a batch file: what a run that is killed may lose of each that is open.
_SEQUENCES = 256
#: What a list of models says of one that stays the same from one listing to the next.
_LASTING = ("id", "owned_by", "root", "parent", "max_model_len", "meta")
_REMEDIES: dict[Kind, str] = {
    "slow": "give a longer engine.timeout, or a smaller engine.concurrency",
    "key": "engine.api_key_env names the variable that holds it",
    "busy": "give a smaller engine.concurrency, or more engine.retries",
    "refused": "change what the study asks for, or an address that does not end in /v1",
}


class ServerConfig(Section):
    """The ``engine`` section: a server, what it calls each checkpoint, and how it is asked."""

    kind: Literal["openai"] = "openai"
    server: str
    models: Annotated[dict[str, str], Field(min_length=1)]
    dialect: Literal["auto", "vllm", "transformers", "llamacpp", "openai"] = "auto"
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 32
    n: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    bos: str = ""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    retries: Annotated[int, Field(ge=0)] = 8

    @model_validator(mode="after")
    def _address_and_names(self) -> Self:
        if not is_url(self.server):
            raise ValueError(f"server: {self.server} is no URL; give one such as http://localhost:8000/v1")
        if "@" in urlsplit(self.server).netloc or urlsplit(self.server).query:
            raise ValueError(
                "server: a key in the URL would be recorded; name the variable that holds it as api_key_env"
            )
        for name in {RANDOM, REFERENCE, ""} & self.models.keys():
            raise ValueError(f"models: {name!r} may not be a checkpoint's name")
        return self


@dataclass(frozen=True)
class _Request:
    """One prompt at one setting, for some samples of a job's batch."""

    job: Job
    example: Example
    setting: Setting
    samples: tuple[int, ...]


class OpenAIEngine(base.Engine):
    """See ``Engine``; it honours the knobs that ``check`` and the first texts say."""

    Config: ClassVar[type[Section]] = ServerConfig
    shares_prefixes: ClassVar[bool] = False
    gives_likelihood: ClassVar[bool] = False

    def __init__(self, resolved: ResolvedStudy, config: ServerConfig) -> None:
        """Raise ``TangevalError`` where the study says something of weights or likelihood."""
        self.resolved, self.config, self.host = resolved, config, urlsplit(config.server).netloc
        self.several, self.cuts, self.silence = True, list[tuple[str, ...]](), ""
        study = resolved.study
        if given := [key for key in WEIGHTS if key in study.model_fields_set]:
            raise TangevalError(
                f"{study.file}: {', '.join(given)}: with engine the weights are the server's; leave it out, and name what "
                "it serves under engine.models (the base model as `base`)"
            )
        if study.select and study.select.checkpoint == "reference_nll":
            raise TangevalError(
                f"{study.file}: select.checkpoint: a server gives no reference_nll; take another metric, such as bleu, or "
                "select: null"
            )

    def __enter__(self) -> Self:
        config = self.config
        key = os.environ.get(config.api_key_env) if config.api_key_env else None
        if config.api_key_env and not key:
            raise TangevalError(
                f"engine.api_key_env: the variable {config.api_key_env} is not set; it holds the key"
            )
        limits: dict[str, Any] = {"retries": config.retries, "timeout": config.timeout}
        self.client = Client(config.server, key, extra="server", **limits)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    # What the server says of itself.

    @cached_property
    def listed(self) -> dict[str, dict[str, Any]]:
        """The models that the server lists, by name; none where it keeps no list."""
        return models_in(self._get("/models"))

    @cached_property
    def version(self) -> str | None:
        said = self._get(self.config.server.rstrip("/").removesuffix("/v1") + "/version").get("version")
        return said if isinstance(said, str) else None

    @cached_property
    def dialect(self) -> str:
        if self.config.dialect != "auto":
            return self.config.dialect
        if (found := dialect_of(list(self.listed.values()))) is None:
            raise TangevalError(
                f"engine.dialect: {self.config.server} does not say what kind of server it is{self.silence}; give one of "
                f"{', '.join(DIALECTS)} (openai sends OpenAI's own fields alone)"
            )
        return found

    def _get(self, path: str) -> dict[str, Any]:
        """What stands at a path; nothing where the server has no such page."""
        try:
            return self.client.get(path)
        except RequestError as error:
            if error.kind in ("refused", "foreign"):
                self.silence = f" ({error.said})"
                return {}
            raise self._explained(error) from None

    def _explained(self, error: RequestError) -> TangevalError:
        return error.explained(f"engine.server: {self.config.server}", _REMEDIES)

    # The protocol.

    def describe(self) -> Description:
        return Description(
            name=f"server {self.host}{f' {self.version}' if self.version else ''}",
            noise="the server's own, a seed for each request: not shared between settings or checkpoints",
            noise_shared=False,
            versions=versions_of("openai"),
            hardware=hardware(None),
            place=f"{self.config.concurrency} requests in flight to {self.host}",
            more={
                "server": {
                    "url": self.config.server, "version": self.version, "dialect": self.dialect,
                    "models": self.config.models,
                    "listed": {name: self._lasting(name) for name in self.config.models.values()},
                }
            },
        )  # fmt: skip

    def _lasting(self, served: str) -> dict[str, Any]:
        return {key: value for key, value in self.listed.get(served, {}).items() if key in _LASTING}

    def cache_key(self, checkpoint: Checkpoint) -> str:
        study, served = self.resolved.study, self.config.models[checkpoint.name]
        model, prompt = [served, self._lasting(served)], [self.config.bos, base.wording(self.resolved)]
        engine = ["server", VERSION, self.dialect, self.version]
        content = {"engine": engine, "model": model, "prompt": prompt, "seed": study.seed}
        return digest(content | {"knobs": self.study_wide})

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        return ""

    def sequences_per_batch(self) -> int:
        size = self.resolved.study.batch_size
        return _SEQUENCES if size == "auto" else size

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        if jobs:
            self._try(jobs[0].checkpoint.name)
        texts: dict[str, dict[Any, Output]] = {job.key: {} for job in jobs}
        began = time.perf_counter()
        for request, outputs in in_flight(self._answer, self._requests(jobs), self.config.concurrency):
            job, own = request.job, texts[request.job.key]
            for sample, output in zip(request.samples, outputs, strict=True):
                own[request.example.id, *sequence_of(request.setting, sample)] = output
            on_progress(job.checkpoint.name, len(outputs), outputs[-1].text)
            if job.batch and len(own) == job.batch.sequences():
                # Batches overlap: each has the time since the last one was whole, so that all sum to the run's.
                yield Done(job, self._rows(job.batch, texts.pop(job.key)), time.perf_counter() - began)
                began = time.perf_counter()
        if note := cut_note(self.cuts):
            warnings.warn(
                f"engine.server: {self.config.server}: {note}, which are none of the answer", stacklevel=2
            )

    def _rows(self, batch: Batch, texts: Mapping[Any, Output]) -> pd.DataFrame:
        return base.generations(
            self.resolved, batch, lambda e, setting, sample: texts[e.id, *sequence_of(setting, sample)]
        )

    def _requests(self, jobs: Sequence[Job]) -> Iterator[_Request]:
        """Every request of the jobs, example by example: requests on one prompt follow each other."""
        for job in jobs:
            assert job.batch
            distinct = {setting.sequence: setting for setting in job.batch.settings}  # all of one max_length
            for example in map(self.resolved.dataset.by_id.__getitem__, job.batch.examples):
                for setting in distinct.values():
                    for samples in _parts(job.batch.samples if setting.temperature else (0,), self.most):
                        yield _Request(job, example, setting, samples)

    @cached_property
    def study_wide(self) -> dict[str, float]:
        """The knobs that have one value for the whole study."""
        decoding = self.resolved.study.decoding
        return {knob.name: getattr(decoding, knob.name) for knob in KNOBS if not knob.axis}

    @property
    def most(self) -> int:
        """The texts that one request may ask for."""
        if self.config.n != "auto":
            return self.config.n
        return (
            128 if DIALECTS[self.dialect].several and self.several else 1
        )  # as many as OpenAI's own servers give

    def _answer(self, request: _Request) -> list[Output]:
        """Ask for a request's texts; its seed is of all that tells it from others, so that no two share noise."""
        name, setting = request.job.checkpoint.name, request.setting
        own = [self.resolved.study.seed, name, request.example.id, *setting.sequence, setting.max_length]
        seed = int(digest([*own, request.samples[0]])[:8], 16) >> 1  # 31 bits: what every server takes
        knobs = dict(zip(AXES, setting.sequence, strict=True)) | {"max_length": setting.max_length}
        made = self._ask(name, request.example, knobs | self.study_wide, seed, len(request.samples))
        outputs = []
        for each in made:
            text = completion_text(each.text, cut=each.finish == "length")
            text, cut = self.resolved.task.unwrap(text, request.example.input)
            self.cuts.append(cut)
            outputs.append(Output(text, each.tokens, each.finish))
        return outputs

    def _ask(self, *what: Any) -> list[Output]:
        """Return ``_send``'s texts; its errors as a user is shown them."""
        try:
            return self._send(*what)
        except RequestError as error:
            raise self._explained(error) from None

    def _send(
        self, checkpoint: str, example: Example, knobs: Mapping[str, float], seed: int = 0, n: int = 1
    ) -> list[Output]:
        """Return ``n`` texts as the server gave them."""
        prompt = asked(self.resolved, example)
        chat, served = not isinstance(prompt, str), self.config.models[checkpoint]
        body = {"model": served, **DIALECTS[self.dialect].body(knobs, seed, n)}
        body |= {"messages": prompt} if chat else {"prompt": f"{self.config.bos}{prompt}"}
        body |= {"logprobs": True if chat else 1} if n > 1 else {}  # they count the tokens of each
        try:
            made = read_reply(self.client.complete(body), n=n, max_length=int(knobs["max_length"]))
            if any(echoes(each.text, prompt) for each in made):
                raise TangevalError(
                    "its texts begin with the prompt; turn that off where it is served (echo, return_full_text)"
                )
            return made
        except RequestError:
            raise
        except TangevalError as error:
            raise TangevalError(f"engine.server: {self.config.server}: {served}: {error}") from None

    def check(self) -> None:
        """Refuse what the server says that it lacks: a model, or a field for a knob; no text is asked for."""
        for name, served in self.config.models.items():
            if self.listed and served not in self.listed:
                raise TangevalError(
                    f"engine.models.{name}: {self.config.server} serves no {served}; it serves {', '.join(self.listed)}"
                )
        base.check_knobs(self.resolved, DIALECTS[self.dialect].takes, f"{self.dialect} server")

    def probe(self) -> None:
        self._try(next(iter(self.config.models)))

    def _try(self, checkpoint: str) -> None:
        """Ask for the longest and hottest text, and whether the study's knobs are honoured: better heard now than after hours."""
        study = self.resolved.study
        example = max(base.examples_of(self.resolved), key=lambda e: len(str(asked(self.resolved, e))))
        settings = study.decoding.settings()
        most = {axis: max(getattr(s, axis) for s in settings) for axis in ("temperature", "max_length")}
        self._ask(checkpoint, example, most)
        if self.config.n == "auto" and self.most > 1 and most["temperature"]:
            self._try_several(checkpoint, example, most)

        def draw(knobs: Mapping[str, float], many: int) -> list[Output]:
            def ask(seeds: tuple[int, ...]) -> list[Output]:
                try:
                    return self._send(checkpoint, example, knobs, seeds[0], len(seeds))
                except RequestError as error:
                    if error.kind == "refused":
                        return []
                    raise self._explained(error) from None

            parts = _parts(tuple(range(1, many + 1)), self.most if knobs["temperature"] else 1)
            made = [outputs for _, outputs in in_flight(ask, parts, self.config.concurrency)]
            return [output for outputs in made for output in outputs] if all(made) else []

        check_honoured(study.decoding, draw)

    def _try_several(self, checkpoint: str, example: Example, knobs: Mapping[str, float]) -> None:
        """Ask for two texts in one request; where that fails each is asked for alone."""
        try:
            self._send(checkpoint, example, knobs, 0, 2)
        except TangevalError as error:
            if isinstance(error, RequestError) and error.kind in ("slow", "unreachable", "key", "busy"):
                raise self._explained(error) from None
            self.several = False
            warnings.warn(f"engine.n: one text a request, since of two: {error}", stacklevel=2)


def _parts(samples: tuple[int, ...], most: int) -> Iterator[tuple[int, ...]]:
    for begin in range(0, len(samples), most):
        yield samples[begin : begin + most]
