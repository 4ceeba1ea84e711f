"""Events of images by a simulated camera: ``digits-events`` and ``images-events:DATA``.

Every image is recorded once, in a file of its own in AEDAT4, in a folder for each class: the layout of CIFAR10-DVS.
Files are then read like those of any recording. The name of a file is the hash of the pixels that the camera saw, and
that of the folder the hash of the parameters, so neither the order of the images nor a share of them nor other
parameters lead to a file that belongs to something else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from spikestill.data.aedat4 import Aedat4Decoder
from spikestill.data.aedat4_writing import aedat4
from spikestill.data.decode import resize
from spikestill.data.event_camera import EventCamera, record
from spikestill.data.frames import EventFrames
from spikestill.data.recordings import Listed, read_recordings
from spikestill.data.records import RawData
from spikestill.data.samples import ImageSet, Samples
from spikestill.data.unreadable import Unreadable
from spikestill.files import write_atomically, writing
from spikestill.progress import Progress
from spikestill.types import InputError

__all__ = ["FOLDER", "camera_for", "record_and_read"]

FOLDER = "simulated-events"
"""Of all simulated recordings, below ``data_dir``."""

_DIGITS = EventCamera(sensor=34, shown=28, amplitude=3.0)
"""The sizes of N-MNIST."""
_IMAGES = EventCamera(sensor=48, shown=40, amplitude=4.0)
"""The size to which the field brings the frames of CIFAR10-DVS."""
_VERSION = 1
"""To be raised by whoever changes what a camera reports: older recordings are then made again."""
_BATCH = 16
"""Images that are simulated at a time."""


def camera_for(source: str) -> EventCamera:
    """The camera that records the images of a data set."""
    return _DIGITS if source == "digits" else _IMAGES


def record_and_read(
    source: str,
    raw: RawData,
    data_dir: Path,
    events: EventFrames,
    image_size: int | None = None,
    unreadable: Unreadable | None = None,
    camera: EventCamera | None = None,
) -> RawData:
    """The recordings of images as frames; those that are not on disk are simulated and written first.

    Args:
        source: the name of the images' data set.
        raw: its images, in memory; a part may be empty. Its split is kept.
        data_dir: the recordings lie in ``simulated-events`` below it.
        events: how they become frames.
        image_size: height and width of the frames; None: the sensor's.
        unreadable: what happens to recordings that cannot be read; None refuses them.
        camera: which; None: that of the data (see ``camera_for``).

    Raises:
        InputError: images that are not in memory, the decoder is not installed, the folder cannot be written, or a
            recording that cannot be read.
    """
    camera = camera or camera_for(source)
    with Aedat4Decoder(f"events of {source}") as decode:
        folder = _folder(data_dir / FOLDER, source, camera)
        parts: dict[str, Listed] = {}
        named = {"train": raw.train, "validation": raw.validation, "test": raw.test}
        for part, images in named.items():
            if images is not None and len(images):
                files = _recorded(folder, camera, _images(source, images), raw.class_names, part)
                parts[part] = files, images.labels.tolist()
        notes = (f"events simulated by {camera}", f"split: that of {source}", *raw.notes)
        return read_recordings(
            parts, raw.class_names, decode, events, image_size, unreadable, notes, sensor=camera.sensor
        )


def _images(source: str, images: Samples) -> ImageSet:
    if not isinstance(images, ImageSet):
        raise InputError(
            f"images-events:{source}: events are simulated of images that are held in memory; not {source}"
        )
    return images


def _folder(root: Path, source: str, camera: EventCamera) -> Path:
    """The folder of a camera's recordings of a data set, with the camera in a file of it."""
    content = (json.dumps({"version": _VERSION, "camera": asdict(camera)}, indent=1) + "\n").encode()
    name = _as_name(source.rstrip("/").replace("\\", "/").split("/")[-1])
    folder = root / f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"
    file = folder / "camera.json"
    with _alone(folder):
        if not file.exists():
            write_atomically(file, content)
        elif not file.is_file() or file.read_bytes() != content:
            raise InputError(f"'{file}' does not describe the camera of its folder; remove the folder '{folder}'")
    return folder


def _recorded(
    folder: Path, camera: EventCamera, images: ImageSet, class_names: tuple[str, ...], part: str
) -> list[Path]:
    """The files of the images, those that are missing written before."""
    pixels = resize(images.images, camera.shown).contiguous().numpy()
    keys = [hashlib.sha256(image.tobytes()).hexdigest()[:24] for image in pixels]
    classes = [_as_name(class_names[label]) for label in images.labels.tolist()]
    files = [folder / one / f"{key}.aedat4" for one, key in zip(classes, keys, strict=True)]
    with _alone(folder):
        there = {file for one in set(classes) if (folder / one).is_dir() for file in (folder / one).iterdir()}
        missing = list({file: row for row, file in enumerate(files) if file not in there}.values())
        progress = Progress(f"simulating events of {part}", len(missing), "recordings")
        for start in range(0, len(missing), _BATCH):
            rows = missing[start : start + _BATCH]
            for row, recording in zip(rows, record(camera, pixels[rows], [keys[row] for row in rows]), strict=True):
                content = aedat4(recording, sensor=camera.sensor, source="simulated")
                write_atomically(files[row], content, synchronise=False)
            progress.show(start + len(rows))
    return files


def _as_name(text: str) -> str:
    """A class or data set as the name of a folder; two that come out alike share it, and no file."""
    return re.sub(r"[^\w-]+", "-", text).strip("-")[:64] or "unnamed"


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder, so that two processes do not write one file; where the system has no such locks, nothing is."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
