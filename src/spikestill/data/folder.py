"""Images in folders, one folder a class."""

from __future__ import annotations

from pathlib import Path

from spikestill.data.decode import decode_files
from spikestill.data.parts import ON_DISK, assemble, choose
from spikestill.data.records import RawData
from spikestill.data.unreadable import Unreadable
from spikestill.types import InputError

__all__ = ["read_folder"]

_EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def read_folder(path: Path, image_size: int | None = None, unreadable: Unreadable | None = None) -> RawData:
    """Read ``train/<class>/*.png`` (or other image files) and the same under ``test/`` or ``val/``.

    Classes are numbered in alphabetical order of their folders. Where both ``test`` and ``val`` exist, ``val`` is the
    validation set; where only ``val`` exists, it is the test set. Files that are no images by their ending, and hidden
    files, are passed over.

    Args:
        path: the folder that holds ``train``.
        image_size: scale the shorter side to this and cut out the central square; None: keep the common size.
        unreadable: what happens to images that cannot be read; None refuses them.

    Raises:
        InputError: missing parts, a class without an image, classes that differ between the parts, an image that
            cannot be read (with its path), or images of several sizes without ``image_size``.
    """
    if not path.is_dir():
        raise InputError(f"folder: '{path}' is not a folder; give the one that holds train/<class>/ and test/<class>/")
    folders = choose({name: path / name for name in ON_DISK if (path / name).is_dir()}, f"folder: '{path}'")
    classes = {part: _classes(folder) for part, folder in folders.items()}
    for part in folders:
        _compare(classes["train"], classes[part], folders["train"], folders[part])
    files = {part: [file for listed in found.values() for file in listed] for part, found in classes.items()}
    labels = {
        part: [label for label, listed in enumerate(found.values()) for _ in listed] for part, found in classes.items()
    }
    decoded = {
        part: decode_files(listed, title=f"decoding {folders[part].name}", image_size=image_size, unreadable=unreadable)
        for part, listed in files.items()
    }
    return assemble(decoded, labels, tuple(classes["train"]), lambda part, row: f"'{files[part][row]}'")


def _classes(folder: Path) -> dict[str, list[Path]]:
    """The image files of every class, both in alphabetical order."""
    classes = {}
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        classes[entry.name] = sorted(
            file
            for file in entry.rglob("*")
            if file.suffix.lower() in _EXTENSIONS and not file.name.startswith(".") and file.is_file()
        )
        if not classes[entry.name]:
            raise InputError(f"folder: class '{entry.name}' is empty: no image file in '{entry}'; fill or remove it")
    if not classes:
        raise InputError(f"folder: '{folder}' holds no class; it needs one folder of images for each")
    return classes


def _compare(train: dict[str, list[Path]], other: dict[str, list[Path]], train_at: Path, other_at: Path) -> None:
    for mine, theirs, here, there in ((train, other, train_at, other_at), (other, train, other_at, train_at)):
        for name in mine:
            if name not in theirs:
                raise InputError(f"folder: class '{name}' is in '{here}' but not in '{there}'; both need every class")
