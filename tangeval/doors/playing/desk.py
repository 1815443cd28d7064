"""The checkpoints of a study, ready to write: texts as they grow, taken apart, or begun otherwise.

In: a resolved study, and what is asked. Out: the texts that ``tangeval run`` would write, by the same engine and noise,
and what stands behind a token. Its ``lock`` is for who asks: one request at a time. Knows nothing of servers and pages.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from tangeval.core.config import validated
from tangeval.core.errors import TangevalError, UnusableError, usable
from tangeval.core.knobs import Setting
from tangeval.core.study import Decoding
from tangeval.core.types import Checkpoint, Constraint, Example
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.forced import Forced
from tangeval.decoding.noise import noise_key
from tangeval.doors.playing.asking import Ask, Branching, Opened
from tangeval.doors.write import check_known, couplet_of
from tangeval.engines.base import asked
from tangeval.engines.constraints import constraints_of
from tangeval.engines.device import Device
from tangeval.engines.local import Config, LocalEngine
from tangeval.explain.chosen import MOST_TOKENS
from tangeval.explain.subject import Subject, check_drawn
from tangeval.explain.trace import Trace, around
from tangeval.models import loading
from tangeval.models.tokens import decode_completion, encode_prompt
from tangeval.models.vocabulary import token_name
from tangeval.resolve import ResolvedStudy
from tangeval.results.explained import Explained

_ROOM = 2 * 2**30  # bytes of weights: as many checkpoints as they hold stay loaded, one at least
_PAUSE = 0.04  # seconds between two looks at a text as it grows

#: Is told what is new of a text; it may raise ``GoneError``.
Say = Callable[[dict[str, Any]], None]


class GoneError(TangevalError):
    """Nobody reads the answer any longer."""


class Desk:
    """See above."""

    def __init__(self, study: Opened) -> None:
        self.opened, self.resolved = study, study.resolved
        self.checkpoints = {each.name: each for each in self.resolved.checkpoints}
        self.tokenizer = loading.load_tokenizer(self.resolved.base)
        self.constraints = constraints_of(self.resolved, self.tokenizer)
        self.lock = threading.Lock()
        self._devices: dict[str, Device] = {}  # by the checkpoint that is on each; the last used last
        self._size = 0  # bytes of a model
        torch.set_num_threads(LocalEngine(self.resolved, Config()).threads)

    def example(self, ask: Ask) -> Example:
        """Return the example that is asked for, or one of the couplet."""
        if not ask.couplet:
            if ask.example not in self.resolved.dataset.by_id:
                raise TangevalError(f"example: the data have none of the id {ask.example[:80]!r}")
            return self.resolved.dataset.by_id[ask.example]
        if self.resolved.task.verse is None:
            raise TangevalError(f"couplet: {self.resolved.task.name} is no task of verse; give an example")
        if len(ask.couplet) > 100:
            raise TangevalError(
                f"couplet: {len(ask.couplet):,} characters are no couplet; give two clauses of one length"
            )
        given = couplet_of(ask.couplet)
        check_known(self.tokenizer, given)
        return Example(f"couplet {given}", self.resolved.dataset.examples[0].instruction, given, "", "test")

    def setting(self, ask: Ask) -> Setting:
        """Return the chosen setting with the knobs that are asked for."""
        changes = self.opened.setting.as_dict() | ask.knobs
        (setting,) = validated(Decoding, changes, "knobs").settings()
        return setting

    def check(self, ask: Ask) -> None:
        """Raise ``TangevalError`` for what no checkpoint could write."""
        for name in ask.checkpoints:
            self._named(name)
        self.constraints(self.setting(ask).constrain, self.example(ask))

    def write(self, ask: Ask, say: Say) -> None:
        """Tell each checkpoint's ``texts`` as they grow, and at last what is ``done``: text, its end, and its tokens.

        A checkpoint that cannot be used tells its ``error``.
        """
        for name in ask.checkpoints:
            try:
                with self._with(name) as device:
                    self._write(ask, device, name, say)
            except UnusableError as error:
                say({"checkpoint": name, "error": str(error)})

    def _write(self, ask: Ask, device: Device, name: str, say: Say) -> None:
        model = device.ready(self.checkpoints[name])
        example, setting, said = self.example(ask), self.setting(ask), 0.0
        eos, prompt = loading.eos_ids(model, self.tokenizer), self._prompt(example, setting, model)
        held = self._held(ask.forced, setting, example, model)
        samples = range(ask.sample, ask.sample + ask.samples)

        def on_step(ended: int, tokens: torch.Tensor) -> None:
            nonlocal said
            if setting.num_beams == 1 and time.monotonic() - said > _PAUSE:
                texts = [[token for token in text if token >= 0] for text in tokens.tolist()]
                say({"checkpoint": name, "texts": [self._text(text, eos) for text in texts]})
                said = time.monotonic()

        keys = [noise_key(self.resolved.study.seed, example.id, sample) for sample in samples]
        sequences = [TokenSequence(0, setting, key, held) for key in keys]
        found = self._decode(device, model, [prompt], sequences, on_step=on_step)
        done = [
            {
                "sample": sample, "text": self._text(tokens, eos), "tokens": self._words(tokens),
                "finish": "stop" if tokens[-1] in eos else "length",
            }
            for sample, tokens in zip(samples, found, strict=True)
        ]  # fmt: skip
        say({"checkpoint": name, "done": done})

    def texts(self, ask: Ask) -> dict[str, list[str]]:
        """Return the texts of each checkpoint that is asked for.

        Raises:
            UnusableError: one cannot be used.
        """
        found = {}

        def say(line: dict[str, Any]) -> None:
            if error := line.get("error"):
                raise UnusableError(error)
            if done := line.get("done"):
                found[line["checkpoint"]] = [each["text"] for each in done]

        self.write(ask, say)
        return found

    def explain(self, ask: Ask) -> Explained:
        """Return the first checkpoint's text of the first sample, token by token.

        Raises:
            TangevalError: it is written by a search, or may be too long.
        """
        if (length := self.setting(ask).max_length) > MOST_TOKENS:
            raise TangevalError(
                f"max_length: texts of up to {length} tokens are long to take apart; set {MOST_TOKENS}"
            )
        with self._tracing(ask, self.resolved) as (trace, _):
            return trace.content()

    def alternatives(self, ask: Branching) -> list[dict[str, Any]]:
        """Return the likeliest tokens after ``forced`` and how the text goes on from each, drawn with the same noise.

        ``p`` is the probability before the temperature; ``left`` says whether it would stay to be drawn.
        """
        setting = self.setting(ask)
        single = self.resolved.study.model_copy(
            update={"decoding": validated(Decoding, setting.as_dict(), "knobs")}
        )
        with self._tracing(ask, replace(self.resolved, study=single)) as (trace, device):
            model, example, eos = (
                trace.model,
                trace.subject.example,
                loading.eos_ids(trace.model, self.tokenizer),
            )
            if not set(eos).isdisjoint(ask.forced):
                raise TangevalError("forced: the text has ended there")
            offers = trace.offers(ask.forced, ask.width)
            begun = [[*ask.forced, token] for token, _, _ in offers]
            short = setting.changed(max_length=min(setting.max_length, len(ask.forced) + 1 + ask.more))
            key = noise_key(self.resolved.study.seed, example.id, ask.sample)
            # A prompt each: sequences on one prompt have one constraint.
            sequences = [
                TokenSequence(place, short, key, self._held(tokens, setting, example, model))
                for place, tokens in enumerate(begun)
            ]
            prompts = [self._prompt(example, short, model)] * len(begun)
            found = self._decode(device, model, prompts, sequences)
        return [
            {"token": self._words([token])[0], "p": p, "left": after > 0, "tokens": self._words(tokens[len(ask.forced) + 1 :])}
            for (token, p, after), tokens in zip(offers, found, strict=True)
        ]  # fmt: skip

    @contextmanager
    def _tracing(self, ask: Ask, resolved: ResolvedStudy) -> Iterator[tuple[Trace, Device]]:
        example, setting, checkpoint = self.example(ask), self.setting(ask), self._named(ask.checkpoints[0])
        check_drawn(setting)
        with self._with(checkpoint.name) as device:
            model = device.ready(checkpoint)
            self._prompt(example, setting, model)
            self._check_tokens(ask.forced, model)
            against = "contrast" in around(setting, resolved.study.decoding)
            subject = Subject(checkpoint, example, 1, setting, ask.sample)
            yield (
                Trace(
                    model, self.tokenizer, resolved, subject,
                    device.beside().model if against else None, tuple(ask.forced),
                ),
                device,
            )  # fmt: skip

    def _named(self, name: str) -> Checkpoint:
        if name not in self.checkpoints:
            raise TangevalError(
                f"checkpoints: there is none of that name; there are {', '.join(self.checkpoints)}"
            )
        return self.checkpoints[name]

    @contextmanager
    def _with(self, name: str) -> Iterator[Device]:
        """A device for a checkpoint: the one that it is on, a new one while there is room, else the one unused for longest."""
        self._named(name)
        free = not self._devices or (len(self._devices) + 1) * self._size <= _ROOM
        device = self._devices.pop(name, None) or (Device(self.resolved) if free else None)
        if device is None:
            device = self._devices.pop(next(iter(self._devices)))
        try:
            with usable():
                yield device
        except UnusableError:
            device.close()
            raise
        except BaseException:
            self._devices[name] = device
            raise
        self._devices[name] = device

    def _decode(
        self,
        device: Device,
        model: Any,
        prompts: list[list[int]],
        sequences: list[TokenSequence],
        **options: Any,
    ) -> list[list[int]]:
        """The tokens of each sequence, which are of one setting."""
        self._size = self._size or sum(p.nbytes for p in model.parameters())
        other = device.beside() if sequences[0].setting.contrast else None
        own: dict[str, Any] = {"eos": loading.eos_ids(model, self.tokenizer), "workspace": device.workspace}
        return decode(model, prompts, sequences, other=other, **own, **options).tokens

    def _prompt(self, example: Example, setting: Setting, model: Any) -> list[int]:
        prompt = encode_prompt(self.tokenizer, asked(self.resolved, example))
        limit = loading.context_length(model.config)
        if limit is not None and len(prompt) + setting.max_length > limit:
            raise TangevalError(
                f"max_length: {setting.max_length} tokens after a prompt of {len(prompt)} are more than the context of "
                f"{self.resolved.base.name}, {limit} tokens; set it to {limit - len(prompt)} or less"
            )
        return prompt

    def _held(
        self, forced: Sequence[int], setting: Setting, example: Example, model: Any
    ) -> Constraint | None:
        """What a text is held to: the setting's constraint, after the tokens that are forced."""
        rest = self.constraints(setting.constrain, example)
        if not forced:
            return rest
        size = self._check_tokens(forced, model)
        return Forced(forced, rest, size, loading.eos_ids(model, self.tokenizer))

    def _check_tokens(self, tokens: Sequence[int], model: Any) -> int:
        """Refuse tokens that the model has not; return how many it has."""
        size: int = min(model.config.get_text_config().vocab_size, len(self.tokenizer))
        if max(tokens, default=0) >= size:
            raise TangevalError(f"forced: {max(tokens)} is no token; the vocabulary has {size}")
        return size

    def _text(self, tokens: Sequence[int], eos: Sequence[int]) -> str:
        ended = bool(tokens) and tokens[-1] in eos
        return decode_completion(self.tokenizer, tokens[:-1] if ended else tokens, cut=not ended)

    def _words(self, tokens: Sequence[int]) -> list[tuple[int, str]]:
        """Each token's id, and what it writes: "" of what is no text, as EOS."""
        special = set(self.tokenizer.all_special_ids)
        return [(id, "" if id in special else token_name(self.tokenizer, id)) for id in tokens]

    def warm(self) -> None:
        """Load the checkpoints that come first, and write a text with each: the first that is asked for then comes at once."""
        example = self.resolved.dataset.examples[-1].id
        self.texts(Ask(checkpoints=list(self.opened.first), example=example))
