from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from spikestill.data import load
from spikestill.types import InputError

Tree = dict[str, bytes]


def batch(seed: int, count: int, labels: str, classes: int) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"batch_label": f"batch {seed}", "data": pixels, labels: [index % classes for index in range(count)]}


def small(name: str) -> tuple[type, Tree]:
    """The files of a small CIFAR, in the published layout, and torchvision's class that describes it."""
    source, labels, classes = {
        "cifar10": (datasets.CIFAR10, "labels", 10),
        "cifar100": (datasets.CIFAR100, "fine_labels", 100),
    }[name]
    content = {
        file: batch(index, 2 * classes, labels, classes)
        for index, (file, _) in enumerate([*source.train_list, *source.test_list])
    }
    content[source.meta["filename"]] = {source.meta["key"]: [f"class {index}" for index in range(classes)]}
    return source, {file: pickle.dumps(value, protocol=2) for file, value in content.items()}


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[type, Tree]]:
    """Make a small CIFAR and teach torchvision's class its checksums; single files may be replaced."""

    def make(name: str, **replaced: bytes) -> tuple[type, Tree]:
        source, files = small(name)
        files |= replaced
        sums = {file: hashlib.md5(content).hexdigest() for file, content in files.items()}
        for part in ("train_list", "test_list"):
            monkeypatch.setattr(source, part, [[file, sums[file]] for file, _ in getattr(source, part)])
        monkeypatch.setattr(source, "meta", {**source.meta, "md5": sums[source.meta["filename"]]})
        monkeypatch.setattr(source, "tgz_md5", hashlib.md5(archive(source, files)).hexdigest())
        return source, files

    return make


def unpack(source: Any, files: Tree, place: Path) -> None:
    (place / source.base_folder).mkdir()
    for file, content in files.items():
        (place / source.base_folder / file).write_bytes(content)


def archive(source: Any, files: Tree) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as opened:
        for file, content in files.items():
            info = tarfile.TarInfo(f"{source.base_folder}/{file}")
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_unpacked_folder(name: str, classes: int, prepare: Any, tmp_path: Path) -> None:
    source, files = prepare(name)
    unpack(source, files, tmp_path)
    data = load(name, data_dir=tmp_path, validation=0)
    assert data.input_shape == (3, 32, 32)
    assert data.num_classes == classes
    assert data.class_names[1] == "class 1"
    # torchvision is the judge of content and order.
    for part, train in ((data.train, True), (data.test, False)):
        judge = source(str(tmp_path), train=train)
        assert torch.equal(part.images.permute(0, 2, 3, 1), torch.from_numpy(judge.data))
        assert part.labels.tolist() == judge.targets
    assert data.mean[0] == {"cifar10": 0.4914, "cifar100": 0.5071}[name]


def test_the_archive_is_read_without_being_unpacked(prepare: Any, tmp_path: Path) -> None:
    source, files = prepare("cifar10")
    unpack(source, files, tmp_path)
    expected = load("cifar10", data_dir=tmp_path).fingerprint
    for file in (tmp_path / source.base_folder).iterdir():
        file.unlink()
    (tmp_path / source.filename).write_bytes(archive(source, files))
    assert load("cifar10", data_dir=tmp_path).fingerprint == expected
    assert not list((tmp_path / source.base_folder).iterdir())


def test_missing_without_a_network_says_where_and_what(
    prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    place = tmp_path / "nowhere"
    with pytest.raises(InputError) as caught:
        load("cifar10", data_dir=place)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(place), "no route", "cifar-10-python.tar.gz", "cifar-10-batches-py", "--data-dir"):
        assert part in message
    assert not list(place.iterdir())


def test_download(prepare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, files = prepare("cifar10")
    content = archive(source, files)
    asked: list[str] = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    first = load("cifar10", data_dir=tmp_path / "new")
    second = load("cifar10", data_dir=tmp_path / "new")
    assert asked == [source.url]
    assert first.fingerprint == second.fingerprint
    assert [file.name for file in (tmp_path / "new").iterdir()] == [source.filename]
    content = content[:5000]
    with pytest.raises(InputError, match="wrong checksum"):
        load("cifar10", data_dir=tmp_path / "cut")
    assert not list((tmp_path / "cut").iterdir())


def test_a_place_that_cannot_be_written(prepare: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"not found in .*file"):
        load("cifar10", data_dir=tmp_path / "file")


def test_damaged_files_are_named(prepare: Any, tmp_path: Path) -> None:
    source, files = prepare("cifar10")
    unpack(source, {**files, "data_batch_3": files["data_batch_3"][:-7]}, tmp_path)
    with pytest.raises(InputError, match=r"'data_batch_3' in '.*cifar-10-batches-py' is damaged"):
        load("cifar10", data_dir=tmp_path)


def test_damaged_archives_are_named(prepare: Any, tmp_path: Path) -> None:
    source, files = prepare("cifar10")
    file = tmp_path / source.filename
    file.write_bytes(b"not a tarball")
    with pytest.raises(InputError, match=r"cifar-10-python\.tar\.gz' is not a readable archive"):
        load("cifar10", data_dir=tmp_path)
    file.write_bytes(archive(source, {name: files[name] for name in ("data_batch_1", "batches.meta")}))
    with pytest.raises(InputError, match="does not hold 'cifar-10-batches-py/data_batch_2'"):
        load("cifar10", data_dir=tmp_path)


class Malicious:
    """Pickled, it calls ``print``; any function could stand there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


class OtherCodec:
    def __reduce__(self) -> tuple[Any, ...]:
        import _codecs

        return _codecs.encode, ("text", "rot13")


@pytest.mark.parametrize(("thing", "message"), [(Malicious(), r"builtin.*print"), (OtherCodec(), "codec 'rot13'")])
def test_a_pickle_that_wants_more_than_arrays_is_not_executed(
    thing: object, message: str, prepare: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The checksums are made to fit: the unpickler has to hold by itself.
    source, files = prepare("cifar10", data_batch_1=pickle.dumps({"data": thing, "labels": [0]}, protocol=2))
    unpack(source, files, tmp_path)
    with pytest.raises(InputError, match=message):
        load("cifar10", data_dir=tmp_path)
    assert "executed" not in capsys.readouterr().out


def test_image_size(prepare: Any, tmp_path: Path) -> None:
    source, files = prepare("cifar10")
    unpack(source, files, tmp_path)
    data = load("cifar10", data_dir=tmp_path, image_size=16)
    assert data.input_shape == (3, 16, 16)
    assert data.test.images.is_contiguous(memory_format=torch.channels_last)
