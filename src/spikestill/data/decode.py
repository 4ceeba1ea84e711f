"""Encoded images (JPEG, PNG, ...) to pixels, many at a time; a corrupt one is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spikestill.data.crops import central_square
from spikestill.data.reading import read_all
from spikestill.data.unreadable import Unreadable
from spikestill.files import regular
from spikestill.types import InputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FORMATS", "Encoded", "Framing", "decode", "decode_all", "decode_files", "resize"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may open, whatever a file's name says: others of its readers start programs, Ghostscript for one."""

_MOST_PIXELS = 2**26
"""Of one image: a small file can hold far more, and would take all memory."""

_LOST_LEVELS = 16
"""Of 256: a 16-bit colour image that keeps to fewer has its content in the lower 8 bits, which Pillow drops."""

Encoded = tuple[str, bytes | Path]
Framing = Callable[["Image.Image"], "Image.Image"]


def decode_all(
    items: Iterable[Encoded], total: int, *, title: str, image_size: int | None, unreadable: Unreadable | None = None
) -> list[np.ndarray | None]:
    """Decode images in parallel, in order.

    Gray images stay ``[H, W, 1]``, all others become RGB ``[H, W, 3]`` (palettes are looked up, transparency is
    dropped, CMYK is converted); photographs are turned as their camera noted. They are uint8, but for 16-bit gray,
    which stays uint16: what its levels mean, all images of a data set say together (see ``assemble``). ``unreadable``
    counts what was converted.

    Args:
        items: for every image what to call it in an error, and its file or encoded content.
        total: how many there are, for the progress.
        title: what is being decoded, for the progress on standard error.
        image_size: scale the shorter side to this and cut out the central square; None: keep the size.
        unreadable: what happens to images that cannot be read; None refuses them.

    Returns:
        Every image's pixels; None in the place of one that was left out.

    Raises:
        InputError: an image that cannot be read and may not be left out, by its name.
    """
    framing = None if image_size is None else partial(central_square, size=image_size)
    note = None if unreadable is None else unreadable.note

    def read(item: Encoded) -> np.ndarray:
        return decode(*item, framing, note)

    return read_all(items, read, total, title=title, unreadable=unreadable)


def decode_files(
    files: Sequence[Path], *, title: str, image_size: int | None, unreadable: Unreadable | None = None
) -> list[np.ndarray | None]:
    """As :func:`decode_all`, of files, which are called by their paths."""
    named = ((f"'{file}'", file) for file in files)
    return decode_all(named, len(files), title=title, image_size=image_size, unreadable=unreadable)


def decode(
    name: str, source: bytes | Path, framing: Framing | None = None, note: Callable[[str], None] | None = None
) -> np.ndarray:
    """The pixels of one image, uint8 ``[H, W, 1 or 3]``; of 16-bit gray uint16 ``[H, W, 1]``.

    Args:
        name: what to call it in an error.
        source: its file, or its encoded content.
        framing: what of the image to show, and in which size; None: all of it, as it is.
        note: is told what of the file is not in the pixels, in a phrase.

    Raises:
        InputError: when it cannot be read, is in a format that is not read, or is far too large.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # What Pillow and its codecs raise for broken content; SyntaxError is its way to report a bad PNG chunk.
    broken = (OSError, ValueError, SyntaxError, EOFError, TypeError, struct.error, zlib.error)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else regular(source)
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                raise ValueError(f"its {opened.width} x {opened.height} pixels are more than {_MOST_PIXELS:,}")
            mode, deep = _mode(opened), _has_deep_colour(opened)
            image = _plain(ImageOps.exif_transpose(opened))
            pixels = np.asarray(image if framing is None else framing(image))
        if image.mode == "I":
            pixels = pixels.clip(0, 0xFFFF).astype(np.uint16)  # interpolation may go past the ends
        if deep and int(pixels.max(initial=0)) < _LOST_LEVELS:
            raise ValueError("its 16-bit colours lie in the lower 8 bits, and would be black: save it with 8 bits")
    except (*broken, Image.DecompressionBombError) as error:
        reason = str(error).replace("\n", " ") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"in none of the formats {', '.join(FORMATS)}"
        raise InputError(f"{name} is not a readable image ({reason}); repair or remove it") from error
    if note is not None and (phrase := _CONVERTED.get("deep" if deep else mode)):
        note(phrase)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 ``[N, C, H, W]`` to ``[N, C, size, size]``, bilinear with antialiasing, channels-last in memory."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    scaled = [
        torch.nn.functional.interpolate(
            part.to(torch.float32), size=(size, size), mode="bilinear", antialias=True, align_corners=False
        )
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
        for part in torch.split(images, 1024)
    ]
    return torch.cat(scaled).contiguous(memory_format=torch.channels_last)


_CONVERTED = {
    "1": "of 1 bit a pixel became black and white of 8 bits",
    "P": "with a palette became RGB",
    "PA": "with a palette became RGB, their transparency was dropped",
    "CMYK": "in CMYK became RGB",
    "YCbCr": "in YCbCr became RGB",
    "LAB": "in Lab became RGB",
    "HSV": "in HSV became RGB",
    "LA": "lost their transparency",
    "RGBA": "lost their transparency",
    "deep": "of 16 bits a colour keep the upper 8",
}
"""By Pillow's mode, what became of images that were not 8-bit gray or RGB."""


def _mode(image: Image.Image) -> str:
    if image.mode == "P":
        return "PA" if "transparency" in image.info else "P"
    return image.mode


def _has_deep_colour(image: Image.Image) -> bool:
    """Whether the file holds 16 bits a channel where Pillow gives 8; gray alone it gives whole."""
    tiles: list[Any] = getattr(image, "tile", [])
    layouts = [str(tile[3][0] if isinstance(tile[3], tuple) and tile[3] else tile[3]) for tile in tiles]
    return not image.mode.startswith("I") and any(";16" in layout for layout in layouts)


def _plain(image: Image.Image) -> Image.Image:
    """The same image as 8-bit gray or RGB; of 16-bit gray as whole numbers, mode I, which can be interpolated."""
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError("its pixels need more than 16 bits")
        from PIL import Image

        return Image.fromarray(levels.astype(np.int32))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown scale")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
