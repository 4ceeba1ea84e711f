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

_TRIAL = """
import contextlib, sys, h5py, nir

def refuse_links(group, seen):
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            sys.exit(f"it holds a link ({name!r:.60}), and a link can lead into other files")
        item = group[name]
        if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
            sys.exit(f"the numbers of {name!r:.60} lie in other files")
        if isinstance(item, h5py.Group) and item.id not in seen:
            seen.append(item.id)
            refuse_links(item, seen)

with contextlib.suppress(ImportError, ValueError):  # not every system has it, and it may be lower already
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), resource.getrlimit(resource.RLIMIT_AS)[1]))
try:
    with h5py.File(sys.argv[1], "r") as file:
        refuse_links(file, [file.id])
    nir.read(sys.argv[1])
except Exception as error:
    sys.exit(" ".join(str(error).split()) or type(error).__name__)
"""
_TRIAL_SECONDS = 60
_TRIAL_BYTES = 4 * 2**30
"""Of memory, beside eight times the file's size."""


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
    _try_elsewhere(Path(path))
    try:
        return nir.read(path)
    except (OSError, KeyError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} is damaged or no NIR file: {reason}") from error


def _try_elsewhere(path: Path) -> None:
    """Read the file in a process of its own first: on some damaged ones HDF5 never comes back, or takes all memory.

    Links and external storage are refused there before anything is read: HDF5 would follow them into other files.

    Raises:
        InputError: when that process refuses the file, does not end, or ends by a signal.
    """
    limit = _TRIAL_BYTES + 8 * path.stat().st_size
    command = [sys.executable, "-P", "-c", _TRIAL, str(path), str(limit)]
    nowhere = subprocess.DEVNULL
    try:
        process = subprocess.run(
            command, stdin=nowhere, stdout=nowhere, stderr=subprocess.PIPE, timeout=_TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} is damaged: the HDF5 library finds no end within {_TRIAL_SECONDS} s") from error
    if process.returncode not in (0, 1):
        raise InputError(f"{path} is damaged: it ends the process that reads it (status {process.returncode})")
    if process.returncode == 1:
        said = process.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(f"{path} is damaged or no NIR file: {said[-1] if said else 'it cannot be read'}")
