"""Ending a training where it can go on, when Ctrl-C or the system (SIGTERM) asks for it."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

import torch

from spikestill.train.processes import Processes
from spikestill.types import Interrupted

__all__ = ["StopRequest", "StoppedError"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(Exception):
    """Leaves the training loop after the checkpoint that a request asked for.

    Not itself a KeyboardInterrupt, on which Lightning would end the process.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.interrupted = Interrupted(number)


class StopRequest:
    """Whether this process was asked to stop; while it listens, a signal is taken note of, a second one acts at once.

    In a thread that may not handle signals they act as ever.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take note of signals from now on."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def release(self) -> None:
        """Let signals act as they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def pending(self, processes: Processes, device: torch.device) -> int:
        """The signal by which any of the processes was asked to stop; 0 for none. Every one of them has to ask."""
        if processes.count == 1:
            return self.number or 0
        return int(processes.reduced(torch.tensor(float(self.number or 0), device=device), "max"))

    def obey(self, processes: Processes, device: torch.device) -> None:
        """Stop every process, if one of them was asked to; to be called when a checkpoint has been written.

        Raises:
            StoppedError: then.
        """
        if number := self.pending(processes, device):
            raise StoppedError(number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.release()
