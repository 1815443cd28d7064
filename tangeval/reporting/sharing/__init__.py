"""What is handed to others: a class's page, a model card, a tracker's runs, slides."""

from tangeval.reporting.page.classroom import score_class
from tangeval.reporting.sharing.card import write_card
from tangeval.reporting.sharing.log import check_tracker, log
from tangeval.reporting.sharing.slides import write_slides

__all__ = ["check_tracker", "log", "score_class", "write_card", "write_slides"]
