"""Event recordings in their true on-disk formats: AEDAT4 of CIFAR10-DVS, and the arrays of DVS Gesture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spikestill.data import aedat4_writing
from spikestill.data.frames import Recording

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SENSOR = 128

Events = dict[str, np.ndarray]


def some_events(seed: int, label: int = 0, count: int = 400) -> Events:
    """Random events in the order of time, most of them in a square that moves; where it lies tells the class."""
    generator = np.random.default_rng([seed, label])
    times = np.sort(generator.integers(0, 1_000_000, count)) + 1_500_000_000_000_000
    corner = np.array([8 + 11 * (label % 10), 100 - 9 * (label % 10)])[:, None]
    x, y = np.clip(corner + generator.integers(0, 16, (2, count)), 0, SENSOR - 1)
    return {"t": times, "x": x, "y": y, "p": generator.integers(0, 2, count)}


def aedat4(events: Events, packets: int = 2, compress: bool = False) -> bytes:
    """A recording of these events as a file."""
    recording = Recording(events["x"], events["y"], events["p"], events["t"])
    return aedat4_writing.aedat4(recording, sensor=SENSOR, source="DVS128", packets=packets, compress=compress)


def write_cifar10_dvs(place: Path, recordings: int = 10, events: int = 400, reverse: bool = False) -> Path:
    """``CIFAR10DVS/<class>/cifar10_<class>_<number>.aedat4``, with the archive that it came from."""
    root = place / "CIFAR10DVS"
    root.mkdir(parents=True)
    (root / "CIFAR10DVS.zip").write_bytes(b"")
    for label, name in list(enumerate(CLASSES))[:: -1 if reverse else 1]:
        (root / name).mkdir()
        for number in list(range(recordings))[:: -1 if reverse else 1]:
            content = aedat4(some_events(number, label, events))
            (root / name / f"cifar10_{name}_{number}.aedat4").write_bytes(content)
    return root


def write_dvs_gesture(
    place: Path, train_users: Sequence[int] = (1, 2), test_users: Sequence[int] = (24,), gestures: int = 11
) -> Path:
    """``DVSGesture/ibmGestureTrain/userNN_<light>/<label>.npy`` and the same of the test users."""
    root = place / "DVSGesture"
    for part, users in (("Train", train_users), ("Test", test_users)):
        for user in users:
            folder = root / f"ibmGesture{part}" / f"user{user:02d}_fluorescent_led"
            folder.mkdir(parents=True)
            for label in range(gestures):
                events = some_events(user, label)
                events["t"] = (events["t"] - events["t"][0]) // 1000
                np.save(folder / f"{label}.npy", np.stack([events[name] for name in "xypt"], axis=1).astype(np.float64))
    return root
