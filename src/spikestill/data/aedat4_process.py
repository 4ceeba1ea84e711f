"""The decoder's process: paths come in as JSON, a line each, and events go out. See ``aedat4``, which starts it.

It is run as a file, and imports neither spikestill nor torch, so that it is there at once.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import aedat
import numpy as np

__all__: list[str] = []


def _decoded(path: str) -> np.ndarray:
    """``[4, events]``: time, column, row, polarity, of the file's first stream of events."""
    decoder = aedat.Decoder(path)
    streams = [number for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
    if not streams:
        raise ValueError("it has no stream of events")
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == min(streams)]
    if not packets:
        raise ValueError("it has no packet of events")
    # By place: the fields are t (without a sign), x, y and p, the last of which has the title "on".
    names = packets[0].dtype.names
    return np.stack([np.concatenate([packet[name] for packet in packets]).astype(np.int64) for name in names])


def _answer(path: str) -> tuple[dict[str, Any], bytes]:
    try:
        rows = _decoded(path)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the decoder, which is written in Rust, is no Exception
        return {"error": " ".join(str(error).split()) or type(error).__name__}, b""
    return {"events": rows.shape[1]}, rows.tobytes()


def main() -> None:
    """An empty line, then answers: a line of JSON, and after ``events`` their rows as 64-bit integers."""
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        said, content = _answer(json.loads(line))
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n" + content)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
