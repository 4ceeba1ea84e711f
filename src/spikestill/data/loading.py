"""A data set by name: read it, split it, describe it."""

from __future__ import annotations

from pathlib import Path

import torch

from spikestill.data.decode import resize
from spikestill.data.frames import EventFrames
from spikestill.data.recordings import EVENT_DATA, read_cifar10_dvs, read_dvs_gesture
from spikestill.data.records import DataSet, RawData
from spikestill.data.samples import ImageSet, Samples
from spikestill.data.splits import balanced_subset, share_to_count, stratified_split
from spikestill.data.unreadable import Unreadable
from spikestill.files import expanded
from spikestill.types import InputError, unknown_name

__all__ = ["load", "names"]


def names() -> list[str]:
    """What ``load`` understands; PATH stands for a folder."""
    return [
        "cifar10",
        "cifar10-dvs",
        "cifar100",
        "digits",
        "dvs-gesture",
        "folder:PATH",
        "imagenet",
        "parquet:PATH",
        "tiny-imagenet",
    ]


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    validation: float | int = 0.1,
    seed: int = 0,
    limit_train: float | int | None = None,
    image_size: int | None = None,
    skip_corrupt: bool = False,
    events: EventFrames | None = None,
) -> DataSet:
    """Load a data set, split a validation part off its training data, and keep its test set apart.

    Args:
        name: one of ``names()``.
        data_dir: where the named sets lie or are downloaded to; default ``~/.cache/spikestill``. Paths given in
            ``name`` do not depend on it.
        validation: share of the training data kept for model selection (a float is a fraction, an int a count of
            images), stratified by class; 0: none. Data that come with a validation set of their own keep that one.
        seed: what the validation split and the limited training set depend on. The test set depends on nothing.
        limit_train: for quick looks, train on only this many images (an int is a count, so 1 is one image; a float is a
            fraction, so 1.0 is everything), from each class as equally many as it has; taken after the validation
            split, which therefore stays the same. None: everything.
        image_size: bring the images to this height and width; None: keep their own size (imagenet: 224).
        skip_corrupt: leave out files that cannot be read, and count them; otherwise the first one is refused.
        events: how the recordings of event cameras become frames; None: 10 frames of as many events each.

    Returns:
        The data set. Where its mean and std are not published, they come from the training part before the limit.

    Raises:
        InputError: an unknown name, missing or corrupt files, wrong labels, or options out of range.
    """
    if isinstance(image_size, bool) or not (image_size is None or (isinstance(image_size, int) and image_size >= 1)):
        raise InputError(f"image_size must be a number of pixels, 1 or more, not {image_size!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed must be an integer, not {seed!r}")
    unreadable = Unreadable(skip_corrupt)
    raw = _read(name, data_dir, image_size, unreadable, events or EventFrames())
    unreadable.summarise()
    train, held_out = _hold_out(raw, validation, seed)
    mean, std = raw.mean, raw.std
    if mean is None or std is None:
        mean, std = train.statistics()
    if limit_train is not None:
        count = share_to_count(limit_train, len(train), "limit_train")
        if count == 0:
            raise InputError(f"limit_train={limit_train} leaves no image to train on")
        if count < len(train):
            train = train.subset(balanced_subset(train.labels, count, seed, "limit"))
    return DataSet(
        name, train, held_out, raw.test, raw.class_names, mean, std, raw.notes + unreadable.notes, unreadable
    )


def _read(
    name: str, data_dir: str | Path | None, image_size: int | None, unreadable: Unreadable, events: EventFrames
) -> RawData:
    kind, colon, path = name.partition(":")
    if colon and kind in ("parquet", "folder"):
        if not path:
            raise InputError(f"data set '{name}' needs a path: {kind}:PATH")
        place = expanded(path)
        if kind == "parquet":
            from spikestill.data.parquet import read_parquet

            return read_parquet(place, image_size, unreadable)
        from spikestill.data.folder import read_folder

        return read_folder(place, image_size, unreadable)
    if name == "digits":
        from spikestill.data.digits import read_digits

        return _resized(read_digits(), image_size)
    place = expanded(data_dir) if data_dir is not None else Path.home() / ".cache" / "spikestill"
    if name in ("cifar10", "cifar100"):
        from spikestill.data.cifar import read_cifar

        return _resized(read_cifar(name, place), image_size)
    if name in EVENT_DATA:
        read = read_cifar10_dvs if name == "cifar10-dvs" else read_dvs_gesture
        return read(place, events, image_size, unreadable)
    if name == "tiny-imagenet":
        from spikestill.data.tiny_imagenet import read_tiny_imagenet

        return read_tiny_imagenet(place, image_size, unreadable)
    if name == "imagenet":
        from spikestill.data.imagenet import read_imagenet

        return read_imagenet(place, image_size, unreadable)
    raise unknown_name("data set", name, names())


def _resized(raw: RawData, image_size: int | None) -> RawData:
    if image_size is None:
        return raw
    parts = []
    for part in (raw.train, raw.test):
        assert isinstance(part, ImageSet)
        parts.append(ImageSet(resize(part.images, image_size), part.labels))
    return RawData(parts[0], parts[1], raw.class_names, mean=raw.mean, std=raw.std)


def _hold_out(raw: RawData, validation: float | int, seed: int) -> tuple[Samples, Samples]:
    """The training part and the validation part."""
    count = share_to_count(validation, len(raw.train), "validation")
    if count and raw.validation is not None:
        return raw.train, raw.validation
    if not count:
        return raw.train, raw.train.subset(torch.empty(0, dtype=torch.int64))
    stay, taken = stratified_split(raw.train.labels, count, seed, "validation")
    return raw.train.subset(stay), raw.train.subset(taken)
