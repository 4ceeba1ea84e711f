"""What finished runs show, from their folders alone: no model is touched here."""

from spikestill.report.comparison import Row, compare

__all__ = ["Row", "compare"]
