"""What finished runs show, from their folders alone: no model is touched here."""

from spikestill.report.comparison import Row, compare
from spikestill.report.page import write_page

__all__ = ["Row", "compare", "write_page"]
