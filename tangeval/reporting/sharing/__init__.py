"""What is handed to others: a class's page, a model card, a tracker's runs."""

from tangeval.reporting.page.classroom import score_class
from tangeval.reporting.sharing.card import write_card
from tangeval.reporting.sharing.log import check_tracker, log

__all__ = ["check_tracker", "log", "score_class", "write_card"]
