"""The best setting for a fraction of the generations, by successive halving.

In: a study with a selection. Out: generations of ever fewer settings and ever more samples, in a
results folder of their own, and ``race.json``: the rounds, what they cost, and the winner, with
its values on the split that it was chosen by and on the test split. The checkpoint is chosen
first, by likelihood, which takes no decoding worth the name.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tangeval import generation
from tangeval.analysis import scoring as score
from tangeval.analysis.aggregate import Measured, groups
from tangeval.analysis.select import generation_config, knobs_of, shortfalls, shown
from tangeval.analysis.stats import spent, successive_halving
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.core.study import Selection, Study
from tangeval.core.types import Checkpoint
from tangeval.engines import make
from tangeval.engines.base import OnProgress
from tangeval.metrics import BY_NAME
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import write_json, write_parquet
from tangeval.results.folder import RunFolder

RACE = "race.json"


#: Given what is decoded next and what of it is pending; yields what is called with the progress.
Watch = Callable[[str, generation.Pending], AbstractContextManager[OnProgress]]


def race(resolved: ResolvedStudy, folder: Path, watch: Watch) -> dict[str, Any]:
    """Run the race, write ``race.json`` and return what it says; goes on where it was cut off.

    ``watch`` shows what is decoded next.

    Raises:
        TangevalError: the study selects nothing, or its checkpoint by what takes decoding; every
            checkpoint was trained on the split; no setting met what is required.
    """
    study, rule = resolved.study, resolved.study.select
    if rule is None:
        raise TangevalError("select: the study has none, so there is nothing to race for")
    if BY_NAME[rule.checkpoint].per_setting:
        raise TangevalError(
            f"select.checkpoint: {rule.checkpoint} takes every checkpoint's decoding; a race wants reference_nll"
        )
    checkpoint = _checkpoint(resolved, folder / "checkpoints", rule, watch)
    own = replace(resolved, checkpoints=(checkpoint,))
    settings = study.decoding.settings()
    samples = study.samples_of(rule.split)

    def rank(places: Sequence[int], have: int) -> list[int]:
        """Settings that meet what is required first, by value; then the others, by how far they are from it."""
        measured = _measured(own, folder, rule.split, [settings[i] for i in places], have, watch)
        # A race's settings are sorted, and so are those measured.
        value = measured.value[rule.setting.by] * (-1 if BY_NAME[rule.setting.by].better == "high" else 1)
        short = shortfalls(measured.value, rule)
        return [place for _, _, place in sorted(zip(short, value.tolist(), places, strict=True))]

    rounds = successive_halving(len(settings), samples, rank)
    (winner,) = rounds[-1].kept
    best = _measured(own, folder, rule.split, [settings[winner]], samples, watch)
    if shortfalls(best.value, rule)[0] > 0:
        raise TangevalError(
            f"select.setting.require: the race's winner {tuple(best.knobs.iloc[0])[:4]} does not meet "
            f"{rule.setting.require}; ask for less"
        )
    result: dict[str, Any] = {
        "rule": rule.model_dump(mode="json"), "checkpoint": checkpoint.name, "setting": knobs_of(best, 0),
        "rounds": [{"settings": len(r.settings), "samples": r.samples} for r in rounds],
        "spent": spent(rounds), "whole": len(settings) * samples, rule.split: shown(best, 0),
    }  # fmt: skip
    if "test" in study.splits and rule.split != "test":
        test = _measured(own, folder, "test", [settings[winner]], study.samples_of("test"), watch)
        result["test"] = shown(test, 0)
    write_json(folder / "generation_config.json", generation_config(result["setting"]))
    write_json(folder / RACE, result)
    return result


def _checkpoint(resolved: ResolvedStudy, folder: Path, rule: Selection, watch: Watch) -> Checkpoint:
    """The checkpoint that the rule chooses, of those that did not see the split."""
    unseen = tuple(c for c in resolved.checkpoints if not (resolved.seen(c) or {}).get(rule.split))
    if not unseen:
        raise TangevalError(f"select: every checkpoint was trained on {rule.split} poems")
    if len(unseen) == 1:
        return unseen[0]
    asked = replace(resolved, checkpoints=unseen)
    _generate(
        asked,
        folder,
        rule.split,
        resolved.study.decoding.settings()[:1],
        1,
        watch,
        "likelihood of checkpoints",
    )
    nll = RunFolder(folder).likelihood()
    means = nll[nll["split"] == rule.split].groupby("checkpoint")[rule.checkpoint].mean()
    return min(unseen, key=lambda c: float(means[c.name]))


def _measured(
    resolved: ResolvedStudy, folder: Path, split: str, settings: Sequence[Setting], samples: int, watch: Watch
) -> Measured:
    """What ``settings`` are worth with ``samples`` samples; what is lacking is decoded first."""
    study = _generate(
        resolved, folder, split, settings, samples, watch, f"{len(settings)} settings, {samples} samples"
    )
    scores = score.score_texts(score.read_generations(study, folder), resolved.task, resolved.dataset)
    run = RunFolder(folder)
    write_parquet(run.scores_file, scores)
    (group,) = groups(run.scores(), run.likelihood(), resolved.study.seed)
    return group.measured


def _generate(
    resolved: ResolvedStudy,
    folder: Path,
    split: str,
    settings: Sequence[Setting],
    samples: int,
    watch: Watch,
    what: str,
) -> Study:
    points = [setting.as_dict() for setting in settings]
    decoding = resolved.study.decoding.model_copy(update={"only": points})
    changes = {"splits": [split], "samples": samples, "decoding": decoding, "select": None}
    study = resolved.study.model_copy(update=changes)
    own = replace(resolved, study=study)
    with make(own) as engine:
        pending = generation.pending(own, folder, engine, overwrite=True)
        with watch(what, pending) as on_progress:
            generation.decode(own, folder, on_progress, engine=engine)
    return study
