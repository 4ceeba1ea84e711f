"""Small pictures of images and maps, for what a run records."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from spikestill.data import Batches, DataSet
from spikestill.recipes import NetworkDescription
from spikestill.report.evidence import Picture

__all__ = ["images_at", "map_picture", "pictures"]

_LARGEST_IMAGE = 64


def images_at(data: DataSet, description: NetworkDescription, rows: Tensor, device: torch.device) -> Tensor:
    """Some test images as the network is shown them: ``[B, C, H, W]``, or event frames ``[T, B, C, H, W]``.

    Args:
        data: whose test images.
        description: of the network.
        rows: which, int64 ``[B]``, at least one.
        device: where they are wanted.
    """
    (batch,) = Batches(
        data.test.subset(rows),
        batch_size=len(rows),
        mean=description.mean,
        std=description.std,
        device=device,
        merge_frames=not description.takes_frames,
    )
    return batch[0]


def pictures(images: Tensor, description: NetworkDescription) -> tuple[Picture, ...]:
    """Normalised images as one sees them, smaller where they are large.

    Of recordings the mean over frames and polarities, as bright as its largest value.

    Args:
        images: as :func:`images_at` gives them.
        description: with the normalisation.
    """
    mean, std = (
        torch.tensor(values, device=images.device)[:, None, None] for values in (description.mean, description.std)
    )
    values = 255 * (images * std + mean)
    if values.ndim == 5:
        values = values.mean(0)
    if values.shape[1] not in (1, 3):
        values = values.mean(1, keepdim=True)
        values = 255 * values / values.amax((1, 2, 3), keepdim=True).clamp(min=1e-9)
    size = min(values.shape[2], _LARGEST_IMAGE), min(values.shape[3], _LARGEST_IMAGE)
    shown = functional.adaptive_avg_pool2d(values, size).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu()
    return tuple(Picture.of(one.contiguous().numpy().tobytes(), size, one.shape[2]) for one in shown)


def map_picture(values: Tensor) -> Picture:
    """A map ``[H, W]`` in 255 steps from zero to its largest value."""
    largest = values.max().clamp(min=torch.finfo(values.dtype).tiny)
    pixels = (255 * values / largest).round().to(torch.uint8).cpu()
    return Picture.of(pixels.numpy().tobytes(), (pixels.shape[0], pixels.shape[1]), 1)
