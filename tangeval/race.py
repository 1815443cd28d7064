"""The best cell for a fraction of the generations, by successive halving.

In: a study with a selection. Out: generations of ever fewer cells and ever more samples, in a
results folder of their own, and ``race.json``: the rounds, what they cost, and the winner, with
its values on the split that it was chosen by and on the test split. The checkpoint is chosen
first, by likelihood, which takes no decoding worth the name.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tangeval import generate, score
from tangeval.metrics import BY_NAME
from tangeval.metrics.aggregate import Measured, groups
from tangeval.plan import Setup
from tangeval.progress import Decoding
from tangeval.records import Cell, Checkpoint, TangevalError
from tangeval.select import generation_config, knobs_of, shortfalls, shown
from tangeval.stats import spent, successive_halving
from tangeval.store import LIKELIHOOD, SCORES, read_parquet, read_scores, write_json, write_parquet
from tangeval.study import Selection, Study

RACE = "race.json"


Watch = Callable[[str, int], Decoding]


def race(setup: Setup, folder: Path, watch: Watch) -> dict[str, Any]:
    """Run the race, write ``race.json`` and return what it says; goes on where it was cut off.

    ``watch`` is given what is decoded next and how many streams, and shows it.

    Raises:
        TangevalError: the study selects nothing, or its checkpoint by what takes decoding; every
            checkpoint was trained on the split; no cell met what is required.
    """
    study, rule = setup.study, setup.study.select
    if rule is None:
        raise TangevalError("select: the study has none, so there is nothing to race for")
    if BY_NAME[rule.checkpoint].per_cell:
        raise TangevalError(
            f"select.checkpoint: {rule.checkpoint} takes every checkpoint's decoding; a race wants reference_nll"
        )
    checkpoint = _checkpoint(setup, folder / "checkpoints", rule, watch)
    own = replace(setup, checkpoints=(checkpoint,))
    cells = study.decoding.cells()
    samples = study.samples_of(rule.split)

    def rank(places: Sequence[int], have: int) -> list[int]:
        """Cells that meet what is required first, by value; then the others, by how far they are from it."""
        measured = _measured(own, folder, rule.split, [cells[i] for i in places], have, watch)
        # A race's cells are sorted, and so are those measured.
        value = measured.value[rule.cell.by] * (-1 if BY_NAME[rule.cell.by].better == "high" else 1)
        short = shortfalls(measured.value, rule)
        return [place for _, _, place in sorted(zip(short, value.tolist(), places, strict=True))]

    rounds = successive_halving(len(cells), samples, rank)
    (winner,) = rounds[-1].kept
    best = _measured(own, folder, rule.split, [cells[winner]], samples, watch)
    if shortfalls(best.value, rule)[0] > 0:
        raise TangevalError(
            f"select.cell.require: the race's winner {tuple(best.knobs.iloc[0])[:4]} does not meet "
            f"{rule.cell.require}; ask for less"
        )
    result: dict[str, Any] = {
        "rule": rule.model_dump(mode="json"), "checkpoint": checkpoint.name, "cell": knobs_of(best, 0),
        "rounds": [{"cells": len(r.cells), "samples": r.samples} for r in rounds],
        "spent": spent(rounds), "whole": len(cells) * samples, rule.split: shown(best, 0),
    }  # fmt: skip
    if "test" in study.splits and rule.split != "test":
        test = _measured(own, folder, "test", [cells[winner]], study.samples_of("test"), watch)
        result["test"] = shown(test, 0)
    write_json(folder / "generation_config.json", generation_config(result["cell"]))
    write_json(folder / RACE, result)
    return result


def _checkpoint(setup: Setup, folder: Path, rule: Selection, watch: Watch) -> Checkpoint:
    """The checkpoint that the rule chooses, of those that did not see the split."""
    unseen = tuple(c for c in setup.checkpoints if not (setup.seen(c) or {}).get(rule.split))
    if not unseen:
        raise TangevalError(f"select: every checkpoint was trained on {rule.split} poems")
    if len(unseen) == 1:
        return unseen[0]
    asked = replace(setup, checkpoints=unseen)
    _generate(
        asked, folder, rule.split, setup.study.decoding.cells()[:1], 1, watch, "likelihood of checkpoints"
    )
    nll = read_parquet(folder / LIKELIHOOD)
    means = nll[nll["split"] == rule.split].groupby("checkpoint")[rule.checkpoint].mean()
    return min(unseen, key=lambda c: float(means[c.name]))


def _measured(
    setup: Setup, folder: Path, split: str, cells: Sequence[Cell], samples: int, watch: Watch
) -> Measured:
    """What ``cells`` are worth with ``samples`` samples; what is lacking is decoded first."""
    study = _generate(setup, folder, split, cells, samples, watch, f"{len(cells)} cells, {samples} samples")
    scores = score.score_texts(score.read_generations(study, folder), setup.dataset)
    write_parquet(folder / SCORES, scores)
    (group,) = groups(*read_scores(folder), setup.study.seed)
    return group.measured


def _generate(
    setup: Setup, folder: Path, split: str, cells: Sequence[Cell], samples: int, watch: Watch, what: str
) -> Study:
    points = [(c.temperature, c.top_k, c.top_p, c.max_length) for c in cells]
    decoding = setup.study.decoding.model_copy(update={"only": points})
    changes = {"splits": [split], "samples": samples, "decoding": decoding, "select": None}
    study = setup.study.model_copy(update=changes)
    own = replace(setup, study=study)
    waves, _ = generate.plan(own, folder)
    pending = [wave for wave in waves if not wave.shard(folder).is_file()]
    with watch(what, sum(wave.streams() for wave in pending)) as progress:
        generate.generate(own, folder, progress.advance)
    return study
