"""Which text is explained: a checkpoint, an example, a setting and a sample, as a user names them.

In: a resolved study, its results folder, and what was asked for. Out: a ``Subject``. Knows nothing
of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tangeval.core.config import named_knobs, validated
from tangeval.core.errors import TangevalError
from tangeval.core.knobs import AXES, KNOB, Setting, written
from tangeval.core.study import Decoding
from tangeval.core.types import Checkpoint, Example
from tangeval.resolve import ResolvedStudy
from tangeval.results.folder import RunFolder


@dataclass(frozen=True)
class Subject:
    """What is explained. With ``reference`` the steps follow the reference, else what the setting writes."""

    checkpoint: Checkpoint
    example: Example
    number: int  #: the example's place in its split, from 1
    setting: Setting
    sample: int = 0
    reference: bool = False
    why: str = ""  #: where checkpoint and setting come from


@dataclass(frozen=True)
class Asked:
    """A subject as a user names it; what is None is taken from the study's selection."""

    prompt: str
    split: str = "test"
    checkpoint: str | None = None
    knobs: tuple[str, ...] = ()
    sample: int = 0
    reference: bool = False


def find(resolved: ResolvedStudy, folder: Path, asked: Asked) -> Subject:
    """Return the subject that ``asked`` names.

    Checkpoint and setting are those that ``tangeval select`` chose in ``folder``, if the study has
    them; else the last checkpoint and the first setting. ``knobs`` (``top_k=5``) change the setting.

    Raises:
        TangevalError: there is no such poem, checkpoint or knob; it names those there are. Or the setting is a
            search.
    """
    chosen = RunFolder(folder).selection or {}
    names = {checkpoint.name: checkpoint for checkpoint in resolved.checkpoints}
    selected = chosen.get("checkpoint", {}).get("checkpoint")
    name = asked.checkpoint or (selected if selected in names else resolved.checkpoints[-1].name)
    whence = ["asked for" if asked.checkpoint else "selected" if name == selected else "the last"]
    if name not in names:
        raise TangevalError(f"--checkpoint {name}: there is none of that name; there are {', '.join(names)}")
    number, example = _poem(resolved, asked)
    settings, own = resolved.study.decoding.settings(), chosen.get("setting")
    picked = Setting.from_row(own) if own else None
    known = picked in settings
    setting = _changed(picked if picked and known else settings[0], asked.knobs)
    check_drawn(setting)
    whence += ["selected" if known else "the grid's first", *["changed by --setting"] * bool(asked.knobs)]
    why = f"checkpoint: {whence[0]}; setting: {', '.join(whence[1:])}"
    return Subject(names[name], example, number, setting, asked.sample, asked.reference, why)


def check_drawn(setting: Setting) -> None:
    """Raise ``TangevalError`` for a search: no step of it is a draw."""
    on = {name: KNOB[name].off for name in AXES if KNOB[name].kind == "search"}
    if any(getattr(setting, name) != off for name, off in on.items()):
        plain = " ".join(
            f"--setting {name}={written(off)}" for name, off in on.items() if getattr(setting, name) != off
        )
        raise TangevalError(
            f"--setting: explain shows how each token is drawn; a search of beams draws none, it compares whole texts; give {plain}"
        )


def _poem(resolved: ResolvedStudy, asked: Asked) -> tuple[int, Example]:
    examples = resolved.examples(asked.split)
    numbers = {example.id: number for number, example in enumerate(examples, 1)}
    numbers |= {str(number): number for number in numbers.values()}
    if number := numbers.get(asked.prompt):
        return number, examples[number - 1]
    raise TangevalError(
        f"--prompt {asked.prompt}: the {asked.split} split has {len(examples)} examples; give a number from 1 to "
        f"{len(examples)}, or an id such as {examples[0].id}"
    )


def _changed(setting: Setting, knobs: Sequence[str]) -> Setting:
    """The setting with knobs changed in it (``top_k=5``)."""
    changes = setting.as_dict() | named_knobs(knobs, "--setting")
    (result,) = validated(Decoding, changes, Path("--setting")).settings()
    return result
