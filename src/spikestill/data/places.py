"""Where a named data set lies below the folder that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spikestill.types import InputError

__all__ = ["find_place", "look_into"]


def find_place(name: str, data_dir: Path, folder: str, holds: Sequence[str], origin: str) -> Path:
    """The folder of a data set: ``data_dir/folder`` or ``data_dir`` itself, whichever has everything in it.

    Args:
        name: of the data set.
        data_dir: where the user says that data sets lie.
        folder: what its folder is called by those who publish it.
        holds: files and folders that it consists of.
        origin: what to unpack to get it.

    Raises:
        InputError: with the layout that was expected and what is missing.
    """
    missing: dict[Path, list[str]] = {}
    for place in (data_dir / folder, data_dir):
        missing[place] = [entry for entry in holds if not (place / entry).exists()]
        if not missing[place]:
            return place
    nearest = min(missing, key=lambda place: len(missing[place]))
    lacking = f"'{nearest}' lacks {', '.join(missing[nearest])}" if nearest.is_dir() else f"'{nearest}' is not there"
    raise InputError(
        f"{name}: expected the folder '{data_dir / folder}' with {', '.join(holds)} in it, but {lacking}; "
        f"unpack {origin} there, or name another folder with --data-dir"
    )


def look_into(name: str, folder: Path) -> list[Path]:
    """What lies in a folder, hidden entries apart, sorted by name whatever the order on disk.

    Raises:
        InputError: when there is no such folder, or it cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{name}: the folder '{folder}' cannot be read ({error.strerror})") from error
