"""``run``, ``generate``, ``halving``, ``unlock``: what decodes."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tangeval.cli.base import Overrides, Pickle, StudyFile, Unseen, command, console
from tangeval.cli.progress import Audience, print_event, watch
from tangeval.core.errors import TangevalError

if TYPE_CHECKING:
    from tangeval.api import Options


@dataclass(frozen=True)
class Running:
    """Options of what runs a study."""

    out: Annotated[
        str | None,
        typer.Option(
            help="The results folder, or a URL of one such as s3://bucket/x (default: results/NAME)."
        ),
    ] = None
    on: Annotated[
        str | None,
        typer.Option(
            help="Decode on a Ray cluster: ray (this machine is one of its nodes), or ray://HOST:10001."
        ),
    ] = None
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Remove generations of which none fits the study any longer.")
    ] = False
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Leave out checkpoints that cannot be used, and run the others."),
    ] = False
    allow_pickle: Pickle = False
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line, for machines.")] = (
        False
    )

    def options(self, *, assume_unseen: bool = False) -> "Options":
        from tangeval.api import Options

        return Options(self.out, self.on, self.overwrite, self.keep_going, assume_unseen, self.allow_pickle)

    def audience(self) -> Audience:
        """Who is printed for; the console falls silent for all but people."""
        if self.quiet and self.as_json:
            raise TangevalError("--quiet, --json: give one of them")
        console.quiet = self.quiet or self.as_json
        return "nobody" if self.quiet else "machines" if self.as_json else "people"


@command("run")
def run(
    study: StudyFile,
    running: Running,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and stop.")] = False,
    assume_unseen: Unseen = False,
) -> None:
    """Generate, score, summarise, draw and select; goes on where it was cut off."""
    from tangeval import api
    from tangeval.cli import render

    audience, options = running.audience(), running.options(assume_unseen=assume_unseen)
    if dry_run:
        render.show_plan(console, *api.plan(study, *overrides or (), options=options), running.out)
        return
    results = api.run(study, *overrides or (), options=options, watch=watch(console, audience))
    render.show_results(console, results)
    if audience == "machines":
        print_event("done", folder=str(results.folder), selection=results.run.selection)


@command("generate")
def generate(study: StudyFile, running: Running, overrides: Overrides = None) -> None:
    """Make the generations and likelihoods that the results folder lacks."""
    from tangeval import api
    from tangeval.cli import render

    shown = watch(console, running.audience())
    results = api.generate(study, *overrides or (), options=running.options(), watch=shown)
    render.show_engine(console, results)


@command("halving")
def halving(
    study: StudyFile,
    overrides: Overrides = None,
    out: Annotated[str | None, typer.Option(help="The folder (default: results/NAME-halving).")] = None,
    allow_pickle: Pickle = False,
    assume_unseen: Unseen = False,
) -> None:
    """Choose the best setting for a part of the generations: successive halving."""
    from tangeval import api
    from tangeval.cli import render

    options = api.Options(out=out, allow_pickle=allow_pickle, assume_unseen=assume_unseen)
    found, folder = api.halving(study, *overrides or (), options=options, watch=watch(console))
    render.show_halving(console, found, folder)


@command("unlock")
def unlock(url: Annotated[str, typer.Argument(metavar="URL", help="A results folder's URL.")]) -> None:
    """Remove the lock that a killed run left at a URL."""
    from tangeval import api

    owner = api.unlock(url)
    console.say(f"removed the lock of {owner}" if owner else f"{url} is not locked")
