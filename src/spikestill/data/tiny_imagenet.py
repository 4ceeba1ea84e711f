"""Tiny ImageNet in the layout in which it is published."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from spikestill.data.decode import decode_files
from spikestill.data.parts import assemble
from spikestill.data.places import find_place, look_into
from spikestill.data.records import RawData
from spikestill.data.unreadable import Unreadable
from spikestill.files import regular
from spikestill.types import InputError

__all__ = ["read_tiny_imagenet"]

_NAME = "tiny-imagenet"
_TEST_IS = "the official validation part is the test set: that of the official test part has no labels"

Listed = tuple[list[Path], list[int]]


def read_tiny_imagenet(data_dir: Path, image_size: int | None = None, unreadable: Unreadable | None = None) -> RawData:
    """Read ``tiny-imagenet-200/``: 200 classes of 500 training and 50 validation images of 64x64 pixels.

    The layout: ``wnids.txt`` (one class a line), ``words.txt`` (what they are called), ``train/<wnid>/images/*.JPEG``,
    and ``val/images/*.JPEG`` with their classes in ``val/val_annotations.txt``. Those under ``test/`` are published
    without labels, so the official validation part is the test set. Classes are numbered in alphabetical order.

    Args:
        data_dir: the folder that holds ``tiny-imagenet-200``, or that folder itself.
        image_size: scale the shorter side to this and cut out the central square; None: keep 64x64.
        unreadable: what happens to images that cannot be read; None refuses them.

    Raises:
        InputError: missing files or folders, classes or images that are listed but not there (or the reverse), and an
            image that cannot be read.
    """
    place = find_place(_NAME, data_dir, "tiny-imagenet-200", ("wnids.txt", "train", "val"), "tiny-imagenet-200.zip")
    classes = {wnid: label for label, wnid in enumerate(sorted(_lines(place / "wnids.txt")))}
    if not classes:
        raise InputError(f"{_NAME}: '{place / 'wnids.txt'}' lists no class")
    listed = {"train": _training_files(place / "train", classes), "test": _validation_files(place / "val", classes)}
    decoded = {
        part: decode_files(
            files,
            title=f"decoding {'train' if part == 'train' else 'val'}",
            image_size=image_size,
            unreadable=unreadable,
        )
        for part, (files, _) in listed.items()
    }
    labels = {part: labels for part, (_, labels) in listed.items()}
    names = _words(place / "words.txt")
    raw = assemble(
        decoded, labels, tuple(names.get(wnid, wnid) for wnid in classes), lambda part, row: f"'{listed[part][0][row]}'"
    )
    return RawData(raw.train, raw.test, raw.class_names, notes=(_TEST_IS, *raw.notes))


def _training_files(folder: Path, classes: dict[str, int]) -> Listed:
    files: list[Path] = []
    labels: list[int] = []
    for entry in look_into(_NAME, folder):
        if entry.is_dir() and entry.name not in classes:
            raise InputError(f"{_NAME}: '{entry}' is no class of wnids.txt; remove it, or add it there")
    for wnid, label in classes.items():
        images = _images(folder / wnid / "images")
        if not images:
            raise InputError(f"{_NAME}: class '{wnid}' has no image in '{folder / wnid / 'images'}'")
        files += images
        labels += [label] * len(images)
    return files, labels


def _validation_files(folder: Path, classes: dict[str, int]) -> Listed:
    """The images that ``val_annotations.txt`` lists: a line is file, class and the corners of a box, between tabs."""
    annotations = folder / "val_annotations.txt"
    labels: dict[str, int] = {}
    for number, line in enumerate(_lines(annotations), start=1):
        file, _, rest = line.partition("\t")
        wnid = rest.split("\t")[0].strip()
        if wnid not in classes:
            raise InputError(f"{_NAME}: '{annotations}' line {number}: '{wnid}' is no class of wnids.txt")
        labels[file] = classes[wnid]
    there = _images(folder / "images")
    unlisted = [file for file in there if file.name not in labels]
    if unlisted:
        raise InputError(f"{_NAME}: '{unlisted[0]}' is not listed in '{annotations}'")
    if len(there) != len(labels):
        absent = sorted(set(labels) - {file.name for file in there})[0]
        raise InputError(f"{_NAME}: '{annotations}' lists '{absent}', which is not in '{folder / 'images'}'")
    counts = Counter(labels.values())
    for wnid, label in classes.items():
        if not counts[label]:
            raise InputError(f"{_NAME}: class '{wnid}' has no image in '{annotations}'")
    return there, [labels[file.name] for file in there]


def _images(folder: Path) -> list[Path]:
    return [file for file in look_into(_NAME, folder) if file.suffix.lower() in (".jpeg", ".jpg")]


def _words(file: Path) -> dict[str, str]:
    """What each class is called; nothing where the file is absent."""
    if not file.is_file():
        return {}
    split = (line.partition("\t") for line in _lines(file))
    return {wnid: words.strip() for wnid, _, words in split if words.strip()}


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in regular(file).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"{_NAME}: '{file}' cannot be read ({reason})") from error
