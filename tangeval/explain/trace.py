"""One text, token by token: what the model offers, what each knob leaves of it, what noise picks.

In: a resolved study and what to look at (checkpoint, example, setting, sample). Out: the content of
``explain.json`` (``results/explained.py``). Knows nothing of the page that shows it.

Texts are the engine's; the logits of all their steps come from one pass over prompt and text, and
go through the engine's own warpers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tangeval import __version__
from tangeval.core.errors import TangevalError, usable
from tangeval.core.knobs import KNOB, WIDE, Setting, axes_set
from tangeval.core.study import Decoding
from tangeval.core.types import Constraint
from tangeval.decoding.batch import Workspace
from tangeval.decoding.contrast import Reader, contrasted
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.forced import Forced, Held, held_after
from tangeval.decoding.forms import changed
from tangeval.decoding.noise import gumbel, noise_key
from tangeval.decoding.processors import PROCESSORS, History
from tangeval.decoding.self_check import choose_way
from tangeval.engines.base import asked
from tangeval.engines.constraints import constraints_of
from tangeval.explain.stages import FORMS, Row, stage_keys, step_of
from tangeval.explain.subject import Subject
from tangeval.models import adapters, loading
from tangeval.models.tokens import decode_completion, encode_completion, encode_prompt
from tangeval.models.vocabulary import token_name
from tangeval.resolve import ResolvedStudy
from tangeval.results import explained

_VALUES = 7  # of a knob that are looked at


def around(setting: Setting, decoding: Decoding) -> dict[str, list[Setting]]:
    """Return, for each knob, ``setting`` with every value of the study's grid (at most seven), what cuts least last."""
    rows = {}
    for name in turned((setting, *decoding.settings())):
        own = getattr(setting, name)
        others = sorted(set(decoding.values(name)) - {own})
        places = np.linspace(0, len(others) - 1, min(len(others), _VALUES - 1)).round().astype(int)
        values = {own, *(others[place] for place in places)}
        rows[name] = [setting.changed(**{name: value}) for value in KNOB[name].by_strength(values)]
    return rows


def turned(settings: Collection[Setting]) -> list[str]:
    """Return the knobs that change a distribution, in the order in which they are applied, as far as any is set."""
    names = axes_set(settings)
    alike = len({setting.no_repeat_ngram_size for setting in settings}) == 1  # then no stage of its own
    forms = [name for name in FORMS if name in names and not (name == WIDE and alike)]
    return forms + [name for name in names if KNOB[name].kind in ("scale", "cut")]


def explain(resolved: ResolvedStudy, subject: Subject, step: int | None = None) -> explained.Explained:
    """Return the content of ``explain.json``; ``step`` (from 1) is the one to show, by default the first character.

    Raises:
        TangevalError: the model cannot be loaded, or the text has no such step.
    """
    with loaded(resolved, subject) as trace:
        return trace.content(step)


@contextmanager
def loaded(resolved: ResolvedStudy, subject: Subject) -> "Iterator[Trace]":
    """Yield a trace of ``subject`` with its model; a copy with another example, setting or sample takes the same one.

    Raises:
        TangevalError: the model cannot be loaded.
    """
    load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
    tokenizer = loading.load_tokenizer(resolved.base)
    base = None if subject.checkpoint.kind == "full" else loading.load_model(resolved.base, load)
    recorded = resolved.fingerprints[subject.checkpoint.name]
    against = "contrast" in around(subject.setting, resolved.study.decoding)
    # Another one: an adapter changes the model that it is put on.
    other = loading.load_model(resolved.base, load) if against else None
    with usable(), adapters.with_checkpoint(base, subject.checkpoint, load, recorded) as model:
        yield Trace(model, tokenizer, resolved, subject, other)


@dataclass(frozen=True)
class Trace:
    """A subject under every setting that one turn of a knob reaches, by a model that is loaded.

    ``other`` is what contrast sets the model against; the text begins with the tokens that are ``forced``.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    resolved: ResolvedStudy
    subject: Subject
    other: Any = None
    forced: tuple[int, ...] = ()

    @torch.inference_mode()
    def content(self, step: int | None = None) -> explained.Explained:
        """Return what ``explain`` does."""
        resolved, subject, example = self.resolved, self.subject, self.subject.example
        study, settings, name = resolved.study, self._settings, subject.checkpoint.name
        written = list(self._written())
        tokens, text = written[0][0], written[0][1].text
        if subject.reference:
            text = resolved.task.target(example)
            tokens = encode_completion(self.tokenizer, asked(resolved, example), text)
        steps = list(self._steps(tokens))
        named = {token for each in steps for token in (each.token, *(one.id for one in each.candidates))}
        vocabulary = {token: token_name(self.tokenizer, token) for token in sorted(named)}
        return explained.Explained(
            tangeval=__version__, study=study.name, seed=study.seed,
            base_model=explained.Source(name=resolved.base.name, fingerprint=resolved.base_fingerprint),
            checkpoint=explained.Source(name=name, fingerprint=resolved.fingerprints[name]),
            example_id=example.id, split=example.split, number=subject.number, input=example.input,
            reference=resolved.task.target(example), follows="reference" if subject.reference else "setting",
            sample=subject.sample, text=text, step=self._first(vocabulary, tokens, step),
            setting=subject.setting.as_dict(axes_set(settings)), settings=[each for _, each in written],
            knobs=[explained.Turn(name=knob, settings=list(map(settings.index, row))) for knob, row in self._rows.items()],
            steps=steps, vocabulary=vocabulary,
        )  # fmt: skip

    @torch.inference_mode()
    def offers(self, tokens: Sequence[int], number: int) -> list[tuple[int, float, float]]:
        """Return the likeliest of the allowed tokens after ``tokens``: id, probability before the temperature and after all cuts."""
        *_, step = self._steps([*tokens, loading.eos_ids(self.model, self.tokenizer)[0]])
        knobs = list(self._rows)
        before, after = (step.stages[place].p for place in (knobs.index("temperature"), len(knobs)))
        own = zip((each.id for each in step.candidates), before, after, strict=True)
        allowed = [each for each, one in zip(own, step.candidates, strict=True) if one.rank >= 0]
        return sorted(allowed, key=lambda each: -each[1])[:number]

    def _first(self, vocabulary: dict[int, str], tokens: Sequence[int], step: int | None) -> int:
        """The step to show first, from 1."""
        if step is None:
            characters = self.resolved.task.characters
            return next((n for n, token in enumerate(tokens, 1) if characters(vocabulary[token])), 1)
        if not 1 <= step <= len(tokens):
            count = len(tokens)
            raise TangevalError(f"--step {step}: the text has {count} steps (tokens); give 1 to {count}")
        return step

    @cached_property
    def _rows(self) -> dict[str, list[Setting]]:
        return around(self.subject.setting, self.resolved.study.decoding)

    @cached_property
    def _settings(self) -> list[Setting]:
        """All distinct settings, the subject's own first."""
        return list(dict.fromkeys([self.subject.setting, *(s for row in self._rows.values() for s in row)]))

    @cached_property
    def _prompt(self) -> list[int]:
        return encode_prompt(self.tokenizer, asked(self.resolved, self.subject.example))

    @cached_property
    def _constraints(self) -> dict[str, Constraint | None]:
        """The constraint of each value of ``constrain``."""
        give = constraints_of(self.resolved, self.tokenizer)
        return {value: give(value, self.subject.example) for value in {s.constrain for s in self._settings}}

    @cached_property
    def _key(self) -> int:
        return noise_key(self.resolved.study.seed, self.subject.example.id, self.subject.sample)

    def _written(self) -> Iterator[tuple[list[int], explained.ExplainedSetting]]:
        """The tokens that each setting writes, as ``tangeval generate`` would, and its record."""
        eos = loading.eos_ids(self.model, self.tokenizer)
        held = self._constraints
        if self.forced:
            size = self.model.config.get_text_config().vocab_size
            held = {value: Forced(self.forced, each, size, eos) for value, each in held.items()}
        sequences = [TokenSequence(0, each, self._key, held[each.constrain]) for each in self._settings]
        stages = {setting: stage_keys(setting, list(self._rows)) for setting in self._settings}
        keys = list(dict.fromkeys(key for own in stages.values() for key in own))
        way = choose_way(self.model, [self._prompt], max(setting.max_length for setting in self._settings))
        other = self.other and Reader(self.other, Workspace(way=way))
        options: dict[str, Any] = {"eos": eos, "workspace": Workspace(way=way), "other": other}
        decoded = decode(self.model, [self._prompt], sequences, **options).tokens
        for setting, ids in zip(self._settings, decoded, strict=True):
            stopped = ids[-1] in eos
            text = decode_completion(self.tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
            knobs = setting.as_dict(axes_set(self._settings))
            reason: Literal["stop", "length"] = "stop" if stopped else "length"
            yield (
                ids,
                explained.ExplainedSetting(
                    knobs=knobs,
                    stages=list(map(keys.index, stages[setting])),
                    text=text,
                    finish_reason=reason,
                ),
            )

    def _steps(self, tokens: list[int]) -> Iterator[explained.Step]:
        """The record of every step."""
        history = torch.tensor([self._prompt + tokens], device=self.model.device)
        models = [each for each in (self.model, self.other) if each is not None]
        ask: dict[str, Any] = {
            "input_ids": history[:, :-1],
            "use_cache": False,
            "logits_to_keep": len(tokens),
        }
        whole = [model(**ask).logits[0].float() for model in models]
        every, key = torch.arange(whole[0].shape[1])[None], torch.tensor([self._key])
        eos = torch.tensor(loading.eos_ids(self.model, self.tokenizer), device=history.device)
        held: dict[str, Held] = {
            value: (each, each.start) if each else None for value, each in self._constraints.items()
        }
        for place, token in enumerate(tokens):
            so_far = History(history[:, : len(self._prompt) + place], place)
            rows = {}
            for setting in self._settings:
                if setting.at(FORMS) not in rows:
                    forms = self._forms([each[place] for each in whole], so_far, setting, held, eos)
                    rows[setting.at(FORMS)] = Row(forms, gumbel(key, place, every)[0])
            yield step_of(token, self._settings, list(self._rows), rows)
            if token not in eos:
                held = {value: held_after(each, token) for value, each in held.items()}

    def _forms(
        self, raw: Sequence[Tensor], so_far: History, setting: Setting, held: Mapping[str, Held], eos: Tensor
    ) -> list[Tensor]:
        """The logits ``[V]`` of the model, after each knob that makes another form of them, and at last after all of these."""

        def after(names: Collection[str]) -> Tensor:
            gamma = setting.contrast if "contrast" in names and self.other is not None else 0
            read = contrasted(raw[0], raw[1], gamma)[None] if gamma else raw[0][None].clone()
            on = {name: getattr(setting, name) for name in PROCESSORS if name in names}
            values = {name: value for name, value in on.items() if value != KNOB[name].off}
            state = held[setting.constrain] if "constrain" in names else None
            return changed(read, so_far, values, [state] if state else (), eos)[0].cpu()

        own = [name for name in self._rows if name in FORMS]
        return [after(own[:number]) for number in range(len(own) + 1)] + [after(FORMS)]
