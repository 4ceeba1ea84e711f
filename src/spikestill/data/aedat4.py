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


class Aedat4Decoder:
    """Reads recordings, from several threads at a time, within a ``with``.

    Raises:
        InputError: when the decoder is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("aedat") is None:
            raise InputError("cifar10-dvs needs aedat: pip install 'spikestill[events]'")
        self._mine = threading.local()
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Aedat4Decoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            with process, contextlib.suppress(OSError):
                process.kill()

    def __call__(self, file: Path) -> Recording:
        """The events of a recording.

        Raises:
            InputError: when it cannot be read.
        """
        try:
            reason, content = self._asked(file)
        except (OSError, ValueError):  # it broke off in the middle
            reason, content = "", b""
        if reason is None:
            time, x, y, polarity = np.frombuffer(content, np.int64).reshape(_NUMBERS, -1)
            return Recording(x, y, polarity, time)
        raise InputError(
            f"'{file}' is not a readable AEDAT4 recording ({reason or 'it ends the decoder'}); repair or remove it"
        )

    def _asked(self, file: Path) -> tuple[str | None, bytes]:
        """What is wrong with the recording, or None and its rows."""
        process = self._process()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(str(file)).encode() + b"\n")
        process.stdin.flush()
        said = json.loads(process.stdout.readline())
        if "error" in said:
            return str(said["error"]), b""
        wanted = said["events"] * _NUMBERS * np.dtype(np.int64).itemsize
        content = process.stdout.read(wanted)
        if len(content) < wanted:
            raise ValueError("the decoder's process has ended")
        return None, content

    def _process(self) -> subprocess.Popen[bytes]:
        """This thread's process; a new one where it has none, or none any more."""
        process: subprocess.Popen[bytes] | None = getattr(self._mine, "process", None)
        if process is None or process.poll() is not None:
            command = [sys.executable, "-P", str(_PROGRAM)]
            pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL  # a panic writes to standard error
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere)
            self._mine.process = process
            self._started.append(process)
        return process
