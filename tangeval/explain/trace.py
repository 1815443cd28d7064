"""One poem, token by token: what the model offers, what the knobs leave of it, what noise picks.

In: a resolved study and what to look at (checkpoint, poem, setting, sample). Out: the content of
``explain.json`` (docs/explain.md), in plain values: the pictures and the page are drawn from it
without a model. Knows nothing of pictures.

Texts are the engine's; the logits of all their steps come from one pass over prompt and text.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tangeval import __version__
from tangeval.core.config import named_numbers, validated
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, Setting
from tangeval.core.study import Decoding
from tangeval.core.types import Checkpoint, Example
from tangeval.decoding.decoder import TokenSequence, decode
from tangeval.decoding.noise import gumbel, noise_key
from tangeval.decoding.processors import ban_repeats
from tangeval.engines import base as engine
from tangeval.models import loading as models
from tangeval.models.tokens import decode_completion, encode_completion, encode_prompt
from tangeval.resolve import ResolvedStudy
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Task

SCHEMA = 1
KNOBS = ("temperature", "top_k", "top_p")
STORED = 200  # logits kept of each step; the rest is summed up
#: Temperatures at which the rest is summed up beside the settings' own, so that a slider can stand there.
FINE = tuple(tenths / 10 for tenths in range(1, 21))
_VALUES = 7  # of a knob that are looked at
_Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Subject:
    """What is explained. With ``reference`` the steps follow the poet's text, else what the setting writes."""

    checkpoint: Checkpoint
    example: Example
    number: int  #: the poem's place in its split, from 1
    setting: Setting
    sample: int = 0
    reference: bool = False
    why: str = ""  #: where checkpoint and setting come from


@dataclass(frozen=True)
class Asked:
    """A subject as a user names it; what is None is taken from the study's selection."""

    prompt: str
    split: str = "test"
    checkpoint: str | None = None
    knobs: tuple[str, ...] = ()
    sample: int = 0
    reference: bool = False


@dataclass(frozen=True)
class Written:
    """What one setting writes: its tokens, EOS among them, and as ``generations`` has them text and finish reason."""

    tokens: list[int]
    text: str
    finish: str


@dataclass(frozen=True)
class Rest:
    """The allowed tokens that are not stored, at one temperature; all of ``logit / temperature``.

    ``log_sum`` is the log of their summed exponentials, ``mean`` the mean under the distribution
    over them, ``pick`` the one that noise likes best, ``score`` its value with the noise added.
    """

    log_sum: float
    mean: float
    pick: int
    score: float


def find(resolved: ResolvedStudy, folder: Path, asked: Asked) -> Subject:
    """Return the subject that ``asked`` names.

    Checkpoint and setting are those that ``tangeval select`` chose in ``folder``, if the study has
    them; else the last checkpoint and the first setting. ``knobs`` (``top_k=5``) change the setting.

    Raises:
        TangevalError: there is no such poem, checkpoint or knob; it names those there are.
    """
    chosen = RunFolder(folder).selection or {}
    names = {checkpoint.name: checkpoint for checkpoint in resolved.checkpoints}
    selected = chosen.get("checkpoint", {}).get("checkpoint")
    name = asked.checkpoint or (selected if selected in names else resolved.checkpoints[-1].name)
    whence = ["asked for" if asked.checkpoint else "selected" if name == selected else "the last"]
    if name not in names:
        raise TangevalError(f"--checkpoint {name}: there is none of that name; there are {', '.join(names)}")
    number, example = _poem(resolved, asked)
    settings = resolved.study.decoding.settings()
    picked = settings[0]
    if own := chosen.get("setting"):
        picked = Setting.from_row(own)
    known = bool(own) and picked in settings
    setting = _changed(picked if known else settings[0], asked.knobs)
    whence += ["selected" if known else "the grid's first", *["changed by --setting"] * bool(asked.knobs)]
    why = f"checkpoint: {whence[0]}; setting: {', '.join(whence[1:])}"
    return Subject(names[name], example, number, setting, asked.sample, asked.reference, why)


def _poem(resolved: ResolvedStudy, asked: Asked) -> tuple[int, Example]:
    examples = resolved.examples(asked.split)
    if asked.prompt.isdecimal() and 1 <= int(asked.prompt) <= len(examples):
        return int(asked.prompt), examples[int(asked.prompt) - 1]
    for number, example in enumerate(examples, 1):
        if example.id == asked.prompt:
            return number, example
    raise TangevalError(
        f"--prompt {asked.prompt}: the {asked.split} split has {len(examples)} poems; give a number from 1 to "
        f"{len(examples)}, or an id such as {examples[0].id}"
    )


def _changed(setting: Setting, knobs: Sequence[str]) -> Setting:
    """The setting with knobs changed in it (``top_k=5``)."""
    names = list(AXES)
    changes = named_numbers(knobs, "--setting", "top_k=5")
    if unknown := set(changes) - set(names):
        raise TangevalError(f"--setting {min(unknown)}: there is no such knob; there are {', '.join(names)}")
    (result,) = validated(Decoding, setting.as_dict() | changes, Path("--setting")).settings()
    return result


def around(setting: Setting, decoding: Decoding) -> dict[str, list[Setting]]:
    """Return, for each knob, ``setting`` with every value of the study's grid (at most seven), what cuts least last."""
    rows = {}
    for knob in KNOBS:
        grid = set(getattr(decoding, knob)) - {getattr(setting, knob)}
        values = sorted(
            {getattr(setting, knob), *_handful(sorted(grid))}, key=lambda v: (knob == "top_k" and v == 0, v)
        )
        rows[knob] = [setting.changed(**{knob: value}) for value in values]
    return rows


def _handful(values: list[float]) -> list[float]:
    """Some of ``values``, evenly spread, both ends among them."""
    places = np.linspace(0, len(values) - 1, min(len(values), _VALUES - 1)).round().astype(int)
    return [values[place] for place in places]


def explain(resolved: ResolvedStudy, subject: Subject, step: int | None = None) -> dict[str, Any]:
    """Return the content of ``explain.json``; ``step`` (from 1) is the one to draw, by default the first character.

    Raises:
        TangevalError: the model cannot be loaded, or the text has no such step.
    """
    load = resolved.study.loading(allow_pickle=resolved.allow_pickle)
    tokenizer = models.load_tokenizer(resolved.base)
    base = None if subject.checkpoint.kind == "full" else models.load_model(resolved.base, load)
    with models.with_checkpoint(base, subject.checkpoint, load) as model:
        return explain_with(model, tokenizer, resolved, subject, step)


@torch.inference_mode()
def explain_with(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    resolved: ResolvedStudy,
    subject: Subject,
    step: int | None = None,
) -> dict[str, Any]:
    """``explain``, with a model that is loaded already."""
    study, example = resolved.study, subject.example
    rows = around(subject.setting, study.decoding)
    settings = list(dict.fromkeys([subject.setting, *(setting for row in rows.values() for setting in row)]))
    written = _written(model, tokenizer, resolved, subject, settings)
    tokens, text = written[0].tokens, written[0].text
    if subject.reference:
        text = resolved.task.target(example)
        tokens = encode_completion(tokenizer, engine.asked(resolved, example), text)
    vocabulary: dict[int, str] = {}
    steps = _steps(model, tokenizer, resolved, subject, settings, tokens, vocabulary)
    return {
        "schema": SCHEMA, "tangeval": __version__, "study": study.name, "seed": study.seed,
        "base_model": {"name": resolved.base.name, "fingerprint": resolved.base_fingerprint},
        "checkpoint": {"name": subject.checkpoint.name, "fingerprint": resolved.fingerprints[subject.checkpoint.name]},
        "example_id": example.id, "split": example.split, "prompt": subject.number, "couplet": example.input,
        "reference": resolved.task.target(example), "follows": "reference" if subject.reference else "setting",
        "sample": subject.sample, "text": text, "step": _step(resolved.task, vocabulary, tokens, step),
        "setting": _knobs(subject.setting) | {"max_length": subject.setting.max_length},
        "no_repeat_ngram_size": study.decoding.no_repeat_ngram_size,
        "settings": [_knobs(c) | {"text": w.text, "finish_reason": w.finish} for c, w in zip(settings, written, strict=True)],
        "knobs": {knob: [settings.index(setting) for setting in row] for knob, row in rows.items()},
        "temperatures": _temperatures(settings), "steps": steps,
        "vocabulary": {str(token): vocabulary[token] for token in sorted(vocabulary)},
    }  # fmt: skip


def _knobs(setting: Setting) -> dict[str, Any]:
    return {knob: getattr(setting, knob) for knob in KNOBS}


def _temperatures(settings: Sequence[Setting]) -> list[float]:
    """Those at which the mass of the rest is stored: 1 first, then the settings' own and ``FINE``."""
    return list(
        dict.fromkeys([1.0, *sorted({*FINE, *(setting.temperature for setting in settings)} - {0.0})])
    )


def _step(task: Task, vocabulary: dict[int, str], tokens: Sequence[int], asked: int | None) -> int:
    """The step to draw, from 1."""
    if asked is None:
        return next((place for place, token in enumerate(tokens, 1) if task.characters(vocabulary[token])), 1)
    if not 1 <= asked <= len(tokens):
        raise TangevalError(
            f"--step {asked}: the text has {len(tokens)} steps (tokens); give 1 to {len(tokens)}"
        )
    return asked


def _written(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    resolved: ResolvedStudy,
    subject: Subject,
    settings: Sequence[Setting],
) -> list[Written]:
    """The tokens and the text that each setting writes, as ``tangeval generate`` would."""
    key = noise_key(resolved.study.seed, subject.example.id, subject.sample)
    sequences = list(dict.fromkeys(_token_sequence(setting, key) for setting in settings))
    eos = models.eos_ids(model, tokenizer)
    size = resolved.study.decoding.no_repeat_ngram_size
    prompt = encode_prompt(tokenizer, engine.asked(resolved, subject.example))
    decoded = decode(model, [prompt], sequences, eos=eos, no_repeat_ngram_size=size).tokens
    result = []
    for setting in settings:
        ids = decoded[sequences.index(_token_sequence(setting, key))]
        stopped = ids[-1] in eos
        text = decode_completion(tokenizer, ids[:-1] if stopped else ids, cut=not stopped)
        result.append(Written(ids, text, "stop" if stopped else "length"))
    return result


def _token_sequence(setting: Setting, key: int) -> TokenSequence:
    return TokenSequence(0, setting, key)


def _steps(
    model: Any, tokenizer: Any, resolved: ResolvedStudy, subject: Subject, settings: Sequence[Setting], tokens: list[int],
    vocabulary: dict[int, str],
) -> list[dict[str, Any]]:  # fmt: skip
    """The record of every step; the strings of the tokens named in them are added to ``vocabulary``."""
    prompt = encode_prompt(tokenizer, engine.asked(resolved, subject.example))
    history = torch.tensor([prompt + tokens], device=model.device)
    logits = model(input_ids=history[:, :-1], use_cache=False, logits_to_keep=len(tokens)).logits[0]
    key = torch.tensor([noise_key(resolved.study.seed, subject.example.id, subject.sample)])
    every = torch.arange(logits.shape[1])[None]
    steps = []
    for place, token in enumerate(tokens):
        raw, before = logits[place].float(), history[:, : len(prompt) + place]
        noise = gumbel(key, place, every)[0].numpy()
        allowed = _allowed(raw, before, resolved.study.decoding.no_repeat_ngram_size)
        steps.append(_record(raw.cpu().numpy(), allowed, noise, token, settings))
        for name in (token, *(entry[0] for entry in steps[-1]["top"]), *steps[-1]["rest"]["pick"]):
            if name not in vocabulary:
                vocabulary[name] = token_text(tokenizer, name)
    return steps


def _allowed(logits: Tensor, history: Tensor, size: int) -> NDArray[np.bool_]:
    """Which tokens would repeat no n-gram: ``[V]``."""
    kept = logits[None].clone()
    ban_repeats(kept, history, size)
    return (~torch.isneginf(kept[0])).cpu().numpy()


def _record(
    logits: _Floats, allowed: NDArray[np.bool_], noise: _Floats, token: int, settings: Sequence[Setting]
) -> dict[str, Any]:
    """One step: logits with noise and rank (-1: forbidden), the rest summed up, and what each setting leaves.

    Stored are the largest logits, what is forbidden, and the token that was written.
    """
    order = np.argsort(logits, kind="stable")[::-1]  # ties by falling id, as the sampler has them
    free = allowed[order]
    rank = np.where(free, free.cumsum() - 1, -1)
    stored = (np.arange(len(order)) < STORED) | ~free | (order == token)
    rest = order[~stored]
    sums = (
        [_rest(logits, noise, rest, temperature) for temperature in _temperatures(settings)]
        if len(rest)
        else []
    )
    return {
        "token": token,
        "top": [[int(i), _short(logits[i]), _short(noise[i]), int(r)]
                for i, r in zip(order[stored], rank[stored], strict=True)],
        "rest": {"count": len(rest)} | {field.name: [getattr(s, field.name) for s in sums] for field in fields(Rest)},
        "stages": [stages(logits[order], free, setting) for setting in settings],
    }  # fmt: skip


def _rest(logits: _Floats, noise: _Floats, rest: NDArray[np.int64], temperature: float) -> Rest:
    scaled = logits[rest] / np.float32(temperature)
    best = int((scaled + noise[rest]).argmax())
    weights = np.exp(scaled.astype(np.float64) - scaled[0])
    total = weights.sum()
    return Rest(
        _short(np.log(total) + scaled[0]), _short((weights * scaled).sum() / total), int(rest[best]),
        _short(scaled[best] + noise[rest[best]]),
    )  # fmt: skip


def stages(logits: _Floats, allowed: NDArray[np.bool_], setting: Setting) -> list[list[float]]:
    """Return how a setting changes one step's distribution, four times ``[kept, mass, entropy, largest]``.

    ``logits`` ``[V]`` fall, ties in the sampler's order. The stages are the model itself,
    temperature (repeated n-grams taken out before), top-k, top-p. ``kept`` tokens stay, of the
    stage before they held ``mass``; entropy in nats and largest probability are of what stays.
    """
    model = _softmax(logits)
    warped = logits[allowed]
    if setting.temperature == 0:
        return [
            _stage(model, 1.0),
            *[_stage(np.ones(1), share) for share in (model[allowed].max(), 1.0, 1.0)],
        ]
    heated = warped / np.float32(setting.temperature)
    first = _softmax(heated)
    kept = (
        int((heated >= heated[setting.top_k - 1]).sum()) if 0 < setting.top_k < len(heated) else len(heated)
    )
    second = first[:kept] / first[:kept].sum()
    before = np.concatenate([[0.0], second.cumsum()[:-1]])
    nucleus = max(1, int((before < setting.top_p).sum())) if setting.top_p < 1 else kept
    third = second[:nucleus] / second[:nucleus].sum()
    shares = (model[allowed].sum(), first[:kept].sum(), second[:nucleus].sum())
    return [_stage(model, 1.0), *map(_stage, (first, second, third), shares)]


def _stage(p: _Floats, mass: float) -> list[float]:
    some = p[p > 0]
    return [len(p), _short(mass), _short(max(0.0, -(some * np.log(some)).sum())), _short(p[0])]


def _softmax(logits: _Floats) -> _Floats:
    weights: _Floats = np.exp(logits.astype(np.float64) - logits[0])
    weights /= weights.sum()
    return weights


def _short(value: Any) -> float:
    """Nine significant digits: a float32 comes back as it was."""
    return float(f"{value:.9g}")


def token_text(tokenizer: Any, token: int) -> str:
    """Return what a token writes; its name where that is no text (a byte of a character, a special token)."""
    text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
    if token in tokenizer.all_special_ids or not text or "\ufffd" in text:
        return str(tokenizer.convert_ids_to_tokens(token))
    return str(text)
