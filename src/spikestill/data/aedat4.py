"""AEDAT4 recordings, decoded in processes of their own.

The decoder takes the sizes in a file at their word, so a damaged recording can end its process.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

import numpy as np

from spikestill.data.frames import Recording
from spikestill.types import InputError

__all__ = ["Aedat4Decoder"]

_PROGRAM = Path(__file__).with_name("aedat4_process.py")
_NUMBERS = 4
"""Of an event: time, column, row, polarity."""
_SECONDS = 300
"""For a recording."""


class Aedat4Decoder:
    """Reads recordings, from several threads at a time, within a ``with``.

    Args:
        name: of the data set, for the error.

    Raises:
        InputError: when the decoder is not installed.
    """

    def __init__(self, name: str = "cifar10-dvs") -> None:
        if importlib.util.find_spec("aedat") is None:
            raise InputError(f"{name} needs aedat: pip install 'spikestill[events]'")
        self._mine = threading.local()
        self._running: set[_Process] = set()

    def __enter__(self) -> Aedat4Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.end()

    def __call__(self, file: Path) -> Recording:
        """The events of a recording.

        Raises:
            InputError: when it cannot be read.
        """
        process = self._process()
        try:
            time, x, y, polarity = process.asked(file)
        except _RefusedError as error:
            reason = str(error)
        except (OSError, ValueError):  # it broke off in the middle
            self._running.discard(process)
            process.end()
            self._mine.process, reason = None, "it ends the decoder"
        else:
            return Recording(x, y, polarity, time)
        raise InputError(f"'{file}' is not a readable AEDAT4 recording ({reason}); repair or remove it")

    def _process(self) -> _Process:
        """This thread's process; a new one where it has none, or none any more."""
        process: _Process | None = getattr(self._mine, "process", None)
        if process is None:
            self._mine.process = process = _Process()
            self._running.add(process)
        return process


class _RefusedError(Exception):
    """What the decoder says of a recording."""


class _Process:
    """A process that decodes.

    Raises:
        InputError: when it does not start.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-P", str(_PROGRAM)]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL  # a panic writes to standard error
        self._running = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
        assert self._running.stdin is not None
        assert self._running.stdout is not None
        self._paths, self._answers = self._running.stdin, self._running.stdout
        if not self._answers.readline():
            self.end()
            raise InputError("the decoder of AEDAT4 recordings does not start: python -c 'import aedat' says why")

    def asked(self, file: Path) -> np.ndarray:
        """The recording's rows ``[4, events]``: time, column, row, polarity.

        Raises:
            _RefusedError: when it cannot be decoded.
            OSError, ValueError: when the process ends before it has answered.
        """
        end = threading.Timer(_SECONDS, self._running.kill)
        end.start()
        try:
            self._paths.write(json.dumps(str(file)).encode() + b"\n")
            self._paths.flush()
            said = json.loads(self._answers.readline())
            if "error" in said:
                raise _RefusedError(said["error"])
            content = self._answers.read(said["events"] * _NUMBERS * np.dtype(np.int64).itemsize)
            return np.frombuffer(content, np.int64).reshape(_NUMBERS, said["events"])
        finally:
            end.cancel()

    def end(self) -> None:
        """Leave nothing of it."""
        self._running.kill()
        for pipe in (self._paths, self._answers):
            with contextlib.suppress(OSError):
                pipe.close()
        self._running.wait()
