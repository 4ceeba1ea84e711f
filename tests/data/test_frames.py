from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikestill.data.frames import EventFrames, Recording, to_frames
from spikestill.types import InputError
from tests.data.event_files import some_events


def recording(seed: int = 0, count: int = 400) -> Recording:
    events = some_events(seed, count=count)
    return Recording(events["x"], events["y"], events["p"], events["t"])


def counted_one_by_one(events: Recording, frames: int, by: str) -> np.ndarray:
    result = np.zeros((frames, 2, 128, 128), dtype=int)
    first, last = events.time.min(), events.time.max()
    for index in range(len(events.time)):
        if by == "count":
            slot = int(index * frames / len(events.time))
        else:
            slot = int((events.time[index] - first) * frames / (last - first + 1))
        result[slot, events.polarity[index], events.y[index], events.x[index]] += 1
    return result


@given(count=st.integers(1, 60), frames=st.integers(1, 12), by=st.sampled_from(["count", "time"]))
def test_every_event_is_counted_once_where_it_belongs(count: int, frames: int, by: str) -> None:
    events = recording(count, count)
    found = to_frames(events, frames=frames, by=by, sensor=128)
    assert found.dtype == np.int16
    assert np.array_equal(found, counted_one_by_one(events, frames, by))
    assert found.sum() == count
    if by == "count":
        sums = found.sum((1, 2, 3))
        assert sums.max() - sums.min() <= 1


@pytest.mark.parametrize("by", ["count", "time"])
def test_tonic_gives_the_same_but_for_the_last_event(by: str) -> None:
    functional = pytest.importorskip("tonic.functional")
    events = recording(3, 400)
    structured = np.zeros(400, dtype=[("t", np.int64), ("x", np.int64), ("y", np.int64), ("p", np.int64)])
    for name, values in (("t", events.time), ("x", events.x), ("y", events.y), ("p", events.polarity)):
        structured[name] = values
    bins = {"n_event_bins" if by == "count" else "n_time_bins": 8}
    theirs = functional.to_frame_numpy(structured, sensor_size=(128, 128, 2), **bins)
    ours = to_frames(events, frames=8, by=by, sensor=128)
    assert ours.sum() == 400
    # tonic's slices end at rounded times, so that an event at an edge may fall into the neighbour.
    assert np.abs(ours.sum(0) - theirs.sum(0)).sum() <= 1
    assert np.abs(ours - theirs).sum() <= 8


def test_a_resized_frame_is_the_mean_over_the_pixels_behind_it() -> None:
    everywhere = np.stack(np.meshgrid(np.arange(128), np.arange(128), indexing="ij")).reshape(2, -1)
    events = Recording(everywhere[1], everywhere[0], np.ones(128 * 128, int), np.arange(128 * 128))
    found = to_frames(events, frames=1, by="time", sensor=128, size=48)
    assert found.shape == (1, 2, 48, 48)
    assert set(found[0, 0].flatten()) == {0}
    assert set(found[0, 1].flatten()) == {64}
    few = to_frames(recording(1), frames=2, by="count", sensor=128, size=48)
    assert few.sum() / 64 == pytest.approx(400 * (48 / 128) ** 2, rel=0.1)


def test_a_pixel_that_never_rests_is_cut_off_at_the_most_that_fits() -> None:
    zeros = np.zeros(40_000, int)
    found = to_frames(Recording(zeros, zeros, zeros, zeros), frames=1, by="count", sensor=128)
    assert found[0, 0, 0, 0] == 32767


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"frames": 0}, "events.frames must be"), ({"frames": True}, "events.frames"), ({"by": "eye"}, "count or time")],
)
def test_wrong_ways_to_cut(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EventFrames(**fields)
