"""A sign of life from long work on data: how much is done, and how long the rest will take."""

from __future__ import annotations

import sys
import time

from spikestill.text import visible

__all__ = ["Progress", "duration"]

# Work shorter than this passes in silence (seconds).
_SILENT = 2.0
# Between two lines on a terminal, where each overwrites the one before, and in a log (seconds).
_ON_TERMINAL, _IN_LOG = 1.0, 60.0


class Progress:
    """Prints to standard error: a line that overwrites itself on a terminal, a line a minute and a last one elsewhere.

    Args:
        title: what is done, e.g. ``decoding train``.
        total: how many there are.
        unit: of what.
    """

    def __init__(self, title: str, total: int, unit: str = "images") -> None:
        self._title, self._total, self._unit = title, total, unit
        self._live = sys.stderr.isatty()
        self._begun = self._shown = time.monotonic()

    def show(self, done: int) -> None:
        """Say that ``done`` of them are done, where it is time to say so."""
        now, last = time.monotonic(), done >= self._total
        wait = _ON_TERMINAL if self._live else _IN_LOG
        if now - self._begun < _SILENT or not (last or now - self._shown > wait):
            return
        self._shown = now
        text = f"{self._title}: {done} of {self._total} {self._unit}"
        if not last:
            text += f", {duration((now - self._begun) * (self._total - done) / max(done, 1))} left"
        text = visible(text)
        if self._live:
            print(f"\r{text}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a reader wants them: ``3:20 min``, or ``1:05 h``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"
