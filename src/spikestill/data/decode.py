"""Encoded images (JPEG, PNG, ...) to pixels, many at a time; a corrupt one is named."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spikestill.data.crops import central_square
from spikestill.data.reading import read_all
from spikestill.data.unreadable import Unreadable
from spikestill.types import InputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Encoded", "Framing", "decode", "decode_all", "decode_files", "resize"]

Encoded = tuple[str, bytes | Path]
Framing = Callable[["Image.Image"], "Image.Image"]


def decode_all(
    items: Iterable[Encoded], total: int, *, title: str, image_size: int | None, unreadable: Unreadable | None = None
) -> list[np.ndarray | None]:
    """Decode images in parallel, in order.

    Gray images stay ``[H, W, 1]``, all others become RGB ``[H, W, 3]`` (palettes are looked up, transparency is
    dropped, CMYK is converted, 16-bit gray keeps its high byte); photographs are turned as their camera noted.

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
    return read_all(items, lambda item: decode(*item, framing), total, title=title, unreadable=unreadable)


def decode_files(
    files: Sequence[Path], *, title: str, image_size: int | None, unreadable: Unreadable | None = None
) -> list[np.ndarray | None]:
    """As :func:`decode_all`, of files, which are called by their paths."""
    named = ((f"'{file}'", file) for file in files)
    return decode_all(named, len(files), title=title, image_size=image_size, unreadable=unreadable)


def decode(name: str, source: bytes | Path, framing: Framing | None = None) -> np.ndarray:
    """The pixels of one image, uint8 ``[H, W, 1 or 3]``.

    Args:
        name: what to call it in an error.
        source: its file, or its encoded content.
        framing: what of the 8-bit image to show, and in which size; None: all of it, as it is.

    Raises:
        InputError: when it cannot be read.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # What Pillow and its codecs raise for broken content; SyntaxError is its way to report a bad PNG chunk.
    broken = (OSError, ValueError, SyntaxError, EOFError, TypeError, struct.error, zlib.error)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            image = _eight_bit(ImageOps.exif_transpose(opened))
            pixels = np.asarray(image if framing is None else framing(image))
    except (*broken, Image.DecompressionBombError) as error:
        reason = str(error).replace("\n", " ") or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "in no known format"
        raise InputError(f"{name} is not a readable image ({reason}); repair or remove it") from error
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


def _eight_bit(image: Image.Image) -> Image.Image:
    """The same image as 8-bit gray or RGB."""
    from PIL import Image

    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 0xFFFF:
            raise ValueError("its pixels need more than 16 bits")
        image = Image.fromarray((levels >> 8).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers of unknown scale")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if image.mode in ("1", "L", "LA", "La") else "RGB")
