"""``data``, ``checkpoints``, ``doctor``, ``schema``: what is there to evaluate, with what, and how it is declared."""

import json
from dataclasses import asdict
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from tangeval.cli.base import (
    Overrides,
    Pickle,
    TaskName,
    TrainedOn,
    Unseen,
    Validation,
    api,
    app,
    command,
    console,
    inventory,
    render,
    study_changes,
)
from tangeval.core.errors import TangevalError
from tangeval.core.schemas import file_of
from tangeval.core.untrusted import inert_json

data_app = typer.Typer(help="What data are found, where, and whether they can be trusted.")
app.add_typer(data_app, name="data")


@data_app.callback(invoke_without_command=True)
def data(
    context: typer.Context,
    path: Annotated[str | None, Option(help="A folder with the task's files, of your own.")] = None,
    validation: Validation = None,
    task: TaskName = "tang",
    calibrate: Annotated[
        bool, Option("--calibrate", help="Measure the training poems' real endings beside random ones.")
    ] = False,
) -> None:
    """Show the data that are found: splits, duplicates, and clauses that leak into training."""
    if context.invoked_subcommand:
        return

    for spec in (path,) if path else ("sample", "hw5") if task == "tang" else ("sample",):
        try:
            inventory.show_data(spec, api.data(spec, validation, task=task))
        except TangevalError as error:
            if path:
                raise
            console.say(f"{spec}: {error}")
            continue
        if calibrate:
            with console.status("measuring the training poems"):
                measured = api.calibrate(spec, validation, task=task)
            render.show_calibration(measured)


@data_app.command()
def fetch() -> None:
    """Clone HW5's repository into data/GenAI-Hw5 with git."""
    console.say(f"HW5's data are in {api.fetch()}")


@command("checkpoints")
def checkpoints(
    folder: Annotated[str, Argument(help="A Trainer's output folder, or one checkpoint.")],
    allow_pickle: Pickle = False,
) -> None:
    """List the checkpoints in a folder, by step, and what was left out."""
    inventory.show_checkpoints(folder, *api.checkpoints(folder, allow_pickle=allow_pickle))


@command("doctor")
def doctor(
    study: Annotated[str | None, Argument(metavar="[STUDY]", help="A study file.")] = None,
    overrides: Overrides = None,
    trained_on: TrainedOn = None,
    assume_unseen: Unseen = False,
    allow_pickle: Pickle = False,
    as_json: Annotated[bool, Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine has, and what a run of a study would refuse: the first thing to ask for in a report."""
    options = api.Options(assume_unseen=assume_unseen, allow_pickle=allow_pickle)
    found = api.doctor(study, *study_changes(overrides, trained_on), options=options)
    if as_json:
        print(inert_json(json.dumps([asdict(each) for each in found], ensure_ascii=False, indent=2)))
    else:
        inventory.show_findings(found)
    if any(each.ok is False for each in found):
        raise typer.Exit(1)


@command("schema")
def schema(
    kind: Annotated[Literal["study", "task", "finetune"], Argument(help="The kind of file.")],
) -> None:
    """Print the JSON Schema that an editor checks and completes a YAML file by."""
    print(file_of(kind).read_text("utf-8"), end="")
