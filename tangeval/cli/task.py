"""``task check`` and ``task new``: a task of one's own, before it is run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from tangeval.cli.base import api, app, console, inventory, render
from tangeval.core.errors import TangevalError
from tangeval.core.schemas import file_of
from tangeval.core.types import ASSETS

if TYPE_CHECKING:
    from tangeval.analysis.task_check import Checked

task_app = typer.Typer(help="A task in a file: docs/task.md.", no_args_is_help=True)
app.add_typer(task_app, name="task")


@task_app.command()
def check(
    task: Annotated[str, Argument(help="A task's name or file.")],
    base_model: Annotated[str, Option(help="Whose tokenizer counts, as a study names it.")] = "tang-mini",
    prompt: Annotated[str | None, Option(help="A template of the task (default: its first).")] = None,
    max_length: Annotated[int, Option(min=1, help="The study's decoding.max_length.")] = 128,
) -> None:
    """Show prompts with token ids, references as compared, what checks say of them, leaks, and lengths."""
    show(api.check_task(task, base_model, prompt), task, max_length)


def show(found: "Checked", name: str, max_length: int) -> None:
    """Print what ``check`` found, warnings last."""
    inventory.show_data(name, found.data)
    for each in found.asked:
        render.say(f"{each.example.id} ({each.example.split}), {len(each.ids)} tokens", "bold")
        render.say(f"  prompt: {each.prompt!r}")
        render.say(f"  ids: {' '.join(map(str, each.ids))}")
        render.say(f"  reference as compared: {each.compared!r}")
    rows = [(check, f"{share:.3f}", failed) for check, (share, failed) in found.passed.items()]
    if rows:
        render.show_table("References that pass their own checks", ("check", "share", "fails first"), rows)
    prompts, answers = found.tokens.T
    middle, longest = sorted(answers)[len(answers) // 2], answers.max()
    render.say(
        f"references have {middle} tokens in the middle and {longest} at most; prompts {prompts.max()} at most"
    )
    if cut := int((answers > max_length).sum()):
        render.say(f"max_length {max_length} cuts {cut} of {len(answers)} references", "yellow")
    if found.without_4grams:
        said = f"bleu: {found.without_4grams:.0%} of the references have no run of four, of which BLEU is made; add chrf or exact"
        render.say(said, "yellow")
    for check, (share, failed) in found.passed.items():
        if share < 1:
            said = f"{check}: {1 - share:.1%} of the references fail it, {failed} first: the check or the reference is wrong"
            render.say(said, "yellow")


@task_app.command()
def new(file: Annotated[Path, Argument(help="The file to write, such as tasks/mine.yaml.")]) -> None:
    """Write a task file with a comment on every key, to be changed."""
    if file.suffix not in (".yaml", ".yml"):
        yaml = file.with_suffix(".yaml")
        raise TangevalError(f"{file}: a task is a YAML file that names its data: `tangeval task new {yaml}`")
    if file.exists():
        raise TangevalError(f"{file} is there already; give another name")
    file.parent.mkdir(parents=True, exist_ok=True)
    text = (ASSETS / "task.yaml").read_text("utf-8").replace("schemas/task.json", str(file_of("task")), 1)
    file.write_text(text.replace("NAME", file.stem), "utf-8")
    console.say(f"{file} is written; change it, then `tangeval task check {file}`")
