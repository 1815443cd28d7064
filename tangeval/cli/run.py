"""``run``, ``plan``, ``generate``, ``halving``, ``repair``, ``unlock``: what decodes, and how much of it is needed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from tangeval.cli.base import (
    Overrides,
    Pickle,
    StudyFile,
    TrainedOn,
    Unseen,
    api,
    command,
    console,
    inventory,
    render,
    study_changes,
)
from tangeval.cli.progress import Audience, print_event, watch
from tangeval.core.errors import TangevalError
from tangeval.core.types import Tracker


@dataclass(frozen=True)
class Running:
    """Options of what runs a study."""

    out: Annotated[
        str | None,
        Option(help="The results folder, or a URL of one such as s3://bucket/x (default: results/NAME)."),
    ] = None
    on: Annotated[
        str | None,
        Option(help="Decode on a Ray cluster: ray (this machine is one of its nodes), or ray://HOST:10001."),
    ] = None
    gpus: Annotated[
        int | None,
        Option(min=1, help="How many of this machine's GPUs to use (default: all that are alike)."),
    ] = None
    overwrite: Annotated[
        bool, Option("--overwrite", help="Move aside generations of which none fits the study any longer.")
    ] = False
    keep_going: Annotated[
        bool, Option("--keep-going", help="Leave out checkpoints that cannot be used, and run the others.")
    ] = False
    allow_pickle: Pickle = False
    no_explain: Annotated[
        bool, Option("--no-explain", help="Take no text of the chosen setting apart for the page.")
    ] = False
    quiet: Annotated[bool, Option("--quiet", help="Print nothing but errors.")] = False
    as_json: Annotated[bool, Option("--json", help="Print one JSON object a line, for machines.")] = False

    def options(self, *, assume_unseen: bool = False) -> "api.Options":
        return api.Options(
            self.out, self.on, self.overwrite, self.keep_going, assume_unseen, self.allow_pickle, self.gpus,
            not self.no_explain,
        )  # fmt: skip

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
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be made, and stop.")] = False,
    trained_on: TrainedOn = None,
    assume_unseen: Unseen = False,
    live: Annotated[
        bool, Option("--live", help="Write the page while it decodes too; open it, it reloads itself.")
    ] = False,
    log: Annotated[
        Tracker | None, Option(help="Hand the results to this tracker too, as `tangeval log` does.")
    ] = None,
) -> None:
    """Generate, score, summarise, draw and select; goes on where it was cut off."""
    if log:
        api.check_tracker(log)
    audience, options = running.audience(), replace(running.options(assume_unseen=assume_unseen), live=live)
    changes = study_changes(overrides, trained_on)
    if dry_run:
        inventory.show_dry_run(*api.dry_run(study, *changes, options=options), running.out)
        return
    results = api.run(study, *changes, options=options, watch=watch(console, audience))
    render.show_results(results)
    if log:
        console.say(api.log(results, log))
    if audience == "machines":
        print_event("done", folder=str(results.folder), selection=results.run.selection)


@command("plan")
def plan(
    study: StudyFile,
    effect: Annotated[list[str], Option(help="METRIC=SIZE: a difference to be shown; again for more.")],
    overrides: Overrides = None,
    pilot: Annotated[Path | None, Option("--from", help="A pilot's folder (default: results/NAME).")] = None,
    comparisons: Annotated[int, Option(min=1, help="How many are corrected together.")] = 1,
    poem_cost: Annotated[float, Option(min=0, help="What a poem costs beside its samples, in samples.")] = 0,
) -> None:
    """Say before a run how many poems and samples show a difference, by what a pilot varies."""
    from tangeval.analysis.planning import Asked
    from tangeval.core.config import named_numbers
    from tangeval.core.study import load_study

    asked = Asked(named_numbers(effect, "--effect", "form=0.05"), pilot, comparisons, poem_cost)
    render.show_plan(api.plan(load_study(study, overrides or ()), asked))


@command("generate")
def generate(study: StudyFile, running: Running, overrides: Overrides = None) -> None:
    """Make the generations and likelihoods that the results folder lacks."""
    shown = watch(console, running.audience())
    results = api.generate(study, *overrides or (), options=running.options(), watch=shown)
    render.show_engine(results)


@command("halving")
def halving(
    study: StudyFile,
    overrides: Overrides = None,
    out: Annotated[str | None, Option(help="The folder (default: results/NAME-halving).")] = None,
    allow_pickle: Pickle = False,
    trained_on: TrainedOn = None,
    assume_unseen: Unseen = False,
) -> None:
    """Choose the best setting for a part of the generations: successive halving."""
    options = api.Options(out=out, allow_pickle=allow_pickle, assume_unseen=assume_unseen)
    changes = study_changes(overrides, trained_on)
    found, folder = api.halving(study, *changes, options=options, watch=watch(console))
    render.show_halving(found, folder)


@command("repair")
def repair(
    place: Annotated[
        str, Argument(metavar="FOLDER", help="A results folder or its URL, or a folder in quarantine/.")
    ],
) -> None:
    """Bring back what was moved aside; make plan and checksums anew of the batch files."""
    batches, left = api.repair(place)
    console.say(f"{batches} batch files hold what they should; `tangeval run STUDY` makes what is missing")
    if left:
        console.say(
            f"left alone, as nothing tells what they are or their rows are others: {', '.join(map(str, left))}"
        )


@command("unlock")
def unlock(url: Annotated[str, Argument(metavar="URL", help="A results folder's URL.")]) -> None:
    """Remove the lock that a killed run left at a URL."""
    owner = api.unlock(url)
    console.say(f"removed the lock of {owner}" if owner else f"{url} is not locked")
