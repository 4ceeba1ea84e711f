"""The records of a data set: images with labels, and the three parts with what a model needs to know about them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from spikestill.data.unreadable import Unreadable
from spikestill.types import InputError

__all__ = ["DataSet", "ImageSet", "RawData", "channel_statistics"]

# Images are hashed and counted in slices of this many, which bounds the memory of the copies.
_SLICE = 4096


@dataclass(frozen=True, eq=False)
class ImageSet:
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
        if self.labels.ndim != 1 or self.labels.dtype != torch.int64:
            raise InputError(f"labels must be int64 [N], not {_kind(self.labels)}")
        if len(self.images) != len(self.labels):
            raise InputError(f"{len(self.images)} images came with {len(self.labels)} labels; each image needs one")
        if 0 in self.images.shape[1:]:
            raise InputError(f"images of size {tuple(self.images.shape[1:])} (C, H, W) hold no pixel")
        if len(self.labels) and int(self.labels.min()) < 0:
            row = int((self.labels < 0).nonzero()[0])
            raise InputError(f"label {int(self.labels[row])} at row {row} is negative; labels count from 0")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def subset(self, rows: Tensor) -> ImageSet:
        """The images at ``rows`` (int64 ``[M]``), in that order; channels-last in memory."""
        pixels = self.images.permute(0, 2, 3, 1)[rows].contiguous()
        return ImageSet(pixels.permute(0, 3, 1, 2), self.labels[rows])


@dataclass(frozen=True, eq=False)
class RawData:
    """What a reader found on disk, before anything is split off or left out.

    Attributes:
        train: everything that may be learned from.
        test: everything kept for the end.
        class_names: one name a class, in label order.
        validation: the validation set that the data came with, if any.
        mean: published channel means on the [0, 1] scale; None: compute them.
        std: published channel standard deviations on the [0, 1] scale; None: compute them.
        notes: what a reader of the results should know about how they were read, a phrase each.
    """

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    validation: ImageSet | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSet:
    """A data set, ready for training.

    Attributes:
        name: the name it was loaded by.
        train: what gradients see.
        validation: what model selection sees; empty when none was asked for.
        test: what is read once, at the end.
        class_names: one name a class, in label order.
        mean: channel means ``(C,)`` of the pixels on the [0, 1] scale.
        std: channel standard deviations ``(C,)`` on the [0, 1] scale.
        notes: what a reader of the results should know about how the data were read, a phrase each.
        unreadable: the files that were left out.

    Raises:
        InputError: when the parts differ in image size, a label is outside 0..K-1, the training or test part is
            empty, or mean and std do not fit the channels.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    unreadable: Unreadable = field(default_factory=Unreadable)

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        for part, images in self._parts():
            if images.shape != self.train.shape:
                raise InputError(
                    f"{self.name}: images are {self.train.shape} (C, H, W) in train and {images.shape} in {part}; "
                    "set image_size"
                )
            if len(images) == 0 and part != "validation":
                raise InputError(f"{self.name}: the {part} part holds no image")
            outside = images.labels >= len(self.class_names)
            if outside.any():
                row = int(outside.nonzero()[0])
                raise InputError(
                    f"{self.name}: label {int(images.labels[row])} at row {row} of {part} is outside "
                    f"0..{len(self.class_names) - 1}"
                )
        channels = self.train.shape[0]
        if not len(self.mean) == len(self.std) == channels:
            raise InputError(
                f"{self.name}: {channels} channels need as many means and standard deviations, "
                f"not {len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in self.mean) or not all(0 < value < math.inf for value in self.std):
            raise InputError(f"{self.name}: mean {self.mean} must be finite and std {self.std} above 0")

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        return self.train.shape

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of pixels, labels and class names of the three parts; the same whatever the memory order."""
        content = hashlib.sha256()
        content.update(repr(self.class_names).encode())
        for part, images in self._parts():
            content.update(repr((part, tuple(images.images.shape))).encode())
            for start in range(0, len(images), _SLICE):
                pixels = images.images[start : start + _SLICE].permute(0, 2, 3, 1)
                content.update(pixels.contiguous().cpu().numpy().data)
            content.update(images.labels.contiguous().cpu().numpy().data)
        return content.hexdigest()

    def _parts(self) -> tuple[tuple[str, ImageSet], ...]:
        return ("train", self.train), ("validation", self.validation), ("test", self.test)


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
