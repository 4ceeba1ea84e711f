"""Random changes of a batch of images, all at once, on the device where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikestill.data.autoaugment import autoaugment
from spikestill.data.seeds import Draws
from spikestill.types import InputError

__all__ = ["Augmentation", "augment", "normalise"]


@dataclass(frozen=True)
class Augmentation:
    """What is varied at random, image by image.

    The order is resized crop, AutoAugment, crop, flip, roll, normalisation, Cutout. All frames of a recording are
    varied alike.

    Attributes:
        resized_crop: show a random rectangle of at least this share of the image's area, scaled to its size (Szegedy et
            al., 2015; ImageNet: 0.08). It is made where images are decoded, so it needs data that are decoded when they
            are used; 0: off.
        crop: pad by this many pixels on every side and cut out a window of the old size at random; 0: off. The padding
            is the mean colour, 0 after normalisation.
        reflect: pad the crop with the mirrored border in place of the mean colour.
        roll: move by up to this many pixels along both axes; what leaves on one side comes in on the other (for events:
            Li et al., 2022); 0: off.
        flip: mirror left and right with probability 1/2.
        alternate: mirror by turns: which images begin mirrored is drawn once; then every epoch shows each image the
            other way round than the last one, so that two epochs show both (Jordan, 2024).
        cutout: side in pixels of a square set to the mean colour (DeVries & Taylor, 2017); its centre is anywhere in
            the image, so that part of it may lie outside; 0: off.
        autoaugment: the policy found for CIFAR-10 (Cubuk et al., 2019), drawn for each image separately; what moves in
            from outside has the mean colour.

    Raises:
        InputError: when a size is negative or no integer.
    """

    crop: int = 4
    roll: int = 0
    flip: bool = True
    cutout: int = 0
    autoaugment: bool = False
    resized_crop: float = 0.0
    reflect: bool = False
    alternate: bool = False

    @property
    def varies(self) -> bool:
        """Whether an image may look otherwise than it is."""
        return bool(self.resized_crop or self.crop or self.roll or self.flip or self.cutout or self.autoaugment)

    def __post_init__(self) -> None:
        """Refuse sizes that are no sizes."""
        for option in ("crop", "roll", "cutout"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"augmentation: {option} must be a number of pixels, 0 or more, not {value!r}")
        if self.alternate and not self.flip:
            raise InputError("augmentation: alternate says how images are flipped: set flip to true")
        if self.reflect and not self.crop:
            raise InputError("augmentation: reflect says how a crop is padded: set crop above 0")
        if not 0 <= self.resized_crop <= 1:
            raise InputError(f"augmentation: resized_crop must lie in [0, 1], a share, not {self.resized_crop!r}")


def augment(
    pixels: Tensor,
    augmentation: Augmentation,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    generator: torch.Generator,
    part: tuple[int, int] | None = None,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Vary and normalise a batch.

    Args:
        pixels: uint8 (events: or int16) ``[B, H, W, C]``, contiguous.
        augmentation: what to vary.
        mean: channel means on the [0, 1] scale.
        std: channel standard deviations on the [0, 1] scale.
        generator: on the CPU; the only source of randomness, so that every device makes the same choices.
        part: where the pixels are part of a larger batch: the index of their first image in it, and its size. They are
            then varied as they would be within it.
        mirrored: which images are mirrored, bool ``[B]``, where ``augmentation`` flips; None draws it.

    Returns:
        float32 ``[B, C, H, W]`` in channels-last memory format, normalised.
    """
    if augmentation.autoaugment:
        pixels = autoaugment(pixels, [255 * value for value in mean], generator, part)
    draws = Draws(generator, len(pixels), part)
    pixels, inside = _moved(pixels, augmentation, draws, mirrored)
    images = normalise(pixels, mean, std)
    if augmentation.cutout:
        visible = ~_cutout_squares(pixels, augmentation.cutout, draws)
        inside = visible if inside is None else inside & visible
    if inside is not None:
        images.mul_(inside[:, None])
    return images


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(pixel / 255 - mean) / std``: integers ``[B, H, W, C]`` to float32 ``[B, C, H, W]``, in channels-last order."""
    scale = torch.tensor([1 / (255 * value) for value in std], dtype=torch.float32, device=pixels.device)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32, device=pixels.device)
    images = torch.addcmul(shift, pixels.to(torch.float32), scale)
    return images.permute(0, 3, 1, 2)


def _moved(
    pixels: Tensor, augmentation: Augmentation, draws: Draws, mirrored: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The moved and mirrored batch ``[B, H, W, C]``, and which pixels of it lie inside the old image ``[B, H, W]``."""
    crop = augmentation.crop
    if not crop and not augmentation.roll and not augmentation.flip:
        return pixels, None
    count, height, width, channels = pixels.shape
    device = pixels.device
    shift = draws.integers(-crop, crop + 1, before=(2,), after=(1,)).to(device)
    rows = torch.arange(height, device=device) + shift[0]
    columns = torch.arange(width, device=device) + shift[1]
    if augmentation.flip:
        mirrored = draws.uniform(after=(1,)) < 0.5 if mirrored is None else mirrored[:, None]
        columns = torch.where(mirrored.to(device), columns.flip(1), columns)
    if augmentation.roll:
        way = draws.integers(-augmentation.roll, augmentation.roll + 1, before=(2,), after=(1,)).to(device)
        rows, columns = _rolled(rows, way[0]), _rolled(columns, way[1])
    inside = None
    if crop and augmentation.reflect:
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    elif crop:
        inside_rows = (rows >= 0) & (rows < height)
        inside_columns = (columns >= 0) & (columns < width)
        inside = inside_rows[:, :, None] & inside_columns[:, None, :]
        # Pixels outside are masked after normalisation; until then any valid index will do.
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    first = torch.arange(count, device=device)[:, None] * height
    index = ((first + rows)[:, :, None] * width + columns[:, None, :]).flatten()
    moved = pixels.reshape(-1, channels).index_select(0, index)
    return moved.reshape(count, height, width, channels), inside


def _reflected(index: Tensor, size: int) -> Tensor:
    """Indices of an axis that may lie beyond its ends, those mirrored at the border pixels, which are not repeated."""
    period = max(2 * (size - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index).clamp(max=size - 1)


def _rolled(places: Tensor, by: Tensor) -> Tensor:
    """Places ``[B, n]``, those of each image moved on by its number ``[B, 1]``, round the end."""
    count = places.shape[1]
    return places.gather(1, (torch.arange(count, device=places.device) + by) % count)


def _cutout_squares(pixels: Tensor, side: int, draws: Draws) -> Tensor:
    """True inside the square of every image: bool ``[B, H, W]``."""
    _, height, width, _ = pixels.shape
    lines = []
    for size in (height, width):
        start = draws.integers(0, size, after=(1,)).to(pixels.device) - side // 2
        place = torch.arange(size, device=pixels.device)
        lines.append((place >= start) & (place < start + side))
    return lines[0][:, :, None] & lines[1][:, None, :]
