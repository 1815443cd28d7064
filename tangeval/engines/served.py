"""A server as a study asks it: which knobs, prompts and models it takes, and its texts for one request.

In: a study, its ``engine`` section, an open ``Client``. Out: texts; or an error that names key and remedy. Knows nothing
of jobs, batches and files.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from tangeval.core.config import Section
from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE, Example
from tangeval.engines import base
from tangeval.engines.base import Output, asked
from tangeval.engines.client import Client, Kind, RequestError, in_flight, is_url, models_in
from tangeval.engines.completions import DIALECTS, Dialect, dialect_of, echoes, read_reply
from tangeval.engines.knob_checks import EACH, PROMPTS, Knobs, Noise, Texts, check
from tangeval.resolve import ResolvedStudy

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
    concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = "auto"
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


class Server:
    """What the server says of itself is asked for once, when it is first wanted."""

    def __init__(self, resolved: ResolvedStudy, config: ServerConfig, client: Client) -> None:
        self.resolved, self.config, self.client = resolved, config, client
        self.silence, self.several = "", True
        #: The fields that make it tell the tokens of each of several texts.
        self.counting: Mapping[str, Any] = {}

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

    @property
    def speaks(self) -> Dialect:
        return DIALECTS[self.dialect]

    @property
    def concurrency(self) -> int:
        """The requests in flight at a time."""
        return self.speaks.at_once if self.config.concurrency == "auto" else self.config.concurrency

    @property
    def most(self) -> int:
        """The texts that one request may ask for."""
        if self.config.n != "auto":
            return self.config.n
        return 128 if self.speaks.counts and self.several else 1  # as many as OpenAI's own servers give

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

    def ask(self, checkpoint: str, example: Example, knobs: Knobs, seed: int = 0, n: int = 1) -> list[Output]:
        """Return ``n`` texts as the server gave them.

        Raises:
            TangevalError: it gives none, or others than were asked for; as a user is shown it.
        """
        try:
            return self._send(checkpoint, example, knobs, seed, n)
        except RequestError as error:
            raise self._explained(error) from None

    def _send(
        self, checkpoint: str, example: Example, knobs: Knobs, seed: int = 0, n: int = 1
    ) -> list[Output]:
        """``ask``; where no answer comes, raise ``RequestError``."""
        prompt = asked(self.resolved, example)
        chat, served = not isinstance(prompt, str), self.config.models[checkpoint]
        body = {"model": served, **self.speaks.body(knobs, seed, n)}
        body |= {"messages": prompt} if chat else {"prompt": f"{self.config.bos}{prompt}"}
        if n > 1:
            body |= {key: True if chat else value for key, value in self.counting.items()}
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
        base.check_knobs(self.resolved, self.speaks.takes, f"{self.dialect} server")

    def probe(self) -> Noise | None:
        """Ask the first model for the longest and hottest texts, whether knobs are honoured, and whether noise is shared.

        Better heard now than after hours. Returns ``knob_checks.check``'s finding.
        """
        study, checkpoint = self.resolved.study, next(iter(self.config.models))
        examples = sorted(base.examples_of(self.resolved), key=lambda e: -len(str(asked(self.resolved, e))))
        settings = study.decoding.settings()
        most = {axis: max(getattr(s, axis) for s in settings) for axis in ("temperature", "max_length")}
        if not self._try_several(checkpoint, examples[0], most):
            self.ask(checkpoint, examples[0], most)
        if self.config.bos and isinstance(asked(self.resolved, examples[0]), str):
            self._check_bos(checkpoint, most)
        count = min(PROMPTS, len(examples))
        some = [examples[place * len(examples) // count] for place in range(count)]
        return check(study.decoding, lambda knobs: self._draw(checkpoint, some, knobs))

    def _draw(self, checkpoint: str, examples: Sequence[Example], many: Sequence[Knobs]) -> list[Texts]:
        """As ``knob_checks.Draw``; everything is in flight at once."""
        each = -(-PROMPTS * EACH // len(examples))
        requests = [
            (number, example, seeds)
            for number, knobs in enumerate(many)
            for example in examples
            for seeds in parts(range(1, each + 1), self.most if knobs["temperature"] else 1)
        ]

        def ask(request: tuple[int, Example, Sequence[int]]) -> list[Output]:
            number, example, seeds = request
            try:
                return self._send(checkpoint, example, many[number], seeds[0], len(seeds))
            except RequestError as error:
                if error.kind == "refused":
                    return []
                raise self._explained(error) from None

        made = {
            (n, e.id, seeds[0]): outputs
            for (n, e, seeds), outputs in in_flight(ask, iter(requests), min(self.concurrency, len(requests)))
        }
        texts: list[Texts] = [[[] for _ in examples] for _ in many]
        place = {example.id: number for number, example in enumerate(examples)}
        refused = {number for (number, *_), outputs in made.items() if not outputs}
        for number, example, seeds in requests:
            texts[number][place[example.id]] += made[number, example.id, seeds[0]]
        return [[] if number in refused else each for number, each in enumerate(texts)]

    def _try_several(self, checkpoint: str, example: Example, knobs: Knobs) -> bool:
        """Say whether one request gives several texts, and find out how it tells the tokens of each."""
        if self.most == 1 or not knobs["temperature"]:
            return False
        for counting in self.speaks.counts or ({},):
            self.counting = counting
            try:
                self._send(checkpoint, example, knobs, n=2 if self.config.n == "auto" else self.config.n)
                return True
            except TangevalError as error:
                failed = self._explained(error) if isinstance(error, RequestError) else error
                if isinstance(error, RequestError) and error.kind in ("slow", "unreachable", "key", "busy"):
                    raise failed from None
        if self.config.n != "auto":
            raise failed
        self.several = False
        warnings.warn(f"engine.n: one text a request, since of two: {failed}", stacklevel=2)
        return False

    def _check_bos(self, checkpoint: str, knobs: Knobs) -> None:
        """Refuse a BOS that the tokenizer there puts before a prompt itself: BOS twice is then one token short of twice BOS."""
        where, counts = f"engine.bos: {self.config.server}", list[int | None]()
        for prompt in (self.config.bos, self.config.bos * 2):
            fields = self.speaks.body({**knobs, "max_length": 1}, 0, 1)
            body = {"model": self.config.models[checkpoint], "prompt": prompt, **fields}
            try:
                counts.append(self.client.complete(body).usage.prompt_tokens)
            except RequestError as error:
                raise self._explained(error) from None
        once, twice = counts
        if once is None or twice is None:
            unseen = "does not count a prompt's tokens (usage.prompt_tokens): whether it adds BOS itself cannot be told"
            warnings.warn(f"{where} {unseen}", stacklevel=2)
        elif 2 * once > twice:
            raise TangevalError(
                f"{where} puts a token before every prompt itself, so that it would read BOS twice; leave engine.bos out"
            )


def parts(values: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    """Yield ``values`` in parts of at most ``most``."""
    for begin in range(0, len(values), most):
        yield values[begin : begin + most]
