"""``card``, ``export``, ``log``, ``slides``: results where others look, and the model itself."""

from pathlib import Path
from typing import Annotated

from typer import Option

from tangeval.cli.base import Pickle, Place, api, command, console
from tangeval.core.types import Tracker
from tangeval.export.ollama import Outtype


@command("card")
def card(
    place: Place,
    out: Annotated[Path | None, Option(help="The file (default: best/README.md in the folder).")] = None,
) -> None:
    """Write the chosen checkpoint's model card: its values as the hub reads them, with intervals, verdict and setting."""
    console.say(
        f"card: {api.write_card(api.load_results(place), out)}; it belongs beside the weights as README.md"
    )


@command("export")
def export(
    place: Place,
    to: Annotated[Path, Option(help="The folder to write; it must not be there yet.")],
    merge: Annotated[bool, Option("--merge", help="Add the adapter into the base model's weights.")] = False,
    gguf: Annotated[
        Outtype | None, Option(help="Merge, write Ollama's Modelfile, and say what makes the GGUF file.")
    ] = None,
    leave_out: Annotated[
        list[str] | None, Option(help="A knob of the setting that may be missing; again for more.")
    ] = None,
    allow_pickle: Pickle = False,
) -> None:
    """Write the chosen checkpoint as a folder that transformers alone loads, and generates from with the chosen setting."""
    found = api.export(
        api.load_results(place), to, merge=merge, gguf=gguf, leave_out=leave_out or (), allow_pickle=allow_pickle
    )  # fmt: skip
    what = f"an adapter on {found.base}" if found.base else "whole weights"
    console.say(
        f"export: {found.checkpoint}, {what}, in {found.folder}; a message is {found.message}, and README.md says how to load it"
    )
    if found.commands:
        console.say("No GGUF file is made here. These commands make it, and Ollama's model of it:", "bold")
        for line in found.commands:
            console.print(line, markup=False, highlight=False, soft_wrap=True)  # to be copied


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
