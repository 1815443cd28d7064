"""When to stop a training: false stops, steps saved, and what the kept checkpoint is worth.

    python -m benchmarks.stopping [--quick]                     # made-up trainings, and those that are kept
    python -m benchmarks.stopping finetune/configs/overfit.yaml [key=value …] [--seeds 20]       # trains these anew

Made up are trainings whose truth is known. Trained are the seeds of a configuration: some of its validation poems decide as
training goes on, and the others say what the kept step is worth; or poems are drawn anew, and all poems are the truth. Beside
each stands what could be reached by who knows the best step. What is there is not made again.
"""

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import special

from benchmarks.command import command_line
from tangeval import api
from tangeval.analysis.compare import measure_all
from tangeval.analysis.intervals import Floats, mean_interval
from tangeval.analysis.scoring import score
from tangeval.analysis.selection_bias import Bools
from tangeval.analysis.stopping import falls
from tangeval.results.files import write_text

KEPT = Path("results/reference/stopping/poems.csv.xz")
METRICS = ("reference_nll", "chrf", "form", "rhyme", "shared_pairs")
LOWER = {"reference_nll"}  #: is better
PATIENCE, ALPHA = 3, 0.05
DECIDING, PARTED = 30, 10  #: poems that decide, drawn so often
ANEW, DRAWN = (15, 30, 60), 30  #: poems that decide where they are drawn anew, and how often
EVALUATIONS, EXAMPLES, TRAININGS = 20, (15, 30, 100), 100
LAWS = ("normal", "pass or fail", "skewed")
_STEP = np.arange(EVALUATIONS)
_RISE = 0.8 * (1 - np.exp(-_STEP / 4))
#: Made-up truths, in standard deviations between examples, and how alike an example's luck is at adjacent steps.
TRUTHS: dict[str, tuple[Floats, float]] = {
    "flat": (0.0 * _STEP, 0.8),
    "flat, steps independent": (0.0 * _STEP, 0.0),
    "rises": (0.05 * _STEP, 0.8),
    "rises and stays": (_RISE, 0.8),
    "every third as good, the others worse": (-1.0 * (_STEP % 3 != 0), 0.8),
    "rises, falls slowly": (_RISE - 0.05 * np.maximum(_STEP - 6, 0), 0.8),
    "rises, falls": (_RISE - 0.15 * np.maximum(_STEP - 6, 0), 0.8),
    "goes up and down": (0.1 * np.random.default_rng(0).normal(size=EVALUATIONS), 0.8),
}
#: How each save is evaluated.
STUDY: dict[str, Any] = {
    "include_base": False,
    "load": {"merge": True},
    "splits": ["validation"],
    "decoding": {"temperature": 0.7, "max_length": 64},
    "samples": 2,
    "select": None,
}


def train(file: Path, overrides: list[str], seed: int, poems: int) -> Path:
    """Train one seed and evaluate every save, as far as that is not done; return the results folder."""
    from finetune.__main__ import finetune
    from finetune.config import load_config
    from tangeval.cli.progress import make_console

    config = load_config(file, overrides)
    folder = Path(f"{config.output_dir}-seed{seed}")
    finetune(config.model_copy(update={"seed": seed, "output_dir": str(folder)}), make_console())
    study = STUDY | {
        "name": folder.name, "base_model": config.base_model, "checkpoints": str(folder),
        "data": {"path": config.data, "validation": poems},
    }  # fmt: skip
    write_text(folder / "study.yaml", yaml.safe_dump(study))
    results = api.generate(folder / "study.yaml", options=api.Options(out=folder / "results"))
    if not results.run.scores_file.is_file():
        score(results.study, results.dataset, results.folder)
    return results.folder


def values(folder: Path, seed: int) -> pd.DataFrame:
    """Each poem's value at each step, means over settings and samples."""
    checkpoints = api.load_results(folder).run.manifest["checkpoints"]
    items = measure_all([f"{folder}:{each['name']}" for each in checkpoints], "validation")
    frames = [
        pd.DataFrame({
            "seed": seed, "step": each["step"], "example_id": item.part.measured.examples,
            **{metric: item.part.by_poem(metric) for metric in METRICS},
        })
        for each, item in zip(checkpoints, items, strict=True)
    ]  # fmt: skip
    return pd.concat(frames)


def made_up(law: str, truth: Floats, alike: float, examples: int, seed: int) -> Floats:
    """Scores ``[T, P]``: examples differ, and each has luck of half that size at a step."""
    draw = np.random.default_rng([seed, examples])
    luck = draw.normal(size=(len(truth), examples))
    for now in range(1, len(truth)):
        luck[now] = alike * luck[now - 1] + np.sqrt(1 - alike**2) * luck[now]
    latent: Floats = truth[:, None] + draw.normal(size=examples) + luck / 2
    if law == "pass or fail":
        passed: Floats = (latent[..., None] + draw.normal(size=(*latent.shape, 2)) > 0).mean(axis=2)
        return passed
    return -np.exp(-latent) if law == "skewed" else latent


def worth(law: str, truth: Floats) -> Floats:
    """The expected score at each step."""
    if law == "pass or fail":
        found: Floats = special.ndtr(truth / 1.5)  # 1 + 1/4 + 1 is the latent variance
        return found
    return -np.exp(-truth + 1.25 / 2) if law == "skewed" else truth


def ended(scores: Floats) -> tuple[int, int | None]:
    """The evaluation that is kept, and the one that stopped the training, as one call after another decides."""
    return kept_and_stop(scores, falls(scores, PATIENCE, ALPHA))


def kept_and_stop(scores: Floats, shown: Bools) -> tuple[int, int | None]:
    bests = [int(scores[: now + 1].mean(axis=1).argmax()) for now in range(len(scores))]
    stop = next((now for now, best in enumerate(bests) if shown[now, best]), None)
    return bests[-1 if stop is None else stop], stop


def one_by_one(scores: Floats) -> tuple[int, int | None]:
    """The same where each evaluation is tested by itself, so that any that is wrongly called worse counts as an error."""
    worse = falls(scores, 1, ALPHA)
    shown = np.zeros_like(worse)
    for now in range(PATIENCE, len(worse)):
        look = now - PATIENCE + 1
        shown[now, :look] = worse[look : now + 1, :look].all(axis=0)
    return kept_and_stop(scores, shown)


def not_worse(scores: Floats, best: int) -> Bools:
    """Which evaluations Student's paired t does not call worse than the best."""
    apart = scores[best] - scores
    error = apart.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    return np.asarray(apart.mean(axis=1) <= special.stdtrit(scores.shape[1] - 1, 1 - ALPHA) * error)


def told(scores: Floats, best: int) -> int | None:
    """The evaluation that would stop by who knows the best step: no more than Student's t for each of the last three."""
    worse = ~not_worse(scores, best)
    ends = range(best + PATIENCE, len(worse))
    return next((now for now in ends if worse[now - PATIENCE + 1 : now + 1].all()), None)


def as_good(value: Floats, kept: int, stop: int | None) -> Bools:
    """Which of the last three evaluations are as good as the kept one; none where training goes on."""
    last = np.arange(0 if stop is None else PATIENCE) + (stop or 0) - PATIENCE + 1
    return np.asarray(value[last] >= value[kept])


def saved(stop: int | None, steps: Any) -> float:
    """The share of the steps that are not made."""
    return 0.0 if stop is None else 1 - steps[stop] / steps[-1]


def row(name: str, examples: int, trainings: int) -> list[str]:
    """What became of trainings of one truth, of all laws together."""
    truth, alike = TRUTHS[name]
    steps, found = _STEP + 1, list[dict[str, Any]]()
    for law, seed in product(LAWS, range(trainings)):
        scores = made_up(law, truth, alike, examples, seed)
        kept, stop = ended(scores)
        low, high = mean_interval(scores[kept])
        alone, alone_stop = one_by_one(scores)
        found.append({
            "none": stop is not None and as_good(truth, kept, stop).all(),
            "some": as_good(truth, kept, stop).any(),
            "stopped": stop is not None,
            "saved": saved(stop, steps),
            "near": np.ptp(worth(law, truth)[[kept, int(truth.argmax())]]) <= (high - low) / 2,
            "some alone": as_good(truth, alone, alone_stop).any(),
            "saved alone": saved(alone_stop, steps),
            "saved told": saved(told(scores, int(truth.argmax())), steps),
        })  # fmt: skip
    shares = pd.DataFrame(found).astype(float).mean()
    return [name, str(examples), *(f"{100 * share:.1f}" for share in shares)]


def kept_by(scores: Floats, likely: Floats | None = None) -> dict[str, int]:
    """The evaluation that each rule would keep; ``likely`` are the references' mean log-likelihoods."""
    means = scores.mean(axis=1)
    like = not_worse(scores, int(means.argmax()))
    padded = np.pad(means, 1, mode="edge")
    rules = {
        "best mean": means,
        "earliest like it": like,
        "smoothed": (padded[:-2] + 2 * means + padded[2:]) / 4,
    }
    if likely is not None:
        rules["likeliest like it"] = np.where(like, likely, -np.inf)
    return {rule: int(each.argmax()) for rule, each in rules.items()}


def lost(name: str, law: str, trainings: int, examples: int = 30) -> list[str]:
    """How far below the truth's best each rule's choice is on average, in half intervals of a mean."""
    truth, alike = TRUTHS[name]
    value, losses = worth(law, truth), list[dict[str, float]]()
    for seed in range(trainings):
        scores = made_up(law, truth, alike, examples, seed)
        low, high = mean_interval(scores.T)
        half = (high - low).mean() / 2
        losses.append({rule: (value.max() - value[at]) / half for rule, at in kept_by(scores).items()})
    return [name, law, *(f"{loss:.2f}" for loss in pd.DataFrame(losses).mean())]


def trained(kept: pd.DataFrame, metric: str) -> list[str]:
    """What became of the trainings that are kept, by one metric, the poems parted in ``PARTED`` ways."""
    sign, found = -1 if metric in LOWER else 1, list[dict[str, Any]]()
    curves = sign * kept.pivot_table(index="seed", columns="step", values=metric)
    for (seed, own), way in product(kept.groupby("seed"), range(PARTED)):
        scores = sign * own.pivot(index="step", columns="example_id", values=metric)
        order = np.random.default_rng([int(str(seed)), way]).permutation(scores.shape[1])
        deciding, others = scores.to_numpy()[:, order[:DECIDING]], scores.to_numpy()[:, order[DECIDING:]]
        nll = own.pivot(index="step", columns="example_id", values="reference_nll").to_numpy()
        likely = -nll[:, order[:DECIDING]].mean(axis=1)
        at, stop = ended(deciding)
        value, best = others.mean(axis=1), int(curves.drop(index=seed).mean().argmax())
        top = others[value.argmax()]
        low = mean_interval(top)[0]
        found.append({
            "false": stop is not None and as_good(value, at, stop).all(),
            "some": as_good(value, at, stop).any(),
            "stopped": stop is not None,
            "saved": saved(stop, scores.index),
            "saved told": saved(told(deciding, best), scores.index),
            "near": value[at] >= low,
            "near told": value[best] >= low,
            "paired": mean_interval(top - others[at])[0] <= 0,
            **{rule: value[place] for rule, place in kept_by(deciding, likely).items()},
        })  # fmt: skip
    means = pd.DataFrame(found).astype(float).mean()
    shares, worth = means[:8], sign * means[8:]
    return [metric, *(f"{100 * share:.0f}" for share in shares), *(f"{value:.3f}" for value in worth)]


def anew(kept: pd.DataFrame, metric: str) -> list[str]:
    """How often the kept step is within the interval of the best of a training's poems, which are drawn from anew."""
    sign, near = -1 if metric in LOWER else 1, {examples: list[bool]() for examples in ANEW}
    for (seed, own), examples, way in product(kept.groupby("seed"), ANEW, range(DRAWN)):
        scores = sign * own.pivot(index="step", columns="example_id", values=metric).to_numpy()
        draw = np.random.default_rng([int(str(seed)), way, examples])
        at, _ = ended(scores[:, draw.integers(scores.shape[1], size=examples)])
        truth = scores.mean(axis=1)
        near[examples].append(bool(truth[at] >= mean_interval(scores[truth.argmax()])[0]))
    return [metric, *(f"{100 * np.mean(each):.0f}" for each in near.values())]


def table(columns: Iterable[str], rows: Iterable[list[str]]) -> None:
    columns = list(columns)
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for each in rows:
        print(f"| {' | '.join(each)} |", flush=True)


def main() -> None:
    parser = command_line(__file__, __doc__, quick="made-up trainings")
    parser.add_argument("config", type=Path, nargs="?", help="train these and keep their values")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--poems", type=int, default=80, help="of the validation split")
    parser.add_argument("--kept", type=Path, default=KEPT)
    options = parser.parse_args()
    if options.config:
        frames = []
        for seed in range(1, options.seeds + 1):
            frames.append(values(train(options.config, options.overrides, seed, options.poems), seed))
            options.kept.parent.mkdir(parents=True, exist_ok=True)
            pd.concat(frames).to_csv(options.kept, index=False, float_format="%.5g")
        return
    trainings = TRAININGS // 10 if options.quick else TRAININGS
    made = ("truth", "examples", "none of the last three worse, %", "not all worse, %")
    ends = ("stopped, %", "steps saved, %")
    near, best = "kept within an interval, %", "saved if told the best, %"
    single = ("one by one: not all worse, %", "steps saved, %")
    rows = (row(name, examples, trainings) for name, examples in product(TRUTHS, EXAMPLES))
    table((*made, *ends, near, *single, best), rows)
    rules = ("best mean", "earliest like it", "smoothed")
    rows = (lost(name, law, trainings * len(LAWS)) for name, law in product(TRUTHS, LAWS))
    table(("truth", "law", *rules), rows)
    kept = pd.read_csv(options.kept)
    print(f"\n{kept['seed'].nunique()} seeds, {kept['example_id'].nunique()} poems")
    found = (*ends, best, near, "so is the other seeds' best, %", "paired, %", *rules, "likeliest like it")
    table(("metric", *made[2:], *found), (trained(kept, metric) for metric in METRICS))
    print(f"\nkept within an interval, %, {', '.join(map(str, ANEW))} poems drawn anew")
    table(("metric", *map(str, ANEW)), (anew(kept, metric) for metric in METRICS))


if __name__ == "__main__":
    main()
