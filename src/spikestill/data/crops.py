"""What of a photograph is shown, and in which size, as ImageNet is trained on and evaluated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["central_crop", "central_square", "random_resized_crop"]

_ATTEMPTS = 10
_NARROWEST = 3 / 4
_SHORTER_SIDE = 256 / 224


def central_square(image: Image.Image, size: int) -> Image.Image:
    """The shorter side scaled to ``size``, and the middle of the longer one."""
    from PIL import Image, ImageOps

    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)


def central_crop(image: Image.Image, size: int) -> Image.Image:
    """The shorter side scaled to 256/224 of ``size``, and the square of ``size`` in the middle of that."""
    from PIL import Image

    shorter = round(size * _SHORTER_SIDE)
    # Rounded as torchvision rounds, whose weights were measured so.
    scaled = tuple(int(shorter * side / min(image.size)) for side in image.size)
    left, upper = (round((side - size) / 2) for side in scaled)
    whole = image.resize((scaled[0], scaled[1]), Image.Resampling.BILINEAR)
    return whole.crop((left, upper, left + size, upper + size))


def random_resized_crop(image: Image.Image, size: int, least: float, draws: np.random.RandomState) -> Image.Image:
    """A random rectangle of the image, scaled to a square (Szegedy et al., 2015).

    It has a share of the image's area between ``least`` and 1 and sides between 3:4 and 4:3. Where ten draws do not fit
    into the image, it is the middle of it.

    Args:
        image: 8-bit gray or RGB.
        size: of the square.
        least: smallest share of the area.
        draws: the only source of randomness.
    """
    from PIL import Image

    width, height = image.size
    for _ in range(_ATTEMPTS):
        area = width * height * draws.uniform(least, 1.0)
        shape = math.exp(draws.uniform(math.log(_NARROWEST), -math.log(_NARROWEST)))
        across, down = max(1, round(math.sqrt(area * shape))), max(1, round(math.sqrt(area / shape)))
        if across <= width and down <= height:
            left, upper = int(draws.randint(width - across + 1)), int(draws.randint(height - down + 1))
            box = (left, upper, left + across, upper + down)
            return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return central_square(image, size)
