"""Events as an AEDAT4 file, as the program DV writes it: a line, a header, then packets; each part a flatbuffer."""

from __future__ import annotations

import struct

import numpy as np

from spikestill.data.frames import Recording

__all__ = ["aedat4"]

_KIND = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("on", "u1"), ("pad", "V3")])
_UNCOMPRESSED, _ZSTD = 0, 3
_DESCRIPTION = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">
<node name="0" path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">{compression}</attr>
<attr key="originalModuleName" type="string">capture</attr><attr key="originalOutputName" type="string">events</attr>
<attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
<attr key="typeIdentifier" type="string">EVTS</attr>
<node name="info" path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" type="int">{sensor}</attr>
<attr key="sizeY" type="int">{sensor}</attr><attr key="source" type="string">{source}</attr>
</node></node></node></dv>"""


def aedat4(recording: Recording, *, sensor: int, source: str, packets: int = 1, compress: bool = True) -> bytes:
    """The content of a file with one stream of events.

    Args:
        recording: the events; their time in microseconds.
        sensor: its height and width in pixels, for the header.
        source: what recorded them, for the header.
        packets: in how many packets of about the same size they lie.
        compress: by Zstandard, to about a third.
    """
    chunks = np.array_split(np.arange(len(recording.time)), packets)
    bodies = [_event_packet(recording, rows) for rows in chunks]
    if compress:
        import pyarrow as pa

        bodies = [pa.compress(body, codec="zstd", asbytes=True) for body in bodies]
    parts = [struct.pack("<ii", 0, len(body)) + body for body in bodies]
    description = _DESCRIPTION.format(compression="ZSTD" if compress else "NONE", sensor=sensor, source=source)
    header = _header(description.encode(), _ZSTD if compress else _UNCOMPRESSED)
    return b"#!AER-DAT4.0\r\n" + header + b"".join(parts)


def _header(description: bytes, compression: int) -> bytes:
    """Table ``IOHE``: compression (int32), position of the data table (int64, none), description (string)."""
    table = struct.pack("<iiqI", 24 - 8, compression, -1, 4)
    vtable = struct.pack("<HHHHH", 10, len(table), 4, 8, 16)
    string = struct.pack("<I", len(description)) + description + b"\0"
    body = struct.pack("<I4s", 24, b"IOHE") + vtable.ljust(16, b"\0") + table + string
    body = body.ljust(-(-len(body) // 4) * 4, b"\0")
    return struct.pack("<I", len(body)) + body


def _event_packet(recording: Recording, rows: np.ndarray) -> bytes:
    """Table ``EVTS``: a vector of 16-byte structs {int64 t, int16 x, int16 y, uint8 on, 3 bytes of nothing}."""
    structs = np.zeros(len(rows), _KIND)
    columns = (recording.time, recording.x, recording.y, recording.polarity)
    for field, values in zip(("t", "x", "y", "on"), columns, strict=True):
        structs[field] = values[rows]
    vtable = struct.pack("<HHH", 6, 8, 4)
    body = struct.pack("<I4s", 16, b"EVTS") + vtable.ljust(8, b"\0") + struct.pack("<iI", 8, 8)
    body += bytes(4) + struct.pack("<I", len(rows)) + structs.tobytes()
    return struct.pack("<I", len(body)) + body
