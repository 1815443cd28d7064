"""A class's scores → files for the grade book, and one page to sort, search and read.

In: ``analysis.classroom.Classroom``. Out: ``grades.csv``, ``same_texts.csv`` and ``class.html`` in a folder. The page
computes no number: its script looks up the tables that it carries. Where names are hidden the page has pseudonyms,
and the CSV files have both: they are for the teacher alone.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tangeval.analysis.classroom import Classroom, HandedIn
from tangeval.core.errors import TangevalError
from tangeval.core.types import RANDOM, REFERENCE
from tangeval.reporting.page.packing import packed, page
from tangeval.results.files import csv_text, write_text

#: What pseudonyms are made with: whoever has it can find the names by trying them.
KEY = "names.key"
GRADES, SAME, PAGE = "grades.csv", "same_texts.csv", "class.html"
_SCRIPTS = ("core.js", "state.js", "class.js", "main.js")


def write(found: Classroom, folder: Path, hide_names: bool = False) -> list[Path]:
    """Write the three files into ``folder`` and return their paths.

    Pseudonyms are the same as long as ``names.key`` stays in the folder; it is made where it is not there.

    Raises:
        TangevalError: the key cannot be read, or a file cannot be written.
    """
    names = [*found.table["student"], *(each.student for each in found.broken)]
    shown = _pseudonyms(names, folder / KEY) if hide_names else dict(zip(names, names, strict=True))
    grades = _grades(found)
    if hide_names:
        grades.insert(1, "pseudonym", grades["student"].map(shown))
    same = found.shared.assign(
        examples=[
            "; ".join(found.dataset.split(found.split)[place].id for place in own)
            for own in found.shared["examples"]
        ]
    )
    for name, frame in ((GRADES, grades), (SAME, same)):
        write_text(folder / name, "\ufeff" + csv_text(frame))  # a spreadsheet tells UTF-8 by its mark
    write_text(folder / PAGE, _page(found, shown))
    return [folder / name for name in (PAGE, GRADES, SAME)]


def _grades(found: Classroom) -> pd.DataFrame:
    """A row a student, best first, then those whose files are broken; the ranks are of ``Classroom.by``."""
    ends, by = ("", "_low", "_high"), found.by
    measures = [f"{name}{end}" for name in _shown(found) for end in ends]
    ranks = {f"{by}_rank_low": "rank_low", f"{by}_rank_high": "rank_high"}
    own = found.table[["student", *ranks, *measures, "file", "matched", "notes"]].rename(columns=ranks)
    groups = pd.concat(
        [found.shared[[side, "group"]].set_axis(["student", "group"], axis=1) for side in "ab"]
    )
    own.insert(
        3, "same_texts_group", own["student"].map(groups.groupby("student")["group"].min()).astype("Int64")
    )
    broken = [
        {"student": each.student, "file": str(each.file or ""), "problem": each.problem}
        for each in found.broken
    ]
    return pd.concat(
        [own, pd.DataFrame(broken, columns=["student", "file", "problem"])], ignore_index=True
    ).astype(dict.fromkeys(("rank_low", "rank_high", "same_texts_group"), "Int64"))


def _shown(found: Classroom) -> list[str]:
    """The metrics that a reader sees: headline ones, the one that ranks first."""
    headline = [name for name in found.metrics if found.task.metrics[name].headline and name != found.by]
    return [found.by, *headline]


def _pseudonyms(names: list[str], file: Path) -> dict[str, str]:
    """A name for each student that tells nothing without the key, which is made where there is none."""
    if not file.exists():
        write_text(file, f"{secrets.token_hex(16)}\n")
        file.chmod(0o600)
    try:
        key = bytes.fromhex(file.read_text("ascii").strip())
    except (OSError, ValueError):
        key = b""
    if len(key) != 16:
        raise TangevalError(
            f"{file}: no key of names; put it back, or delete it and all get other pseudonyms"
        )
    made = {
        name: hmac.digest(key, name.encode("utf-8", "surrogatepass"), hashlib.sha256).hex() for name in names
    }
    size = next(n for n in range(6, 65) if len({each[:n] for each in made.values()}) == len(set(names)))
    return {name: f"student-{digest[:size]}" for name, digest in made.items()}


def _page(found: Classroom, shown: Mapping[str, str]) -> str:
    hidden = any(name != other for name, other in shown.items())
    table = found.table.assign(student=found.table["student"].map(shown))
    ranks = [f"{name}_rank_{end}" for name in found.ranked for end in ("low", "high")]
    metrics = [name + end for name in _shown(found) for end in ("", "_low", "_high")]
    rows = pd.concat([found.baselines, table], ignore_index=True).reindex(
        columns=["student", *metrics, *ranks, "matched", "notes"]
    )
    rows = rows.astype(dict.fromkeys(ranks, "Int64"))
    shared = found.shared.assign(
        a=found.shared["a"].map(shown),
        b=found.shared["b"].map(shown),
        examples=found.shared["examples"].map(_places),
    )
    broken = pd.DataFrame(
        [_broken(each, shown[each.student]) for each in found.broken], columns=["student", "problem"]
    )
    if hidden:  # the order in which files lie is that of the names
        broken = broken.sort_values("student")
    tables = {
        name: csv_text(frame) for name, frame in (("class", rows), ("shared", shared), ("broken", broken))
    }
    examples = found.dataset.split(found.split)
    facts: dict[str, Any] = {
        "study": f"{found.dataset.name} · {found.split}",
        "metrics": [_metric(found, name) for name in _shown(found)],
        "by": found.by, "baselines": [RANDOM, REFERENCE],
        "examples": [{"id": each.id, "input": each.input, "reference": each.reference} for each in examples],
        "carries": [], "knobs": [], "settings": [], "checkpoints": [], "several": [], "selection": None,
    }  # fmt: skip
    texts = {shown[name]: [list(own), found.passed.get(name, [])] for name, own in found.texts.items()}
    spelt = json.dumps(dict(sorted(texts.items())), ensure_ascii=False).encode("utf-8", "surrogatepass")
    content = {name: packed(csv.encode("utf-8", "surrogatepass")) for name, csv in tables.items()}
    return page(
        "class", _SCRIPTS, facts, content, texts={"units": packed(spelt)}, charts=False, beside=GRADES
    )


def _places(places: list[int]) -> str:
    return " ".join(map(str, places))


def _broken(each: HandedIn, shown: str) -> tuple[str, str]:
    """A row of the problems; a file's name can be the student's, and so can those of what else is there."""
    if each.file is None:
        return shown, each.problem if shown == each.student else each.problem.partition("; there ")[0]
    return shown, each.problem.replace(each.file.stem, shown)


def _metric(found: Classroom, name: str) -> dict[str, Any]:
    metric = found.task.metrics[name]
    return {
        "name": name, "label": dict(metric.label), "better": metric.better, "headline": True, "per_setting": True,
        "ranked": name in found.ranked,
    }  # fmt: skip
