"""Scores → what may be said: a claim for each question that people have, and whether it is shown.

In: a results folder with scores. Out: ``verdict.json``: claims of names and numbers, which ``reporting.verdict`` puts
into words. All comparisons of all claims are one family (``questions``): whatever a study claims, it errs in 5 % of
cases at most.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from tangeval.analysis import questions
from tangeval.analysis.aggregate import Measured, groups
from tangeval.analysis.hypothesis_tests import ERROR
from tangeval.analysis.questions import Asked, Model, Question, Row
from tangeval.core.knobs import written
from tangeval.core.study import Study
from tangeval.core.types import BASE, RANDOM, REFERENCE
from tangeval.results.files import write_json
from tangeval.results.folder import RunFolder

Status = Literal["shown", "not_shown", "no_difference"]
#: Open points that are told of.
OPEN = 3


@dataclass(frozen=True)
class Claim:
    """An answer: ``key`` names its sentence, ``values`` are what that is made of, ``evidence`` are the tests."""

    question: Question
    status: Status
    key: str
    values: dict[str, Any]
    evidence: Sequence[Row]


def verdict(study: Study, run: RunFolder) -> dict[str, Any]:
    """Write ``verdict.json`` and return what it says: the split, how many examples it has, and the claims.

    Raises:
        TangevalError: there are no scores.
    """
    split = study.select.split if study.select else study.ordered_splits()[0]
    records = {record["name"]: record for record in run.manifest["checkpoints"]}
    means = {
        name: metric
        for name, metric in run.metrics.items()
        if metric.level in ("text", "reference") and metric.ranks
    }
    found = {group.checkpoint: group for group in groups(run.scores(split=split), run.likelihood(), means)}
    unseen = [name for name, each in records.items() if name in found and not (each["seen"] or {}).get(split)]
    models = [Model(name, _step(found[name].step), found[name].measured) for name in unseen]
    baselines = {name: found[name].measured for name in (RANDOM, REFERENCE) if name in found}
    asked = questions.asked_of(study, questions.measured_of_all(models, means)) if models else None
    picked = run.selection or {}
    chosen = picked.get("checkpoint", {}).get("checkpoint")
    made = claims(models, baselines, asked, chosen) if asked and asked.metrics else []
    content = {
        "split": split,
        "poems": len(baselines[REFERENCE].examples),
        "error": ERROR,
        "assumed_unseen": [name for name in unseen if records[name]["seen"] is None],
        "claims": [asdict(claim) for claim in made],
        "chosen": {knob: written(value) for knob, value in (picked.get("setting") or {}).items()},
        "chosen_by": picked["rule"]["setting"]["by"] if picked else None,
    }
    write_json(run.verdict_file, content)
    return content


def _step(step: Any) -> int | None:
    return None if pd.isna(step) else int(step)


def claims(
    models: Sequence[Model], baselines: Mapping[str, Measured], asked: Asked, chosen: str | None = None
) -> list[Claim]:
    """Return the claims about ``models``, measured on the same examples as ``random`` and ``reference``.

    ``chosen`` is the checkpoint whose settings are asked about, by default the best one of the fine-tuned.
    """
    tuned = [model for model in models if model.name != BASE] or list(models)
    leader = _best(tuned, asked.ranks)
    subject = next((model for model in models if model.name == chosen), leader)
    known = questions.measured_of_all(models, leader.measured.metrics)
    against = questions.told_apart(baselines, asked, known)
    rows = questions.tested(
        [
            *questions.helped(models, asked), *questions.checkpoints(tuned, asked.ranks), *questions.settings(subject, asked, known),
            *questions.random_texts(models, baselines, against),
        ],
        asked.margins,
    )  # fmt: skip
    made = [
        _claim_helped(rows, subject if subject.name != BASE else leader),
        _claim_checkpoint(rows, tuned, leader, asked.ranks),
        _claim_settings(rows, subject),
        _claim_random(rows, subject, baselines),
    ]
    found = [claim for claim in made if claim]
    return [*found, _claim_open(found)] if found else []


def _best(models: Sequence[Model], metric: str) -> Model:
    sign = 1 if models[0].measured.metrics[metric].better == "high" else -1
    return max(models, key=lambda model: sign * model.whole.value(metric))


def _status(shown: bool, rows: Sequence[Row]) -> Status:
    """Whether something is shown; else whether nothing worth naming is, by every metric that has a margin."""
    bounded = [row.equal for row in rows if row.equal is not None]
    return "shown" if shown else "no_difference" if bounded and all(bounded) else "not_shown"


def _of(rows: Sequence[Row], question: Question, keep: Callable[[Row], bool] = lambda row: True) -> list[Row]:
    return [row for row in rows if row.question == question and keep(row)]


def _claim_helped(rows: Sequence[Row], model: Model) -> Claim | None:
    own = _of(rows, "helped", lambda row: row.a == model.name)
    if not own:
        return None
    better, worse = ([asdict(row) for row in own if row.better == sign] for sign in (1, -1))
    status = _status(bool(better or worse), own)
    key = "mixed" if better and worse else "yes" if better else "no" if worse else status
    metrics = [row.metric for row in own if status == "not_shown" or row.equal]
    return Claim(
        "helped",
        status,
        key,
        {"checkpoint": model.name, "better": better, "worse": worse, "metrics": metrics},
        own,
    )


def _claim_checkpoint(
    rows: Sequence[Row], tuned: Sequence[Model], leader: Model, metric: str
) -> Claim | None:
    own = _of(rows, "checkpoint")
    if not own:
        return None
    beside = [row for row in own if leader.name in (row.a, row.b)]
    other = {id(row): row.b if row.a == leader.name else row.a for row in beside}
    ties = [row for row in beside if not row.better]
    key = "one" if not ties else "none" if not any(row.better for row in own) else "some"
    status = _status(not ties, own if key == "none" else ties)
    values = {
        "checkpoint": leader.name, "metric": metric, "value": leader.whole.value(metric),
        "ties": [other[id(row)] for row in ties], "worse": [other[id(row)] for row in beside if row.better],
        "from_step": _from_step(own, tuned), "margin": own[0].margin,
    }  # fmt: skip
    return Claim("checkpoint", status, key, values, own)


def _from_step(rows: Sequence[Row], tuned: Sequence[Model]) -> int | None:
    """The first step from which no checkpoint can be told from another; None if that is none, or all."""
    steps = {model.name: model.step for model in tuned if model.step is not None}
    apart = [min(steps[row.a], steps[row.b]) for row in rows if row.better and {row.a, row.b} <= steps.keys()]
    later = sorted({step for step in steps.values() if step > max(apart, default=math.inf)})
    return later[0] if len(later) > 1 else None


def _claim_settings(rows: Sequence[Row], model: Model) -> Claim | None:
    own = _of(rows, "settings")
    if not own:
        return None
    harm = []
    for knob, metric in dict.fromkeys((row.knob, row.metric) for row in own if row.better):
        lost = [row for row in own if (row.knob, row.metric) == (knob, metric) and row.better]
        most = max(lost, key=lambda row: abs(row.difference))
        best = most.a if most.better > 0 else most.b
        worse = {row.b for row in lost if row.better > 0 and row.a == best}
        worse |= {row.a for row in lost if row.better < 0 and row.b == best}
        values = list(dict.fromkeys(value for row in own if row.knob == knob for value in (row.a, row.b)))
        harm.append(
            {
                "worse": [value for value in values if value in worse],
                "values": values,
                "best": best,
                **asdict(most),
            }
        )
    quiet = [
        knob for knob in dict.fromkeys(row.knob for row in own) if knob not in {each["knob"] for each in harm}
    ]
    status = _status(bool(harm), own)
    metrics = list(
        dict.fromkeys(row.metric for row in own if status != "no_difference" or row.equal is not None)
    )
    values_ = {"checkpoint": model.name, "harm": harm, "quiet": quiet, "metrics": metrics}
    return Claim("settings", status, "yes" if harm else status, values_, own)


def _claim_random(rows: Sequence[Row], model: Model, baselines: Mapping[str, Measured]) -> Claim | None:
    own = _of(rows, "random", lambda row: row.a == model.name)
    if not own:
        return None
    far = []
    for row in own:
        reference = float(baselines[REFERENCE].value[row.metric][0])
        way = (row.value_a - row.value_b) / (reference - row.value_b)
        far.append(asdict(row) | {"reference": reference, "way": way})
    better, worse = any(row.better > 0 for row in own), any(row.better < 0 for row in own)
    status = _status(better or worse, own)
    key = "mixed" if better and worse else "yes" if better else "no" if worse else status
    return Claim("random", status, key, {"checkpoint": model.name, "far": far}, own)


def _claim_open(found: Sequence[Claim]) -> Claim:
    """What the claims leave open, and how many examples would settle it."""
    quiet = {knob for claim in found for knob in claim.values.get("quiet", ())}
    left = [
        row
        for claim in found
        for row in claim.evidence
        if row.needed and (claim.status == "not_shown" or row.knob in quiet)
    ]
    nearest: dict[tuple[str, str], Row] = {}
    for row in sorted(left, key=lambda row: row.needed or 0):
        nearest.setdefault((row.question, row.metric), row)
    told = [asdict(row) for row in nearest.values()][:OPEN]
    questions = [claim.question for claim in found if claim.status == "not_shown"]
    key = "some" if told else "unplanned" if questions else "none"
    return Claim(
        "open", "not_shown" if told or questions else "shown", key, {"open": told, "questions": questions}, []
    )
