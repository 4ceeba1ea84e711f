from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikestill.data import load
from spikestill.types import InputError

Picture = Callable[..., bytes]


@pytest.fixture
def tree(tmp_path: Path, picture: Picture) -> Path:
    """Two classes, four training and two test images of each."""
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("ant", "bee")):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                (folder / f"{index}.png").write_bytes(picture(10 * label + index))
    return tmp_path


def test_images_and_labels(tree: Path, picture: Picture) -> None:
    (tree / "train" / "ant" / "notes.txt").write_text("no image")
    (tree / "train" / "ant" / ".hidden.png").write_text("no image")
    (tree / "train" / ".cache").mkdir()
    data = load(f"folder:{tree}", validation=0)
    assert data.class_names == ("ant", "bee")
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert len(data.test) == 4
    expected = np.asarray(Image.open(io.BytesIO(picture(11))))
    assert torch.equal(data.train.images[5].permute(1, 2, 0), torch.from_numpy(expected.copy()))


def test_other_formats_sub_folders_and_sizes(tree: Path, picture: Picture) -> None:
    deeper = tree / "train" / "bee" / "garden"
    deeper.mkdir()
    (deeper / "big.JPG").write_bytes(picture(5, "L", (20, 12), "JPEG"))
    with pytest.raises(InputError, match=r"big\.JPG' is 20x12 pixels .* is 8x8; set image_size"):
        load(f"folder:{tree}")
    data = load(f"folder:{tree}", image_size=16, validation=0)
    assert data.input_shape == (3, 16, 16)
    assert len(data.train) == 9


def test_val_alone_is_the_test_set(tree: Path) -> None:
    (tree / "test").rename(tree / "val")
    data = load(f"folder:{tree}", validation=0.25)
    assert (len(data.train), len(data.validation), len(data.test)) == (6, 2, 4)


def test_val_beside_test_is_the_validation_set(tree: Path, picture: Picture) -> None:
    for name in ("ant", "bee"):
        (tree / "val" / name).mkdir(parents=True)
        (tree / "val" / name / "0.png").write_bytes(picture(0))
    data = load(f"folder:{tree}")
    assert (len(data.train), len(data.validation), len(data.test)) == (8, 2, 4)


def test_an_empty_class_is_named(tree: Path) -> None:
    (tree / "train" / "cow").mkdir()
    with pytest.raises(InputError, match="class 'cow' is empty"):
        load(f"folder:{tree}")


@pytest.mark.parametrize(("extra", "other"), [("train", "test"), ("test", "train")])
def test_classes_that_differ_are_named(extra: str, other: str, tree: Path, picture: Picture) -> None:
    (tree / extra / "cow").mkdir()
    (tree / extra / "cow" / "0.png").write_bytes(picture(0))
    with pytest.raises(InputError, match=f"class 'cow' is in '.*{extra}' but not in '.*{other}'"):
        load(f"folder:{tree}")


def test_a_corrupt_image_is_named_with_its_path(tree: Path) -> None:
    (tree / "test" / "bee" / "1.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"test/bee/1\.png' is not a readable image"):
        load(f"folder:{tree}")


def test_missing_parts_are_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'.*nowhere' is not a folder"):
        load(f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match="needs a part named 'train'; found: nothing"):
        load(f"folder:{tmp_path / 'bare'}")
    (tmp_path / "bare" / "train").mkdir()
    (tmp_path / "bare" / "test").mkdir()
    with pytest.raises(InputError, match="holds no class"):
        load(f"folder:{tmp_path / 'bare'}")


def test_corrupt_images_are_skipped_and_counted(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("train/ant/0.png", "test/bee/1.png"):
        (tree / file).write_bytes(b"broken")
    data = load(f"folder:{tree}", validation=0, skip_corrupt=True)
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0] * 3 + [1] * 4, [0, 0, 1])
    assert len(data.unreadable) == 2
    printed = capsys.readouterr().err
    assert "files that cannot be read and were skipped: 2" in printed
    for file in tree.glob("test/*/*.png"):
        file.write_bytes(b"broken")
    with pytest.raises(InputError, match=r"no image of the test part can be read; the first is '.*test/ant/0.png'"):
        load(f"folder:{tree}", skip_corrupt=True)
