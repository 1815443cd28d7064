"""A declared task's files → its examples, and which of them are held out.

In: ``schema.Declared`` and the folder. Out: a ``Dataset``. A text is refused with its place where a field is not there,
is no text, or is too long, and where the reference is empty.
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

from tangeval.core.digest import digest
from tangeval.core.errors import TangevalError
from tangeval.core.types import SPLITS, Example, Split
from tangeval.tasks.base import Dataset
from tangeval.tasks.declared.readers import read, value
from tangeval.tasks.declared.schema import Declared

Parts = Callable[[Example], tuple[str, ...]]
#: The data of the task file itself, as a study names them.
ALL = "sample"


def load(
    said: Declared, root: Path, wanted: Set[str], parts: Parts, spec: str, validation: int | None = None
) -> Dataset:
    """Return the examples; ``spec`` is ``sample`` for the task's own files, or a folder that has files of these names.

    ``wanted`` are the fields that are kept beside those that ``fields`` names. Held out of training are the last
    records, with all that share a cluster or a part with them.

    Raises:
        TangevalError: naming file and line, or the split that cannot be made.
    """
    if spec != ALL and not Path(spec).is_dir():
        raise TangevalError(
            f"data: there is no folder {spec}; give {ALL}, or a folder with the files of {said.name}"
        )
    folder = root if spec == ALL else Path(spec)
    sizes = {split: getattr(said.data, split) for split in ("test", "validation")}
    if validation is not None:
        sizes["validation"] = validation
    training = _examples(said, said.data.train, folder, "train", wanted)
    held: dict[str, Split] = {}
    for split in SPLITS[:0:-1]:
        size = sizes[split]
        if isinstance(size, int) and size:
            left = [e for e in training if e.id not in held]
            held |= dict.fromkeys(_held_out(left, size, said, parts, split), split)
    examples = [replace(e, split=held.get(e.id, "train")) for e in training]
    for split in SPLITS[1:]:
        if not isinstance(sizes[split], int):
            examples += _examples(said, sizes[split], folder, split, wanted)
    content = [[e.id, e.split, e.input, e.reference, *e.references, *e.fields] for e in examples]
    return Dataset(said.name if spec == ALL else spec, folder, tuple(examples), digest(content))


def _examples(said: Declared, source: Any, folder: Path, split: Split, wanted: Set[str]) -> list[Example]:
    names, found = said.fields_, list[Example]()
    kept = sorted({*names.prompt, *wanted} | ({names.cluster} if names.cluster else set()))
    for number, (where, record) in enumerate(read(source, folder), 1):
        fields = {name: value(record, name, where) for name in kept}
        references = [text for name in names.reference for text in _texts(record, name, where)]
        given = "\n".join(fields[name] for name in names.prompt)
        own = tuple(fields.items())
        cluster = fields[names.cluster] if names.cluster else ""
        rest = tuple(references[1:])
        found.append(Example(f"{split}-{number}", said.name, given, references[0], split, own, rest, cluster))
    if not found:
        raise TangevalError(f"{source}: no record; give at least one")
    return found


def _texts(record: Any, name: str, where: str) -> list[str]:
    """A field's text, or the texts of its list; none is empty."""
    values = record.get(name)
    each = [{name: one} for one in values] if isinstance(values, list) else [record]
    texts = [value(one, name, where) for one in each]
    if not texts or not all(text.strip() for text in texts):
        raise TangevalError(f"{where}: {name} is empty; a reference has text")
    return texts


def _held_out(records: Sequence[Example], size: int, said: Declared, parts: Parts, split: str) -> list[str]:
    """The ids of ``size`` records from the end, in whole groups of those that share a cluster or a part."""
    group, owner = list(range(len(records))), dict[Any, int]()

    def root(place: int) -> int:
        while group[place] != place:
            group[place] = place = group[group[place]]
        return place

    for place, example in enumerate(records):
        for key in [*parts(example), *([("cluster", example.cluster)] if example.cluster else [])]:
            group[root(place)] = root(owner.setdefault(key, place))
    members: dict[int, list[str]] = {}
    for place, example in enumerate(records):
        members.setdefault(root(place), []).append(example.id)
    chosen = list[str]()
    for own in reversed(list(members.values())[1:]):
        chosen += own if len(own) <= size - len(chosen) else []
    if len(chosen) < size:
        least = min(map(len, members.values()))
        remedy = "ask for fewer" if chosen else f"ask for {least} at least, or take another cluster"
        raise TangevalError(
            f"data.{split}: {size} records were asked for, and {len(chosen)} can be held out whole: {len(members)} groups "
            f"of {least} records or more share a cluster or a sentence; {remedy}"
        )
    return chosen
