"""A sign of life from work that takes more than three seconds: how much is done, and how long the rest will take."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextvars import ContextVar
from typing import TypeVar

from spikestill.text import visible

__all__ = ["Progress", "duration", "tracked"]

Item = TypeVar("Item")

# Work shorter than this passes in silence (seconds).
_SILENT = 3.0
# Between two lines on a terminal, where each overwrites the one before, and in a log (seconds).
_ON_TERMINAL, _IN_LOG = 1.0, 60.0

_inside: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether a loop that shows its progress is under way, so that the loops inside it stay silent."""


class Progress:
    """Prints to standard error: a line that overwrites itself on a terminal; elsewhere a first, one a minute, a last.

    Nothing is printed in the first three seconds, and nothing by any but the first of several processes.

    Args:
        title: what is done, e.g. ``decoding train``.
        total: how many there are; None where that is not known, so that the time left is not known either.
        unit: of what.
    """

    def __init__(self, title: str, total: int | None, unit: str = "images") -> None:
        self._title, self._total, self._unit = title, total, unit
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._speaks = _is_first()
        self._begun = time.monotonic()
        self._shown: float | None = None
        self._open = False

    def show(self, done: int) -> None:
        """Say that ``done`` of them are done, where it is time to say so."""
        now, last = time.monotonic(), self._total is not None and done >= self._total
        wait = _ON_TERMINAL if self._live else _IN_LOG
        is_time = last or self._shown is None or now - self._shown > wait
        if not self._speaks or not is_time or now - self._begun < _SILENT:
            return
        self._shown, self._open = now, not last
        passed = now - self._begun
        text = f"{self._title}: {done} {self._unit}, {duration(passed)} so far"
        if self._total is not None:
            left = "" if last else f", {duration(passed * (self._total - done) / max(done, 1))} left"
            text = f"{self._title}: {done} of {self._total} {self._unit}{left}"
        text = visible(text)
        if self._live:
            print(f"\r{text}\x1b[K", end="\n" if last else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line that stands on a terminal, where the work was broken off or its end not known."""
        if self._live and self._open:
            print(file=sys.stderr, flush=True)
        self._open = False


def tracked(items: Iterable[Item], title: str, total: int | None = None, unit: str = "batches") -> Iterator[Item]:
    """The items, one after another, with the progress of whoever works on them.

    A loop within another that is tracked shows nothing: the outer one knows how long all of it takes.

    Args:
        items: to work on.
        title: what is done.
        total: how many there are; by default their length, where they have one.
        unit: of what.
    """
    if _inside.get():
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    progress = Progress(title, total, unit)
    _inside.set(True)
    try:
        for done, item in enumerate(items, 1):
            yield item
            progress.show(done)
    finally:
        _inside.set(False)
        progress.close()


def duration(seconds: float) -> str:
    """Seconds as a reader wants them: ``3:20 min``, or ``1:05 h``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d} h" if minutes >= 60 else f"{minutes}:{rest:02d} min"


def _is_first() -> bool:
    """Whether this is the first of the processes that torchrun or SLURM started together, or alone."""
    name = "RANK" if "TORCHELASTIC_RUN_ID" in os.environ else "SLURM_PROCID"
    return os.environ.get(name, "0") == "0"
