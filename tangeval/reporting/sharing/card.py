"""Results → a model card: the README.md that the hub shows beside the chosen checkpoint's weights.

In: ``Results`` of a folder where something was chosen. Out: a card whose metadata hold the chosen setting's values as
the hub reads them (huggingface_hub's own ``EvalResult``), and whose text has their intervals, the baselines beside
them, the verdict and how all was measured. The hub's own check of the metadata needs the network: ``card.validate()``.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from tangeval.core.errors import TangevalError
from tangeval.core.knobs import axes_in
from tangeval.core.libraries import needs
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.core.untrusted import inert
from tangeval.core.words import label, say
from tangeval.reporting.notebook import Results
from tangeval.reporting.tables import MARKDOWN, headline
from tangeval.results.files import write_text
from tangeval.results.folder import RunFolder

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def write_card(
    results: Results, out: Path | None = None, *, library: str | None = None, usage: str = ""
) -> Path:
    """Write the card (default: ``best/README.md`` in the folder) and return its path.

    ``library`` loads the weights that it lies beside (default: what loads the checkpoint's own); ``usage`` is Python that
    does so, for the card to show.

    Raises:
        TangevalError: nothing was chosen, or the base model was; or huggingface_hub is missing.
    """
    with needs("tangeval card", "hub"):
        from huggingface_hub import ModelCard, ModelCardData
    selection, manifest = results.selection, results.run.manifest
    if not selection["setting"]:
        raise TangevalError(
            f"{results.run.selection_file}: no setting was chosen, so there is none to report"
        )
    name, base = selection["checkpoint"]["checkpoint"], manifest["base_model"]["name"]
    kind = next(record["kind"] for record in manifest["checkpoints"] if record["name"] == name)
    if kind == "base":
        raise base_chosen(results.run)
    data = ModelCardData(
        model_name=inert(f"{results.study.name} {name}"),
        base_model=base if base.count("/") == 1 and not Path(base).exists() else None,
        library_name=library or ("peft" if kind == "adapter" else "transformers"),
        pipeline_tag="text-generation",
        tags=["tangeval"],
        eval_results=list(_measured(results)),
    )
    content = f"---\n{data.to_yaml()}\n---\n\n{_text(results, name, base, usage)}"
    path = out or results.run.best / "README.md"
    write_text(path, str(ModelCard(content)))
    return path


def base_chosen(run: RunFolder) -> TangevalError:
    """Return what is said where the base model was chosen, and a checkpoint is wanted."""
    return TangevalError(
        f"{run.selection_file}: the base model was chosen, and there is nothing of it to hand over; `tangeval run "
        f"{run.study_file} include_base=false --out {run.path}` chooses among the checkpoints, and moves its texts aside"
    )


def _chosen(results: Results, split: str) -> "pd.Series[Any] | None":
    """The chosen checkpoint's row of the chosen setting on a split."""
    frame, selection = results.summary, results.selection
    own = (frame["checkpoint"] == selection["checkpoint"]["checkpoint"]) & (frame["split"] == split)
    for axis in axes_in(frame):
        own &= frame[axis] == selection["setting"][axis]
    return next((row for _, row in frame[own].iterrows()), None)


def _splits(results: Results) -> list[str]:
    """The splits, the one that chose last: what won there is too good."""
    return sorted(
        results.study.ordered_splits(), key=lambda split: split == results.selection["rule"]["split"]
    )


def _measured(results: Results) -> Iterator["EvalResult"]:
    """The values on the first split of ``_splits``, as the hub reads them."""
    from huggingface_hub import EvalResult

    split, data = _splits(results)[0], results.run.manifest["data"]
    row, metrics = _chosen(results, split), results.task.metrics
    for name in headline(metrics) if row is not None else []:
        value, low, high = (float(row.get(name + end, math.nan)) for end in ("", "_low", "_high"))  # type: ignore[union-attr]
        if not math.isnan(value):
            interval = {} if math.isnan(low) else {"interval_95": [round(low, 4), round(high, 4)]}
            yield EvalResult(
                task_type="text-generation",
                task_name=results.task.name,
                dataset_type=Path(data["name"]).name,
                dataset_name=Path(data["name"]).name,
                dataset_split=split,
                dataset_revision=data["digest"],
                metric_type=name,
                metric_name=metrics[name].label["en"],
                metric_value=round(value, 4),
                metric_args=interval | {"texts": int(row["poems"]), "samples": int(row["samples"])},  # type: ignore[index]
            )


def _text(results: Results, name: str, base: str, usage: str) -> str:
    manifest, rule = results.run.manifest, results.selection["rule"]
    verdict = results.run.read_json(results.run.verdict_file)
    intro = say(
        "card.intro", checkpoint=_plain(name), base=_plain(base), checkpoints=len(manifest["checkpoints"]),
        settings=len(results.study.decoding.settings()), by=_label(results, rule["checkpoint"]),
        setting_by=_label(results, rule["setting"]["by"]), split=say(f"split.{rule['split']}"),
    )  # fmt: skip
    parts = [f"# {_plain(results.study.name)}: {_plain(name)}", intro]
    if verdict:
        parts += [results.speaker.markdown(verdict).replace("# ", "## ", 1).rstrip()]
    parts += [f"## {say('card.use')}", f"```python\n{usage}\n```"] * bool(usage)
    config = json.dumps(results.run.read_json(results.run.generation_config), indent=2)
    parts += [
        f"## {say('card.settings')}",
        say("card.decode"),
        f"```json\n{config}\n```",
        f"## {say('card.values')}",
    ]
    for split in _splits(results):
        parts += _table(results, split)
    made = {
        say("card.data"): f"{manifest['data']['name']} ({manifest['data']['digest']})",
        say("card.seed"): manifest["seed"],
        say("card.signature"): manifest["signature"],
        say("card.versions"): ", ".join(f"{key} {value}" for key, value in {"tangeval": manifest["tangeval"], **manifest["versions"]}.items()),
    }  # fmt: skip
    facts = "\n".join(f"- {key}: {_plain(str(value))}" for key, value in made.items())
    return "\n\n".join([*parts, f"## {say('card.made')}", facts]) + "\n"


def _table(results: Results, split: str) -> list[str]:
    """The chosen setting beside the baselines on a split, and what to think of it."""
    frame, own = results.summary, _chosen(results, split)
    if own is None:
        return []
    sides = {say("card.this"): own}
    for _, row in frame[frame["checkpoint"].isin([RANDOM, REFERENCE]) & (frame["split"] == split)].iterrows():
        sides[row["checkpoint"]] = row
    shown = [name for name in headline(results.task.metrics) if not math.isnan(own.get(name, math.nan))]
    rows = [[_label(results, name), *(_interval(side, name) for side in sides.values())] for name in shown]
    table = pd.DataFrame(rows, columns=[say("card.metric"), *sides]).to_markdown(
        index=False, disable_numparse=True
    )
    about = say("card.about", n=int(own["poems"]), samples=int(own["samples"]))
    won = split == results.selection["rule"]["split"]
    return [f"### {say(f'split.{split}')}", about + say("card.won") * won, table]


def _interval(row: "pd.Series[Any]", name: str) -> str:
    value, low, high = (row.get(name + end, math.nan) for end in ("", "_low", "_high"))
    if math.isnan(value):
        return ""
    return f"{value:.3g}" if math.isnan(low) else f"{value:.3g} [{low:.3g}, {high:.3g}]"


def _label(results: Results, metric: str) -> str:
    return label(results.task.metrics[metric].label)


def _plain(text: str) -> str:
    """A name as text that is no markup."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(inert(text).split()))
