"""Attention maps ``[B, H, W]``: their common size, length and distance."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from spikestill.types import InputError

__all__ = ["Resize", "checked_resize", "distance", "in_full", "resized", "unit"]

Resize = Literal["pool", "bilinear"]


def checked_resize(objective: str, resize: str) -> Resize:
    """``resize``, if it is one.

    Raises:
        InputError: if not.
    """
    if resize not in get_args(Resize):
        raise InputError(f"{objective}: resize must be 'pool' or 'bilinear', not {resize!r}")
    return resize  # type: ignore[return-value]


def in_full(values: Tensor) -> Tensor:
    """The same in float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def resized(maps: Tensor, size: tuple[int, int], resize: Resize) -> Tensor:
    """Maps ``[B, H, W]`` brought to another size: the mean over what falls into a pixel ("pool"), or "bilinear"."""
    if tuple(maps.shape[1:]) == size:
        return maps
    if resize == "pool":
        return functional.adaptive_avg_pool2d(maps, size)
    return functional.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


def unit(maps: Tensor) -> Tensor:
    """Each map ``[H, W]`` divided by its L2 norm; one of zeros stays as it is, however small the others are."""
    # Squares of a sure teacher's gradients would underflow; the largest value cancels.
    largest = maps.detach().abs().amax((1, 2), keepdim=True)
    maps = maps / torch.where(largest > 0, largest, 1)
    return maps / torch.where(largest > 0, torch.linalg.vector_norm(maps, dim=(1, 2), keepdim=True), 1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """The L2 norm, not squared, of the difference of two maps, per sample; the batch's mean, a scalar."""
    return torch.linalg.vector_norm(one - other, dim=(1, 2)).mean()
