"""A live logger whose failures end no training."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from lightning.pytorch.loggers import Logger

__all__ = ["TolerantLogger"]


class TolerantLogger(Logger):
    """Passes everything on to another logger until that fails; the failure is said once.

    Args:
        logger: the one that writes.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__()
        self._logger = logger
        self._failed = False

    @property
    def name(self) -> str | None:
        """Of the other logger."""
        return self._logger.name

    @property
    def version(self) -> int | str | None:
        """Of the other logger."""
        return self._logger.version

    @property
    def save_dir(self) -> str | None:
        """Of the other logger."""
        return self._logger.save_dir

    @property
    def log_dir(self) -> str | None:
        """Of the other logger."""
        return getattr(self._logger, "log_dir", None)

    @property
    def experiment(self) -> Any:
        """Of the other logger, which makes it when it is first asked for; None once that fails."""
        return self._tried(lambda: getattr(self._logger, "experiment", None))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:  # noqa: D102
        self._tried(lambda: self._logger.log_metrics(metrics, step))

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        self._tried(lambda: self._logger.log_hyperparams(params, *args, **kwargs))

    def save(self) -> None:  # noqa: D102
        self._tried(self._logger.save)

    def finalize(self, status: str) -> None:  # noqa: D102
        self._tried(lambda: self._logger.finalize(status))

    def _tried(self, write: Callable[[], Any]) -> Any:
        if self._failed:
            return None
        try:
            return write()
        except Exception as error:  # whatever a disk, a network or a foreign package makes of it
            self._failed = True
            reason = " ".join(str(error).split()) or type(error).__name__
            logging.getLogger("spikestill").warning(
                f"the live logger failed ({reason}) and shows nothing more; the training goes on"
            )
            return None
