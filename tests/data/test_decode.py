from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spikestill import progress
from spikestill.data import reading
from spikestill.data.decode import decode_all, resize
from spikestill.types import InputError


def one(source: bytes | Path, image_size: int | None = None) -> np.ndarray:
    return decode_all([("'it'", source)], 1, title="decoding", image_size=image_size)[0]


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=format, **options)
    return stream.getvalue()


@pytest.mark.parametrize("small", [0.0, 1e9])
def test_many_images_stay_in_order(
    small: float, picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether one thread decodes or several must not be seen.
    monkeypatch.setattr(reading, "_SMALL", small)
    contents = [picture(seed) for seed in range(300)]
    result = decode_all(((str(i), c) for i, c in enumerate(contents)), 300, title="decoding", image_size=None)
    assert len(result) == 300
    for content, pixels in zip(contents, result, strict=True):
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3)])
def test_colour_modes(mode: str, channels: int, picture: Callable[..., bytes]) -> None:
    pixels = one(picture(0, mode))
    assert pixels.shape == (8, 8, channels)
    assert pixels.dtype == np.uint8


def test_cmyk_and_transparent_palette() -> None:
    assert one(saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG")).shape == (4, 4, 3)
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    assert one(saved(palette, transparency=bytes([0, 128])))[0, 0].tolist() == [200, 100, 50]


def test_sixteen_bit_gray_keeps_its_high_byte() -> None:
    levels = np.array([[0, 255], [256, 65535]], dtype=np.uint16)
    assert one(saved(Image.fromarray(levels)))[:, :, 0].tolist() == [[0, 0], [1, 255]]


@pytest.mark.parametrize(("dtype", "message"), [(np.float32, "floating-point"), (np.int32, "more than 16 bits")])
def test_pixels_without_a_known_scale_are_refused(dtype: type, message: str) -> None:
    with pytest.raises(InputError, match=rf"'it' is not a readable image \(its pixels .*{message}"):
        one(saved(Image.fromarray(np.full((2, 2), 70000, dtype=dtype)), "TIFF"))


def test_photographs_are_turned_upright() -> None:
    image = Image.new("L", (6, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    assert one(saved(image, "JPEG", exif=exif)).shape == (6, 3, 1)


def test_image_size_crops_the_centre() -> None:
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 255
    assert np.array_equal(one(saved(Image.fromarray(wide)), 4), np.full((4, 4, 3), 255))


@pytest.mark.parametrize("content", [b"", b"nonsense", "cut"])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_corrupt_image_is_named(content: bytes | str, format: str, picture: Callable[..., bytes]) -> None:
    if isinstance(content, str):
        whole = picture(0, size=(64, 64), format=format)
        content = whole[: len(whole) // 2]
    with pytest.raises(InputError, match=r"^'it' is not a readable image \(.+\); repair or remove it$"):
        one(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'it' is not a readable image"):
        one(tmp_path / "none.png")


def test_long_work_is_reported(
    picture: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = [("", picture(0))] * 200
    decode_all(contents, 200, title="decoding train", image_size=None)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "_SILENT", -1.0)
    decode_all(contents, 200, title="decoding train", image_size=None)
    assert capsys.readouterr().err.splitlines() == [
        "decoding train: 64 of 200 images, 0:00 min left",
        "decoding train: 200 of 200 images",
    ]


def test_resize() -> None:
    images = torch.full((3, 2, 8, 8), 77, dtype=torch.uint8)
    images[:, 1] = 0
    larger = resize(images, 20)
    assert larger.shape == (3, 2, 20, 20)
    assert larger.dtype == torch.uint8
    assert set(larger[:, 0].flatten().tolist()) == {77}
    assert set(larger[:, 1].flatten().tolist()) == {0}
    assert resize(images, 8) is images
