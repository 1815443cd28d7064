"""``card``, ``log``, ``slides``: results where others look."""

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


@command("slides")
def slides(place: Place) -> None:
    """Draw the verdict for slides: one metric and one message a picture, 16:9, in large type; --lang chooses the language."""
    files = api.write_slides(api.load_results(place))
    console.say(
        f"slides: {', '.join(file.name for file in files if file.suffix == '.png')} in {files[0].parent}"
    )
