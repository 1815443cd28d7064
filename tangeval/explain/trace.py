"""One text, token by token: what the model offers, what each knob leaves of it, what noise picks.

In: a resolved study and what to look at (checkpoint, example, setting, sample). Out: the content of
``explain.json`` (``results/explained.py``). Knows nothing of the page that shows it.

Texts are the engine's; the logits of all their steps come from one pass over prompt and text, and
go through the engine's own warpers.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tangeval import __version__
from tangeval.core.errors import TangevalError, usable
from tangeval.core.knobs import KNOB, Setting, axes_set
from tangeval.core.study import Decoding
from tangeval.core.types import Constraint
from tangeval.decoding.batch import Workspace
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.forms import changed
from tangeval.decoding.noise import gumbel, noise_key
from tangeval.decoding.ordering import descending
from tangeval.decoding.processors import PROCESSORS, History
from tangeval.decoding.self_check import choose_way
from tangeval.decoding.warpers import Candidates, cut
from tangeval.engines.base import asked
from tangeval.engines.constraints import constraints_of
from tangeval.explain.subject import Subject
from tangeval.models import adapters, loading
from tangeval.models.tokens import decode_completion, encode_completion, encode_prompt
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
    return [name for name in axes_set(settings) if KNOB[name].kind in ("scale", "cut")]


def explain(resolved: ResolvedStudy, subject: Subject, step: int | None = None) -> explained.Explained:
    """Return the content of ``explain.json``; ``step`` (from 1) is the one to show, by default the first character.

    Raises:
        TangevalError: the model cannot be loaded, or the text has no such step.
    """
    load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
    tokenizer = loading.load_tokenizer(resolved.base)
    base = None if subject.checkpoint.kind == "full" else loading.load_model(resolved.base, load)
    recorded = resolved.fingerprints[subject.checkpoint.name]
    with usable(), adapters.with_checkpoint(base, subject.checkpoint, load, recorded) as model:
        return Trace(model, tokenizer, resolved, subject).content(step)


@dataclass(frozen=True)
class Trace:
    """A subject under every setting that one turn of a knob reaches, by a model that is loaded."""

    model: Any
    tokenizer: PreTrainedTokenizerBase
    resolved: ResolvedStudy
    subject: Subject

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
        vocabulary = {token: token_text(self.tokenizer, token) for token in sorted(named)}
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
    def _constraint(self) -> Constraint | None:
        give = constraints_of(self.resolved, self.tokenizer)
        return give(self.subject.setting.constrain, self.subject.example)

    @cached_property
    def _key(self) -> int:
        return noise_key(self.resolved.study.seed, self.subject.example.id, self.subject.sample)

    def _written(self) -> Iterator[tuple[list[int], explained.ExplainedSetting]]:
        """The tokens that each setting writes, as ``tangeval generate`` would, and its record."""
        eos = loading.eos_ids(self.model, self.tokenizer)
        sequences = [TokenSequence(0, setting, self._key, self._constraint) for setting in self._settings]
        stages = {setting: _stage_keys(setting, list(self._rows)) for setting in self._settings}
        keys = list(dict.fromkeys(key for own in stages.values() for key in own))
        way = choose_way(self.model, [self._prompt], max(setting.max_length for setting in self._settings))
        options: dict[str, Any] = {"eos": eos, "workspace": Workspace(way=way)}
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
        whole = self.model(input_ids=history[:, :-1], use_cache=False, logits_to_keep=len(tokens)).logits[0]
        every, key = torch.arange(whole.shape[1])[None], torch.tensor([self._key])
        eos = torch.tensor(loading.eos_ids(self.model, self.tokenizer), device=history.device)
        values = {name: getattr(self.subject.setting, name) for name in PROCESSORS}
        values = {name: value for name, value in values.items() if value != KNOB[name].off}
        held = self._constraint
        state = held and held.start
        for place, token in enumerate(tokens):
            raw, so_far = whole[place].float(), History(history[:, : len(self._prompt) + place], place)
            own = changed(raw[None].clone(), so_far, values, [(held, state)] if held else (), eos)[0]
            row = _Row(raw.cpu(), own.cpu(), gumbel(key, place, every)[0])
            yield row.step(token, self._settings, list(self._rows))
            if held and token not in eos:
                # A reference that leaves what is allowed is held to nothing from there on.
                ok = held.allowed(state).tokens[token] and token not in held.allowed(state).without
                held, state = (held, held.advance(state, token)) if ok else (None, None)


def _stage_keys(setting: Setting, knobs: Sequence[str]) -> list[tuple[float, ...]]:
    """What tells each of a setting's stages from others': nothing for the model, then the knobs applied so far."""
    values = replace(setting, values=setting.sequence).at(knobs)
    return [values[:place] for place in range(len(knobs) + 1)]


@dataclass(frozen=True)
class _Left:
    """What a stage leaves: ``kept`` tokens, which held ``mass`` of the stage before; ``p`` (float64) are all or the first."""

    kept: int
    mass: float
    p: Tensor

    def record(self, at: Tensor, score: Tensor) -> explained.Stage:
        """The stage in ``explain.json``; ``at`` ``[C]`` are the candidates' places in ``p``, out of it where removed."""
        some = self.p[self.p > 0]
        entropy = max(0.0, float(-(some * some.log()).sum()))
        inside = (at >= 0) & (at < len(self.p))
        shown = torch.where(inside, self.p[at.clamp(0, len(self.p) - 1)], 0.0)
        return explained.Stage(
            kept=self.kept, mass=_short(min(1.0, self.mass)), entropy=_short(entropy),
            choices=_short(math.exp(entropy)), p=_shorts(shown.clamp(max=1.0)), score=_shorts(score),
        )  # fmt: skip


class _Row:
    """One step: logits ``[V]`` sorted, ties in the sampler's order, which tokens are allowed, their noise.

    ``changed`` are the model's logits as history and constraint leave them; of what is forbidden its own are shown.
    """

    def __init__(self, logits: Tensor, changed: Tensor, noise: Tensor) -> None:
        allowed = ~changed.isneginf()
        values, ids = descending(torch.where(allowed, changed, logits)[None], len(logits))
        self.values, self.ids = values[0], ids[0]
        self.noise, self.free = noise[self.ids], allowed[self.ids]
        self.rank = torch.where(self.free, self.free.cumsum(0) - 1, -1)
        self.model = _Left(len(logits), 1.0, logits.double().softmax(0)[self.ids])

    def follow(self, setting: Setting, turned: Sequence[str]) -> tuple[list[_Left], int, float | None]:
        """The stages of a setting, one a knob that is ``turned``, and the rank and score of what it picks."""
        values, noise, model = self.values[self.free], self.noise[self.free], self.model.p[self.free]
        if setting.temperature == 0:
            pick = int((values == values[0]).sum()) - 1  # of tied tokens argmax takes the smallest id
            only = torch.nn.functional.one_hot(torch.tensor(pick)).double()
            rest = [_Left(1, 1.0, only)] * (len(turned) - 1)
            return [self.model, _Left(1, float(model[pick]), only), *rest], pick, None
        scaled = values / setting.temperature
        weights = (scaled - scaled[0]).double().exp()
        types = {name: torch.int64 if KNOB[name].type is int else torch.float64 for name in turned[1:]}
        knobs = {name: torch.tensor([getattr(setting, name)], dtype=types[name]) for name in types}
        row = Candidates.whole(scaled[None], knobs)
        ranges = [(0, len(values)), *(left.range for _, left in cut(row, knobs))]
        stages, before = [self.model], weights.sum() / model.sum()
        for first, kept in ranges:
            own = torch.where(torch.arange(kept) >= first, weights[:kept], 0)
            stages.append(_Left(kept - first, float(own.sum() / before), own / own.sum()))
            before = own.sum()
        noisy = (scaled + noise)[:kept].masked_fill(torch.arange(kept) < first, -torch.inf)
        pick = int(noisy.argmax())
        return stages, pick, float(noisy[pick])

    def step(self, token: int, settings: Sequence[Setting], turned: Sequence[str]) -> explained.Step:
        """The record of the step at which ``token`` was written."""
        left: dict[tuple[float, ...], _Left] = {}
        allowed, picks, ranks = self.ids[self.free], [], []
        for setting in settings:
            stages, pick, score = self.follow(setting, turned)
            left |= dict(zip(_stage_keys(setting, turned), stages, strict=True))
            picks.append(explained.Pick(id=int(allowed[pick]), score=score and _short(score)))
            ranks.append(pick)
        kept = [len(stage.p) for stage in left.values() if len(stage.p) < len(allowed)]
        wanted = torch.tensor([*kept, *(number - 1 for number in kept), *ranks])
        likeliest = torch.arange(len(self.ids)) < explained.LIKELIEST
        (place,) = (likeliest | (self.ids == token) | torch.isin(self.rank, wanted)).nonzero(as_tuple=True)
        ids, rank, logit, noise = (each[place] for each in (self.ids, self.rank, self.values, self.noise))
        columns = zip(ids.tolist(), rank.tolist(), _shorts(logit, 9), _shorts(noise, 9), strict=True)
        records = []
        for key, stage in left.items():
            noisy = logit / key[0] + noise if len(key) == 1 and key[0] else logit[:0]
            records.append(stage.record(rank if key else place, noisy))
        candidates = [explained.Candidate(id=i, rank=r, logit=x, noise=n) for i, r, x, n in columns]
        return explained.Step(token=token, candidates=candidates, stages=records, picks=picks)


def _shorts(values: Tensor, digits: int = 6) -> list[float]:
    return [_short(value, digits) for value in values.tolist()]


def _short(value: float, digits: int = 6) -> float:
    """With that many significant digits; a float32 comes back as it was from nine."""
    return float(f"{value:.{digits}g}")


def token_text(tokenizer: Any, token: int) -> str:
    """Return what a token writes; its name where that is no text (a byte of a character, a special token)."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if token in tokenizer.all_special_ids or not text or "\ufffd" in text:
        return str(tokenizer.convert_ids_to_tokens(token))
    return str(text)
