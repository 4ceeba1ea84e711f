from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spikestill.data import EventFrames, EventSet, ImageSet, is_event_data, load, simulated_events
from spikestill.data.aedat4 import Aedat4Decoder
from spikestill.data.event_camera import EventCamera, record
from spikestill.data.frames import to_frames
from spikestill.data.records import RawData
from spikestill.types import InputError

pytest.importorskip("aedat")

SMALL = EventCamera(sensor=12, shown=8, amplitude=2.0)


def read(place: Path, images: ImageSet, camera: EventCamera = SMALL, frames: int = 3) -> EventSet:
    raw = RawData(images, images.subset(torch.arange(4)), tuple("abcd"))
    read = simulated_events.record_and_read("some", raw, place, EventFrames(frames=frames), camera=camera)
    assert isinstance(read.train, EventSet)
    return read.train


def stamps(place: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in place.rglob("*") if file.is_file()}


def test_digits_events_have_the_split_of_the_digits(tmp_path: Path) -> None:
    images, events = (
        load(name, data_dir=tmp_path, limit_train=40, validation=20) for name in ("digits", "digits-events")
    )
    assert events.input_shape == (2, 34, 34)
    assert events.frames == 10
    assert events.class_names == images.class_names
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(events, part).labels, getattr(images, part).labels)
    assert any("split: that of digits" in note for note in events.notes)
    assert any("EventCamera(sensor=34, shown=28" in note for note in events.notes)
    # What the limit leaves out was not simulated.
    files = [file for file in stamps(tmp_path) if file.suffix == ".aedat4"]
    assert len(files) == 40 + 20 + 360
    assert {file.parent.name for file in files} == set("0123456789")
    assert load("digits-events", data_dir=tmp_path, limit_train=40, validation=20).fingerprint == events.fingerprint


def test_files_hold_what_the_camera_reports_and_frames_count_it(
    tmp_path: Path, random_images: Callable[..., ImageSet]
) -> None:
    images = random_images(8)
    found = read(tmp_path, images)
    assert torch.equal(found.labels, images.labels)
    files = list(tmp_path.rglob("*.aedat4"))
    assert len(files) == 8
    by_key = {file.stem: file for file in files}
    with Aedat4Decoder() as decode:
        for row in range(8):
            pixels = images.images[row].contiguous().numpy()
            key = simulated_events.hashlib.sha256(pixels.tobytes()).hexdigest()[:24]
            assert by_key[key].parent.name == "abcd"[int(images.labels[row])]
            (own,) = record(SMALL, pixels[None], [key])
            stored = decode(by_key[key])
            for name in ("time", "x", "y", "polarity"):
                assert np.array_equal(getattr(stored, name), getattr(own, name))
            wanted = torch.from_numpy(to_frames(own, frames=3, by="count", sensor=12))
            assert torch.equal(found.frames[row].to(torch.int16), wanted)


def test_recordings_are_made_once_and_by_each_camera_for_itself(
    tmp_path: Path, random_images: Callable[..., ImageSet]
) -> None:
    images = random_images(8)
    first = read(tmp_path, images)
    before = stamps(tmp_path)
    assert torch.equal(read(tmp_path, images).frames, first.frames)
    assert stamps(tmp_path) == before
    other = EventCamera(sensor=12, shown=8, amplitude=2.0, seed=1)
    assert not torch.equal(read(tmp_path, images, other).frames, first.frames)
    folders = sorted(tmp_path.glob("simulated-events/*"))
    assert len(folders) == 2
    described = [json.loads((folder / "camera.json").read_text()) for folder in folders]
    assert {entry["camera"]["seed"] for entry in described} == {0, 1}
    assert all(entry["camera"]["threshold"] == 0.2 for entry in described)
    assert {file: stamp for file, stamp in stamps(tmp_path).items() if file in before} == before
    for folder in folders:
        (folder / "camera.json").write_text("{}")
    with pytest.raises(InputError, match=r"camera.json' does not describe the camera of its folder; remove the folder"):
        read(tmp_path, images)


def test_a_kill_half_way_leaves_whole_files_and_the_rest_is_made(
    tmp_path: Path, random_images: Callable[..., ImageSet]
) -> None:
    """The process is killed while its 21st file is half written."""
    program = """
import os, signal
from pathlib import Path
from spikestill import files
whole, seen = Path.replace, []
def replace(self, target):
    seen.append(target)
    if len(seen) == 22:  # camera.json is the first
        self.write_bytes(self.read_bytes()[:50])
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, target)
Path.replace = replace
from spikestill.data import load
load("digits-events", data_dir=os.environ["PLACE"], limit_train=30, validation=0)
"""
    environment = os.environ | {"PLACE": str(tmp_path / "killed")}
    killed = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    before = stamps(tmp_path / "killed")
    assert sum(file.suffix == ".aedat4" for file in before) == 20
    assert sum(file.name.endswith(".partial") for file in before) == 1
    resumed = load("digits-events", data_dir=tmp_path / "killed", limit_train=30, validation=0)
    after = stamps(tmp_path / "killed")
    kept = [file for file in before if not file.name.endswith(".partial")]
    assert all(after[file] == before[file] for file in kept)
    assert not any(file.name.endswith(".partial") for file in after)
    whole = load("digits-events", data_dir=tmp_path / "whole", limit_train=30, validation=0)
    assert resumed.fingerprint == whole.fingerprint


def test_a_damaged_recording_is_named_and_made_again_once_removed(
    tmp_path: Path, random_images: Callable[..., ImageSet]
) -> None:
    images = random_images(8)
    first = read(tmp_path, images)
    file = next(tmp_path.rglob("*.aedat4"))
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(InputError, match=rf"{file.name}' is not a readable AEDAT4 recording .* repair or remove it"):
        read(tmp_path, images)
    file.unlink()
    assert torch.equal(read(tmp_path, images).frames, first.frames)


def test_images_events_of_any_images_in_memory(
    tmp_path: Path, picture: Callable[..., bytes], write_parquet: Callable[..., None]
) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    for part, count in (("train", 8), ("test", 4)):
        images = [picture(index + 50 * (part == "test"), size=(10 + index, 9)) for index in range(count)]
        write_parquet(folder / f"{part}.parquet", images, [index % 2 for index in range(count)], names=["a/b", "c d"])
    options = {"data_dir": tmp_path / "cache", "image_size": 16, "events": EventFrames(frames=4, by="time")}
    data = load(f"images-events:parquet:{folder}", validation=2, **options)  # type: ignore[arg-type]
    assert data.input_shape == (2, 16, 16)
    assert data.frames == 4
    assert data.class_names == ("a/b", "c d")
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 4)
    (place,) = (tmp_path / "cache" / "simulated-events").iterdir()
    assert place.name.startswith("hub-")
    assert sorted(entry.name for entry in place.iterdir()) == ["a-b", "c-d", "camera.json"]


def test_images_events_of_digits_are_digits_events(tmp_path: Path) -> None:
    names = ("digits-events", "images-events:digits")
    one, other = (load(name, data_dir=tmp_path, limit_train=10, validation=0) for name in names)
    assert one.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("images-events:", r"data set 'images-events:' needs the name of data: images-events:DATA"),
        ("images-events", "unknown data set 'images-events'"),
        ("images-events:cifr10", "unknown data set 'cifr10'"),
        ("images-events:cifar10-dvs", "is shown images, and cifar10-dvs consists of events"),
        ("images-events:digits-events", "is shown images, and digits-events consists of events"),
    ],
)
def test_what_cannot_be_shown_is_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        load(name, data_dir=tmp_path)


def test_images_that_are_not_in_memory_are_refused(tmp_path: Path) -> None:
    from tests.data.trees import write_imagenet

    write_imagenet(tmp_path)
    with pytest.raises(
        InputError, match="images-events:imagenet: events are simulated of images that are held in memory"
    ):
        load("images-events:imagenet", data_dir=tmp_path)


def test_the_decoder_is_asked_for_before_anything_is_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(InputError, match=r"events of digits needs aedat: pip install 'spikestill\[events\]'"):
        load("digits-events", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_which_data_are_events() -> None:
    assert all(
        is_event_data(name) for name in ("cifar10-dvs", "dvs-gesture", "digits-events", "images-events:folder:x")
    )
    assert not any(is_event_data(name) for name in ("digits", "folder:images-events", "images-events"))
