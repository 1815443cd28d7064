"""Successive halving: the best setting for a fraction of the generations.

In: a study with a selection. Out: generations of ever fewer settings and ever more samples, in a results
folder of their own, and ``halving.json``: the rounds, what they cost, and the winner, with its values on its
split and on the test split. The checkpoint is chosen first, by likelihood, without decoding; then ``race`` says
what is decoded. Knows nothing of how progress is shown.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tangeval import generation
from tangeval.analysis import scoring
from tangeval.analysis.aggregate import Measured, groups
from tangeval.analysis.race import race, spent
from tangeval.analysis.select import check_metrics, generation_config, knobs_at, shortfalls, shown
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import Setting
from tangeval.core.study import Selection
from tangeval.core.types import Checkpoint
from tangeval.engines import make
from tangeval.engines.base import Engine, Job, OnProgress
from tangeval.resolve import ResolvedStudy
from tangeval.results.files import write_json, write_parquet
from tangeval.results.folder import RunFolder

#: Called for each round with what it is and what of it is pending; gives what the engine reports to.
Watch = Callable[[str, generation.Pending], AbstractContextManager[OnProgress]]


def halve(resolved: ResolvedStudy, folder: Path, watch: Watch) -> dict[str, Any]:
    """Run all rounds, write ``halving.json`` and return what it says; goes on where it was cut off.

    Raises:
        TangevalError: the study selects nothing, or its checkpoint by what takes decoding; every
            checkpoint was trained on the split; no setting met what is required.
    """
    rule, metrics = resolved.study.select, resolved.task.metrics
    if rule is None:
        raise TangevalError("select: the study has none, so there is nothing to look for")
    check_metrics(rule, metrics)
    if metrics[rule.checkpoint].per_setting:
        what = f"{rule.checkpoint} takes every checkpoint's decoding"
        raise TangevalError(f"select.checkpoint: {what}; successive halving wants reference_nll")
    with make(resolved) as engine:
        checkpoint = _best_checkpoint(resolved, RunFolder(folder / "checkpoints"), rule, engine, watch)
        rounds = _Rounds(replace(resolved, checkpoints=(checkpoint,)), folder, engine, watch)
        result = rounds.run(rule)
    run = RunFolder(folder)
    write_json(folder / run.generation_config.name, generation_config(result["setting"]))
    write_json(run.halving, result)
    return result


def _best_checkpoint(
    resolved: ResolvedStudy, run: RunFolder, rule: Selection, engine: Engine, watch: Watch
) -> Checkpoint:
    """The checkpoint that the rule chooses, of those that did not see the split."""
    unseen = tuple(c for c in resolved.checkpoints if not (resolved.seen(c) or {}).get(rule.split))
    if not unseen:
        raise TangevalError(f"select: every checkpoint was trained on {rule.split} examples")
    if len(unseen) == 1:
        return unseen[0]
    study = resolved.study.model_copy(update={"splits": [rule.split], "select": None})
    table = generation.LikelihoodTable(replace(resolved, study=study, checkpoints=unseen), run, engine)
    jobs = [Job(c, examples=tuple(lacking)) for c in unseen if (lacking := table.lacking(c))]
    with watch(f"likelihood of {len(unseen)} checkpoints", generation.Pending((), (), ())) as on_progress:
        for done in engine.run(jobs, on_progress):
            if not isinstance(done.made, list):
                raise TangevalError(f"{done.job.checkpoint.name}: {done.made}; leave it out")
            table.add(done.job.checkpoint, done.job.examples, done.made)
    table.finish()
    means = run.likelihood().groupby("checkpoint")[rule.checkpoint].mean()
    return min(unseen, key=lambda c: float(means[c.name]))


@dataclass(frozen=True)
class _Rounds:
    """One checkpoint's settings, decoded by one engine into one folder as far as they are asked for."""

    resolved: ResolvedStudy
    folder: Path
    engine: Engine
    watch: Watch

    def run(self, rule: Selection) -> dict[str, Any]:
        study = self.resolved.study
        settings, samples = study.decoding.settings(), study.samples_of(rule.split)
        poems = len({example.cluster or example.id for example in self.resolved.examples(rule.split)})

        def measure(places: Sequence[int], have: int) -> Measured:
            # Settings are sorted, and so are those measured.
            return self.measured(rule.split, [settings[place] for place in places], have)

        raced = race(len(settings), samples, poems, measure, rule, study.seed)
        winner = settings[raced.winner]
        best = self.measured(rule.split, [winner], samples)
        if shortfalls(best.value, rule)[0] > 0:
            what = f"the winner {winner.as_dict()} does not meet {rule.setting.require}"
            raise TangevalError(f"select.setting.require: {what}; ask for less")
        result: dict[str, Any] = {
            "rule": rule.model_dump(mode="json"),
            "checkpoint": self.resolved.checkpoints[0].name,
            "setting": knobs_at(best, 0),
            "rounds": [{"settings": len(r.settings), "samples": r.samples} for r in raced.rounds],
            "spent": spent(raced.rounds),
            "spent_on_correction": raced.on_top,
            "whole": len(settings) * samples,
            rule.split: shown(best, 0),
            "corrected": raced.corrected,
        }
        if "test" in study.splits and rule.split != "test":
            result["test"] = shown(self.measured("test", [winner], study.samples_of("test")), 0)
        return result

    def measured(self, split: str, settings: Sequence[Setting], samples: int) -> Measured:
        """What ``settings`` are worth with ``samples`` samples; what is lacking is decoded first."""
        grid = self.resolved.study.decoding
        points = (setting.as_dict(grid.axes).items() for setting in settings)
        # As a study's file has them: whole numbers are written as floats.
        only = [
            {axis: value if isinstance(value, str) else float(value) for axis, value in point}
            for point in points
        ]
        grid = grid.model_copy(update={"only": only})
        changes = {"splits": [split], "samples": samples, "decoding": grid, "select": None}
        own = replace(self.resolved, study=self.resolved.study.model_copy(update=changes))
        pending = generation.pending(own, self.folder, self.engine, overwrite=True)
        with self.watch(f"{len(settings)} settings, {samples} samples", pending) as on_progress:
            generation.decode(own, self.folder, on_progress, engine=self.engine)
        generations = scoring.read_generations(own.study, self.folder)
        run = RunFolder(self.folder)
        write_parquet(run.scores_file, scoring.score_texts(generations, own.task, own.dataset))
        (group,) = groups(run.scores(), run.likelihood(), own.task.metrics)
        return group.measured
