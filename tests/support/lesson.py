"""An ``explain.json`` made without a model: logits given, the rest by the project's own code, and what a setting truly picks."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tangeval.core.knobs import Setting
from tangeval.core.study import Study
from tangeval.explain import figures as lessons
from tangeval.explain import trace as explain
from tangeval.results.files import read_json, write_json
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang.text import as_verse
from tests.support.folders import HOSTILE

STEPS, TOKENS = 9, 700


@dataclass(frozen=True)
class Lesson:
    """What was written, and the token that each of its settings picks at each step, from all logits."""

    content: dict[str, Any]
    picks: list[list[int]]


def make_lesson(
    study: Study, data: Dataset, folder: Path, example: str, *, setting: Setting, spread: float, reference: bool = False
) -> Lesson:  # fmt: skip
    """Write ``explain/EXAMPLE/explain.json`` of the last checkpoint of the manifest; ``spread`` is that of the logits."""
    manifest, own = read_json(folder / "manifest.json"), data.by_id[example]
    rows = explain.around(setting, study.decoding)
    settings = list(dict.fromkeys([setting, *(each for row in rows.values() for each in row)]))
    chance = np.random.default_rng(7)
    steps, picks = [], []
    for place in range(STEPS):
        logits = (chance.standard_normal(TOKENS) * spread).astype(np.float32)
        noise = chance.gumbel(size=TOKENS).astype(np.float32)
        logits[11] = np.sort(logits)[-2]  # two that tie
        allowed = np.arange(TOKENS) % 97 != place
        picks.append([_pick(logits, noise, allowed, each) for each in settings])
        token = int(logits.argmax()) if reference else picks[-1][0]
        steps.append(explain._record(logits, allowed, noise, token, settings))
    settings = [asdict(each) | {"text": text, "finish_reason": "stop"} for each, text in zip(
        settings, (as_verse(own.reference), *HOSTILE, *HOSTILE), strict=False)]  # fmt: skip
    checkpoint = manifest["checkpoints"][-1]
    content = {
        "schema": lessons.SCHEMA, "tangeval": "0", "study": study.name, "seed": manifest["seed"],
        "base_model": manifest["base_model"],
        "checkpoint": {"name": checkpoint["name"], "fingerprint": checkpoint["fingerprint"]},
        "example_id": example, "split": own.split, "prompt": 1, "couplet": own.input,
        "reference": as_verse(own.reference), "follows": "reference" if reference else "setting", "sample": 0,
        "text": settings[0]["text"], "step": 2, "setting": setting.as_dict(), "no_repeat_ngram_size": 0,
        "settings": settings, "knobs": {knob: [settings.index(each) for each in row] for knob, row in rows.items()},
        "temperatures": explain._temperatures(settings), "steps": steps,
        "vocabulary": {str(token): _word(token) for token in range(TOKENS)},
    }  # fmt: skip
    write_json(folder / "explain" / example / lessons.FILE, content)
    return Lesson(content, picks)


def _word(token: int) -> str:
    """A character, or now and then what would like to be more than text."""
    return HOSTILE[token % 5] or " " if token % 3 == 0 else chr(0x5000 + token)


def _pick(logits: Any, noise: Any, allowed: Any, setting: Setting) -> int:
    """The token that the sampler picks, by all logits: those that ``explain.stages`` says stay, the luckiest of them."""
    order = np.argsort(logits, kind="stable")[::-1]
    free = order[allowed[order]]
    kept = free[: int(explain.stages(logits[order], allowed[order], setting)[3][0])]
    if setting.temperature == 0:
        return int(kept[0])
    return int(kept[(logits[kept] / np.float32(setting.temperature) + noise[kept]).argmax()])


def make_lessons(study: Study, data: Dataset, folder: Path) -> dict[str, Lesson]:
    """One whose cuts lie among the stored logits, and one, flat, whose top-p does not; the latter follows the poet."""
    return {
        "test-3": make_lesson(
            study,
            data,
            folder,
            "test-3",
            setting=Setting.of(temperature=0.7, top_k=5, top_p=0.6, max_length=18),
            spread=2.0,
        ),
        "test-1": make_lesson(
            study,
            data,
            folder,
            "test-1",
            setting=Setting.of(temperature=1.0, top_k=0, top_p=0.6, max_length=18),
            spread=0.2,
            reference=True,
        ),
    }
