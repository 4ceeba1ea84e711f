"""ImageNet-1k, as folders of photographs or as shards: an index of where each one lies, nothing decoded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from spikestill.data.encoded import EncodedSet, Files, encoded_set, packed
from spikestill.data.parts import ON_DISK, choose
from spikestill.data.places import look_into
from spikestill.data.records import RawData
from spikestill.data.shards import read_shards
from spikestill.data.unreadable import Unreadable
from spikestill.progress import Progress
from spikestill.types import InputError

__all__ = ["read_imagenet"]

# Channel mean and standard deviation of the training pixels on the [0, 1] scale, as the field uses them.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_IMAGE_SIZE = 224
_EXTENSIONS = (".jpeg", ".jpg", ".png")
_SHARD = re.compile(rf"^(.*[-_])?(?P<part>{'|'.join(ON_DISK)})[-_](?P<number>\d+)\.tar$")
_TEST_IS = "the official validation part is the test set: that of the official test part has no labels"


def read_imagenet(data_dir: Path, image_size: int | None, unreadable: Unreadable) -> RawData:
    """Index ImageNet, in one of two layouts.

    - Folders: ``train/<wnid>/*.JPEG`` and ``val/<wnid>/*.JPEG``; classes in alphabetical order of their ids.
    - WebDataset shards: ``imagenet-train-000000.tar``, ... and ``imagenet-val-000000.tar``, ...; in each, one after the
      other, ``<key>.jpg`` with ``<key>.cls`` or ``<key>.json`` (see ``read_shards``).

    The images of the official test part have no labels, so the official validation part is the test set.

    Args:
        data_dir: the folder that holds ``imagenet``, or that folder itself.
        image_size: height and width in which images are shown; None: 224.
        unreadable: what happens to a shard that cannot be read.

    Raises:
        InputError: neither layout, classes that differ between the parts or are empty, or a shard that cannot be used.
    """
    size = image_size or _IMAGE_SIZE
    for place in (data_dir / "imagenet", data_dir):
        if (place / "train").is_dir() and (place / "val").is_dir():
            return _from_folders(place, size)
        shards = _shards_of(place)
        if shards:
            return _from_shards(place, shards, size, unreadable)
    raise InputError(
        f"imagenet: expected train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, or shards imagenet-train-000000.tar and so on, "
        f"in '{data_dir / 'imagenet'}' or '{data_dir}'; put them there, or name another folder with --data-dir"
    )


def _from_folders(place: Path, size: int) -> RawData:
    classes = {part: _class_folders(place / part) for part in ("train", "val")}
    for part, other in (("train", "val"), ("val", "train")):
        for wnid in classes[part]:
            if wnid not in classes[other]:
                raise InputError(f"imagenet: class '{wnid}' is in '{place / part}' but not in '{place / other}'")
    train, test = (_index(place / part, classes[part], size) for part in ("train", "val"))
    return RawData(train, test, tuple(classes["train"]), notes=(_TEST_IS,))


def _class_folders(folder: Path) -> list[str]:
    found = [entry.name for entry in look_into("imagenet", folder) if entry.is_dir()]
    if not found:
        raise InputError(f"imagenet: '{folder}' holds no class; it needs <wnid>/*.JPEG, a folder for each class")
    return found


def _index(folder: Path, classes: list[str], size: int) -> EncodedSet:
    progress = Progress(f"indexing {folder.name}", len(classes), "classes")
    names: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    for label, wnid in enumerate(classes):
        files = [file for file in look_into("imagenet", folder / wnid) if file.suffix.lower() in _EXTENSIONS]
        if not files:
            raise InputError(f"imagenet: class '{wnid}' has no image in '{folder / wnid}'")
        names += [f"{wnid}/{file.name}" for file in files]
        sizes += [file.stat().st_size for file in files]
        labels += [label] * len(files)
        progress.show(label + 1)
    return encoded_set(Files(folder, packed(names), np.array(sizes, dtype=np.int64)), labels, size, _MEAN, _STD)


def _shards_of(place: Path) -> dict[str, list[Path]]:
    """The shards of every part by its name on disk, in order of their numbers."""
    found: dict[str, dict[int, Path]] = {}
    for file in look_into("imagenet", place) if place.is_dir() else []:
        if match := _SHARD.match(file.name):
            numbered = found.setdefault(match["part"], {})
            if int(match["number"]) in numbered:
                raise InputError(f"imagenet: '{file}' and '{numbered[int(match['number'])]}' are the same shard")
            numbered[int(match["number"])] = file
    for part, numbered in found.items():
        missing = sorted(set(range(max(numbered) + 1)) - set(numbered))
        if missing:
            raise InputError(
                f"imagenet: shard {missing[0]} of {part} is missing in '{place}'; {max(numbered)} is there"
            )
    return {part: [numbered[number] for number in sorted(numbered)] for part, numbered in found.items()}


def _from_shards(place: Path, shards: dict[str, list[Path]], size: int, unreadable: Unreadable) -> RawData:
    parts = choose(shards, f"imagenet: '{place}'")
    sets = {}
    for part, files in parts.items():
        store, labels = read_shards(files, f"indexing {part}", unreadable)
        sets[part] = encoded_set(store, labels, size, _MEAN, _STD)
    present = set(sets["train"].labels.tolist())
    classes = max(int(images.labels.max()) for images in sets.values()) + 1
    for label in range(classes):
        if label not in present:
            raise InputError(f"imagenet: no training image in '{place}' has label {label}, though {classes - 1} occurs")
    names = tuple(str(label) for label in range(classes))
    notes = () if "validation" in sets else (_TEST_IS,)
    return RawData(sets["train"], sets["test"], names, validation=sets.get("validation"), notes=notes)
