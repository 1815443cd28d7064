"""``card``, ``log``: results where others look."""

from pathlib import Path
from typing import Annotated

from typer import Option

from tangeval.cli.base import Place, api, command, console
from tangeval.core.types import Tracker


@command("card")
def card(
    place: Place,
    out: Annotated[Path | None, Option(help="The file (default: best/README.md in the folder).")] = None,
) -> None:
    """Write the chosen checkpoint's model card: its values as the hub reads them, with intervals, verdict and setting."""
    console.say(
        f"card: {api.write_card(api.load_results(place), out)}; it belongs beside the weights as README.md"
    )


@command("log")
def log(
    place: Place,
    to: Annotated[Tracker, Option(help="The tracker; its own variables say where and whether on-line.")],
) -> None:
    """Hand results to a tracker: summary, settings and pictures, each checkpoint a run."""
    console.say(api.log(api.load_results(place), to))
