"""Event recordings in their true on-disk formats: AEDAT4 of CIFAR10-DVS, and the arrays of DVS Gesture."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SENSOR = 128

Events = dict[str, np.ndarray]

_HEADER = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">
<node name="0" path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr>
<attr key="originalModuleName" type="string">capture</attr><attr key="originalOutputName" type="string">events</attr>
<attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
<attr key="typeIdentifier" type="string">EVTS</attr>
<node name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" type="int">128</attr>
<attr key="sizeY" type="int">128</attr><attr key="source" type="string">DVS128</attr>
</node></node></node></dv>"""


def some_events(seed: int, label: int = 0, count: int = 400) -> Events:
    """Random events in the order of time, most of them in a square that moves; where it lies tells the class."""
    generator = np.random.default_rng([seed, label])
    times = np.sort(generator.integers(0, 1_000_000, count)) + 1_500_000_000_000_000
    corner = np.array([8 + 11 * (label % 10), 100 - 9 * (label % 10)])[:, None]
    x, y = np.clip(corner + generator.integers(0, 16, (2, count)), 0, SENSOR - 1)
    return {"t": times, "x": x, "y": y, "p": generator.integers(0, 2, count)}


def aedat4(events: Events, packets: int = 2) -> bytes:
    """A recording as DV writes it: a line, a size-prefixed header, then packets of events, each a flatbuffer."""
    chunks = np.array_split(np.arange(len(events["t"])), packets)
    parts = [struct.pack("<ii", 0, len(body)) + body for body in (_event_packet(events, rows) for rows in chunks)]
    return b"#!AER-DAT4.0\r\n" + _io_header() + b"".join(parts)


def _io_header() -> bytes:
    """Table ``IOHE``: compression (int32), position of the data table (int64, none), description (string)."""
    text = _HEADER.encode()
    table = struct.pack("<iiqI", 24 - 8, 0, -1, 4)
    vtable = struct.pack("<HHHHH", 10, len(table), 4, 8, 16)
    string = struct.pack("<I", len(text)) + text + b"\0"
    body = struct.pack("<I4s", 24, b"IOHE") + vtable.ljust(16, b"\0") + table + string
    body = body.ljust(-(-len(body) // 4) * 4, b"\0")
    return struct.pack("<I", len(body)) + body


def _event_packet(events: Events, rows: np.ndarray) -> bytes:
    """Table ``EVTS``: a vector of 16-byte structs {int64 t, int16 x, int16 y, uint8 on, 3 bytes of nothing}."""
    kind = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("pad", "V3")])
    structs = np.zeros(len(rows), kind)
    for field, name in (("t", "t"), ("x", "x"), ("y", "y"), ("on", "p")):
        structs[field] = events[name][rows]
    vtable = struct.pack("<HHH", 6, 8, 4)
    body = struct.pack("<I4s", 16, b"EVTS") + vtable.ljust(8, b"\0") + struct.pack("<iI", 8, 8)
    body += bytes(4) + struct.pack("<I", len(rows)) + structs.tobytes()
    return struct.pack("<I", len(body)) + body


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
