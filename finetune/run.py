"""What a fine-tuning run is made of, and what its folder holds already.

In: a ``Config``. Out: a ``Run`` with base, poems and folder, ready to begin, to go on, or
known to be complete. Knows nothing of torch, so that a complete run says so at once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tangeval import tasks
from tangeval.core.errors import TangevalError
from tangeval.core.keeping import aside, listed, present
from tangeval.core.types import Base, Checkpoint, Example
from tangeval.models import checkpoints
from tangeval.results.checksums import broken_part
from tangeval.results.files import remove_temp_files, write_json
from tangeval.results.records import read_record
from tangeval.tasks.base import Task, part_digests

from .config import Config

RECORD = "run.json"
#: What decides nothing that is learnt.
_NO_SETTINGS = {"output_dir", "cache_dir", "report_to", "recipe", "seeds", "evaluate"}


@dataclass(frozen=True)
class Run:
    """One fine-tuning: ``examples`` to train on, ``validation`` to watch."""

    folder: Path
    base: Base
    examples: tuple[Example, ...]
    validation: tuple[Example, ...]
    settings: dict[str, Any]
    task: Task
    start: Path | None = None  #: the adapter that it goes on from

    def newest(self) -> Checkpoint | None:
        """Return the newest whole checkpoint of the folder."""
        found = checkpoints.discover([str(self.folder)])[0] if _saves(self.folder) else ()
        return next((c for c in found[::-1] if c.path and present(c.path / "trainer_state.json")), None)

    def complete(self) -> bool:
        """Say whether this very run came to its end."""
        record, newest = read_record(self.folder / RECORD), self.newest()
        return bool(record and newest and record.get("finished") == newest.step)

    def finish(self) -> None:
        """Record that the newest checkpoint is the last step's."""
        newest = self.newest()
        assert newest is not None
        write_json(self.folder / RECORD, {"settings": self.settings, "finished": newest.step})


def prepare(config: Config, *, overwrite: bool = False, first: bool = True) -> Run:
    """Read the data, and make the folder ready: cut-off saves moved aside, another run's refused.

    Of several processes that train together only the ``first`` touches the folder.

    Raises:
        TangevalError: data or base are not there, more than ``train`` is asked for, or the
            folder holds checkpoints of other settings.
    """
    base = checkpoints.resolve_base(config.base_model, config.cache_dir)
    start = _start(config)
    task = tasks.load(config.task)
    if config.prompt not in (None, *task.templates):
        raise TangevalError(
            f"prompt: {config.prompt} is no template of {task.name}; there are {', '.join(task.templates)}"
        )
    data = task.load(config.data, config.validation)
    examples = data.split("train")
    if config.include_validation:
        examples = tuple(e for e in data.examples if e.split != "test")
    if config.records and config.records > len(examples):
        said = f"records: {config.records} were asked for and there are {len(examples)} to train on; ask for fewer"
        more = ", or set include_validation: true and give up the validation split"
        raise TangevalError(said + ("" if config.include_validation else more))
    examples = examples[: config.records]
    validation = () if config.include_validation else data.split("validation")
    settings = config.model_dump(mode="json", exclude=_NO_SETTINGS)
    settings["prompt"] = config.prompt or task.templates[0]
    if task.digest:
        settings["task"] = [task.name, task.wording]
    elif config.task == "tang":
        del settings["task"]  # as in runs of before there were others
    if not config.fsdp:
        del settings["fsdp"]  # runs of before there was FSDP go on
    settings["data_digest"] = data.digest
    settings["base_fingerprint"] = checkpoints.identity(base)
    settings["start_fingerprint"] = checkpoints.fingerprint(start.path) if start and start.path else None
    run = Run(Path(config.output_dir), base, examples, validation, settings, task, start and start.path)
    if first:
        _make_ready(run, overwrite)
        before = (checkpoints.trained_on(start) if start else None) or checkpoints.TrainRecord()
        hashes = [task.identity(e) for e in examples]
        hashes += sorted(before.texts.difference(hashes))
        parts = before.parts.union(*(part_digests(task, e) for e in examples))
        ids = {"data": data.digest, "ids": [e.id for e in examples], "hashes": hashes, "parts": sorted(parts)}
        write_json(run.folder / checkpoints.TRAIN_IDS, ids)
    return run


def _start(config: Config) -> Checkpoint | None:
    """The adapter to go on from: one that keeps a record of the poems it saw, since its successors must."""
    if config.resume_adapter is None:
        return None
    found, _ = checkpoints.discover([config.resume_adapter])
    if len(found) != 1 or found[0].kind != "adapter":
        raise TangevalError(f"resume_adapter: {config.resume_adapter} is not one adapter; give checkpoint-N")
    start = found[0]
    if checkpoints.trained_on(start) is None:
        raise TangevalError(
            f"resume_adapter: {config.resume_adapter} keeps no {checkpoints.TRAIN_IDS}, so nothing could tell which poems its successors "
            "saw; put the file there, with the hashes of the poems, or an empty list if it saw none of these"
        )
    return start


def _saves(folder: Path) -> list[Path]:
    return [p for p in listed(folder, "checkpoint-*") if p.name.partition("-")[2].isdigit() and p.is_dir()]


def check_same(run: Run) -> None:
    """Refuse a folder that holds checkpoints of another run."""
    recorded = (read_record(run.folder / RECORD) or {}).get("settings", {})
    if _saves(run.folder) and recorded != run.settings:
        differ = [key for key in run.settings | recorded if recorded.get(key) != run.settings.get(key)]
        raise TangevalError(
            f"output_dir: {run.folder} holds checkpoints of another run ({', '.join(differ)} differ); give "
            "another output_dir=…, or --overwrite to move them aside"
        )


def _make_ready(run: Run, overwrite: bool) -> None:
    saves, recorded = _saves(run.folder), (read_record(run.folder / RECORD) or {}).get("settings", {})
    if not overwrite:
        check_same(run)
    remove_temp_files(run.folder)
    found = checkpoints.discover([str(run.folder)])[0] if saves and not overwrite else ()
    whole = [c.path for c in found if c.path in saves]
    while whole and whole[-1] and not run.complete() and not _can_go_on(whole[-1]):
        whole.pop()
    strange = [save for save in saves if save not in whole]
    aside(strange, run.folder, "no whole checkpoints of this run, which makes its own")
    if not whole or not recorded:
        write_json(run.folder / RECORD, {"settings": run.settings})


def _can_go_on(save: Path) -> bool:
    """Whether the parts beside the weights are there, as they were sealed."""
    noise = listed(save, "rng_state*") or [save / "rng_state.pth"]
    parts = [save / "optimizer.pt", save / "scheduler.pt", *noise]
    return all(map(present, parts)) and not broken_part(save)
