"""Recordings of event cameras: CIFAR10-DVS and DVS Gesture, as frames.

tonic knows both, but its data set classes are not used: they want at least 1000 (100) files beside an archive, and
number the files of a class in whatever order the file system gives, so that a split by index would differ from disk to
disk.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from spikestill.data.aedat4 import Aedat4Decoder
from spikestill.data.frames import EventFrames, Recording, to_frames
from spikestill.data.places import find_place, look_into
from spikestill.data.reading import read_all
from spikestill.data.records import RawData
from spikestill.data.samples import EventSet
from spikestill.data.seeds import random_state
from spikestill.data.unreadable import Unreadable
from spikestill.files import regular
from spikestill.types import InputError

__all__ = [
    "EVENT_DATA",
    "FRAMES",
    "Listed",
    "is_event_data",
    "read_cifar10_dvs",
    "read_dvs_gesture",
    "read_recordings",
    "shown_images",
]

EVENT_DATA = ("cifar10-dvs", "digits-events", "dvs-gesture", "images-events:DATA")
"""The data sets that consist of events; DATA stands for the name of one that consists of images."""

FRAMES = 10
"""How many frames a recording is cut into where nothing says otherwise."""

_SENSOR = 128
_LONGEST = 2**45
"""Microseconds that a recording may take; with more, the arithmetic of its slices would overflow."""
_LARGEST = 2.0**50
"""For the numbers in an array of events: a thousand times as much must fit into 64 bits."""
_OBJECTS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_GESTURES = (
    "hand clapping",
    "right hand wave",
    "left hand wave",
    "right arm clockwise",
    "right arm counterclockwise",
    "left arm clockwise",
    "left arm counterclockwise",
    "arm roll",
    "air drums",
    "air guitar",
    "other gestures",
)
_SPLIT = ("cifar10-dvs", "test")
"""What names the random stream of CIFAR10-DVS's split; a result is comparable only with results of the same split."""

Listed = tuple[list[Path], list[int]]
"""Recordings and their labels."""


def is_event_data(name: str) -> bool:
    """Whether a data set consists of events."""
    return name in EVENT_DATA or shown_images(name) is not None


def shown_images(name: str) -> str | None:
    """The data set whose images are shown to a simulated camera; None where these are not simulated events."""
    if name == "digits-events":
        return "digits"
    kind, colon, source = name.partition(":")
    return source if colon and kind == "images-events" else None


def read_cifar10_dvs(
    data_dir: Path, events: EventFrames, image_size: int | None = None, unreadable: Unreadable | None = None
) -> RawData:
    """Read ``CIFAR10DVS/<class>/*.aedat4``: 1000 recordings of each of 10 classes, 128x128 pixels (Li et al., 2017).

    The data have no split of their own. Ours takes a tenth of every class as the test set, drawn once, from a stream of
    its own, out of the recordings in the order of their names: no option moves it, nor does the order on disk.

    Args:
        data_dir: the folder that holds ``CIFAR10DVS``, or that folder itself.
        events: how they become frames.
        image_size: height and width of the frames; None: 128.
        unreadable: what happens to recordings that cannot be read; None refuses them. The split is that of all.

    Raises:
        InputError: missing folders, a class of fewer than two recordings, a recording that cannot be read, or its
            decoder is not installed.
    """
    place = find_place("cifar10-dvs", data_dir, "CIFAR10DVS", _OBJECTS, "CIFAR10DVS.zip and the archives in it")
    parts: dict[str, Listed] = {"train": ([], []), "test": ([], [])}
    for label, name in enumerate(_OBJECTS):
        files = [file for file in look_into("cifar10-dvs", place / name) if file.suffix == ".aedat4"]
        if len(files) < 2:
            raise InputError(f"cifar10-dvs: '{place / name}' needs two recordings (*.aedat4) or more, not {len(files)}")
        taken = set(random_state(*_SPLIT, name).permutation(len(files))[: max(1, round(len(files) / 10))].tolist())
        for row, file in enumerate(files):
            paths, labels = parts["test" if row in taken else "train"]
            paths.append(file)
            labels.append(label)
    tested = [f"{file.parent.name}/{file.name}" for file in parts["test"][0]]
    split = (
        f"split: {len(tested)} of {len(tested) + len(parts['train'][0])} recordings are the test set, a tenth of every "
        f"class, drawn once from the sorted names; their names' SHA-256 is {_digest(tested)}"
    )
    with Aedat4Decoder() as decode:
        return read_recordings(parts, _OBJECTS, decode, events, image_size, unreadable, (split,))


def read_dvs_gesture(
    data_dir: Path, events: EventFrames, image_size: int | None = None, unreadable: Unreadable | None = None
) -> RawData:
    """Read ``DVSGesture/ibmGestureTrain/userNN_<light>/<label>.npy`` and ``ibmGestureTest`` (Amir et al., 2017).

    11 gestures, 128x128 pixels, in tonic's form: every gesture a file of its own, an array ``[events, 4]`` of column,
    row, polarity and milliseconds. The split is the official one, by persons.

    Args:
        data_dir: the folder that holds ``DVSGesture``, or that folder itself.
        events: how they become frames.
        image_size: height and width of the frames; None: 128.
        unreadable: what happens to recordings that cannot be read; None refuses them.

    Raises:
        InputError: missing folders, a file whose name is no label, or a recording that cannot be read.
    """
    folders = {"train": "ibmGestureTrain", "test": "ibmGestureTest"}
    archives = "ibmGestureTrain.tar.gz and ibmGestureTest.tar.gz"
    place = find_place("dvs-gesture", data_dir, "DVSGesture", tuple(folders.values()), archives)
    parts = {part: _gesture_files(place / folder) for part, folder in folders.items()}
    return read_recordings(
        parts, _GESTURES, _numpy_events, events, image_size, unreadable, ("split: the official one",)
    )


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()


def _gesture_files(folder: Path) -> Listed:
    files: list[Path] = []
    labels: list[int] = []
    for user in look_into("dvs-gesture", folder):
        if not user.is_dir():
            continue
        for file in look_into("dvs-gesture", user):
            if file.suffix != ".npy":
                continue
            if not re.fullmatch(r"\d+", file.stem) or int(file.stem) >= len(_GESTURES):
                raise InputError(f"dvs-gesture: '{file}' must be named after its label, 0.npy to 10.npy")
            files.append(file)
            labels.append(int(file.stem))
    if not files:
        raise InputError(f"dvs-gesture: '{folder}' holds no recording; it needs userNN_<light>/<label>.npy")
    return files, labels


def read_recordings(
    parts: Mapping[str, Listed],
    class_names: tuple[str, ...],
    recording_of: Callable[[Path], Recording],
    events: EventFrames,
    image_size: int | None,
    unreadable: Unreadable | None,
    notes: tuple[str, ...],
    *,
    sensor: int = _SENSOR,
) -> RawData:
    """Recordings to frames.

    Args:
        parts: ``train``, ``test`` and perhaps ``validation``: their files, with labels.
        class_names: in label order.
        recording_of: reads a file.
        events: how they become frames.
        image_size: height and width of the frames; None: the sensor's.
        unreadable: what happens to recordings that cannot be read; None refuses them.
        notes: of the data; how they became frames is put before them.
        sensor: its height and width in pixels.

    Raises:
        InputError: a recording that cannot be read and may not be left out, or a part without any.
    """
    count = events.frames or FRAMES

    def read(file: Path) -> np.ndarray:
        recording = _checked(file, recording_of(file), sensor)
        return to_frames(recording, frames=count, by=events.by, sensor=sensor, size=image_size)

    sets = {}
    for part, (files, labels) in parts.items():
        title = f"frames of {part}"
        found = read_all(files, read, len(files), title=title, unit="recordings", unreadable=unreadable)
        kept = [row for row, frames in enumerate(found) if frames is not None]
        if not kept:
            raise InputError(f"no recording of the {part} part can be read; the first is '{files[0]}'")
        classes = torch.tensor([labels[row] for row in kept], dtype=torch.int64)
        sets[part] = EventSet(_stacked([frames for frames in found if frames is not None]), classes)
    size = image_size or sensor
    note = f"events: {count} frames by {events.by}, {size}x{size} pixels"
    return RawData(sets["train"], sets["test"], class_names, validation=sets.get("validation"), notes=(note, *notes))


def _stacked(frames: Sequence[np.ndarray]) -> torch.Tensor:
    """``[N, T, 2, H, W]``, in 8 bits where all counts fit."""
    small = max(int(one.max()) for one in frames) <= np.iinfo(np.uint8).max
    stacked = np.empty((len(frames), *frames[0].shape), dtype=np.uint8 if small else np.int16)
    for row, one in enumerate(frames):
        stacked[row] = one
    return torch.from_numpy(stacked)


def _checked(file: Path, recording: Recording, sensor: int) -> Recording:
    if not len(recording.time):
        raise InputError(f"'{file}' holds no event; repair or remove it")
    for axis, places in (("x", recording.x), ("y", recording.y)):
        if places.min() < 0 or places.max() >= sensor:
            outside = int(places.min()) if places.min() < 0 else int(places.max())
            raise InputError(
                f"'{file}' has an event at {axis} = {outside}, outside the {sensor}x{sensor} pixels; repair it"
            )
    if int(recording.time.max()) - int(recording.time.min()) > _LONGEST:
        raise InputError(f"'{file}' has events more than a year apart; repair or remove it")
    return recording


def _numpy_events(file: Path) -> Recording:
    try:
        events = np.load(regular(file), allow_pickle=False)
    except Exception as error:  # a header is Python text, and its reader raises whatever it stumbles over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"'{file}' is not a readable array ({reason}); repair or remove it") from error
    if not isinstance(events, np.ndarray) or events.ndim != 2 or events.shape[1] != 4 or events.dtype.kind not in "iuf":
        raise InputError(f"'{file}' must hold numbers [events, 4] (x, y, polarity, time); repair or remove it")
    if not (np.abs(events.astype(np.float64)) < _LARGEST).all():
        raise InputError(f"'{file}' holds numbers that are not finite or far too large; repair or remove it")
    x, y, polarity, time = events.T
    # Times are in milliseconds, some with a fraction.
    return Recording(
        x.astype(np.int64), y.astype(np.int64), (polarity > 0).astype(np.int64), (time * 1000).astype(np.int64)
    )
