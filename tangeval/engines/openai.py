"""The engine of models that a server holds, asked by OpenAI's completions or chat completions.

In: a study whose ``engine`` section names a server and the models that it serves. Out: rows of
generations. Noise is the server's own, of a seed for each example and sample; whether settings and checkpoints share
it is asked. Likelihoods are not to be had. Knows nothing of torch, metrics or weights.
"""

import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import pandas as pd

from tangeval.core.config import Section
from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, WIDE, Setting
from tangeval.core.study import WEIGHTS
from tangeval.core.types import Checkpoint, Example
from tangeval.engines import base
from tangeval.engines.base import Description, Done, Job, OnProgress, Output, sequence_of
from tangeval.engines.client import Client, in_flight
from tangeval.engines.knob_checks import Noise
from tangeval.engines.served import Server, ServerConfig, parts
from tangeval.models.tokens import completion_text
from tangeval.resolve import ResolvedStudy
from tangeval.results.machine import hardware, versions_of
from tangeval.results.plan import Batch
from tangeval.tasks.base import cut_note

#: Raised when what is asked of a server changes: older batch files are then made again.
VERSION = 3
#: Sequences of a batch file: what a run that is killed may lose of each that is open.
_SEQUENCES = 256
#: What a list of models says of one that stays the same from one listing to the next.
_LASTING = ("id", "owned_by", "root", "parent", "max_model_len", "meta")


@dataclass(frozen=True)
class _Request:
    """One prompt at one setting, for some samples of a job's batch."""

    job: Job
    example: Example
    setting: Setting
    samples: Sequence[int]


class OpenAIEngine(base.Engine):
    """See ``Engine``; it honours the knobs that ``check`` and ``probe`` say."""

    Config: ClassVar[type[Section]] = ServerConfig
    shares_prefixes: ClassVar[bool] = False
    gives_likelihood: ClassVar[bool] = False

    def __init__(self, resolved: ResolvedStudy, config: ServerConfig) -> None:
        """Raise ``TangevalError`` where the study says something of weights or likelihood."""
        self.resolved, self.config, self.host = resolved, config, urlsplit(config.server).netloc
        self.cuts, self.probed = list[tuple[str, ...]](), False
        self.noise: Noise | None = None
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
        self.server = Server(self.resolved, config, Client(config.server, key, extra="server", **limits))
        return self

    def __exit__(self, *_: object) -> None:
        self.server.client.close()

    def describe(self) -> Description:
        server, noise = self.server, self.noise
        shared = noise is not None and noise.shared
        told = (
            ("shared" if shared else "not shared")
            if self.probed
            else "the first texts tell whether it is shared"
        )
        return Description(
            name=f"server {self.host}{f' {server.version}' if server.version else ''}",
            noise=f"the server's own, a seed for each example and sample: {told} between settings and checkpoints",
            noise_shared=shared,
            versions=versions_of("urllib3"),
            hardware=hardware(None),
            place=f"{server.concurrency} requests in flight to {self.host}",
            more={
                "server": {
                    "url": self.config.server, "version": server.version, "dialect": server.dialect,
                    "models": self.config.models,
                    "listed": {name: self._lasting(name) for name in self.config.models.values()},
                },
                **({"noise_measured": asdict(noise)} if noise else {}),
            },
        )  # fmt: skip

    def _lasting(self, served: str) -> dict[str, Any]:
        return {key: value for key, value in self.server.listed.get(served, {}).items() if key in _LASTING}

    def cache_key(self, checkpoint: Checkpoint) -> str:
        study, served = self.resolved.study, self.config.models[checkpoint.name]
        model, prompt = [served, self._lasting(served)], [self.config.bos, base.wording(self.resolved)]
        engine = ["server", VERSION, self.server.dialect, self.server.version]
        content = {"engine": engine, "model": model, "prompt": prompt, "seed": study.seed}
        return digest(content | {"knobs": {WIDE: self.resolved.study.decoding.wide(WIDE)}})

    def likelihood_key(self, checkpoint: Checkpoint) -> str:
        return ""

    def sequences_per_batch(self) -> int:
        study = self.resolved.study
        most = max(map(study.samples_of, study.ordered_splits()))
        return (
            max(_SEQUENCES, self.server.concurrency * most)
            if study.batch_size == "auto"
            else study.batch_size
        )

    def check(self) -> None:
        self.server.check()

    def probe(self) -> None:
        if not self.probed:
            self.noise, self.probed = self.server.probe(), True

    def run(self, jobs: Sequence[Job], on_progress: OnProgress) -> Iterator[Done]:
        texts: dict[str, dict[Any, Output]] = {job.key: {} for job in jobs}
        sequences = {job.key: job.batch.sequences() for job in jobs if job.batch}
        began = time.perf_counter()
        for request, outputs in in_flight(self._answer, self._requests(jobs), self.server.concurrency):
            job, own = request.job, texts[request.job.key]
            for sample, output in zip(request.samples, outputs, strict=True):
                own[request.example.id, *sequence_of(request.setting, sample)] = output
            on_progress(job.checkpoint.name, len(outputs), outputs[-1].text)
            if job.batch and len(own) == sequences[job.key]:
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
                    for samples in parts(
                        job.batch.samples if setting.temperature else (0,), self.server.most
                    ):
                        yield _Request(job, example, setting, samples)

    def _answer(self, request: _Request) -> list[Output]:
        """Ask for a request's texts.

        The seed is of example and first sample alone: vLLM draws sample i of a request by its seed + i, so that a sample
        has one seed in all settings and checkpoints, whatever ``n`` is.
        """
        setting, first = request.setting, request.samples[0]
        seed = (
            int(digest([self.resolved.study.seed, request.example.id])[:8], 16) >> 2
        ) + first  # below 2^31
        knobs = dict(zip(AXES, setting.sequence, strict=True)) | {"max_length": setting.max_length}
        made = self.server.ask(
            request.job.checkpoint.name, request.example, knobs, seed, len(request.samples)
        )
        outputs = []
        for each in made:
            text = completion_text(each.text, cut=each.finish == "length")
            text, cut = self.resolved.task.unwrap(text, request.example.input)
            self.cuts.append(cut)
            outputs.append(Output(text, each.tokens, each.finish))
        return outputs
