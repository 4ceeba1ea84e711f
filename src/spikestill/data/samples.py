"""Labelled images as they lie in memory: pictures, and the frames of event cameras."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from spikestill.types import InputError

__all__ = ["EventSet", "ImageSet", "Samples", "channel_statistics", "check_labels"]

# Images are hashed and counted in slices of this many, which bounds the memory of the copies.
_SLICE = 4096


class Samples(ABC):
    """Labelled images of one kind, held in memory or decoded when they are used.

    Attributes:
        labels: class indices, int64 ``[N]``.
    """

    labels: Tensor

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image, or of every frame of a recording."""

    @abstractmethod
    def subset(self, rows: Tensor) -> Self:
        """The images at ``rows`` (int64 ``[M]``), in that order."""

    @abstractmethod
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation by channel that normalise the images, on the [0, 1] scale."""

    @abstractmethod
    def hash_into(self, content: hashlib._Hash, part: str) -> None:
        """Add everything that makes these images these images, as the part of that name, labels included."""


@dataclass(frozen=True, eq=False)
class ImageSet(Samples):
    """Images with their labels.

    Attributes:
        images: pixels, uint8 ``[N, C, H, W]``, 0 to 255. Readers keep them in channels-last order in memory.
        labels: class indices, int64 ``[N]``.

    Raises:
        InputError: when a shape or a type differs from the above, or a label is negative.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse what is not a set of labelled images."""
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise InputError(
                f"images must be uint8 [N, C, H, W], not {_kind(self.images)}; scale and stack them before use"
            )
        if 0 in self.images.shape[1:]:
            raise InputError(f"images of size {tuple(self.images.shape[1:])} (C, H, W) hold no pixel")
        check_labels(self.labels, len(self.images))

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def subset(self, rows: Tensor) -> ImageSet:
        """The images at ``rows`` (int64 ``[M]``), in that order; channels-last in memory."""
        pixels = self.images.permute(0, 2, 3, 1)[rows].contiguous()
        return ImageSet(pixels.permute(0, 3, 1, 2), self.labels[rows])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """See :func:`channel_statistics`."""
        return channel_statistics(self.images)

    def hash_into(self, content: hashlib._Hash, part: str) -> None:
        """Shape, pixels and labels, the same whatever the memory order."""
        content.update(repr((part, tuple(self.images.shape))).encode())
        for start in range(0, len(self), _SLICE):
            pixels = self.images[start : start + _SLICE].permute(0, 2, 3, 1)
            content.update(pixels.contiguous().cpu().numpy().data)
        content.update(self.labels.contiguous().cpu().numpy().data)


@dataclass(frozen=True, eq=False)
class EventSet(Samples):
    """Recordings of an event camera, as frames, with their labels.

    Attributes:
        frames: counts of events, uint8 or int16 ``[N, T, C, H, W]`` (see ``to_frames``).
        labels: class indices, int64 ``[N]``.

    Raises:
        InputError: when a shape or a type differs from the above, or a label is negative.
    """

    frames: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Refuse what is not a set of labelled frames."""
        if self.frames.ndim != 5 or self.frames.dtype not in (torch.uint8, torch.int16):
            raise InputError(f"event frames must be uint8 or int16 [N, T, C, H, W], not {_kind(self.frames)}")
        check_labels(self.labels, len(self.frames))

    @property
    def timesteps(self) -> int:
        """T."""
        return self.frames.shape[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every frame."""
        _, _, channels, height, width = self.frames.shape
        return channels, height, width

    def subset(self, rows: Tensor) -> EventSet:
        """The recordings at ``rows`` (int64 ``[M]``), in that order."""
        return EventSet(self.frames[rows], self.labels[rows])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Means of 0, so that no event stays 0, and the root mean square of each channel, in units of 255."""
        squares = torch.zeros(self.shape[0], dtype=torch.float64)
        for recording in self.frames:
            squares += recording.double().square().mean((0, 2, 3)).cpu()
        roots = (squares / max(len(self), 1)).sqrt() / 255
        return (0.0,) * len(roots), tuple(root or 1.0 for root in roots.tolist())

    def hash_into(self, content: hashlib._Hash, part: str) -> None:
        """Shape, counts and labels."""
        content.update(repr((part, tuple(self.frames.shape))).encode())
        for recording in self.frames:
            content.update(recording.contiguous().cpu().numpy().data)
        content.update(self.labels.contiguous().cpu().numpy().data)


def check_labels(labels: Tensor, images: int) -> None:
    """Refuse what is not one label for each of so many images.

    Raises:
        InputError: for another type, another number, and a negative label.
    """
    if labels.ndim != 1 or labels.dtype != torch.int64:
        raise InputError(f"labels must be int64 [N], not {_kind(labels)}")
    if images != len(labels):
        raise InputError(f"{images} images came with {len(labels)} labels; each image needs one")
    if len(labels) and int(labels.min()) < 0:
        row = int((labels < 0).nonzero()[0])
        raise InputError(f"label {int(labels[row])} at row {row} is negative; labels count from 0")


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel on the [0, 1] scale, exact (from histograms).

    A channel that never varies gets the standard deviation 1, so that normalising it gives zeros.

    Args:
        images: uint8 ``[N, C, H, W]``.
    """
    channels = images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for start in range(0, len(images), _SLICE):
        part = images[start : start + _SLICE]
        for channel in range(channels):
            counts[channel] += torch.bincount(part[:, channel].flatten(), minlength=256).cpu()
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ levels
    variance = (shares * (levels - mean[:, None]) ** 2).sum(dim=1)
    std = torch.where(variance > 1e-12, variance.sqrt(), torch.ones_like(variance))
    return tuple(mean.tolist()), tuple(std.tolist())


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
