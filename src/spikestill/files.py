"""Files that are there whole or not at all, and the lock that keeps two processes off one path.

Each file is written to a temporary name, synchronised and renamed, so that a crash leaves the old file or the new one,
never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from spikestill.types import InputError

__all__ = ["expanded", "is_partial", "lock_path", "open_folder", "regular", "write_atomically", "writing"]

_PARTIAL = ".partial"
_ATTEMPTS = 1000
"""To make a folder that others remove; if none succeeds, the fault is another: the current folder may be gone."""

_IN_THE_WAY = (errno.ELOOP, errno.EACCES, errno.ENXIO)
"""What opening a temporary file says of a link, of another user's file and of a FIFO or socket."""


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


def lock_path(path: Path, opened: Callable[[], int], *, wait: bool) -> int | None:
    """Lock what lies at ``path`` for this process, until the handle that is returned is closed or the process ends.

    A lock belongs to an inode, and its holder may remove or rename that before it lets go. So the lock counts only if
    the path still leads to the inode that was locked; otherwise ``opened`` is called again. What the holder removes
    while it holds the lock, no other process takes for the path.

    On a file system without such locks, and on Windows, nothing is locked.

    Args:
        path: of a file or a folder.
        opened: opens it, or makes it anew, and returns the handle.
        wait: for another process that holds it.

    Returns:
        The handle; None if another process holds the lock and this one does not wait.

    Raises:
        OSError: from ``opened``.
    """
    while True:
        handle = opened()
        try:
            if not _locked(handle, wait):
                os.close(handle)
                return None
            if _leads_to(path, handle):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def open_folder(folder: Path) -> int:
    """A handle of a folder, which is made where it is missing.

    Raises:
        OSError: when it cannot be made.
    """
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(FileNotFoundError):  # another process, which had made it too, has just removed it
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder, os.O_RDONLY)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def _locked(handle: int, wait: bool) -> bool:
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def _leads_to(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))


def write_atomically(path: Path, content: bytes | memoryview, *, synchronise: bool = True) -> None:
    """Write a temporary file beside ``path``, synchronise it and move it into place.

    The temporary name is fixed, so that the next attempt overwrites what a killed process left half written. Of several
    writers of one file each waits for the lock on that name: the file is the last one's, whole.

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
        temporary = path.with_name(f".{path.name}{_PARTIAL}")
        handle = lock_path(temporary, lambda: _open_own(temporary), wait=True)
        assert handle is not None
        try:
            _fill(handle, content, synchronise)
            if sys.platform == "win32":  # it moves no file that is open
                os.close(handle)
            temporary.replace(path)
            if synchronise:
                _synchronise(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            with contextlib.suppress(OSError):
                os.close(handle)


def _fill(handle: int, content: bytes | memoryview, synchronise: bool) -> None:
    """Give the file this content alone, on the disk if it is to be synchronised."""
    os.ftruncate(handle, 0)
    left = memoryview(content).cast("B")
    while left:
        left = left[os.write(handle, left) :]
    if synchronise:
        os.fsync(handle)


def _open_own(path: Path) -> int:
    """Open a temporary file that is this program's alone; what stands in its way, such as a link, is removed.

    Were it opened, what a link leads to would be overwritten, and a FIFO would wait for ever.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_BINARY", 0)
    while True:
        try:
            handle = os.open(path, flags, 0o666)
        except OSError as error:
            if error.errno not in _IN_THE_WAY:
                raise
            try:
                path.unlink()
            except OSError:
                raise error from None  # such as of a folder that cannot be written
            continue
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:
            return handle
        os.close(handle)
        if found.st_nlink:  # another writer has just moved or removed it otherwise
            path.unlink(missing_ok=True)


def _synchronise(folder: Path) -> None:
    """Have the folder's list of names on the disk too, where the system lets folders be opened."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
