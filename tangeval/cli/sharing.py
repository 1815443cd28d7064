"""``card``: results where others look."""

from pathlib import Path
from typing import Annotated

from typer import Option

from tangeval.cli.base import Place, api, command, console


@command("card")
def card(
    place: Place,
    out: Annotated[Path | None, Option(help="The file (default: best/README.md in the folder).")] = None,
) -> None:
    """Write the chosen checkpoint's model card: its values as the hub reads them, with intervals, verdict and setting."""
    console.say(
        f"card: {api.write_card(api.load_results(place), out)}; it belongs beside the weights as README.md"
    )
