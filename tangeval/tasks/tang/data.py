"""HW5's three files and their splits.

In: a folder holding ``Tang_training_data.json``, ``Tang_testing_data.json`` and
``Tang_testing_gt.txt``. Out: a frozen ``Dataset`` of examples. Knows nothing of prompts,
tokenizers or models.
"""

import hashlib
import os
import subprocess
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tangeval.core.errors import TangevalError
from tangeval.core.types import ASSETS, Example, Split
from tangeval.core.untrusted import MIB, listed, read_text
from tangeval.tasks.base import Dataset
from tangeval.tasks.tang.text import clauses, fold, han, punctuate
from tangeval.tasks.tang.wrappers import unwrap

TRAINING, TESTING, TRUTH = "Tang_training_data.json", "Tang_testing_data.json", "Tang_testing_gt.txt"
FILES = (TRAINING, TESTING, TRUTH)
SAMPLE = ASSETS / "sample"
CLONE = Path("data") / "GenAI-Hw5"
#: Where the homework's own notebook clones them.
BESIDE = Path("GenAI-Hw5")
REPOSITORY, COMMIT = "https://github.com/CheeEn-Yu/GenAI-Hw5.git", "8775ee3"
#: Digest of its three files, as they were then.
CONTENT = "ad095e3e72975a9fa19216cf3e1a13a7"
#: How many poems the validation split takes from the end of the training file.
VALIDATION = {"hw5": 200, "sample": 30}
#: Bytes of a file: all that is left of Tang poetry, as records, is half of it.
_LARGEST = 32 * MIB


def parts(example: Example) -> tuple[str, ...]:
    """Return the clauses of the whole poem, folded, in order."""
    return clauses(fold(example.input + "，" + example.reference))


def load(spec: str, validation: int | None = None) -> Dataset:
    """Read a data set: ``sample``, ``hw5``, or the path of a folder with HW5's three files.

    ``validation`` is the size of the validation split (default: ``VALIDATION``). It takes the last records of
    the training file whose clauses stand in no other record, so that nothing in training gives one away. Answers
    that are whole poems, their couplet included, or stand in a known wrapper, are cut with a warning.

    Raises:
        TangevalError: a file is missing or malformed (with file and line), or has too few such records.
    """
    folder = locate(spec)
    size = VALIDATION.get(spec, VALIDATION["hw5"]) if validation is None else validation
    training = _records(folder / TRAINING, ("instruction", "input", "output"))
    testing = _records(folder / TESTING, ("instruction", "input"))
    answers, cut = _answers(folder / TRAINING, training, [r["output"] for r in training])
    truth, cut_too = _answers(folder / TRUTH, testing, _truth(folder / TRUTH, len(testing)))
    records = _examples("train", training, answers)
    tests = _examples("test", testing, [punctuate(clauses(answer)) for answer in truth])
    held_out = _held_out(records, size, folder / TRAINING)
    examples = [replace(e, split="validation") if e.id in held_out else e for e in records]
    how = f"{size}{' cut' if cut or cut_too else ''}"
    return Dataset(spec, folder, (*examples, *tests), _digest(folder, how))


def _examples(split: Split, records: Iterable[dict[str, str]], answers: Iterable[str]) -> list[Example]:
    numbered = enumerate(zip(records, answers, strict=True), 1)
    return [
        Example(f"{split}-{n}", r["instruction"], r["input"], answer, split) for n, (r, answer) in numbered
    ]


def _answers(
    file: Path, records: Sequence[dict[str, str]], answers: Sequence[str]
) -> tuple[list[str], list[int]]:
    """The answers without couplet and wrapper, and the numbers of those that had one; warns of them."""
    found = [unwrap(a, fold(han(r["input"]))) for r, a in zip(records, answers, strict=True)]
    cut = [n for n, each in enumerate(found) if each.cut and clauses(each.text)]
    there = set(cut)
    if cut:
        what = " and ".join(dict.fromkeys(part for n in cut for part in found[n].cut))
        warnings.warn(
            f"{file}: {what} cut from {len(cut)} of {len(answers)} answers, first from number {cut[0] + 1}, "
            f"{answers[cut[0]].strip()[:40]!r}; an answer is what comes after the couplet",
            stacklevel=2,
        )
    return [found[n].text if n in there else answer for n, answer in enumerate(answers)], cut


def locate(spec: str) -> Path:
    """Return the folder that ``spec`` stands for; for ``hw5``: $TANGEVAL_DATA, then a clone here.

    Raises:
        TangevalError: there is no such folder; the message says how to get the data.
    """
    if spec == "sample":
        return SAMPLE
    if spec != "hw5":
        if not Path(spec).is_dir():
            raise TangevalError(f"data: there is no folder {spec}; give sample, hw5 or a folder")
        return Path(spec)
    declared = os.environ.get("TANGEVAL_DATA")
    for place in (Path(declared or CLONE), CLONE, BESIDE):
        if (place / TRAINING).is_file():
            return place
    raise TangevalError(
        f"data: hw5 is neither in $TANGEVAL_DATA ({declared or 'not set'}) nor in {CLONE} or {BESIDE}: no {TRAINING} "
        "is there; `tangeval data fetch` clones it. `data: sample` has other poems and needs nothing"
    )


def fetch(target: Path = CLONE) -> Path:
    """Clone HW5's repository into ``target`` with git, as it was at ``COMMIT``, and return it; an existing one is kept.

    Raises:
        TangevalError: git fails, or the files are not those that this version was measured on.
    """
    if (target / TRAINING).is_file():
        return target
    try:
        subprocess.run(["git", "clone", "--quiet", "--no-checkout", REPOSITORY, str(target)], check=True)
        subprocess.run(["git", "-C", str(target), "checkout", "--quiet", COMMIT], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise TangevalError(
            f"could not clone {REPOSITORY} into {target} ({error}); clone it by hand on a machine "
            "with a network and set TANGEVAL_DATA to the folder"
        ) from error
    if _digest(target) != CONTENT:
        raise TangevalError(
            f"{target} holds other files than HW5's at commit {COMMIT}; remove it and look at {REPOSITORY}"
        )
    return target


def _digest(folder: Path, size: str = "") -> str:
    found = hashlib.blake2b(size.encode(), digest_size=16)
    for name in FILES:
        found.update((folder / name).read_bytes())
    return found.hexdigest()


def _held_out(records: list[Example], size: int, file: Path) -> set[str]:
    """The ids of the last ``size`` records none of whose clauses stands in another record."""
    poems = [set(parts(record)) for record in records]
    count = Counter(clause for poem in poems for clause in poem)
    alone = [e.id for e, poem in zip(records, poems, strict=True) if all(count[c] == 1 for c in poem)]
    if size > len(alone):
        raise TangevalError(
            f"{file}: {size} validation poems were asked for and only {len(alone)} records share no "
            "clause with another; set data.validation lower"
        )
    return set(alone[len(alone) - size :])


def _read(file: Path) -> str:
    try:
        return read_text(file, _LARGEST)
    except FileNotFoundError:
        raise TangevalError(f"{file} is missing; a data folder holds {', '.join(FILES)}") from None
    except OSError as error:
        raise TangevalError(f"{file} cannot be read: {error.strerror}") from None


def _records(file: Path, fields: tuple[str, ...]) -> list[dict[str, str]]:
    records = []
    for number, (line, record) in enumerate(listed(_read(file), file), 1):
        missing = [f for f in fields if not isinstance(record, dict) or not isinstance(record.get(f), str)]
        empty = [f for f in fields if f not in missing and f != "instruction" and not clauses(record[f])]
        if missing or empty:
            problem = f"text field {missing[0]!r}" if missing else f"Han character in {empty[0]!r}"
            raise TangevalError(f"{file}, line {line}: record {number} has no {problem}")
        records.append(record)
    if not records:
        raise TangevalError(f"{file}, line 1: expected a JSON list of records, and at least one")
    return records


def _truth(file: Path, expected: int) -> list[str]:
    """The lines of the ground truth."""
    lines = _read(file).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not clauses(line):
            raise TangevalError(f"{file}, line {number}: empty; each line holds one poem's clauses")
    if len(lines) != expected:
        raise TangevalError(
            f"{file}, line {min(len(lines), expected) + 1}: {len(lines)} lines for {expected} records in "
            f"{TESTING}; there must be one for each, in the same order"
        )
    return lines
