from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from spikestill.data import EventFrames, EventSet, load
from spikestill.data.frames import Recording, to_frames
from spikestill.types import InputError
from tests.data.event_files import CLASSES, aedat4, some_events, write_cifar10_dvs, write_dvs_gesture

pytest.importorskip("tonic")
pytest.importorskip("aedat")


@pytest.fixture(scope="module")
def dvs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar10_dvs(tmp_path_factory.mktemp("dvs"), recordings=10)


@pytest.fixture
def gestures(tmp_path: Path) -> Path:
    return write_dvs_gesture(tmp_path)


def frames_of(images: object) -> torch.Tensor:
    assert isinstance(images, EventSet)
    return images.frames


def test_cifar10_dvs_at_the_size_of_the_sensor(dvs: Path) -> None:
    data = load("cifar10-dvs", data_dir=dvs.parent, validation=0, events=EventFrames(frames=4))
    assert data.class_names == CLASSES
    assert data.input_shape == (2, 128, 128)
    assert data.frames == 4
    frames = frames_of(data.train)
    assert frames.shape == (90, 4, 2, 128, 128)
    assert frames.dtype == torch.uint8
    assert data.train.labels.bincount().tolist() == [9] * 10
    assert data.test.labels.tolist() == list(range(10))
    assert frames.sum((1, 2, 3, 4)).tolist() == [400] * 90
    assert data.mean == (0.0, 0.0)
    assert data.std[0] * 255 == pytest.approx(float(frames[:, :, 0].double().square().mean().sqrt()))
    assert any(note.startswith("events: 4 frames by count, 128x128") for note in data.notes)
    assert any("10 of 100 recordings are the test set" in note for note in data.notes)


def test_cifar10_dvs_resized_by_time(dvs: Path) -> None:
    data = load("cifar10-dvs", data_dir=dvs, image_size=48, events=EventFrames(frames=10, by="time"))
    assert data.input_shape == (2, 48, 48)
    events = some_events(0, 3)
    own = Recording(events["x"], events["y"], events["p"], events["t"])
    wanted = torch.from_numpy(to_frames(own, frames=10, by="time", sensor=128, size=48))
    everything = torch.cat([frames_of(part) for part in (data.train, data.validation, data.test)])
    assert any(torch.equal(one.to(torch.int16), wanted) for one in everything)


def test_the_split_depends_on_names_alone(dvs: Path, tmp_path: Path) -> None:
    written_backwards = write_cifar10_dvs(tmp_path, reverse=True)
    first, other = (load("cifar10-dvs", data_dir=place, image_size=16) for place in (dvs, written_backwards))
    assert first.fingerprint == other.fingerprint
    assert first.notes == other.notes
    moved = load("cifar10-dvs", data_dir=dvs, image_size=16, seed=5)
    assert torch.equal(frames_of(first.test), frames_of(moved.test))
    assert first.fingerprint != moved.fingerprint


def test_a_recording_that_cannot_be_read_leaves_the_split_as_it_is(dvs: Path, tmp_path: Path) -> None:
    root = write_cifar10_dvs(tmp_path)
    whole = load("cifar10-dvs", data_dir=dvs, image_size=16, validation=0)
    bad = root / "cat" / "cifar10_cat_3.aedat4"
    for content, message in (
        (bad.read_bytes()[:2000], "is not a readable AEDAT4 recording"),
        (b"nonsense", "is not a readable AEDAT4 recording"),
        (aedat4({name: values[:0] for name, values in some_events(0).items()}), "holds no event"),
        (aedat4(some_events(0) | {"x": np.full(400, 300)}), "has an event at x = 300, outside the 128x128 pixels"),
    ):
        bad.write_bytes(content)
        with pytest.raises(InputError, match=rf"cifar10_cat_3.aedat4' {message}") as caught:
            load("cifar10-dvs", data_dir=root)
        assert "\n" not in str(caught.value)
    part = load("cifar10-dvs", data_dir=root, image_size=16, validation=0, skip_corrupt=True)
    assert len(part.unreadable) == 1
    assert torch.equal(frames_of(part.test), frames_of(whole.test))
    assert len(part.train) == 89


def test_dvs_gesture_has_its_official_split(gestures: Path) -> None:
    data = load("dvs-gesture", data_dir=gestures.parent, validation=0, events=EventFrames(frames=3))
    assert data.num_classes == 11
    assert data.class_names[1] == "right hand wave"
    assert (len(data.train), len(data.test)) == (22, 11)
    # 10.npy comes before 2.npy by name; each has its own label all the same.
    events = some_events(1, 10)
    wanted = to_frames(Recording(events["x"], events["y"], events["p"], events["t"]), frames=3, by="count", sensor=128)
    row = data.train.labels.tolist().index(10)
    assert torch.equal(frames_of(data.train)[row].to(torch.int16), torch.from_numpy(wanted))


def test_wrong_gesture_files_are_named(gestures: Path) -> None:
    folder = gestures / "ibmGestureTrain" / "user01_fluorescent_led"
    (folder / "11.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"11.npy' must be named after its label"):
        load("dvs-gesture", data_dir=gestures)
    (folder / "11.npy").unlink()
    good = (folder / "4.npy").read_bytes()
    for content, message in (
        (np.zeros((5, 3)), r"must hold numbers \[events, 4\]"),
        (np.array([{"a": 1}], dtype=object), "is not a readable array"),
        (np.full((5, 4), np.nan), "holds numbers that are not finite"),
        (np.zeros((0, 4)), "holds no event"),
    ):
        np.save(folder / "4.npy", content, allow_pickle=True)
        with pytest.raises(InputError, match=rf"4.npy' {message}"):
            load("dvs-gesture", data_dir=gestures)
    (folder / "4.npy").write_bytes(good[:300])
    assert len(load("dvs-gesture", data_dir=gestures, skip_corrupt=True).unreadable) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10-dvs", r"expected the folder '.*CIFAR10DVS' with airplane, automobile, .* truck in it"),
        ("dvs-gesture", r"expected the folder '.*DVSGesture' with ibmGestureTrain, ibmGestureTest in it"),
    ],
)
def test_a_missing_folder_says_which_layout_was_expected(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(name, data_dir=tmp_path)


def test_a_class_needs_two_recordings(tmp_path: Path) -> None:
    root = write_cifar10_dvs(tmp_path, recordings=1)
    with pytest.raises(InputError, match=rf"'{root}/airplane' needs two recordings .* not 1"):
        load("cifar10-dvs", data_dir=root)


def test_a_missing_package_is_named(dvs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(InputError, match=r"cifar10-dvs needs aedat: pip install 'spikestill\[events\]'"):
        load("cifar10-dvs", data_dir=dvs)
