"""The NIR graph that can write itself, and its reading. Imports ``nir``, so it is itself imported where it is used."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import nir

from spikestill.files import write_atomically
from spikestill.types import InputError

__all__ = ["Graph", "read"]

_TRIAL = "import sys, nir; nir.read(sys.argv[1])"
_TRIAL_SECONDS = 60


class Graph(nir.NIRGraph):  # type: ignore[misc]
    """A NIR graph with :meth:`write`; for every tool an ordinary ``nir.NIRGraph``."""

    def to_dict(self) -> dict[str, Any]:
        """As the plain NIR graph that it is in a file."""
        return {**super().to_dict(), "type": "NIRGraph"}

    def write(self, path: str | Path) -> Path:
        """Write an HDF5 file as ``nir.write`` does, but whole or not at all.

        Returns:
            Where it lies.

        Raises:
            InputError: when the disk is full or the folder cannot be written.
        """
        content = io.BytesIO()
        nir.write(content, self)
        write_atomically(Path(path), content.getbuffer())
        return Path(path)


def read(path: str | Path) -> nir.NIRGraph:
    """The NIR graph in a file.

    Raises:
        InputError: when there is none, or when it is damaged or something else.
    """
    if not Path(path).is_file():
        raise InputError(f"cannot read {path}: there is no such file")
    _try_elsewhere(path)
    try:
        return nir.read(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or no NIR file: {reason}") from error


def _try_elsewhere(path: str | Path) -> None:
    """Read the file in a process of its own first: on some damaged ones the HDF5 library never comes back.

    Raises:
        InputError: when that process does not end, or ends by a signal. What else is wrong is said by reading again.
    """
    command = [sys.executable, "-P", "-c", _TRIAL, str(path)]
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.run(
            command, stdin=nowhere, stdout=nowhere, stderr=nowhere, timeout=_TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} is damaged: the HDF5 library finds no end within {_TRIAL_SECONDS} s") from error
    if process.returncode not in (0, 1):  # 1 is an exception
        raise InputError(f"{path} is damaged: it ends the process that reads it (status {process.returncode})")
