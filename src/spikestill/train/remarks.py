"""What is said on the terminal while networks are built and loaded, kept for the run's record as well."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

__all__ = ["remarks_kept"]


@contextlib.contextmanager
def remarks_kept() -> Iterator[list[str]]:
    """What models and objectives remark within the block, a sentence each."""
    log, kept = logging.getLogger("spikestill"), _Kept()
    level = log.level
    log.addHandler(kept)
    log.setLevel(logging.INFO)
    try:
        yield kept.remarks
    finally:
        log.removeHandler(kept)
        log.setLevel(level)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.remarks: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "spikestill":  # that kernels are compiled is no matter of this run
            self.remarks.append(record.getMessage())
