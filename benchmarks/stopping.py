"""When to stop a training: false stops, steps saved, and what the kept checkpoint is worth.

    python -m benchmarks.stopping [--quick]                     # made-up trainings, and those that are kept
    python -m benchmarks.stopping finetune/configs/overfit.yaml [key=value …] [--seeds 20]       # trains these anew

Made up are trainings whose truth is known. Trained are the seeds of a configuration: some of its validation poems decide as
training goes on, and the others say what the kept step is worth. What is there is not made again.
"""

import argparse
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import special

from tangeval import api
from tangeval.analysis.compare import measure_all
from tangeval.analysis.intervals import Floats, mean_interval
from tangeval.analysis.scoring import score
from tangeval.analysis.stopping import falls
from tangeval.results.files import write_text

KEPT = Path("results/reference/stopping/poems.csv.xz")
METRICS = ("reference_nll", "chrf", "form", "rhyme", "shared_pairs")
LOWER = {"reference_nll"}  #: is better
PATIENCE, ALPHA = 3, 0.05
DECIDING, PARTED = 30, 10  #: poems that decide, drawn so often
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
    from finetune.__main__ import finetune, make_console
    from finetune.config import load_config

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
    shown = falls(scores, PATIENCE, ALPHA)
    bests = [int(scores[: now + 1].mean(axis=1).argmax()) for now in range(len(scores))]
    stop = next((now for now, best in enumerate(bests) if shown[now, best]), None)
    return bests[-1 if stop is None else stop], stop


def row(name: str, examples: int, trainings: int) -> list[str]:
    """What became of trainings of one truth, of all laws together."""
    truth, alike = TRUTHS[name]
    none, some, stops, saved, near = list[bool](), list[bool](), list[bool](), list[float](), list[bool]()
    for law, seed in product(LAWS, range(trainings)):
        scores = made_up(law, truth, alike, examples, seed)
        kept, stop = ended(scores)
        low, high = mean_interval(scores[kept])
        last = truth[[] if stop is None else range(stop - PATIENCE + 1, stop + 1)] >= truth[kept]
        none.append(stop is not None and last.all())
        some.append(last.any())
        stops.append(stop is not None)
        saved.append(0 if stop is None else 1 - (stop + 1) / len(truth))
        near.append(np.ptp(worth(law, truth)[[kept, truth.argmax()]]) <= (high - low) / 2)
    shares = [f"{100 * np.mean(each):.1f}" for each in (none, some, stops, saved, near)]
    return [name, str(examples), *shares]


def kept_by(scores: Floats) -> dict[str, int]:
    """The evaluation that each rule would keep."""
    means = scores.mean(axis=1)
    best = int(means.argmax())
    apart = scores[best] - scores
    error = apart.std(axis=1, ddof=1) / np.sqrt(scores.shape[1])
    alike = apart.mean(axis=1) <= special.stdtrit(scores.shape[1] - 1, 1 - ALPHA) * error
    padded = np.pad(means, 1, mode="edge")
    smooth = (padded[:-2] + 2 * means + padded[2:]) / 4
    return {"best mean": best, "earliest like it": int(alike.argmax()), "smoothed": int(smooth.argmax())}


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
    sign, found = -1 if metric in LOWER else 1, list[dict[str, float]]()
    for (seed, own), way in product(kept.groupby("seed"), range(PARTED)):
        scores = sign * own.pivot(index="step", columns="example_id", values=metric)
        order = np.random.default_rng([int(str(seed)), way]).permutation(scores.shape[1])
        deciding, others = scores.to_numpy()[:, order[:DECIDING]], scores.to_numpy()[:, order[DECIDING:]]
        at, stop = ended(deciding)
        value = others.mean(axis=1)
        top = others[value.argmax()]
        last = value[[] if stop is None else range(stop - PATIENCE + 1, stop + 1)] >= value[at]
        found.append({
            "false": stop is not None and last.all(),
            "some": last.any(),
            "stopped": stop is not None,
            "saved": 0 if stop is None else 1 - scores.index[stop] / scores.index[-1],
            "near": value[at] >= mean_interval(top)[0],
            "paired": mean_interval(top - others[at])[0] <= 0,
            **{rule: value[place] for rule, place in kept_by(deciding).items()},
        })  # fmt: skip
    means = pd.DataFrame(found).astype(float).mean()
    shares, worth = means[:6], sign * means[6:]
    return [metric, *(f"{100 * share:.0f}" for share in shares), *(f"{value:.3f}" for value in worth)]


def table(columns: Iterable[str], rows: Iterable[list[str]]) -> None:
    columns = list(columns)
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for each in rows:
        print(f"| {' | '.join(each)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stopping", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("config", type=Path, nargs="?", help="train these and keep their values")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--quick", action="store_true", help="a tenth of the made-up trainings")
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
    ends = ("stopped, %", "steps saved, %", "kept within an interval, %")
    table((*made, *ends), (row(name, examples, trainings) for name, examples in product(TRUTHS, EXAMPLES)))
    rules = ("truth", "law", "best mean", "earliest like it", "smoothed")
    table(rules, (lost(name, law, trainings * len(LAWS)) for name, law in product(TRUTHS, LAWS)))
    kept = pd.read_csv(options.kept)
    print(f"\n{kept['seed'].nunique()} seeds, {kept['example_id'].nunique()} poems")
    rules = ("paired, %", "best mean", "earliest like it", "smoothed")
    table(("metric", *made[2:], *ends, *rules), (trained(kept, metric) for metric in METRICS))


if __name__ == "__main__":
    main()
