"""What is handed to others: a class's page, a model card, a tracker's runs, slides."""

from collections.abc import Sequence
from pathlib import Path

from tangeval.analysis import classroom
from tangeval.reporting.notebook import Results
from tangeval.reporting.page.classroom import write as write_class
from tangeval.reporting.sharing.card import write_card
from tangeval.reporting.sharing.log import check_tracker, log

__all__ = ["check_tracker", "log", "score_class", "write_card", "write_slides"]


def score_class(
    files: Sequence[str | Path], out: str | Path, *, by: str = "form", hide_names: bool = False,
    data: str | None = None, task: str = "tang", split: str = "test",
) -> tuple[classroom.Classroom, list[Path]]:  # fmt: skip
    """Score a class's files and folders, write page and grade book into ``out``; return what was found, and their paths.

    ``data`` is by default HW5's for ``tang``, else the task's own. Pseudonyms take the names' place with ``hide_names``.

    Raises:
        TangevalError: as ``analysis.classroom.score_class`` and ``page.classroom.write``.
    """
    found = classroom.score_class(files, data, split, by, task=task)
    return found, write_class(found, Path(out), hide_names)


def write_slides(results: Results) -> list[Path]:
    """Write ``slides/`` in the results folder; return the paths of its pictures, PNG and SVG.

    Raises:
        TangevalError: there is no verdict, or it has no claims.
    """
    from tangeval.reporting.sharing.slides import draw  # matplotlib, which scoring does without

    return draw(results)
