"""What the groups of commands share: the app, the console, and parameters that several take.

Imports nothing slow: ``tangeval --help`` reads every group.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperGroup

from tangeval.cli.entry import interruptible
from tangeval.cli.progress import SafeConsole


class _Group(TyperGroup):
    """Commands that Ctrl-C ends with how to go on, before typer makes an abortion of it."""

    def invoke(self, ctx: Any) -> Any:
        with interruptible():
            return super().invoke(ctx)


app = typer.Typer(
    cls=_Group, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False,
    help="Which checkpoint, with which decoding settings, and is the difference real?",
)  # fmt: skip
# In a pipe or a log there is no width to keep to.
console = SafeConsole(width=None if sys.stdout.isatty() else 120)

StudyFile = Annotated[str, typer.Argument(metavar="STUDY", help="A study file.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides of the study's keys.")
]
Place = Annotated[str, typer.Argument(metavar="STUDY-or-RESULTS", help="A study file, or a results folder.")]
Split = Annotated[str, typer.Option(help="validation or test.")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="Load pickled weights, which can run code.")]
Validation = Annotated[
    int | None, typer.Option(min=0, help="Size of the validation split (default: the data set's own).")
]
Unseen = Annotated[
    bool, typer.Option("--assume-unseen", help="Checkpoints without train_ids.json did not see the split.")
]
Knobs = Annotated[
    list[str] | None, typer.Option(help="knob=value: changes the selected setting; again for more.")
]
OutFolder = Annotated[Path | None, typer.Option(help="The folder to write to.")]


def command(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command; each field of its dataclass parameters becomes an option of its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(function).parameters.values()
        groups: dict[str, Any] = {p.name: p.annotation for p in parameters if is_dataclass(p.annotation)}
        expanded = [p for p in parameters if p.name not in groups]
        for group in groups.values():
            hints = get_type_hints(group, include_extras=True)
            for field in fields(group):
                default = inspect.Parameter.empty if field.default is MISSING else field.default
                expanded.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=default,
                        annotation=hints[field.name],
                    )
                )

        @wraps(function)
        def run(**given: Any) -> None:
            made = {
                name: group(**{field.name: given.pop(field.name) for field in fields(group)})
                for name, group in groups.items()
            }
            function(**given, **made)

        run.__signature__ = inspect.Signature(expanded)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in expanded}
        app.command(name)(run)
        return function

    return register
