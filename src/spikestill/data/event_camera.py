"""A simulated event camera: an image moves in front of it along three saccades, and its pixels report changes.

How it follows the two data sets that were recorded from still images:

* N-MNIST (Orchard et al., 2015): a camera on a pan-tilt unit makes three saccades of 100 ms along an isosceles triangle
  before an image on a screen; digits of 28x28 pixels are seen by 34x34. Path, durations and the sizes for digits are
  theirs. Their table of speeds says that the fastest is twice the mean; here a saccade follows the minimum-jerk curve
  10 s^3 - 15 s^4 + 6 s^5, whose fastest is 1.875 times the mean.
* CIFAR10-DVS (Li et al., 2017): the image moves and the camera stands, and the file is AEDAT. So it is here.

A pixel works as that of a DVS (Lichtsteiner et al., 2008): it remembers the logarithm of the intensity at its last
event, and when that has changed by the threshold it reports the sign of the change and remembers the new level.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spikestill.data.frames import Recording
from spikestill.data.seeds import random_state
from spikestill.types import InputError

__all__ = ["EventCamera", "record"]

_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue (ITU-R BT.601)."""
_LEVELS = 4096
"""Intensities are rounded to this many, whose logarithms are a table of rounded numbers: processors differ in the last
digits of a logarithm, which then moves no event."""
_STEP = 0.5
"""Pixels by which the image moves between two samples; in between, the logarithm is interpolated linearly."""
_LEAST_THRESHOLD = 0.25
"""Of the nominal threshold: no pixel's own threshold is smaller."""

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class EventCamera:
    """A camera and the movement in front of it.

    Attributes:
        sensor: height and width in pixels.
        shown: height and width of the image, in the sensor's pixels. It lies in the middle; beyond its border the
            border's pixels go on, so that the frame of the image makes no events.
        amplitude: half the base, and half the height, of the triangle along which the image moves, in pixels.
        saccade: duration of each of the three saccades, in microseconds.
        threshold: change of the natural logarithm of the intensity that makes an event.
        mismatch: standard deviation of the pixels' own thresholds, as a part of ``threshold``; drawn once.
        black: intensity of black, where white is 1 + ``black``: the light that a screen always gives.
        refractory: microseconds after an event in which a pixel sees nothing; then it remembers what it sees.
        noise: events a second and pixel that no change has made, of either polarity.
        seed: of the thresholds and, with every image's own seed, of the noise.

    Raises:
        InputError: for sizes, times or parts that cannot be.
    """

    sensor: int
    shown: int
    amplitude: float
    saccade: int = 100_000
    threshold: float = 0.2
    mismatch: float = 0.03
    black: float = 0.1
    refractory: int = 100
    noise: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no camera."""
        if not 1 <= self.shown <= self.sensor:
            raise InputError(f"an event camera of {self.sensor} pixels cannot show an image of {self.shown}")
        for name in ("amplitude", "saccade", "threshold", "black"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} of an event camera must be positive, not {getattr(self, name)!r}")
        for name in ("mismatch", "refractory", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} of an event camera must be 0 or more, not {getattr(self, name)!r}")

    @property
    def duration(self) -> int:
        """Of a recording, in microseconds."""
        return 3 * self.saccade

    def path(self) -> tuple[Array, Array]:
        """Where the image is when.

        Returns:
            Times in microseconds, float64 ``[K + 1]``, ascending from 0, and the image's displacement right and down in
            pixels, float64 ``[K + 1, 2]``; it begins and ends at the same corner of the triangle.
        """
        corners = self.amplitude * np.array([[-1.0, -1.0], [0.0, 1.0], [1.0, -1.0], [-1.0, -1.0]])
        fine = np.linspace(0, 1, 1001)
        travelled = fine**3 * (10 - 15 * fine + 6 * fine**2)
        times, places = [np.zeros(1)], [corners[:1]]
        for number, (start, end) in enumerate(itertools.pairwise(corners)):
            steps = math.ceil(math.dist(start, end) / _STEP)
            share = np.arange(1, steps + 1) / steps
            times.append(self.saccade * (number + np.interp(share, travelled, fine)))
            places.append(start + share[:, None] * (end - start))
        return np.concatenate(times), np.concatenate(places)

    def thresholds(self) -> tuple[Array, Array]:
        """Of every pixel, for brighter and for darker: float64 ``[sensor * sensor]`` each."""
        own = random_state(self.seed, "thresholds").standard_normal((2, self.sensor**2))
        on, off = self.threshold * np.maximum(1 + self.mismatch * own, _LEAST_THRESHOLD)
        return on, off


def record(camera: EventCamera, images: Array, seeds: Sequence[str]) -> list[Recording]:
    """What the camera reports of each image.

    Args:
        camera: which.
        images: uint8 ``[N, 1 or 3, shown, shown]``.
        seeds: of each image, for its noise.

    Returns:
        Of each image its events in the order of time, then of row and column; time in microseconds.
    """
    places = camera.sensor**2
    pixels, times, polarities = _changes(camera, images)
    noise = [_noise(camera, row, seed) for row, seed in enumerate(seeds)]
    pixels = np.concatenate([pixels, *(part[0] for part in noise)])
    times = np.concatenate([times, *(part[1] for part in noise)])
    polarities = np.concatenate([polarities, *(part[2] for part in noise)])
    # One number an event, so that one sort brings all into their order: image, time, place, polarity.
    images_of, places_of = np.divmod(pixels, places)
    keys = ((images_of * (camera.duration + 1) + times) * places + places_of) * 2 + polarities
    keys.sort()
    keys, polarities = np.divmod(keys, 2)
    keys, places_of = np.divmod(keys, places)
    images_of, times = np.divmod(keys, camera.duration + 1)
    y, x = np.divmod(places_of, camera.sensor)
    ends = np.searchsorted(images_of, np.arange(1, len(images)))
    parts = (np.split(values, ends) for values in (x, y, polarities, times))
    return [Recording(*one) for one in zip(*parts, strict=True)]


def _noise(camera: EventCamera, row: int, seed: str) -> tuple[Array, Array, Array]:
    """Pixel, time and polarity of the events that come by themselves, of the image at ``row``."""
    draws = random_state(camera.seed, "noise", seed)
    places = camera.sensor**2
    count = draws.poisson(camera.noise * places * camera.duration / 1e6)
    pixels = draws.randint(places, size=count) + row * places
    return pixels, draws.randint(camera.duration, size=count), draws.randint(2, size=count)


def _changes(camera: EventCamera, images: Array) -> tuple[Array, Array, Array]:
    """Pixel (of all images, one after the other), time and polarity of the events that changes make, int64 each.

    Between two samples of the path the logarithm is a straight line. If it crosses the next level of a pixel's memory,
    that is an event; pixels that have fired are asked again, until none crosses another level.
    """
    on, off = (np.tile(own, len(images)) for own in camera.thresholds())
    times, displacements = camera.path()
    logarithms = _Moved(camera, images)
    after = logarithms.at(displacements[0])
    memory, ready = after.copy(), np.full(len(after), -1.0)
    nothing = np.empty(0, dtype=np.int64)
    found: list[tuple[Array, Array, Array]] = [(nothing, nothing, nothing)]
    for start, end, displacement in zip(times[:-1], times[1:], displacements[1:], strict=True):
        before, after = after, logarithms.at(displacement)
        # What was blind at the start and sees again before the end remembers what it sees then.
        woken = np.flatnonzero((ready > start) & (ready <= end))
        memory[woken] = before[woken] + (after - before)[woken] * (ready[woken] - start) / (end - start)
        asked = np.flatnonzero(ready <= end)
        while len(asked):
            change = (after - before)[asked]
            rises = change > 0
            level = memory[asked] + np.where(rises, on[asked], -off[asked])
            crosses = np.where(rises, after[asked] >= level, (after[asked] <= level) & (change < 0))
            asked, change, level, rises = asked[crosses], change[crosses], level[crosses], rises[crosses]
            moments = start + (end - start) * np.clip((level - before[asked]) / change, 0, 1)
            found.append((asked, np.rint(moments).astype(np.int64), rises.astype(np.int64)))
            memory[asked] = level
            if camera.refractory:
                ready[asked] = moments + camera.refractory
                sees = ready[asked] <= end
                asked, change = asked[sees], change[sees]
                memory[asked] = before[asked] + change * (ready[asked] - start) / (end - start)
    pixels, moments, polarities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return pixels, moments, polarities


class _Moved:
    """Images before the sensor, by their displacement."""

    def __init__(self, camera: EventCamera, images: Array) -> None:
        red, green, blue = (images[:, min(channel, images.shape[1] - 1)] for channel in range(3))
        gray = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
        self._sensor, self._beyond = camera.sensor, math.ceil(camera.amplitude) + 1
        first = (camera.sensor - camera.shown) // 2
        last = camera.sensor - camera.shown - first
        around = ((0, 0), *[(first + self._beyond, last + self._beyond)] * 2)
        self._padded = np.pad(gray.astype(np.float32) * np.float32((_LEVELS - 1) / 255), around, mode="edge")
        self._logarithms = np.log(np.arange(_LEVELS) / (_LEVELS - 1) + camera.black).round(12)

    def at(self, displacement: Array) -> Array:
        """Logarithms of the intensity, float64 ``[N * sensor * sensor]``, bilinear between pixels."""
        column, row = self._beyond - displacement
        values = self._shifted(self._padded, row, 1)
        values = self._shifted(values, column, 2)
        return self._logarithms[np.rint(values).astype(np.int16)].ravel()

    def _shifted(self, values: Array, place: float, axis: int) -> Array:
        whole = math.floor(place)
        part = np.float32(place - whole)
        one = np.take(values, range(whole, whole + self._sensor), axis)
        other = np.take(values, range(whole + 1, whole + 1 + self._sensor), axis)
        return one * (1 - part) + other * part
