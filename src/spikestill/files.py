"""Files that are there whole or not at all.

Each is written to a temporary name, synchronised and renamed, so that a crash leaves the old file or the new one, never
half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from spikestill.types import InputError

__all__ = ["expanded", "is_partial", "regular", "write_atomically", "writing"]

_PARTIAL = ".partial"


def is_partial(path: Path) -> bool:
    """Whether this is what a killed process left of a file: the next attempt overwrites it, and nobody reads it."""
    return path.name.startswith(".") and path.name.endswith(_PARTIAL)


def regular(path: Path) -> Path:
    """The same path, if it leads to a regular file: to open a pipe waits for ever, a device may have no end.

    Raises:
        OSError: when there is nothing, or a folder, pipe, socket or device; its ``strerror`` says which.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a NUL byte
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no file, but a pipe, a socket or a device", str(path))
    return path


def expanded(path: str | Path) -> Path:
    """A path with ``~`` and ``~USER`` replaced by home folders.

    Raises:
        InputError: for a user who has none, and for a path that no file can have.
    """
    if "\0" in str(path):
        raise InputError(f"{str(path)!r:.100} holds a NUL character, which no path can")
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"'{path}' names a home folder that is not known: write the whole path") from error


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
