"""``demo``, ``finetune``, ``hw5``, ``write``, ``play``: ways in for those who have no study."""

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from tangeval.cli.base import (
    Knobs,
    Overrides,
    Pickle,
    TrainedOn,
    api,
    command,
    console,
    inventory,
    render,
    study_changes,
)
from tangeval.cli.entry import interruptible
from tangeval.cli.progress import watch
from tangeval.cli.run import Running
from tangeval.core import words
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import KNOB
from tangeval.core.libraries import needs

if TYPE_CHECKING:
    from tangeval.doors.hw5 import Homework
    from tangeval.doors.write import Written


@command("demo")
def demo() -> None:
    """Fine-tune the shipped model on the embedded sample and evaluate every checkpoint: minutes on two cores, no network."""
    from tangeval.doors.demo import STUDY, finetuning

    console.say(words.say("demo.begin", folder=Path.cwd()), "bold")
    with interruptible():
        if code := subprocess.run(finetuning()).returncode:
            raise typer.Exit(code)
    results = api.run(STUDY, watch=watch(console))
    render.show_results(results)
    console.say(words.say("demo.end", page=results.page.absolute()), "bold")


@command("finetune")
def finetune(
    config: Annotated[
        str, Argument(help="A fine-tuning configuration: a YAML file, or a shipped one by its name.")
    ],
    overrides: Annotated[
        list[str] | None, Argument(metavar="[KEY=VALUE]...", help="Overrides of the configuration's keys.")
    ] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Say records, tokens, steps, rates, memory and time, and stop.")
    ] = False,
    overwrite: Annotated[bool, Option("--overwrite", help="Move another run's checkpoints aside.")] = False,
) -> None:
    """Fine-tune with LoRA, as `python -m finetune` does: checkpoints, training_log.csv, loss.png, train_ids.json."""
    from tangeval.doors.demo import finetuning

    flags = [*["--dry-run"] * dry_run, *["--overwrite"] * overwrite]
    order = finetuning(*flags, config, *(overrides or ()))
    if os.name == "posix":  # it takes this one's place, and hears its signals
        sys.stdout.flush()
        os.execv(order[0], order)
    raise typer.Exit(subprocess.run(order).returncode)


@command("hw5")
def hw5(
    folder: Annotated[
        Path, Argument(help="What the homework's notebook left: exp1, or the folder it is in.")
    ],
    running: Running,
    overrides: Overrides = None,
    base: Annotated[
        str | None, Option(help="The base model's folder or hub id (default: the adapters', where it lies).")
    ] = None,
    data: Annotated[
        str | None, Option(help="sample, hw5, or a folder of HW5's files (default: hw5).")
    ] = None,
    trained_on: TrainedOn = None,
    dry_run: Annotated[bool, Option("--dry-run", help="Say what would be made, and stop.")] = False,
) -> None:
    """Evaluate what homework 5's notebook left: which checkpoint, which setting, is it real? No study is needed."""
    audience, options = running.audience(), running.options()
    elsewhere = running.out if running.out and "://" not in running.out else None
    file = Path(elsewhere or Path("results") / api.study_name(folder)) / "hw5.yaml"
    changes = study_changes(overrides, trained_on)
    with TemporaryDirectory() as draft:
        study = file if file.is_file() else Path(draft, file.name)
        if study == file:
            if base or data:
                raise TangevalError(f"{file} has a base model and data: change them there, or remove it")
            console.say(words.say("hw5.kept", file=file))
        else:
            found = api.homework(folder, base, data or "hw5", trained_on, allow_pickle=running.allow_pickle)
            _show_homework(found, file)
            study.write_text(found.to_yaml(), "utf-8")
        try:
            planned = api.dry_run(study, *changes, options=options)
        except TangevalError as error:  # the draft is gone when this is read
            raise TangevalError(str(error).replace(str(study), str(file))) from None
        inventory.show_dry_run(*planned, running.out)
        if dry_run:
            return
        if study != file:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(study.read_bytes())
    results = api.run(file, *changes, options=options, watch=watch(console, audience))
    render.show_results(results)
    if texts := list(api.texts_in(folder)):
        console.say(words.say("hw5.texts", files=", ".join(map(str, texts))), "bold")
        try:
            render.show_scored(api.score_files(texts, results.study.data_name))
        except TangevalError as error:  # texts that cannot be read take nothing from what was evaluated
            console.say(str(error), "yellow")
    again = [str(file), *changes, *(["--out", running.out] if running.out else [])]
    console.say(words.say("hw5.again", file=shlex.join(again)))


def _show_homework(found: "Homework", file: Path) -> None:
    """What was found in a notebook's folder, and what is assumed of it."""
    places, base = ", ".join(found.content["checkpoints"]), found.content["base_model"]
    console.say(words.say("hw5.found", checkpoints=places, file=file, base=base))
    if found.assumed:
        console.say(words.say("hw5.assumed", records=f"{found.records:,}"), "yellow")


@command("write")
def write(
    couplet: Annotated[str, Argument(help="The first two clauses, such as 床前明月光，疑是地上霜。")],
    results: Annotated[
        Path | None, Option(help="A results folder: its chosen checkpoint and setting (default: tang-mini).")
    ] = None,
    checkpoint: Annotated[
        str | None, Option(help="By name (default: the chosen one, else the last).")
    ] = None,
    setting: Knobs = None,
    samples: Annotated[int, Option(min=1, max=64, help="Endings by each model.")] = 3,
    allow_pickle: Pickle = False,
) -> None:
    """Write endings of a couplet of your own, each checked for form, rhyme and tones, and for copied clauses."""
    from tangeval.doors.write import write as written

    found = written(couplet, results, checkpoint, setting or (), samples, allow_pickle=allow_pickle)
    for name in dict.fromkeys(each.checkpoint for each in found):
        own = [each for each in found if each.checkpoint == name]
        on = [
            f"{knob} {value}" for knob, value in own[0].setting.as_dict().items() if value != KNOB[knob].off
        ]
        console.say(f"{name}, {', '.join(on)}", "bold")
        for each in own:
            _show_written(each)


@command("play")
def play(
    place: Annotated[
        str | None,
        Argument(metavar="[STUDY-or-RESULTS]", help="A study, or a results folder (default: tang-mini)."),
    ] = None,
    port: Annotated[int, Option(min=0, max=65535, help="On 127.0.0.1 (default: a free one).")] = 0,
    behind: Annotated[
        str | None, Option(metavar="URL", help="The proxy that a browser reaches it through, as in Colab.")
    ] = None,
    allow_pickle: Pickle = False,
) -> None:
    """Play with checkpoints in a browser: texts side by side under the same noise, any token taken apart or forced, blind votes."""
    with needs("playing"):
        from tangeval.doors.playing.asking import opened
        from tangeval.doors.playing.desk import Desk
        from tangeval.doors.playing.server import Server

    desk = Desk(opened(place, allow_pickle=allow_pickle))
    with Server(desk, port, behind) as server:
        console.say(words.say("play.loading", names=", ".join(desk.opened.first)))
        desk.warm()
        language = "#lang=zh" if words.language() != "en" else ""
        console.say(words.say("play.open", url=f"{server.url}{language}"), "bold")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _show_written(ending: "Written") -> None:
    """An ending as verse, and under it what holds of it."""
    from tangeval.tasks.tang import show

    console.say("")
    for line in show(ending.text).splitlines():
        console.say(f"    {line}")
    checks = [
        f"{'✓' if value == 1 else '✗'} {words.say(f'write.{name}')}" for name, value in ending.checks.items()
    ]
    console.say(f"  {'  '.join(checks)}  {words.say('write.nats', nats=f'{ending.nats:.2f}')}")
    if ending.copied:
        console.say(f"  {words.say('write.copied', clauses='，'.join(ending.copied))}", "yellow")
