"""Scores → the best checkpoint and setting, and what cannot be told from them.

In: a results folder with scores, and the study's ``select``. Out: ``best/`` with ``selection.json`` and a
``generation_config.json`` for transformers. Chosen on one split, shown on the test split. Knows no torch.
"""

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tangeval.analysis.aggregate import Group, Measured, Part, groups
from tangeval.analysis.as_good import VARIETY, as_good, check_margins
from tangeval.analysis.differences import Pair, differences, joint_intervals
from tangeval.analysis.intervals import Floats, resample_weights
from tangeval.analysis.selection_bias import Bools, Ints, cross_fitted, folds, joint_stretch
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import axes_in, knobs_of, turned
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
            f"{selection.split} examples; say --trained-on N (the first N records of the training file), --assume-unseen, or select: null"
        )
    tuned = [name for name in seen if name != BASE]
    if tuned and all(_saw(seen[name], selection.split) for name in tuned):
        raise TangevalError(
            f"select: every checkpoint was trained on {selection.split} examples, so none can be chosen by them; "
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
        *(("select.within", name) for name in selection.within),
    ]:
        if name not in metrics:
            raise TangevalError(f"{key}: {name} is no metric; there are {', '.join(metrics)}")
        if key not in ("select.checkpoint", "select.within") and not metrics[name].per_setting:
            what = "is the same for every setting of a checkpoint"
            raise TangevalError(f"{key}: {name} {what}; take another metric")
    check_margins(selection.within, selection.prefer, metrics)


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
    (group,) = groups(run.scores(name, rule.split), run.likelihood(), run.metrics)
    place = _choose_setting(study, rule, group.measured, selection)
    if place is not None and "test" in study.splits:
        (tested,) = groups(run.scores(name, "test"), run.likelihood(), run.metrics)
        selection["test"] = shown(tested.measured, place)
    for earlier in (run.generation_config, run.selection_file, run.best_outputs):
        earlier.unlink(missing_ok=True)
    if place is not None:
        write_json(run.generation_config, generation_config(selection["setting"]))
    write_json(run.selection_file, selection)
    return selection


def _choose_checkpoint(study: Study, rule: Selection, run: RunFolder, selection: dict[str, Any]) -> str:
    """Add to ``selection`` the best checkpoint of those that did not see the split, and return its name."""
    records = {record["name"]: record for record in run.manifest["checkpoints"]}
    refused = [name for name, record in records.items() if _saw(record["seen"], rule.split)]
    # All that is kept of a checkpoint is what it is chosen by.
    wanted = {rule.checkpoint, *rule.within}
    metrics = {name: metric for name, metric in run.metrics.items() if name in wanted}
    measured = {
        group.checkpoint: _candidate(group)
        for group in groups(run.scores(split=rule.split), run.likelihood(), metrics)
        if group.checkpoint not in (RANDOM, REFERENCE)
    }
    candidates = [measured[name] for name in records if name not in refused]
    best, rest = ranked(candidates, rule.checkpoint)
    chosen, others = _taken("checkpoints", [best, *rest], rule, selection)
    name: str = chosen.labels["checkpoint"]
    selection["checkpoint"] = {
        **chosen.labels,
        "path": records[name]["path"],
        rule.checkpoint: chosen.part.value(rule.checkpoint),
        "corrected": _corrected(best, candidates, rule.checkpoint, study.seed),
    }
    selection["runners_up"]["checkpoints"] = compared(chosen, others, rule.checkpoint)
    selection["refused"] = refused
    selection["saw_test"] = (records[name]["seen"] or {}).get("test", 0)
    return name


def _choose_setting(study: Study, rule: Selection, own: Measured, selection: dict[str, Any]) -> int | None:
    """Add to ``selection`` the best setting that meets what is required, and return its place; None if none does."""
    settings = [Candidate(knobs_at(own, place), Part(own, [place])) for place in _places(own)]
    lacking = shortfalls(own.value, rule).tolist()
    allowed = [setting for setting, short in zip(settings, lacking, strict=True) if short == 0]
    if not allowed:
        nearest = sorted(zip(lacking, _places(own), strict=True))[:3]
        selection |= {"setting": None, "nearest": [shown(own, place) for _, place in nearest]}
        return None
    best, rest = ranked(allowed, rule.setting.by)
    chosen, others = _taken("settings", [best, *rest], rule, selection)
    (place,) = chosen.part.places
    selection["setting"] = chosen.labels
    selection["runners_up"]["settings"] = compared(chosen, others, rule.setting.by)
    selection[rule.split] = shown(own, place)
    selection["corrected"] = _corrected(best, settings, rule.setting.by, study.seed, rule)
    return place


#: What a preference takes of those that are as good as the best: checkpoints or settings, and what is least.
_PREFERENCES: Mapping[str, tuple[str, Callable[[Candidate], float]]] = {
    # What has no step was made last: a model saved at the end, an average.
    "earliest": ("checkpoints", lambda c: c.labels["step"] or {BASE: 0}.get(c.labels["checkpoint"], np.inf)),
    "shortest": ("settings", lambda candidate: candidate.part.value("n_tokens")),
    "most_varied": ("settings", lambda candidate: candidate.part.value(VARIETY)),
}


def _taken(
    kind: str, candidates: Sequence[Candidate], rule: Selection, selection: dict[str, Any]
) -> tuple[Candidate, list[Candidate]]:
    """The best of ``candidates``, which stand best first, or the preferred of those shown to be as good; and the others.

    ``selection`` gets a row for each candidate under ``as_good``, and the best one where another is taken.
    """
    chosen = best = candidates[0]
    metrics = best.part.measured.metrics
    margins = {m: d for m, d in rule.within.items() if kind == "checkpoints" or metrics[m].per_setting}
    if margins:
        bounds, good = as_good([candidate.part for candidate in candidates], margins)
        selection.setdefault("as_good", {})[kind] = [
            candidate.labels | {m: _number(bound[place]) for m, bound in bounds.items()} | {"as_good": bool(good[place])}
            for place, candidate in enumerate(candidates)
        ]  # fmt: skip
        wanted, key = _PREFERENCES.get(rule.prefer or "", ("", None))
        taken = [candidate for candidate, fine in zip(candidates, good, strict=True) if fine]
        if wanted == kind and taken and key:
            if np.isnan([key(candidate) for candidate in taken]).any():
                what = f"{rule.prefer} wants two samples of each example; give samples: 2"
                raise TangevalError(f"select.prefer: {what}")
            chosen = min(taken, key=key)
            selection.setdefault("best", {})[kind] = best.labels
    return chosen, [candidate for candidate in candidates if candidate is not chosen]


def chosen_outputs(generations: pd.DataFrame, selection: dict[str, Any]) -> pd.DataFrame:
    """Return the chosen checkpoint's and setting's sample 0 of each test example; the nearest setting's if none is chosen."""
    setting = selection["setting"] or selection["nearest"][0]
    wanted = {"checkpoint": selection["checkpoint"]["checkpoint"], "split": "test", "sample": 0}
    for column, value in (wanted | {knob: setting[knob] for knob in axes_in(setting)}).items():
        generations = generations[generations[column] == value]
    return generations


def _saw(counts: dict[str, int] | None, split: str) -> bool:
    return bool(counts and counts.get(split))


def _places(measured: Measured) -> list[int]:
    return list(range(len(measured.knobs)))


def _candidate(group: Group) -> Candidate:
    """A checkpoint over all of its settings."""
    measured = group.measured
    labels = {"checkpoint": group.checkpoint, "step": None if pd.isna(group.step) else int(group.step)}
    return Candidate(labels, Part(measured, _places(measured)))


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
    """Return all others beside the best: the paired difference, and whether it is real.
    ``p`` is of a randomisation test; ``p_adjusted`` and the ``joint_`` ends are for all others together.
    """
    found = differences(pairs := [Pair(best.part, other.part, metric) for other in others])
    joint = joint_intervals(pairs, found)[0] if pairs else []
    return [
        {
            **other.labels, metric: other.part.value(metric), "difference": each.value,
            "difference_low": _number(each.low), "difference_high": _number(each.high), "joint_low": _number(low),
            "joint_high": _number(high), "p": each.p, "p_adjusted": each.p_adjusted, "distinguishable": each.real,
        }
        for other, each, (low, high) in zip(others, found, joint, strict=True)
    ]  # fmt: skip


def _number(value: float) -> float | None:
    """A number as JSON has it: nothing for NaN."""
    return None if np.isnan(value) else value


def _corrected(
    winner: Candidate, candidates: Sequence[Candidate], metric: str, seed: int, rule: Selection | None = None
) -> dict[str, float | None]:
    """The winner's value by cross-fitting, and its interval, which holds after selection.

    With a ``rule``, the candidates are settings of one checkpoint, and the examples that pick meet what is
    required.
    """
    parts = [candidate.part for candidate in candidates]
    measured = parts[0].measured

    def on(weights: Floats) -> Floats:
        if rule:
            return measured.on(metric, weights)
        return np.stack([part.on(metric, weights) for part in parts], axis=1)

    def allowed(rule: Selection, weights: Floats) -> Bools:
        names = {metric, *rule.setting.require}
        met: Bools = shortfalls({name: measured.on(name, weights) for name in names}, rule) == 0
        return met

    better = measured.metrics[metric].better
    fold = folds(measured.poems, seed)
    fitted = cross_fitted(
        on, partial(put_together, parts, metric), fold, better, partial(allowed, rule) if rule else None
    )
    stretch = joint_stretch(
        on(resample_weights(measured.poems, seed)), on(np.ones((1, measured.poems)))[0], better
    )
    return after_selection(winner.part, metric, fitted.value, stretch)


def after_selection(winner: Part, metric: str, value: float, stretch: float) -> dict[str, float | None]:
    """Return a winner's corrected ``value`` with an interval that holds after selection; None for what is not known.

    It is the winner's own; its end on the worse side, for noise helped the winner, lies ``stretch`` times as far.
    """
    better = winner.measured.metrics[metric].better
    stretches = (stretch, 1) if better == "high" else (1, stretch)
    low, high = (winner.interval(metric, each)[end] for end, each in enumerate(stretches))
    if not (np.isnan(value) or np.isnan(low)):
        low, high = min(low, value), max(high, value)
    return {"value": _number(value), "low": _number(low), "high": _number(high)}


def put_together(parts: Sequence[Part], metric: str, picked: Ints) -> float:
    """Return the value of all examples together, each measured with its own candidate; −1 leaves one out, NaN all."""
    known = picked >= 0
    if not known.any():
        return np.nan
    if metric not in parts[0].measured.corpora:
        values = np.stack([part.by_poem(metric) for part in parts])
        return float(values[picked[known], np.flatnonzero(known)].sum() / parts[0].measured.size[known].sum())
    sums = sum(parts[place].counts(metric)[picked == place].sum(axis=0) for place in np.unique(picked[known]))
    return float(parts[0].measured.metrics[metric].score(sums).mean())


def shortfalls(values: Mapping[str, Floats], rule: Selection) -> Floats:
    """Return how far each setting is from meeting every requirement ``[..., C]``: 0 if it meets them all.

    ``values`` has the value ``[..., C]`` of each setting by the metric that ranks and by those required.
    """
    short = np.zeros(values[rule.setting.by].shape)
    for metric, comparison, bound in rule.setting.requirements():
        value = values[metric]
        met = _COMPARE[comparison](value, bound)
        # An equal value that fails a strict comparison is near, but does not meet it.
        short += np.where(met, 0.0, np.maximum(np.abs(value - bound), 1e-12))
    return short


def shown(measured: Measured, place: int) -> dict[str, Any]:
    """Return every metric of one setting that was measured, with its interval."""
    part = Part(measured, [place])
    content = knobs_at(measured, place) | measured.counted
    for metric in measured.metrics:
        value = part.value(metric)
        if not np.isnan(value):  # self_bleu of one sample, say
            low, high = map(_number, part.interval(metric))
            content[metric] = {"value": value, "low": low, "high": high}
    return content


def generation_config(setting: Mapping[str, Any]) -> dict[str, Any]:
    """Return the setting as transformers' GenerationConfig, all common knobs written; it warns of what has no place there."""
    kept = turned(setting)
    if lost := [knob.name for knob in kept if not knob.hf]:
        said = f"transformers has no {', '.join(lost)}, and writes other texts with this file"
        warnings.warn(f"generation_config.json: {said}", stacklevel=2)
    sampled = setting["temperature"] != 0
    return {"do_sample": sampled} | {knob.hf: setting[knob.name] for knob in kept if knob.hf}
