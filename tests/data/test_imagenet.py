from __future__ import annotations

import io
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikestill.data import Augmentation, Batches, DataSet, load
from spikestill.data.encoded import EncodedSet
from spikestill.data.unreadable import Unreadable
from spikestill.types import InputError
from tests.data.trees import photograph, spoil, wnids, write_imagenet, write_imagenet_shards, write_shard

Write = Callable[[Path], Path]
Batch = tuple[torch.Tensor, torch.Tensor]
TRAINING = Augmentation(crop=0, resized_crop=0.2, flip=True)

both_layouts = pytest.mark.parametrize("write", [write_imagenet, write_imagenet_shards])


def batches(data: DataSet, part: str = "train", **options: Any) -> Batches:
    return Batches(getattr(data, part), **{"batch_size": 5, "mean": data.mean, "std": data.std, **options})


def same(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, c) and torch.equal(b, d) for (a, b), (c, d) in zip(left, right, strict=True)
    )


def centre(label: int, number: int, size: int) -> torch.Tensor:
    """What evaluation shows of an image, by torchvision's transforms."""
    from torchvision.transforms import functional

    image = Image.open(io.BytesIO(photograph(label, number))).convert("RGB")
    shown = functional.center_crop(functional.resize(image, round(size * 256 / 224)), [size, size])
    return torch.from_numpy(np.asarray(shown).copy())


@both_layouts
def test_an_index_of_all_images(write: Write, tmp_path: Path) -> None:
    root = write(tmp_path)
    data = load("imagenet", data_dir=root.parent, validation=3)
    assert data.input_shape == (3, 224, 224)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 3, 9)
    assert data.num_classes == 3
    assert data.mean == (0.485, 0.456, 0.406)
    assert any("official validation part is the test set" in note for note in data.notes)
    assert load("imagenet", data_dir=root).num_classes == 3


@both_layouts
def test_evaluation_shows_the_middle_of_every_image(write: Write, tmp_path: Path) -> None:
    data = load("imagenet", data_dir=write(tmp_path), image_size=32, validation=0)
    seen = list(batches(data, "test", mean=(0.0,) * 3, std=(1 / 255,) * 3))
    assert [len(labels) for _, labels in seen] == [5, 4]
    images, labels = (torch.cat(column) for column in zip(*seen, strict=True))
    assert labels.bincount().tolist() == [3, 3, 3]
    for label in range(3):
        found = images[labels == label].round()
        for number in range(6, 9):
            wanted = centre(label, number, 32).permute(2, 0, 1).float()
            assert min(float((one - wanted).abs().max()) for one in found) <= 1


def test_folders_and_shards_hold_the_same_images(tmp_path: Path) -> None:
    shown = []
    for write in (write_imagenet, write_imagenet_shards):
        data = load("imagenet", data_dir=write(tmp_path / write.__name__), image_size=32, validation=0)
        images, labels = next(iter(batches(data, batch_size=18)))
        shown.append(sorted((int(label), image.numpy().tobytes()) for image, label in zip(images, labels, strict=True)))
    assert shown[0] == shown[1]


def test_class_names_are_ids_or_numbers(tmp_path: Path) -> None:
    assert load("imagenet", data_dir=write_imagenet(tmp_path / "a")).class_names == tuple(wnids(3))
    assert load("imagenet", data_dir=write_imagenet_shards(tmp_path / "b")).class_names == ("0", "1", "2")


@both_layouts
@pytest.mark.parametrize("workers", [0, 2])
def test_order_and_crops_depend_on_seed_epoch_and_image_alone(write: Write, workers: int, tmp_path: Path) -> None:
    data = load("imagenet", data_dir=write(tmp_path), image_size=24, validation=0)
    options: dict[str, Any] = {"shuffle": True, "augmentation": TRAINING, "drop_last": True}
    whole = batches(data, **options)
    expected = [list(whole) for _ in range(2)]
    assert not same(*expected)
    before = torch.get_rng_state()
    first, second = (batches(data, workers=workers, **options) for _ in range(2))
    seen: list[Batch] = list(islice(first, 1))
    second.load_state_dict(first.state_dict())
    seen += second
    assert same(seen, expected[0])
    assert same(list(second), expected[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert not same(list(batches(data, seed=1, **options)), expected[0])


def test_shards_decode_their_own_images_and_show_what_the_batch_shows(tmp_path: Path) -> None:
    data = load("imagenet", data_dir=write_imagenet(tmp_path), image_size=24, validation=0)
    options: dict[str, Any] = {"shuffle": True, "augmentation": TRAINING, "drop_last": True}
    whole = list(batches(data, **options))
    shards = [list(batches(data, shard=(rank, 2), divided=2, **options)) for rank in range(2)]
    pieces = [shards[rank][index] for index in range(2 * len(whole)) for rank in range(2)]
    for item in range(2):
        assert torch.equal(torch.cat([piece[item] for piece in pieces]), torch.cat([batch[item] for batch in whole]))


def test_a_random_crop_is_part_of_the_image_and_the_whole_where_it_must_be(tmp_path: Path) -> None:
    data = load("imagenet", data_dir=write_imagenet(tmp_path, train=30), image_size=16, validation=0)
    plain = {"mean": (0.0,) * 3, "std": (1 / 255,) * 3, "batch_size": 90}
    cropped, labels = next(iter(batches(data, augmentation=Augmentation(crop=0, resized_crop=0.1), **plain)))
    # Every class is a shade, so that whatever is shown of an image has it.
    shades = [float(cropped[labels == label].mean()) for label in range(3)]
    assert shades == pytest.approx([40, 100, 160], abs=10)
    middle, _ = next(iter(batches(data, **plain)))
    assert not torch.equal(cropped, middle)


@both_layouts
@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_named_or_skipped(
    write: Write, workers: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path)
    name = f"{wnids(3)[1]}_2"
    spoil(root, name)
    data = load("imagenet", data_dir=root, image_size=16, validation=0)
    with pytest.raises(InputError, match=rf"{name}\.\w+'.* is not a readable image .*--skip-corrupt") as caught:
        list(batches(data, workers=workers, unreadable=data.unreadable))
    assert "\n" not in str(caught.value)
    unreadable = Unreadable(skip=True)
    loader = batches(data, workers=workers, unreadable=unreadable)
    for _ in range(2):
        assert sum(len(labels) for _, labels in loader) == 17
    assert len(unreadable) == 1
    assert capsys.readouterr().err.count(f"skipped (1): '{root}" if write is write_imagenet else "skipped (1): '") == 1


def test_no_image_left_is_an_error(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    data = load("imagenet", data_dir=root, image_size=16, validation=0)
    for file in root.glob("train/*/*.JPEG"):
        file.unlink()
    with pytest.raises(InputError, match=r"no image of a whole batch can be read; the last: '.*' cannot be read \(No"):
        list(batches(data, unreadable=Unreadable(skip=True), shuffle=True))
    assert list(batches(data, unreadable=Unreadable(skip=True))) == []  # a measurement goes on with the next batch


def test_a_missing_layout_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"expected train/<wnid>/\*.JPEG .* imagenet-train-000000.tar .* in '.*/imagenet'"
    ):
        load("imagenet", data_dir=tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(InputError, match=r"train' holds no class; it needs <wnid>/\*.JPEG"):
        load("imagenet", data_dir=tmp_path)


def test_folders_that_do_not_belong_together(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    (root / "train" / "n9").mkdir()
    with pytest.raises(InputError, match="class 'n9' is in '.*train' but not in '.*val'"):
        load("imagenet", data_dir=root)
    (root / "val" / "n9").mkdir()
    with pytest.raises(InputError, match="class 'n9' has no image in '.*train/n9'"):
        load("imagenet", data_dir=root)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], "'a' in '.*' has no label; it needs a.cls"),
        ([("a.cls", b"0")], "'a' in '.*' has no image; it needs a.jpg"),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], "'a.cls' in '.*' must hold a class as a number, not b'cat'"),
        ([("a.jpg", b"x"), ("a.json", b"[1]")], "'a.json' in '.*' must hold a class as a number"),
        ([("a.jpg", b"x"), ("a.cls", b"-1")], "label -1 is negative"),
        ([("a.jpg", b"x"), ("a.json", b"{}")], "has no label"),
        ([("a.jpg", b"x"), ("a.json", b'{"label": Infinity}')], "must hold a class as a number"),
        ([("a.jpg", b"x"), ("a.json", b'{"label": ' + b"[" * 100_000)], "must hold a class as a number"),
        ([("a.jpg", b"x"), ("a.cls", b"9" * 30)], "must hold a class as a number"),
        ([("a.jpg", b"x"), ("a.cls", b"7")], "no training image in '.*' has label 0"),
        ([("notes.txt", b"x")], "'notes' in '.*' has no image"),
        ([], "and the shards beside it hold no image"),
    ],
)
def test_shards_that_cannot_be_used(members: list[tuple[str, bytes]], message: str, tmp_path: Path) -> None:
    root = write_imagenet_shards(tmp_path)
    (root / "imagenet-train-000001.tar").unlink()
    write_shard(root / "imagenet-train-000000.tar", members)
    with pytest.raises(InputError, match=message):
        load("imagenet", data_dir=root)


def test_damaged_compressed_and_missing_shards(tmp_path: Path) -> None:
    root = write_imagenet_shards(tmp_path)
    second = root / "imagenet-train-000001.tar"
    whole = second.read_bytes()
    for content in (whole[:4000], b"\x1f\x8b" + bytes(600), b""):
        second.write_bytes(content)
        with pytest.raises(
            InputError, match=r"train-000001.tar' is not a readable uncompressed tar file .*--skip-corrupt"
        ):
            load("imagenet", data_dir=root)
    data = load("imagenet", data_dir=root, skip_corrupt=True, validation=0)
    assert len(data.unreadable) == 1
    assert len(data.train) == 9
    second.unlink()
    write_shard(root / "imagenet-train-000002.tar", [])
    with pytest.raises(InputError, match="shard 1 of train is missing"):
        load("imagenet", data_dir=root)


def test_a_key_may_lie_in_a_folder_and_have_kinds_of_several_parts(tmp_path: Path) -> None:
    root = write_imagenet_shards(tmp_path)
    members = [("a/1.jpg", photograph(0, 0)), ("a/1.seg.png", b""), ("a/1.cls", b"0\n"), ("a/1.json", b'{"label": 2}')]
    members += [("b/1.JPEG", photograph(1, 0)), ("b/1.json", b'{"label": 1}')]
    members += [("b/2.png", photograph(1, 0)), ("b/2.cls", b"2")]
    write_shard(root / "imagenet-train-000000.tar", members)
    (root / "imagenet-train-000001.tar").unlink()
    data = load("imagenet", data_dir=root, validation=0)
    assert data.train.labels.tolist() == [0, 1, 2]
    assert isinstance(data.train, EncodedSet)
    assert data.train.store.read(0) == photograph(0, 0)


def test_the_fingerprint_sees_names_sizes_and_labels(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    first = load("imagenet", data_dir=root).fingerprint
    assert load("imagenet", data_dir=root).fingerprint == first
    assert load("imagenet", data_dir=root, image_size=64).fingerprint != first
    file = next(iter(root.glob("train/*/*.JPEG")))
    file.write_bytes(file.read_bytes() + b"\0")
    assert load("imagenet", data_dir=root).fingerprint != first


def test_resized_crops_need_images_that_are_decoded_when_used() -> None:
    data = load("digits")
    with pytest.raises(InputError, match="resized_crop needs data that are decoded when they are used"):
        Batches(data.train, batch_size=4, mean=data.mean, std=data.std, augmentation=TRAINING)
    with pytest.raises(InputError, match="resized_crop must lie in"):
        Augmentation(resized_crop=1.5)
