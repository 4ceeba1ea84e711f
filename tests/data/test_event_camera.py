from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spikestill.data.event_camera import EventCamera, record
from spikestill.types import InputError

PLAIN = EventCamera(sensor=24, shown=18, amplitude=3.0, mismatch=0.0, noise=0.0, refractory=0)
EDGE = 9
"""Column of the image from which on it is white."""


def step_edge() -> np.ndarray:
    image = np.zeros((1, 1, 18, 18), dtype=np.uint8)
    image[..., EDGE:] = 255
    return image


def random_images(count: int, size: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size)).astype(np.uint8)


def as_rows(recording: object) -> list[tuple[int, ...]]:
    columns = (getattr(recording, name).tolist() for name in ("time", "y", "x", "polarity"))
    return list(zip(*columns, strict=True))


def test_a_step_edge_that_moves_by_six_pixels_passes_six_columns() -> None:
    """Two saccades carry it 6 pixels to the right, the third 6 back: 6 columns get dark, then bright."""
    (events,) = record(PLAIN, step_edge(), [""])
    contrast = math.log(1.1) - math.log(0.1)
    count = math.floor(contrast / PLAIN.threshold)
    there = events.time <= 2 * PLAIN.saccade
    assert set(events.polarity[there]) == {0}
    assert set(events.polarity[~there]) == {1}
    columns = np.arange(3 + EDGE - 3, 3 + EDGE + 3)  # the image begins at column 3 and is moved by -3 to 3
    expected = np.zeros((24, 24), dtype=int)
    expected[:, columns] = count
    counts = np.zeros((24, 24), dtype=int)
    np.add.at(counts, (events.y[there], events.x[there]), 1)
    assert (counts == expected).all()
    # On the way back the last level is white itself, which rounding may or may not reach.
    np.add.at(counts, (events.y[~there], events.x[~there]), -1)
    assert counts.min() >= 0
    assert counts.max() <= 1


def test_a_step_edge_comes_when_the_saccade_brings_it() -> None:
    """The column's intensity is a ramp in the displacement; its levels are crossed at times known in closed form."""
    (events,) = record(PLAIN, step_edge(), [""])
    times, places = PLAIN.path()
    longest = np.diff(times).max()
    column = 3 + EDGE - 1
    seen = events.time[(events.x == column) & (events.y == 5) & (events.time <= 2 * PLAIN.saccade)]
    for number, time in enumerate(seen.tolist(), start=1):
        intensity = math.exp(math.log(1.1) - number * PLAIN.threshold) - PLAIN.black
        displacement = column - 3 - (EDGE - 1) - intensity
        assert np.interp(displacement, places[:20, 0], times[:20]) == pytest.approx(time, abs=longest / 2)
    # Without interpolation in the logarithm the first and the last would be the same.
    assert seen[0] < seen[-1]


def test_the_path_is_a_closed_triangle_of_three_saccades_that_speed_up_and_slow_down() -> None:
    times, places = PLAIN.path()
    corners = [places[np.argmin(abs(times - number * PLAIN.saccade))].tolist() for number in range(4)]
    assert corners == [[-3, -3], [0, 3], [3, -3], [-3, -3]]
    assert times[0] == 0
    assert times[-1] == PLAIN.duration == 300_000
    assert (np.diff(times) > 0).all()
    assert np.hypot(*np.diff(places, axis=0).T).max() <= 0.5
    first = times <= PLAIN.saccade
    speed = np.hypot(*np.diff(places[first], axis=0).T) / np.diff(times[first])
    mean = math.hypot(3, 6) / PLAIN.saccade
    assert speed.max() == pytest.approx(1.875 * mean, rel=0.02)
    assert speed[0] < 0.5 * mean


@pytest.mark.parametrize("refractory", [0, 100, 3_000, 40_000])
def test_a_pixel_is_what_a_loop_over_it_says(refractory: int) -> None:
    camera = EventCamera(sensor=9, shown=7, amplitude=1.2, refractory=refractory, noise=0.0, mismatch=0.1, seed=3)
    images = random_images(2, 7)
    for image, events in zip(images, record(camera, images, ["a", "b"]), strict=True):
        assert as_rows(events) == sorted(
            event for y in range(9) for x in range(9) for event in pixel_by_itself(camera, image, y, x)
        )
        assert len(events.time) > 100


def pixel_by_itself(camera: EventCamera, image: np.ndarray, y: int, x: int) -> list[tuple[int, ...]]:
    """The events of one pixel, one after the other."""
    gray = np.float32(4095 / 255) * (0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]).astype(np.float32)
    on, off = (float(own[y * camera.sensor + x]) for own in camera.thresholds())
    times, places = camera.path()
    first, largest = (camera.sensor - camera.shown) // 2, camera.shown - 1

    def sees(right: float, down: float) -> float:
        rows, columns = y - first - down, x - first - right
        row, column = math.floor(rows), math.floor(columns)
        a, b = np.float32(rows - row), np.float32(columns - column)
        at = [
            [gray[min(max(row + i, 0), largest), min(max(column + j, 0), largest)] for j in range(2)] for i in range(2)
        ]
        left, right_ = (at[0][j] * (1 - a) + at[1][j] * a for j in range(2))
        return round(math.log(int(np.rint(left * (1 - b) + right_ * b)) / 4095 + camera.black), 12)

    values = [sees(*place) for place in places]
    memory, blind, found = values[0], -1.0, []
    for start, end, low, high in zip(times[:-1], times[1:], values[:-1], values[1:], strict=True):
        while blind <= end:
            if blind > start:
                memory = low + (high - low) * (blind - start) / (end - start)
            level = memory + on if high > low else memory - off
            if (high > low and high < level) or (high < low and high > level) or high == low:
                break
            moment = start + (end - start) * min(max((level - low) / (high - low), 0), 1)
            found.append((round(moment), y, x, int(high > low)))
            memory, blind = level, moment + refractory if (refractory := camera.refractory) else -1.0
    return found


def test_noise_is_of_the_image_and_comes_at_its_rate() -> None:
    camera = replace(PLAIN, noise=5.0)
    gray = np.full((3, 1, 18, 18), 128, dtype=np.uint8)
    first, other, again = record(camera, gray, ["one", "other", "one"])
    assert as_rows(first) == as_rows(again)
    assert as_rows(first) != as_rows(other)
    expected = 5.0 * 24 * 24 * 0.3
    assert abs(len(first.time) - expected) < 5 * math.sqrt(expected)
    assert abs(first.polarity.mean() - 0.5) < 0.1
    assert as_rows(record(PLAIN, gray[:1], [""])[0]) == []


def test_a_recording_does_not_depend_on_those_beside_it() -> None:
    camera = replace(PLAIN, noise=1.0, mismatch=0.05, refractory=200)
    images = random_images(3, 18, channels=1)
    together = record(camera, images, ["0", "1", "2"])
    for row, one in enumerate(together):
        assert as_rows(record(camera, images[row : row + 1], [str(row)])[0]) == as_rows(one)
        assert (np.diff(one.time) >= 0).all()
        assert one.x.max() < 24
        assert one.y.max() < 24
    other = record(replace(camera, seed=1), images, ["0", "1", "2"])
    assert as_rows(other[0]) != as_rows(together[0])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shown": 25}, "an event camera of 24 pixels cannot show an image of 25"),
        ({"threshold": 0.0}, "threshold of an event camera must be positive, not 0.0"),
        ({"amplitude": math.nan}, "amplitude of an event camera must be positive, not nan"),
        ({"refractory": -1}, "refractory of an event camera must be 0 or more, not -1"),
    ],
)
def test_what_is_no_camera_is_refused(fields: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAIN, **fields)  # type: ignore[arg-type]
