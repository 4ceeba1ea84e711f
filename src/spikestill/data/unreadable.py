"""What happens to a file that cannot be read: it is refused, or left out and counted."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from typing import Any

from spikestill.text import visible
from spikestill.types import InputError

__all__ = ["Unreadable"]

# A disk that fails would otherwise fill the terminal.
_MOST_PRINTED = 20


class Unreadable:
    """Meets the files of a data set that cannot be read.

    Args:
        skip: leave them out, say so and count them; otherwise the first one ends the work.

    Attributes:
        complaints: one line for every file that was left out, once.
        converted: by phrase, how many images were not taken as they are.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.complaints: dict[str, None] = {}
        self.converted: Counter[str] = Counter()
        self._summarised = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many files were left out."""
        return len(self.complaints)

    def __getstate__(self) -> dict[str, Any]:
        """Without the lock, which no other process can have."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """With a lock of its own."""
        vars(self).update(state, _lock=threading.Lock())

    def note(self, phrase: str) -> None:
        """Count an image that was converted; several threads may."""
        with self._lock:
            self.converted[phrase] += 1

    @property
    def notes(self) -> tuple[str, ...]:
        """What was converted, and how often, a phrase each."""
        return tuple(f"{count} images {phrase}" for phrase, count in sorted(self.converted.items()))

    def meet(self, error: InputError) -> None:
        """Deal with one file.

        Args:
            error: names the file and says what is wrong with it.

        Raises:
            InputError: ``error``, where nothing may be left out.
        """
        if not self.skip:
            raise InputError(f"{error}, or leave such files out with --skip-corrupt true") from error
        if str(error) in self.complaints:
            return
        self.complaints[str(error)] = None
        if len(self) <= _MOST_PRINTED:
            print(visible(f"skipped ({len(self)}): {error}"), file=sys.stderr, flush=True)

    def summarise(self) -> None:
        """Print how many files were left out so far, if there are more than were said already."""
        if len(self) > self._summarised:
            self._summarised = len(self)
            print(f"files that cannot be read and were skipped: {len(self)}", file=sys.stderr, flush=True)
