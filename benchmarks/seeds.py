"""What another training seed would say: recipes that were trained several times, over poems and over runs.

    python -m benchmarks.seeds results/seeds     # keeps each run's value of each poem
    python -m benchmarks.seeds                   # prints the tables of docs/findings.md from what is kept

(a) How far runs of a recipe are apart: their range, and τ, with its interval; and how many pairs of runs that differ in
    their seed alone a test over poems calls different (Student's t, paired, p < 0.05).
(b) Differences, with 95 % intervals over poems alone and over poems and runs. Steps of one training are compared
    within each run.
(c) How many runs of either recipe show a difference of a size with 80 % power on these poems.
"""

import shutil
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pandas as pd

from benchmarks import reference
from benchmarks.command import command_line
from tangeval.analysis.compare import measure_all
from tangeval.analysis.hypothesis_tests import ERROR
from tangeval.analysis.intervals import Floats
from tangeval.analysis.recipes import between_runs, estimate, runs_needed
from tangeval.results.folder import RunFolder

KEPT = Path("results/reference/seeds/poems.csv.xz")
METRICS = ("reference_nll", "form", "rhyme", "length_match", "bleu", "chrf")
SPLITS = ("validation", "test")
POWER = 0.8
#: Recipes at a step.
HW5, DEFAULT, FULL = ("hw5", 65), ("default", 65), ("full", 453)
AT_405, AT_360 = ("full", 405), ("full", 360)
EFFECTS = {
    "reference_nll": 0.05,
    "form": 0.05,
    "rhyme": 0.02,
    "length_match": 0.05,
    "bleu": 0.02,
    "chrf": 0.1,
}
Recipe = tuple[str, int]


def keep(folder: Path, out: Path) -> None:
    """Write each run's value of each poem, means over settings and samples (of BLEU pseudo-values), to five digits.

    Beside it stands what is kept of any results folder, but for what is of settings and not of runs.
    """
    reference.keep(folder, out.parent)
    for place in ("figures", "tables"):
        shutil.rmtree(out.parent / place)
    for file in ("effects.csv", "variance.csv"):
        (out.parent / file).unlink()
    shutil.copyfile(folder / "recipes.csv", out.parent / "recipes.csv")
    names = [one["name"] for one in RunFolder(folder).manifest["checkpoints"] if "recipe" in one]
    frames = []
    for split in SPLITS:
        for name, item in zip(names, measure_all([f"{folder}:{name}" for name in names], split), strict=True):
            values = {metric: item.part.centred(metric) for metric in METRICS}
            about = {"checkpoint": name, "split": split, "example_id": item.part.measured.examples}
            frames.append(pd.DataFrame(about | values))
    pd.concat(frames).to_csv(out, index=False, float_format="%.5g")


class Kept:
    """What ``keep`` wrote of a split."""

    def __init__(self, file: Path, split: str) -> None:
        frame = pd.read_csv(file)
        self.frame = frame[frame["split"] == split]

    def runs(self, recipe: Recipe, metric: str) -> Floats:
        """Return a recipe's values ``[k, P]``, a row for each run."""
        name, step = recipe
        here = self.frame[self.frame["checkpoint"].str.fullmatch(rf"{name}-seed\d+/checkpoint-{step}")]
        return here.pivot(index="checkpoint", columns="example_id", values=metric).to_numpy(float)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{' --- |' * len(list(columns))}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def apart(kept: Kept, recipe: Recipe, metric: str) -> list[str]:
    values = kept.runs(recipe, metric)
    means, (tau, low, high) = values.mean(axis=1), between_runs(values)
    pairs = [estimate(a, b).p < ERROR for a, b in combinations(values, 2)]
    both, poems = estimate(values), estimate(values.mean(axis=0))
    halves = [f"±{(each.high - each.low) / 2:.3f}" for each in (poems, both)]
    return [
        metric, f"{recipe[0]}@{recipe[1]}", f"{means.min():.3f} to {means.max():.3f}", f"{values.mean():.3f}", *halves,
        f"{tau:.4f} [{low:.4f}, {high:.4f}]", f"{sum(pairs)} of {len(pairs)}",
    ]  # fmt: skip


def difference(kept: Kept, first: Recipe, second: Recipe, metric: str) -> list[str]:
    a, b = kept.runs(first, metric), kept.runs(second, metric)
    poems = estimate(a.mean(axis=0), b.mean(axis=0))
    both = estimate(a - b) if first[0] == second[0] else estimate(a, b)
    ends = [f"[{each.low:+.3f}, {each.high:+.3f}]" for each in (poems, both)]
    what = f"{first[0]}@{first[1]} less {second[0]}@{second[1]}"
    return [what, metric, f"{both.value:+.3f}", *ends, f"{both.p:.2g}"]


def needed(kept: Kept, first: Recipe, second: Recipe, metric: str) -> list[str]:
    spread, effect = estimate(kept.runs(first, metric), kept.runs(second, metric)).spread, EFFECTS[metric]
    return [f"{first[0]}@{first[1]}, {second[0]}@{second[1]}", metric, f"{effect:g}",
            f"{runs_needed(spread, effect, POWER):g}"]  # fmt: skip


def main() -> None:
    parser = command_line(__file__, __doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="keep this results folder's values")
    parser.add_argument("--kept", type=Path, default=KEPT)
    options = parser.parse_args()
    if options.folder:
        keep(options.folder, options.kept)
        return
    pairs = ((DEFAULT, HW5), (FULL, DEFAULT), (AT_360, FULL), (AT_405, FULL))
    for split in SPLITS:
        kept = Kept(options.kept, split)
        recipes = (HW5, DEFAULT, AT_360, AT_405, FULL)
        columns = (
            "metric",
            "recipe",
            "runs",
            "mean",
            "over poems",
            "poems and runs",
            "τ",
            "alike runs told apart",
        )
        table(f"(a) {split}", columns, (apart(kept, each, metric) for metric in METRICS for each in recipes))
        columns = ("", "metric", "difference", "over poems", "poems and runs", "p")
        table(
            f"(b) {split}", columns, (difference(kept, *pair, metric) for pair in pairs for metric in METRICS)
        )
    kept = Kept(options.kept, "validation")
    planned = ((DEFAULT, HW5), (FULL, AT_405))
    rows = (needed(kept, *pair, metric) for pair in planned for metric in METRICS)
    table("(c) runs of each", ("spread of", "metric", "size", "runs"), rows)


if __name__ == "__main__":
    main()
