"""What is handed to others: a class's page, a model card."""

from tangeval.reporting.page.classroom import score_class
from tangeval.reporting.sharing.card import write_card

__all__ = ["score_class", "write_card"]
