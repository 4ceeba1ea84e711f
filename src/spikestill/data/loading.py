"""A data set by name: read it, split it, describe it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from spikestill.data.decode import resize
from spikestill.data.frames import EventFrames
from spikestill.data.recordings import is_event_data, read_cifar10_dvs, read_dvs_gesture, shown_images
from spikestill.data.records import DataSet, RawData
from spikestill.data.samples import ImageSet, Samples
from spikestill.data.simulated_events import camera_for, record_and_read
from spikestill.data.splits import balanced_subset, share_to_count, stratified_split
from spikestill.data.unreadable import Unreadable
from spikestill.files import expanded
from spikestill.types import InputError, unknown_name

__all__ = ["load", "names"]

_RECORDED = {"cifar10-dvs": read_cifar10_dvs, "dvs-gesture": read_dvs_gesture}
_NONE = torch.empty(0, dtype=torch.int64)


def names() -> list[str]:
    """What ``load`` understands; PATH stands for a folder, DATA for the name of a data set of images."""
    return [
        "cifar10",
        "cifar10-dvs",
        "cifar100",
        "digits",
        "digits-events",
        "dvs-gesture",
        "folder:PATH",
        "imagenet",
        "images-events:DATA",
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
        The data set. Where its mean and std are not published, they come from the training part before the limit; those
        of simulated events from the part after it, since what is not used is not simulated.

    Raises:
        InputError: an unknown name, missing or corrupt files, wrong labels, or options out of range.
    """
    if isinstance(image_size, bool) or not (image_size is None or (isinstance(image_size, int) and image_size >= 1)):
        raise InputError(f"image_size must be a number of pixels, 1 or more, not {image_size!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed must be an integer, not {seed!r}")
    unreadable = Unreadable(skip_corrupt)
    frames, source = events or EventFrames(), shown_images(name)
    place = expanded(data_dir) if data_dir is not None else Path.home() / ".cache" / "spikestill"
    if source is None:
        raw = _read(name, place, image_size, unreadable, frames)
        train, held_out = _hold_out(raw, validation, seed)
        mean, std = (raw.mean, raw.std) if raw.mean and raw.std else train.statistics()
        train = _limited(train, limit_train, seed)
    else:
        shown = _read_shown(name, source, place, unreadable)
        train, held_out = _hold_out(shown, validation, seed)
        train = _limited(train, limit_train, seed)
        raw = record_and_read(
            source, replace(shown, train=train, validation=held_out), place, frames, image_size, unreadable
        )
        train, held_out = raw.train, raw.train.subset(_NONE) if raw.validation is None else raw.validation
        mean, std = train.statistics()
    unreadable.summarise()
    notes = raw.notes + unreadable.notes
    return DataSet(name, train, held_out, raw.test, raw.class_names, mean, std, notes, unreadable)


def _limited(train: Samples, limit_train: float | int | None, seed: int) -> Samples:
    if limit_train is None:
        return train
    count = share_to_count(limit_train, len(train), "limit_train")
    if count == 0:
        raise InputError(f"limit_train={limit_train} leaves no image to train on")
    return train.subset(balanced_subset(train.labels, count, seed, "limit")) if count < len(train) else train


def _read_shown(name: str, source: str, place: Path, unreadable: Unreadable) -> RawData:
    """The images that a simulated camera is shown, in the size in which it sees them."""
    if not source:
        raise InputError(f"data set '{name}' needs the name of data: images-events:DATA")
    if is_event_data(source):
        raise InputError(f"data set '{name}': a simulated camera is shown images, and {source} consists of events")
    return _read(source, place, camera_for(source).shown, unreadable, EventFrames())


def _read(name: str, data_dir: Path, image_size: int | None, unreadable: Unreadable, events: EventFrames) -> RawData:
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
    if name in ("cifar10", "cifar100"):
        from spikestill.data.cifar import read_cifar

        return _resized(read_cifar(name, data_dir), image_size)
    if name in _RECORDED:
        return _RECORDED[name](data_dir, events, image_size, unreadable)
    if name == "tiny-imagenet":
        from spikestill.data.tiny_imagenet import read_tiny_imagenet

        return read_tiny_imagenet(data_dir, image_size, unreadable)
    if name == "imagenet":
        from spikestill.data.imagenet import read_imagenet

        return read_imagenet(data_dir, image_size, unreadable)
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
        return raw.train, raw.train.subset(_NONE)
    stay, taken = stratified_split(raw.train.labels, count, seed, "validation")
    return raw.train.subset(stay), raw.train.subset(taken)
