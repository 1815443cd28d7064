"""What the groups of commands share: the app, the console, and parameters that several take.

Imports nothing slow: ``tangeval --help`` reads every group.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from tangeval import __version__
from tangeval.cli.entry import interruptible
from tangeval.cli.progress import console as console
from tangeval.core.words import speaking

if TYPE_CHECKING:
    from tangeval import api as api
    from tangeval.cli import inventory as inventory
    from tangeval.cli import render as render
else:

    class _Lazy:
        """A module that is imported when something of it is asked for."""

        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, name: str) -> Any:
            return getattr(import_module(self._name), name)

    api, inventory, render = map(_Lazy, ("tangeval.api", "tangeval.cli.inventory", "tangeval.cli.render"))


class _Group(TyperGroup):
    """Commands in the language asked for before them; Ctrl-C ends them before typer makes an abortion of it."""

    def invoke(self, ctx: Any) -> Any:
        with speaking(ctx.params["lang"]), interruptible():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False,
    help="Which checkpoint, with which decoding settings, and is the difference real? Begin with `tangeval demo`; with "
    "your own checkpoints `tangeval hw5 FOLDER`, or `tangeval run STUDY`.",
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        print(f"tangeval {__version__}")
        raise typer.Exit


_NoLock = Annotated[bool, Option("--no-lock", help="Take no lock: for file systems that have none.")]
_Lang = Annotated[str | None, Option("--lang", help="en or zh-TW (default: TANGEVAL_LANG, else en).")]


@app.callback()
def main(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    no_lock: _NoLock = False,
    lang: _Lang = None,  # read by the group
) -> None:
    """Parse what stands before a command."""
    if no_lock:
        os.environ["TANGEVAL_NO_LOCK"] = "1"


StudyFile = Annotated[str, Argument(metavar="STUDY", help="A study file.")]
Overrides = Annotated[
    list[str] | None, Argument(metavar="[KEY=VALUE]...", help="Overrides of the study's keys.")
]
Place = Annotated[str, Argument(metavar="STUDY-or-RESULTS", help="A study file, or a results folder.")]
Split = Annotated[str, Option(help="validation or test.")]
Pickle = Annotated[bool, Option("--allow-pickle", help="Load pickled weights, which can run code.")]
Validation = Annotated[
    int | None, Option(min=0, help="Size of the validation split (default: the data set's own).")
]
TaskName = Annotated[str, Option("--task", help="A task's name or file (docs/task.md).")]
Unseen = Annotated[
    bool, Option("--assume-unseen", help="Checkpoints without train_ids.json did not see the split.")
]
TrainedOn = Annotated[
    int | None,
    Option(min=1, help="Checkpoints without train_ids.json saw the training file's first N records."),
]
Knobs = Annotated[list[str] | None, Option(help="knob=value: changes the selected setting; again for more.")]


def study_changes(overrides: list[str] | None, trained_on: int | None) -> list[str]:
    """Return the overrides of a study that a command line gives, ``--trained-on`` as one of them."""
    return [*(overrides or ()), *([f"trained_records={trained_on}"] if trained_on else [])]


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command; each field of its dataclass parameters becomes an option of its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(function).parameters.values()
        groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}
        options = {name: inspect.signature(group).parameters for name, group in groups.items()}
        expanded = [p for p in parameters if p.name not in groups]
        keyword = inspect.Parameter.KEYWORD_ONLY
        expanded.append(inspect.Parameter("no_lock", keyword, default=False, annotation=_NoLock))
        expanded.append(inspect.Parameter("lang", keyword, default=None, annotation=_Lang))
        for own in options.values():
            expanded += [p.replace(kind=keyword) for p in own.values()]

        @wraps(function)
        def run(**given: Any) -> None:
            main(no_lock=given.pop("no_lock"))
            for name, own in options.items():
                given[name] = groups[name](**{key: given.pop(key) for key in own})
            with speaking(given.pop("lang")), interruptible():  # told in the language of this command
                function(**given)

        run.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in expanded}
        app.command(name)(run)
        return function

    return register
