from __future__ import annotations

import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

from spikestill import progress
from spikestill.data import reading
from spikestill.data.decode import FORMATS, decode_all, resize
from spikestill.data.unreadable import Unreadable
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


def test_sixteen_bit_gray_keeps_its_levels() -> None:
    levels = np.array([[0, 255], [256, 65535]], dtype=np.uint16)
    pixels = one(saved(Image.fromarray(levels)))
    assert pixels.dtype == np.uint16
    assert pixels[:, :, 0].tolist() == levels.tolist()


def test_sixteen_bit_gray_is_resized_between_its_levels() -> None:
    levels = np.linspace(0, 4000, 64).astype(np.uint16).reshape(8, 8)
    pixels = one(saved(Image.fromarray(levels)), 4)
    assert pixels.shape == (4, 4, 1)
    assert 0 < int(pixels.min()) < int(pixels.max()) < 4000


def deep_colour(level: int) -> bytes:
    """A PNG, 4 x 4, of 16 bits a colour, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + struct.pack(">3H", level, level, level) * 4) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colours_are_not_made_black() -> None:
    assert one(deep_colour(60000)).max() == 60000 >> 8
    with pytest.raises(InputError, match="'it' .*its 16-bit colours lie in the lower 8 bits"):
        one(deep_colour(900))


def test_what_is_converted_is_counted() -> None:
    counted = Unreadable()
    modes = ("L", "RGB", "1", "P", "RGBA", "RGBA", "LA", "CMYK")
    images = [saved(Image.new("L", (4, 4), 200).convert(mode), "TIFF" if mode == "CMYK" else "PNG") for mode in modes]
    items = [("it", image) for image in [*images, deep_colour(60000)]]
    decode_all(items, len(items), title="decoding", image_size=None, unreadable=counted)
    assert counted.notes == (
        "1 images in CMYK became RGB",
        "3 images lost their transparency",
        "1 images of 1 bit a pixel became black and white of 8 bits",
        "1 images of 16 bits a colour keep the upper 8",
        "1 images with a palette became RGB",
    )
    assert pickle.loads(pickle.dumps(counted)).notes == counted.notes


@pytest.mark.parametrize("format", ["EPS", "ICNS", "JPEG2000", "TGA", "PCX", "SGI"])
def test_only_the_formats_that_are_promised_are_opened(format: str, tmp_path: Path) -> None:
    if format in ("ICNS", "JPEG2000") and not features.check("jpg_2000"):
        pytest.skip("this Pillow cannot write it")
    file = tmp_path / "disguised.png"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(file, format=format)
    for source in (file, file.read_bytes()):
        with pytest.raises(InputError, match="in none of the formats BMP, GIF, JPEG, PNG, PPM, TIFF, WEBP"):
            one(source)


@pytest.mark.parametrize("format", FORMATS)
def test_the_formats_that_are_promised_are_opened_by_content(format: str, tmp_path: Path) -> None:
    file = tmp_path / "misnamed.jpg"
    Image.new("RGB", (4, 4), (200, 200, 200)).save(file, format=format)
    assert one(file).shape[:2] == (4, 4)


def test_small_files_of_many_pixels_are_refused() -> None:
    with pytest.raises(InputError, match="its 8200 x 8200 pixels are more than 67,108,864"):
        one(saved(Image.new("1", (8200, 8200))))


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "image.png")
    with pytest.raises(InputError, match="it is no file, but a pipe"):
        one(tmp_path / "image.png")


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
