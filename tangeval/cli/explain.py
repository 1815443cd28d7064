"""``explain``: one text, step by step."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from tangeval.cli.base import Knobs, Overrides, Pickle, Split, StudyFile, api, command, console, render
from tangeval.cli.progress import watch


@dataclass(frozen=True)
class Subject:
    """The text that is explained."""

    prompt: Annotated[str, Option(help="The poem: its place in the split, from 1, or its id.")] = "1"
    split: Split = "test"
    checkpoint: Annotated[str | None, Option(help="By name (default: the selected one, else the last).")] = (
        None
    )
    setting: Knobs = None
    sample: Annotated[int, Option(min=0, help="Whose noise, from 0.")] = 0
    reference: Annotated[bool, Option("--reference", help="Follow the poet's text, not the setting's.")] = (
        False
    )


@command("explain")
def explain(
    study: StudyFile,
    of: Subject,
    overrides: Overrides = None,
    step: Annotated[
        int | None, Option(help="The token to begin with, from 1 (default: the first character).")
    ] = None,
    out: Annotated[Path | None, Option(help="The folder (default: results/NAME/explain/ID).")] = None,
    allow_pickle: Pickle = False,
) -> None:
    """Show one poem's next-character distributions, what each knob leaves of them, and what noise picks."""
    from tangeval.explain.subject import Asked

    asked = Asked(of.prompt, of.split, of.checkpoint, tuple(of.setting or ()), of.sample, of.reference)
    options, shown = api.Options(out=out, allow_pickle=allow_pickle), watch(console)
    found = api.explain(study, *overrides or (), asked=asked, step=step, options=options, watch=shown)
    render.show_explained(*found)
