"""Whether a file or a folder is out of the reach of other users: code is loaded from nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["is_private", "private_folder"]

_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def private_folder(folder: Path) -> Path | None:
    """The folder, made if it is not there, without links on the way; None if it cannot be private and writable.

    Raises:
        OSError: when it cannot be made.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()  # its parents are those that the system goes through
    if _is_own(folder.stat()):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~_BY_OTHERS)
    return folder if os.access(folder, os.W_OK) and is_private(folder) and _parents_are_safe(folder) else None


def is_private(path: Path) -> bool:
    """Whether it is there, is a plain file or a folder and no link, and only this user or root can write to it."""
    try:
        found = path.lstat()
    except OSError:
        return False
    is_plain = stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)
    return is_plain and _is_own(found) and not (os.name == "posix" and found.st_mode & _BY_OTHERS)


def _parents_are_safe(folder: Path) -> bool:
    """Whether nobody else can put another folder in its place: in a sticky one (/tmp) only an entry's owner can."""
    for parent in folder.parents:
        found = parent.stat()
        if not _is_own(found):
            return False
        is_open = os.name == "posix" and found.st_mode & _BY_OTHERS and not found.st_mode & stat.S_ISVTX
        if is_open and (found.st_mode & stat.S_IWOTH or not _is_group_of_one(found.st_gid)):
            return False
    return True


def _is_own(found: os.stat_result) -> bool:
    return os.name != "posix" or found.st_uid in (0, os.geteuid())


def _is_group_of_one(group: int) -> bool:
    """Whether it is the group that has this user's name and no other member, as many systems give to every user."""
    import grp
    import pwd

    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return False
    return entry.gr_name == user and set(entry.gr_mem) <= {user}
