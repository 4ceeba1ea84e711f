"""Events to frames: counts of events at every pixel in T slices of a recording."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch.nn import functional

from spikestill.types import InputError

__all__ = ["EventFrames", "Recording", "to_frames"]

_UNITS = 64
"""Resized frames are kept in this many parts of an event; the unit cancels out where frames are normalised."""


@dataclass(frozen=True, kw_only=True)
class EventFrames:
    """How the events of a recording become frames.

    Attributes:
        frames: T, how many; None takes the student's time steps, or 10 for an ANN, which sees their mean.
        by: count (every frame has as many events) or time (every frame lasts as long).

    Raises:
        InputError: for fewer than one frame, or another way to cut.
    """

    frames: int | None = None
    by: Literal["count", "time"] = "count"

    def __post_init__(self) -> None:
        """Refuse what is no way to cut."""
        wrong = isinstance(self.frames, bool) or not (self.frames is None or isinstance(self.frames, int))
        if wrong or (self.frames is not None and self.frames < 1):
            raise InputError(f"events.frames must be a number of 1 or more, not {self.frames!r}")
        if self.by not in get_args(Literal["count", "time"]):
            raise InputError(f"events.by must be count or time, not {self.by!r}")


@dataclass(frozen=True, eq=False)
class Recording:
    """Events in the order in which they came.

    Attributes:
        x: column, int64 ``[E]``.
        y: row, int64 ``[E]``.
        polarity: 0 where it got darker, 1 where it got brighter, int64 ``[E]``.
        time: int64 ``[E]``, in the recording's own unit.
    """

    x: np.ndarray
    y: np.ndarray
    polarity: np.ndarray
    time: np.ndarray


def to_frames(recording: Recording, *, frames: int, by: str, sensor: int, size: int | None = None) -> np.ndarray:
    """The events of a recording, counted.

    Every event is counted once. (tonic's ``ToFrame`` loses the last one, or the last incomplete slice, and shows a
    recording of one event as nothing.) Slices by count differ by at most one event.

    Args:
        recording: at least one event, all of them on the sensor.
        frames: T.
        by: count or time.
        sensor: height and width of the sensor in pixels.
        size: scale the counts to this height and width, bilinear with antialiasing; None: keep the sensor's.

    Returns:
        int16 ``[T, 2, H, W]``, dark before bright: events at a pixel, at most 32767. Resized, the mean over the pixels
        behind it, in 64ths of an event.
    """
    count = len(recording.time)
    if by == "count":
        slices = np.arange(count) * frames // count
    else:
        since = recording.time - recording.time.min()
        slices = since * frames // (since.max() + 1)
    cells = ((slices * 2 + recording.polarity) * sensor + recording.y) * sensor + recording.x
    counts = np.bincount(cells, minlength=frames * 2 * sensor * sensor).reshape(frames, 2, sensor, sensor)
    if size is not None and size != sensor:
        scaled = functional.interpolate(
            torch.from_numpy(counts).float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
        counts = (scaled * _UNITS).round().numpy()
    return np.clip(counts, 0, np.iinfo(np.int16).max).astype(np.int16)
