"""Results → a tracker's runs: one for the study, with settings and pictures, and one for each checkpoint.

In: ``Results`` that were summarised. Out: runs where the tracker keeps them; its own variables and files of the
environment say where, and whether it is on-line. Numbers are those of ``checkpoints.csv``: averages over all settings,
with the ends of their intervals. Knows nothing of how a tracker stores them; torch is not needed for TensorBoard.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from tangeval.core.errors import TangevalError
from tangeval.core.libraries import needs
from tangeval.core.types import Tracker
from tangeval.reporting.notebook import Results
from tangeval.reporting.tables import headline

#: The run of the study itself.
STUDY = "study"


@dataclass(frozen=True)
class Run:
    """A tracker's run: its settings, a set of values for each step, and pictures."""

    name: str
    config: Mapping[str, Any]
    points: Sequence[tuple[int, Mapping[str, float]]]
    pictures: Sequence[Path] = ()


def check_tracker(to: Tracker) -> None:
    """Import a tracker's library, so that its absence is said before anything is decoded.

    Raises:
        TangevalError: it is not installed; or there is no such tracker.
    """
    if to not in get_args(Tracker):
        raise TangevalError(f"--log {to}: no tracker; there are {', '.join(get_args(Tracker))}")
    with needs(f"--log {to}", to):
        import_module(to)


def log(results: Results, to: Tracker) -> str:
    """Hand the results to a tracker; return how many runs went where, in words.

    Raises:
        TangevalError: nothing was summarised, the tracker failed; or as ``check_tracker``.
    """
    check_tracker(to)
    runs = list(runs_of(results))
    try:
        where = _SEND[to](runs, results)
    except Exception as error:  # a tracker's own: no network, no key, a store that it does not take
        said = " ".join(str(error).split())[:700]
        again = f"the results are whole; `tangeval log {results.folder} --to {to}` tries again"
        raise TangevalError(f"{to} did not take them ({type(error).__name__}: {said}); {again}") from error
    return f"{len(runs)} runs to {to}: {where}"


def runs_of(results: Results) -> Iterator[Run]:
    """Yield the study's run, whose values go by step, then each checkpoint's and baseline's own."""
    frame, records = results.checkpoints, {each["name"]: each for each in results.run.manifest["checkpoints"]}
    metrics, points = headline(results.task.metrics), dict[str, tuple[int, dict[str, float]]]()
    for name, own in frame.groupby("checkpoint", sort=False):
        step = own["step"].iloc[0]
        rows = own.to_dict("records")
        values = {f"{row['split']}/{key}": value for row in rows for key, value in _values(row, metrics)}
        points[str(name)] = 0 if pd.isna(step) else int(step), values
    pictures = sorted(results.run.figures.glob("*.png"))
    content = _flat(results.study.content())
    if found := results.run.selection:
        content |= _flat(
            {"chosen": {"checkpoint": found["checkpoint"]["checkpoint"], **(found["setting"] or {})}}
        )
    trained = [points[name] for name in points if name in records and "recipe" not in records[name]]
    yield Run(STUDY, content, sorted(trained, key=lambda point: point[0]), pictures)
    for name, point in points.items():
        about = {key: records.get(name, {}).get(key) for key in ("kind", "fingerprint")}
        yield Run(name, content | {"step": point[0], **about}, [point])


def _values(row: Mapping[Any, Any], metrics: Sequence[str]) -> Iterator[tuple[str, float]]:
    for column in (name + end for name in metrics for end in ("", "_low", "_high")):
        if column in row and not pd.isna(row[column]):
            yield column, float(row[column])


def _flat(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A mapping without mappings in it: ``decoding.top_k``; lists are JSON, as trackers take scalars alone."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        else:
            flat[name] = json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value
    return flat


def _to_trackio(runs: Sequence[Run], results: Results) -> str:
    import trackio

    for run in runs:
        trackio.init(
            project=results.study.name, name=run.name, config=dict(run.config), group=results.study.name
        )
        for step, values in run.points:
            trackio.log(dict(values), step=step)
        if run.pictures:
            trackio.log({f"figures/{file.stem}": trackio.Image(str(file)) for file in run.pictures})
        trackio.finish()
    return f"`trackio show --project {results.study.name}`"


def _to_wandb(runs: Sequence[Run], results: Results) -> str:
    import wandb

    for run in runs:
        made = wandb.init(
            project="tangeval", group=results.study.name, name=run.name, config=dict(run.config), settings={"silent": True},
        )  # fmt: skip
        for step, values in run.points:
            made.log({"step": step, **values}, step=step)
        if run.pictures:
            made.log({f"figures/{file.stem}": wandb.Image(str(file)) for file in run.pictures})
        made.finish()
    return f"project tangeval, group {results.study.name}"


def _to_mlflow(runs: Sequence[Run], results: Results) -> str:
    import mlflow

    mlflow.set_experiment(results.study.name)
    for run in runs:
        with mlflow.start_run(run_name=run.name):
            mlflow.log_params({key: str(value)[:6000] for key, value in run.config.items()})
            for step, values in run.points:
                mlflow.log_metrics(dict(values), step=step)
            for file in run.pictures:
                mlflow.log_artifact(str(file), "figures")
    return f"experiment {results.study.name} in {mlflow.get_tracking_uri()}"


def _to_tensorboard(runs: Sequence[Run], results: Results) -> str:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    place = results.folder / "tensorboard"
    for run in runs:
        writer = EventFileWriter(str(place / re.sub(r"[^\w.-]", "_", run.name).lstrip(".")))
        settings = {
            key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in run.config.items()
        }
        writer.add_event(Event(summary=hparams_pb(settings)))
        for step, values in run.points:
            scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            writer.add_event(Event(step=step, summary=Summary(value=scalars)))
        for file in run.pictures:
            image = Summary.Image(encoded_image_string=file.read_bytes(), colorspace=4)
            value = Summary.Value(tag=f"figures/{file.stem}", image=image)
            writer.add_event(Event(summary=Summary(value=[value])))
        writer.close()
    return f"`tensorboard --logdir {place}`"


_SEND: Mapping[str, Callable[[Sequence[Run], Results], str]] = {
    "trackio": _to_trackio, "wandb": _to_wandb, "mlflow": _to_mlflow, "tensorboard": _to_tensorboard,
}  # fmt: skip
