"""Scores → the best checkpoint and setting, and what cannot be told from them.

In: a results folder with scores, and the study's ``select``. Out: ``best/`` with ``selection.json`` and a
``generation_config.json`` for transformers. Chosen on one split, shown on the test split. Knows no torch.
"""

import operator
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Group, Measured, Part, groups
from tangeval.analysis.hypothesis_tests import ERROR, flips_for, holm, sign_flip_p
from tangeval.analysis.intervals import LEVEL, Floats
from tangeval.analysis.selection_bias import Bools, cross_fitted, folds, joint_level
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, KNOBS, knobs_of
from tangeval.core.study import Selection, Study
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.metrics.base import Metrics
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder

_COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}


@dataclass(frozen=True)
class Candidate:
    """One thing that can be chosen: a checkpoint over all of its settings, or one setting."""

    labels: dict[str, Any]
    part: Part


def check_selection(
    selection: Selection, metrics: Metrics, seen: Mapping[str, dict[str, int] | None], *, assume_unseen: bool
) -> None:
    """Refuse, before anything runs, a selection that could not be trusted or understood.

    ``seen`` says for each checkpoint how many examples of each split it was fine-tuned on.

    Raises:
        TangevalError: as ``check_metrics``; or every checkpoint saw the split, or one keeps no record.
    """
    check_metrics(selection, metrics)
    if not assume_unseen and (unknown := [name for name, counts in seen.items() if counts is None]):
        raise TangevalError(
            f"select: {', '.join(unknown)} keep no train_ids.json, so they may have been trained on the "
            f"{selection.split} poems; give --assume-unseen if you know that they were not, or select: null"
        )
    tuned = [name for name in seen if name != BASE]
    if tuned and all(_saw(seen[name], selection.split) for name in tuned):
        raise TangevalError(
            f"select: every checkpoint was trained on {selection.split} poems, so none can be chosen by them; "
            "fine-tune with include_validation: false, or select: null"
        )


def check_metrics(selection: Selection, metrics: Metrics) -> None:
    """Refuse a selection by what is no metric, or by one that cannot tell settings apart.

    Raises:
        TangevalError: naming the key and the metrics there are.
    """
    for key, name in [
        ("select.checkpoint", selection.checkpoint),
        ("select.setting.by", selection.setting.by),
        *(("select.setting.require", name) for name in selection.setting.require),
    ]:
        if name not in metrics:
            raise TangevalError(f"{key}: {name} is no metric; there are {', '.join(metrics)}")
        if key != "select.checkpoint" and not metrics[name].per_setting:
            what = "is the same for every setting of a checkpoint"
            raise TangevalError(f"{key}: {name} {what}; take another metric")


def select(study: Study, run: RunFolder) -> dict[str, Any]:
    """Choose as the study says, write ``best/`` and return what ``selection.json`` says.

    The checkpoint is chosen first, then the setting among its own. Where no setting meets what is
    required, none is chosen and the nearest are named.

    Raises:
        TangevalError: the study has no ``select``, or there are no scores.
    """
    rule = study.select
    if rule is None:
        raise TangevalError("select: the study has none; write one into its file")
    check_metrics(rule, run.metrics)
    selection: dict[str, Any] = {"rule": rule.model_dump(mode="json"), "checkpoint": {}, "runners_up": {}}
    name = _choose_checkpoint(study, rule, run, selection)
    (group,) = groups(run.scores(name, rule.split), run.likelihood(), run.metrics, study.seed)
    place = _choose_setting(study, rule, group.measured, selection)
    if place is not None and "test" in study.splits:
        (tested,) = groups(run.scores(name, "test"), run.likelihood(), run.metrics, study.seed)
        selection["test"] = shown(tested.measured, place)
    shutil.rmtree(run.best, ignore_errors=True)  # what an earlier choice left there
    if place is not None:
        write_json(run.generation_config, generation_config(selection["setting"]))
    write_json(run.selection_file, selection)
    return selection


def _choose_checkpoint(study: Study, rule: Selection, run: RunFolder, selection: dict[str, Any]) -> str:
    """Add to ``selection`` the best checkpoint of those that did not see the split, and return its name."""
    records = {record["name"]: record for record in run.manifest["checkpoints"]}
    refused = [name for name, record in records.items() if _saw(record["seen"], rule.split)]
    # All that is kept of a checkpoint is what it is chosen by.
    measured = {
        group.checkpoint: _candidate(group, rule.checkpoint)
        for group in groups(run.scores(split=rule.split), run.likelihood(), run.metrics, study.seed)
        if group.checkpoint not in (RANDOM, REFERENCE)
    }
    candidates = [measured[name] for name in records if name not in refused]
    chosen, others = ranked(candidates, rule.checkpoint)
    name: str = chosen.labels["checkpoint"]
    selection["checkpoint"] = {
        **chosen.labels,
        "path": records[name]["path"],
        rule.checkpoint: chosen.part.value(rule.checkpoint),
        "corrected": _corrected(chosen, candidates, rule.checkpoint, study.seed),
    }
    selection["runners_up"]["checkpoints"] = compared(chosen, others, rule.checkpoint)
    selection["refused"] = refused
    selection["saw_test"] = (records[name]["seen"] or {}).get("test", 0)
    return name


def _choose_setting(study: Study, rule: Selection, own: Measured, selection: dict[str, Any]) -> int | None:
    """Add to ``selection`` the best setting that meets what is required, and return its place; None if none does."""
    settings = [Candidate(knobs_at(own, place), Part(own, [place])) for place in _places(own)]
    lacking = shortfalls(own.value, rule)
    allowed = [setting for setting, short in zip(settings, lacking, strict=True) if short == 0]
    if not allowed:
        nearest = sorted(zip(lacking, _places(own), strict=True))[:3]
        selection |= {"setting": None, "nearest": [shown(own, place) for _, place in nearest]}
        return None
    best, rest = ranked(allowed, rule.setting.by)
    (place,) = best.part.places
    selection["setting"] = best.labels
    selection["runners_up"]["settings"] = compared(best, rest, rule.setting.by)
    selection[rule.split] = shown(own, place)
    selection["corrected"] = _corrected(best, settings, rule.setting.by, study.seed, rule)
    return place


def chosen_outputs(generations: pd.DataFrame, selection: dict[str, Any]) -> pd.DataFrame:
    """Return the chosen checkpoint's and setting's sample 0 of each test example; the nearest setting's if none is chosen."""
    setting = selection["setting"] or selection["nearest"][0]
    wanted = {"checkpoint": selection["checkpoint"]["checkpoint"], "split": "test", "sample": 0}
    for column, value in (wanted | {knob: setting[knob] for knob in AXES}).items():
        generations = generations[generations[column] == value]
    return generations


def _saw(counts: dict[str, int] | None, split: str) -> bool:
    return bool(counts and counts.get(split))


def _places(measured: Measured) -> list[int]:
    return list(range(len(measured.knobs)))


def _candidate(group: Group, metric: str) -> Candidate:
    """A checkpoint over all of its settings, with what was measured by one metric."""
    measured, tables = group.measured, ("value", "by_poem", "resampled")
    only: Any = {t: {m: v for m, v in getattr(measured, t).items() if m == metric} for t in tables}
    labels = {"checkpoint": group.checkpoint, "step": None if pd.isna(group.step) else int(group.step)}
    return Candidate(labels, Part(replace(measured, **only), _places(measured)))


def knobs_at(measured: Measured, place: int) -> dict[str, Any]:
    """Return the knobs of one setting, as JSON has them."""
    return knobs_of(measured.knobs.loc[place].to_dict())


def ranked(candidates: Sequence[Candidate], metric: str) -> tuple[Candidate, list[Candidate]]:
    """Return the best and the others, best first; of equals, the first in order.

    Raises:
        TangevalError: the metric was not measured for one of them.
    """
    if any(np.isnan(c.part.value(metric)) for c in candidates):
        raise TangevalError(f"select: {metric} was not measured for every candidate; run the study again")
    sign = -1 if candidates[0].part.measured.metrics[metric].better == "high" else 1
    first, *others = sorted(candidates, key=lambda c: sign * c.part.value(metric))
    return first, others


def compared(best: Candidate, others: Sequence[Candidate], metric: str) -> list[dict[str, Any]]:
    """Return all others beside the best: the paired difference, and whether it is significant.

    ``p`` is a sign-flip permutation's over examples, ``p_holm`` corrected for the number of others.
    """
    if not others:
        return []
    differences = [best.part.by_poem(metric) - other.part.by_poem(metric) for other in others]
    p = sign_flip_p(np.stack(differences, axis=1), flips_for(len(others)), seed=0)
    rows = []
    for other, own, corrected in zip(others, p, holm(p), strict=True):
        low, high = best.part.difference_interval(other.part, metric)
        value = other.part.value(metric)
        rows.append(
            {
                **other.labels, metric: value, "difference": best.part.value(metric) - value,
                "difference_low": low, "difference_high": high, "p": float(own), "p_holm": float(corrected),
                "distinguishable": bool(corrected < ERROR),
            }
        )  # fmt: skip
    return rows


def _corrected(
    winner: Candidate, candidates: Sequence[Candidate], metric: str, seed: int, rule: Selection | None = None
) -> dict[str, float | None]:
    """The winner's value by cross-fitting, and its joint interval, widened where it does not hold the value.

    With a ``rule``, the candidates are settings of one checkpoint, and the examples that pick meet what is
    required.
    """
    by_poem = np.stack([candidate.part.by_poem(metric) for candidate in candidates])

    def allowed(rest: Bools) -> Bools:
        assert rule
        by_poem = winner.part.measured.by_poem
        values = {m: by_poem[m][rest].mean(axis=0) for m, _, _ in rule.setting.requirements()}
        met: Bools = np.array(shortfalls(values, rule, len(candidates))) == 0
        return met

    better = winner.part.measured.metrics[metric].better
    fitted = cross_fitted(by_poem, folds(by_poem.shape[1], seed), better, allowed if rule else None)
    joint = joint_level(by_poem, seed)
    # Noise helped the winner: the end on the worse side is that of all candidates at once.
    levels = (joint, LEVEL) if better == "high" else (LEVEL, joint)
    low, high = (winner.part.interval(metric, level)[end] for end, level in enumerate(levels))
    if np.isnan(fitted.value):
        return {"value": None, "low": low, "high": high}
    # Corpus BLEU near 0 is skewed, and the examples' parts of it are not: the value may lie outside.
    return {"value": fitted.value, "low": min(low, fitted.value), "high": max(high, fitted.value)}


def shortfalls(values: Mapping[str, Floats], rule: Selection, settings: int | None = None) -> list[float]:
    """Return how far each setting is from meeting every requirement: 0 if it meets them all.

    ``values`` has each required metric's value of each setting ``[C]``.
    """
    short = np.zeros(settings or len(values[rule.setting.by]))
    for metric, comparison, bound in rule.setting.requirements():
        value = values[metric]
        met = _COMPARE[comparison](value, bound)
        # An equal value that fails a strict comparison is near, but does not meet it.
        short += np.where(met, 0.0, np.maximum(np.abs(value - bound), 1e-12))
    return [float(s) for s in short]


def shown(measured: Measured, place: int) -> dict[str, Any]:
    """Return every metric of one setting that was measured, with its interval."""
    part = Part(measured, [place])
    content = knobs_at(measured, place) | {"poems": measured.poems, "samples": measured.samples}
    for metric in measured.metrics:
        value = part.value(metric)
        if not np.isnan(value):  # self_bleu of one sample, say
            low, high = part.interval(metric)
            content[metric] = {"value": value, "low": low, "high": high}
    return content


def generation_config(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setting as transformers' GenerationConfig; every knob is written, for its defaults are others."""
    greedy = setting["temperature"] == 0
    left_out = ("scale", "cut") if greedy else ()
    return {"do_sample": not greedy} | {k.hf: setting[k.name] for k in KNOBS if k.kind not in left_out}
