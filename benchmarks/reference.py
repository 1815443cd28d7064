"""Keep what is small and worth reading of results folders: what `results/reference/` holds.

    python -m benchmarks.reference results/gemma3-270m results/recipes

Of each folder: the study, manifest and timings; the tables, and the summary of every setting to five
digits; the choice, where there is one; the pictures of the split that was chosen on, in few colours; and
``texts.csv``: all outputs of the chosen setting on test, of the homework's own setting (sample 0, every
checkpoint), and a random slice of the others, each beside the poet's own ending. Beside the
folders, ``training/`` has the logs of the runs that the checkpoints come from.
"""

import shutil
from pathlib import Path

import pandas as pd
from PIL import Image

from benchmarks.command import command_line
from tangeval.api import Results
from tangeval.api import load_results as results
from tangeval.core.knobs import axes_in
from tangeval.core.study import SHIPPED, load_study
from tangeval.results.folder import RunFolder

KEPT = (
    "study.yaml", "manifest.json", "timings.jsonl", "checkpoints.csv", "effects.csv", "variance.csv", "families.csv",
    "family_differences.csv", "reranked.csv", "oracle.csv",
)  # fmt: skip
SLICE, COLOURS = 200, 128


def keep(folder: Path, out: Path) -> None:
    """Copy what is kept of a results folder to ``out``, which is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    found = results(folder)
    for name in filter(lambda name: (folder / name).is_file(), KEPT):
        _copy(folder / name, out / name)
    for file in [*(folder / "tables").glob("*.md"), *(folder / "best").iterdir()]:
        _copy(file, out / file.relative_to(folder))
    pd.read_csv(folder / "summary.csv").to_csv(out / "summary.csv.xz", index=False, float_format="%.5g")
    split = found.study.select.split if found.study.select else "validation"
    for picture in sorted((folder / "figures").glob(f"*_{split}.png")):
        image = Image.open(picture).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        (out / "figures").mkdir(exist_ok=True)
        image.save(out / "figures" / picture.name, optimize=True)
    texts(found).to_csv(out / "texts.csv", index=False)
    runs = {Path(one["path"]).parent for one in RunFolder(folder).manifest["checkpoints"] if one["path"]}
    for run in sorted(runs):
        for log in filter(
            Path.is_file, (run / name for name in ("training_log.csv", "timings.json", "run.json"))
        ):
            _copy(log, out.parent / "training" / run.name / log.name)


def texts(found: Results) -> pd.DataFrame:
    """The outputs that are kept, and why each is; without a choice, a random slice."""
    outputs = found.generations
    outputs = outputs[outputs["split"] == "test"]
    (homework,) = load_study(SHIPPED / "hw5.yaml", []).decoding.settings()
    chosen = outputs["sample"].lt(0)
    if (found.run.best / "selection.json").is_file():
        at = found.selection["setting"] or found.selection["nearest"][0]
        chosen = outputs["checkpoint"].eq(found.selection["checkpoint"]["checkpoint"]) & _at(outputs, at)
    usual = _at(outputs, homework.as_dict()) & outputs["sample"].eq(0) & ~chosen
    rest = outputs[~chosen & ~usual]
    kept = pd.concat(
        [
            outputs[chosen].assign(kept="chosen"),
            outputs[usual].assign(kept="homework's setting"),
            rest.sample(min(SLICE, len(rest)), random_state=found.study.seed).assign(kept="random"),
        ]
    )
    poems = pd.DataFrame(
        [(e.id, e.input, e.reference) for e in found.dataset.split("test")],
        columns=["example_id", "input", "reference"],
    )
    columns = ["kept", "checkpoint", *axes_in(outputs), "example_id", "sample", "input", "text", "reference"]
    return kept.merge(poems, on="example_id", how="left", sort=False)[columns]


def _at(outputs: pd.DataFrame, setting: dict[str, float]) -> "pd.Series[bool]":
    """Which outputs are of the setting."""
    knobs = axes_in(outputs)
    return (outputs[knobs] == pd.Series(setting)[knobs]).all(axis=1)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


if __name__ == "__main__":
    parser = command_line(__file__, __doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("results/reference"))
    options = parser.parse_args()
    for one in options.folders:
        keep(one, options.out / one.name)
        print(options.out / one.name)
