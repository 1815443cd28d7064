"""``explain.json`` made without a model: logits are drawn, and every setting's stages computed from all of them."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tangeval.core.knobs import COMMON_AXES, KNOB, Setting
from tangeval.core.study import Study
from tangeval.results import explained as schema
from tangeval.results.files import write_text
from tangeval.results.folder import RunFolder
from tangeval.tasks.base import Dataset
from tests.support.folders import HOSTILE

STEPS, TOKENS = 9, 700


def make_explained(study: Study, data: Dataset, run: RunFolder) -> dict[str, schema.Explained]:
    """Write two ``explain.json`` into ``run``: of likely tokens, and of many as likely, along the reference."""
    own = Setting.of(temperature=0.7, top_k=5, top_p=0.6, max_length=18)
    flat = Setting.of(temperature=1.0, top_k=0, top_p=0.6, max_length=18)
    contents = {
        "test-3": _content(study, data, run, "test-3", own, spread=2.0, follows="setting"),
        "test-1": _content(study, data, run, "test-1", flat, spread=0.2, follows="reference"),
    }
    for name, content in contents.items():
        write_text(run.explain / name / schema.FILE, content.as_json())
    return contents


def _content(
    study: Study, data: Dataset, run: RunFolder, name: str, own: Setting, *, spread: float, follows: Any
) -> schema.Explained:
    example, manifest = data.by_id[name], run.manifest
    turned = {
        knob: [_turned(own, knob, value) for value in KNOB[knob].by_strength(getattr(study.decoding, knob))]
        for knob in COMMON_AXES
    }
    settings = list(dict.fromkeys([own, *(setting for row in turned.values() for setting in row)]))
    many = 3  # stages of a setting after the model's own
    chance, steps = np.random.default_rng(7), []
    for place in range(STEPS):
        logits = (chance.standard_normal(TOKENS) * spread).astype(np.float32)
        steps.append(_step(logits, chance.gumbel(size=TOKENS), np.arange(TOKENS) % 97 != place, settings))
    texts = (example.reference, *HOSTILE * 3)
    made = manifest["checkpoints"][-1]
    return schema.Explained(
        tangeval="0", study=study.name, seed=manifest["seed"],
        base_model=schema.Source(**manifest["base_model"]),
        checkpoint=schema.Source(name=made["name"], fingerprint=made["fingerprint"]),
        example_id=name, split=example.split, number=1, input=example.input, reference=example.reference,
        follows=follows, sample=0, text=example.reference, step=2, setting=own.as_dict(COMMON_AXES),
        settings=[
            schema.ExplainedSetting(
                knobs=each.as_dict(COMMON_AXES), stages=[0, *range(1 + many * at, 1 + many * (at + 1))], text=text,
                finish_reason="stop",
            )
            for at, (each, text) in enumerate(zip(settings, texts, strict=False))
        ],
        knobs=[
            schema.Turn(name=knob, settings=[settings.index(each) for each in row]) for knob, row in turned.items()
        ],
        steps=steps, vocabulary={token: _word(token) for token in range(TOKENS)},
    )  # fmt: skip


def _turned(setting: Setting, knob: str, value: float) -> Setting:
    return replace(setting, values=tuple((setting.as_dict() | {knob: value}).values()))


def _step(logits: Any, noise: Any, allowed: Any, settings: list[Setting]) -> schema.Step:
    order = np.argsort(logits, kind="stable")[::-1]
    rank = np.where(allowed[order], allowed[order].cumsum() - 1, -1)
    stages, picks = [_stage(_softmax(logits[order]), 1.0, [])], []
    for setting in settings:
        p = np.where(allowed[order], stages[0].p, 0)
        score = np.zeros(0)
        if setting.temperature:
            score = logits[order] / setting.temperature + noise[order]
            p = np.where(allowed[order], _softmax(logits[order] / setting.temperature), 0)
        mass = p.sum()
        p = p / mass if setting.temperature else np.where(rank == 0, 1.0, 0.0)
        stages.append(_stage(p, min(1.0, mass), score))
        for kept in ((rank < (setting.top_k or TOKENS)), p.cumsum() - p < setting.top_p):
            mass = p[kept].sum()
            p = np.where(kept, p, 0) / mass
            stages.append(_stage(p, min(1.0, mass), []))
        best = int(np.argmax(np.where(p > 0, score, -np.inf))) if len(score) else int(np.argmax(p))
        picks.append(schema.Pick(id=int(order[best]), score=float(score[best]) if len(score) else None))
    shown = [i for i in range(TOKENS) if i < schema.LIKELIEST or int(order[i]) in {pick.id for pick in picks}]
    return schema.Step(
        token=picks[0].id,
        candidates=[
            schema.Candidate(id=int(order[i]), rank=int(rank[i]), logit=float(logits[order[i]]), noise=float(noise[order[i]]))
            for i in shown
        ],
        stages=[
            each.model_copy(update={"p": [each.p[i] for i in shown], "score": [each.score[i] for i in shown if each.score]})
            for each in stages
        ],
        picks=picks,
    )  # fmt: skip


def _stage(p: Any, mass: float, score: Any) -> schema.Stage:
    some = p[p > 0]
    entropy = max(0.0, float(-(some * np.log(some)).sum()))
    return schema.Stage(
        kept=len(some), mass=mass, entropy=entropy, choices=math.exp(entropy), p=np.minimum(p, 1).tolist(),
        score=list(map(float, score)),
    )  # fmt: skip


def _softmax(logits: Any) -> Any:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def _word(token: int) -> str:
    """A character, or now and then what would like to be more than text."""
    return HOSTILE[token % 5] or " " if token % 3 == 0 else chr(0x5000 + token)
