"""Files that are there whole or not at all.

Each is written to a temporary name, synchronised and renamed, so that a crash leaves the old file or the new one, never
half of one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from spikestill.types import InputError

__all__ = ["is_partial", "write_atomically", "writing"]

_PARTIAL = ".partial"


def is_partial(path: Path) -> bool:
    """Whether this is what a killed process left of a file: the next attempt overwrites it, and nobody reads it."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, read-only folder) into one clear line that names ``path``.

    Raises:
        InputError: when the block raises an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"cannot write {path}: {reason}; free some space or choose another place (--out, --to)"
        ) from error


def write_atomically(path: Path, content: bytes | memoryview, *, synchronise: bool = True) -> None:
    """Write a temporary file beside ``path``, synchronise it and move it into place.

    Args:
        path: of the file; its folders are made.
        content: all of it.
        synchronise: wait for the disk. Without it the file outlives a killed process, not a power cut: for many files
            that can be made again.

    Raises:
        InputError: when the disk is full or the folder cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # One fixed name: what a killed process left half written is overwritten by the next attempt.
        temporary = path.with_name(f".{path.name}{_PARTIAL}")
        temporary.unlink(missing_ok=True)  # were it a link, what it leads to would be overwritten
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                if synchronise:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if synchronise:
                _synchronise(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _synchronise(folder: Path) -> None:
    """Have the folder's list of names on the disk too, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
