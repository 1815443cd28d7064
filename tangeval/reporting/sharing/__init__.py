"""What is handed to others: a class's page, a model card, a tracker's runs, slides."""

from pathlib import Path

from tangeval.reporting.notebook import Results
from tangeval.reporting.page.classroom import score_class
from tangeval.reporting.sharing.card import write_card
from tangeval.reporting.sharing.log import check_tracker, log

__all__ = ["check_tracker", "log", "score_class", "write_card", "write_slides"]


def write_slides(results: Results) -> list[Path]:
    """Write ``slides/`` in the results folder; return the paths of its pictures, PNG and SVG.

    Raises:
        TangevalError: there is no verdict, or it has no claims.
    """
    from tangeval.reporting.sharing.slides import draw  # matplotlib, which scoring does without

    return draw(results)
