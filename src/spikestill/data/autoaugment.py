"""AutoAugment for CIFAR-10, a batch at a time: images that drew the same operation are changed together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from spikestill.data.seeds import Draws

__all__ = ["autoaugment"]

# Operation, probability, magnitude (0 to 9; None: the operation has none).
Operation = tuple[str, float, int | None]

# Cubuk et al. (2019), "AutoAugment: Learning Augmentation Strategies from Data", table 7: one pair is drawn per image.
POLICY: tuple[tuple[Operation, Operation], ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)
# These are turned into their opposite (left for right, paler for stronger) with probability 1/2.
_SIGNED = {"ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"}


def autoaugment(
    pixels: Tensor, fill: Sequence[float], generator: torch.Generator, part: tuple[int, int] | None = None
) -> Tensor:
    """Apply a policy drawn at random for each image; distributed as ``torchvision.transforms.v2.AutoAugment``.

    The draws are made for the whole batch, then the images that drew the same operation, magnitude and sign go through
    torchvision's function together, which is several times faster than one by one.

    Args:
        pixels: uint8 ``[B, H, W, C]`` with 1 or 3 channels.
        fill: the colour ``(C,)`` of what moves in from outside, 0 to 255.
        generator: on the CPU; the source of all draws.
        part: as ``augment`` takes it.

    Returns:
        uint8 ``[B, H, W, C]``, contiguous; a new tensor.
    """
    draws = Draws(generator, len(pixels), part)
    drawn = draws.integers(0, len(POLICY)).tolist()
    chance = draws.uniform(after=(2,)).tolist()
    opposite = (draws.uniform(after=(2,)) < 0.5).tolist()
    images = pixels.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
    for step in range(2):
        groups: dict[tuple[str, float], list[int]] = defaultdict(list)
        for row, policy in enumerate(drawn):
            name, probability, level = POLICY[policy][step]
            if chance[row][step] < probability:
                sign = -1 if name in _SIGNED and opposite[row][step] else 1
                groups[name, sign * strength_of(name, level, images.shape[2:])].append(row)
        for (name, strength), members in groups.items():
            rows = torch.tensor(members, device=images.device)
            images[rows] = apply_operation(images[rows], name, strength, fill)
    return images.permute(0, 2, 3, 1).contiguous()


def strength_of(name: str, level: int | None, size: Sequence[int]) -> float:
    """What a level 0 to 9 means for an operation; ``size`` is (H, W). The ranges are those of the paper's table 6."""
    if level is None:
        return 0.0
    if name in ("ShearX", "ShearY"):
        return 0.3 * level / 9
    if name in ("TranslateX", "TranslateY"):
        # The search used 150 of 331 pixels; in whole pixels here.
        return float(int(150 / 331 * size[1 if name == "TranslateX" else 0] * level / 9))
    if name == "Rotate":
        return 30 * level / 9
    if name == "Posterize":
        return float(round(8 - level * 4 / 9))
    if name == "Solarize":
        return 1 - level / 9
    return 0.9 * level / 9


def apply_operation(images: Tensor, name: str, strength: float, fill: Sequence[float]) -> Tensor:
    """One operation of one strength on uint8 ``[B, C, H, W]``."""
    from torchvision.transforms.v2 import functional

    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY"):
        along = name.endswith("X")
        angle = math.degrees(math.atan(strength)) if name.startswith("Shear") else 0.0
        shift = 0 if name.startswith("Shear") else int(strength)
        return functional.affine(
            images,
            angle=0.0,
            translate=[shift, 0] if along else [0, shift],
            scale=1.0,
            shear=[angle, 0.0] if along else [0.0, angle],
            fill=list(fill),
            # The published shear leaves the first row or column in place.
            center=[0, 0] if name.startswith("Shear") else None,
        )
    if name == "Rotate":
        return functional.rotate(images, angle=strength, fill=list(fill))
    if name == "Brightness":
        return functional.adjust_brightness(images, 1 + strength)
    if name == "Color":
        return functional.adjust_saturation(images, 1 + strength)
    if name == "Contrast":
        return functional.adjust_contrast(images, 1 + strength)
    if name == "Sharpness":
        return functional.adjust_sharpness(images, 1 + strength)
    if name == "Posterize":
        return functional.posterize(images, bits=int(strength))
    if name == "Solarize":
        return functional.solarize(images, threshold=255 * strength)
    plain = {
        "AutoContrast": functional.autocontrast,
        "Equalize": functional.equalize,
        "Invert": functional.invert,
    }
    return plain[name](images)
