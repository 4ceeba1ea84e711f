from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from spikestill.data import load
from spikestill.types import InputError

Picture = Callable[..., bytes]
Write = Callable[..., None]

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10-jpeg"


@pytest.fixture
def pair(tmp_path: Path, picture: Picture, write_parquet: Write) -> Path:
    """Twelve training and six test images of three classes."""
    write_parquet(tmp_path / "train.parquet", [picture(i) for i in range(12)], [i % 3 for i in range(12)])
    write_parquet(tmp_path / "test.parquet", [picture(100 + i) for i in range(6)], [i % 3 for i in range(6)])
    return tmp_path


def decoded(content: bytes) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(content)))).permute(2, 0, 1)


def test_images_and_labels(pair: Path, picture: Picture) -> None:
    data = load(f"parquet:{pair}", validation=0)
    assert data.input_shape == (3, 8, 8)
    assert data.class_names == ("0", "1", "2")
    assert data.train.labels.tolist() == [0, 1, 2] * 4
    for row in range(12):
        assert torch.equal(data.train.images[row], decoded(picture(row)))
    assert torch.equal(data.test.images[5], decoded(picture(105)))
    torch.testing.assert_close(
        torch.tensor(data.mean), (data.train.images.float() / 255).mean(dim=(0, 2, 3)), rtol=1e-5, atol=0
    )


def test_shards_column_image_and_class_names(tmp_path: Path, picture: Picture, write_parquet: Write) -> None:
    (tmp_path / "data").mkdir()
    for shard in range(2):
        write_parquet(
            tmp_path / "data" / f"train-0000{shard}-of-00002.parquet",
            [picture(10 * shard + i) for i in range(4)],
            [i % 2 for i in range(4)],
            column="image",
            names=("cat", "dog"),
        )
    write_parquet(tmp_path / "data" / "validation-00000-of-00001-ab12.parquet", [picture(30)], [1], column="image")
    data = load(f"parquet:{tmp_path}", validation=0.25)
    assert data.class_names == ("cat", "dog")
    assert (len(data.train), len(data.validation)) == (6, 2)
    # The only held-out part is the test set.
    assert torch.equal(data.test.images[0], decoded(picture(30)))
    (tmp_path / "data" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"shards are missing or mixed .*: train-00001-of-00002\.parquet"):
        load(f"parquet:{tmp_path}")


def test_a_validation_file_is_the_validation_set(pair: Path, picture: Picture, write_parquet: Write) -> None:
    write_parquet(pair / "val.parquet", [picture(200), picture(201)], [0, 1])
    data = load(f"parquet:{pair}")
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 2, 6)
    assert torch.equal(data.validation.images[1], decoded(picture(201)))
    assert len(load(f"parquet:{pair}", validation=0).validation) == 0
    write_parquet(pair / "validation.parquet", [picture(200)], [0])
    with pytest.raises(InputError, match=r"both 'val' and 'validation'|both 'validation' and 'val'"):
        load(f"parquet:{pair}")


def test_gray_among_colour_becomes_colour(pair: Path, picture: Picture, write_parquet: Write) -> None:
    write_parquet(pair / "test.parquet", [picture(0, "L"), picture(1)], [0, 1])
    data = load(f"parquet:{pair}")
    assert data.input_shape == (3, 8, 8)
    gray = data.test.images[0]
    assert torch.equal(gray[0], gray[1])
    assert torch.equal(gray[0], gray[2])


def test_all_gray_stays_gray(tmp_path: Path, picture: Picture, write_parquet: Write) -> None:
    for part in ("train", "test"):
        write_parquet(tmp_path / f"{part}.parquet", [picture(i, "L") for i in range(8)], [0, 1] * 4)
    assert load(f"parquet:{tmp_path}").input_shape == (1, 8, 8)


def test_sizes(pair: Path, picture: Picture, write_parquet: Write) -> None:
    write_parquet(pair / "test.parquet", [picture(0), picture(1, size=(9, 8))], [0, 1])
    with pytest.raises(InputError, match=r"test\.parquet' row 1 is 9x8 pixels where .*train\.parquet' row 0 is 8x8"):
        load(f"parquet:{pair}")
    assert load(f"parquet:{pair}", image_size=6).input_shape == (3, 6, 6)


def test_a_corrupt_image_is_named_with_file_and_row(pair: Path, picture: Picture, write_parquet: Write) -> None:
    write_parquet(pair / "train.parquet", [picture(0), picture(1), b"broken"], [0, 1, 2])
    with pytest.raises(InputError, match=r"train\.parquet' row 2 is not a readable image"):
        load(f"parquet:{pair}")
    write_parquet(pair / "train.parquet", [picture(0), None, picture(1)], [0, 1, 2])
    with pytest.raises(InputError, match=r"train\.parquet' row 1: the image is null"):
        load(f"parquet:{pair}")


@pytest.mark.parametrize(
    ("part", "labels", "names", "message"),
    [
        ("train", [0, None, 1], None, r"train\.parquet' row 1: the label is null"),
        ("test", [0, 1, -1], None, r"test\.parquet' row 2: label -1 is negative"),
        ("test", [0, 3, 1], None, r"test\.parquet' row 1: label 3 is outside 0\.\.2"),
        ("train", [0, 1, 2], ("a", "b"), r"train\.parquet' row 2: label 2 is outside 0\.\.1"),
        ("train", [0, 1, 10**9], None, r"no training image has label 2, but one has 1000000000"),
        ("train", [], None, r"train\.parquet' holds no image"),
    ],
)
def test_wrong_labels_are_named(
    part: str,
    labels: list[int | None],
    names: tuple[str, ...] | None,
    message: str,
    pair: Path,
    picture: Picture,
    write_parquet: Write,
) -> None:
    write_parquet(pair / f"{part}.parquet", [picture(i) for i in range(len(labels))], labels, names=names)
    with pytest.raises(InputError, match=message):
        load(f"parquet:{pair}")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"picture": [b"x"], "label": [0]}, "needs the columns img .* it has picture: binary, label: int64"),
        ({"img": [{"bytes": b"x"}], "fine": [0]}, "it has img: struct<bytes: binary>, fine: int64"),
        ({"img": [b"x"], "label": [0]}, "column img must be a struct"),
        ({"img": [{"bytes": b"x"}], "label": ["cat"]}, "column label must be an integer"),
    ],
)
def test_other_columns_are_refused_by_name(columns: dict[str, list[object]], message: str, pair: Path) -> None:
    pq.write_table(pa.table(columns), pair / "train.parquet")
    with pytest.raises(InputError, match=message):
        load(f"parquet:{pair}")


def test_missing_and_unreadable_files(pair: Path) -> None:
    content = (pair / "test.parquet").read_bytes()
    (pair / "test.parquet").write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"test\.parquet' is not a readable Parquet file"):
        load(f"parquet:{pair}")
    (pair / "test.parquet").unlink()
    with pytest.raises(InputError, match=r"needs a part named 'test' or 'val'; found: 'train'"):
        load(f"parquet:{pair}")
    with pytest.raises(InputError, match="is not a folder"):
        load(f"parquet:{pair / 'train.parquet'}")
    with pytest.raises(InputError, match="needs a path"):
        load("parquet:")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the JPEG copy of CIFAR-10 is not there (shared/data/cifar10-jpeg)")
def test_the_real_cifar10() -> None:
    data = load(f"parquet:{REAL}")
    assert (len(data.train), len(data.validation), len(data.test)) == (45000, 5000, 10000)
    assert data.input_shape == (3, 32, 32)
    assert data.train.labels.bincount().tolist() == [4500] * 10
    assert data.validation.labels.bincount().tolist() == [500] * 10
    assert data.test.labels.bincount().tolist() == [1000] * 10
    assert data.mean == pytest.approx((0.491, 0.482, 0.447), abs=1e-3)
    assert data.std == pytest.approx((0.245, 0.243, 0.261), abs=1e-3)


def test_corrupt_images_are_skipped_and_counted(tmp_path: Path, write_parquet: Write, picture: Picture) -> None:
    for part in ("train", "test"):
        contents = [picture(seed) for seed in range(4)]
        contents[2] = b"broken"
        write_parquet(tmp_path / f"{part}.parquet", contents, [0, 1, 0, 1])
    data = load(f"parquet:{tmp_path}", validation=0, skip_corrupt=True)
    assert data.train.labels.tolist() == data.test.labels.tolist() == [0, 1, 1]
    assert len(data.unreadable) == 2


def test_a_file_that_grows_beyond_measure_is_refused(pair: Path) -> None:
    images = [{"bytes": bytes(2**28), "path": None}] * 2
    table = pa.table({"img": images, "label": [0, 1]})
    pq.write_table(table, pair / "train.parquet", compression="zstd", use_dictionary=False)
    assert (pair / "train.parquet").stat().st_size < 2**20
    with pytest.raises(InputError, match=r"train.parquet' would grow from [\d,]+ to [\d,]+ bytes"):
        load(f"parquet:{pair}")


def test_more_rows_than_bytes_are_refused(pair: Path) -> None:
    rows = 2_000_000
    images = pa.array([{"bytes": b"", "path": None}] * rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"img": images, "label": pa.array([0] * rows)}), pair / "train.parquet")
    with pytest.raises(InputError, match=r"train.parquet' has 2,000,000 rows in [\d,]+ bytes"):
        load(f"parquet:{pair}")


def test_a_pipe_is_refused(pair: Path) -> None:
    (pair / "train.parquet").unlink()
    os.mkfifo(pair / "train.parquet")
    with pytest.raises(InputError, match="it is no file, but a pipe"):
        load(f"parquet:{pair}")
