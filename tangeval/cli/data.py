"""``data``, ``checkpoints``: what is there to evaluate."""

from typing import Annotated

import typer

from tangeval.cli.base import Pickle, Validation, app, command, console
from tangeval.core.errors import TangevalError

data_app = typer.Typer(help="What data are found, where, and whether they can be trusted.")
app.add_typer(data_app, name="data")


@data_app.callback(invoke_without_command=True)
def data(
    context: typer.Context,
    path: Annotated[str | None, typer.Option(help="A folder with HW5's three files, of your own.")] = None,
    validation: Validation = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure the training poems' real endings beside random ones.")
    ] = False,
) -> None:
    """Show the data that are found: splits, duplicates, and clauses that leak into training."""
    if context.invoked_subcommand:
        return
    from tangeval import api
    from tangeval.cli import render

    for spec in (path,) if path else ("sample", "hw5"):
        try:
            render.show_data(console, spec, api.data(spec, validation))
        except TangevalError as error:
            console.say(f"{spec}: {error}")
            continue
        if calibrate:
            with console.status("measuring the training poems"):
                measured = api.calibrate(spec, validation)
            render.show_calibration(console, measured)


@data_app.command()
def fetch() -> None:
    """Clone HW5's repository into data/GenAI-Hw5 with git."""
    from tangeval import api

    console.say(f"HW5's data are in {api.fetch()}")


@command("checkpoints")
def checkpoints(
    folder: Annotated[str, typer.Argument(help="A Trainer's output folder, or one checkpoint.")],
    allow_pickle: Pickle = False,
) -> None:
    """List the checkpoints in a folder, by step, and what was left out."""
    from tangeval import api
    from tangeval.cli import render

    render.show_checkpoints(console, folder, *api.checkpoints(folder, allow_pickle=allow_pickle))
