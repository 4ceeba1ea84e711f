"""The records of a data set: what was read, and the three parts with what a model needs to know about them."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property

from spikestill.data.samples import EventSet, Samples
from spikestill.data.unreadable import Unreadable
from spikestill.types import InputError

__all__ = ["DataSet", "RawData"]


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

    train: Samples
    test: Samples
    class_names: tuple[str, ...]
    validation: Samples | None = None
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
    train: Samples
    validation: Samples
    test: Samples
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
    def frames(self) -> int | None:
        """T of event frames; None for images."""
        return self.train.timesteps if isinstance(self.train, EventSet) else None

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        return self.train.shape

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of class names and of the three parts (see their ``hash_into``)."""
        content = hashlib.sha256()
        content.update(repr(self.class_names).encode())
        for part, images in self._parts():
            images.hash_into(content, part)
        return content.hexdigest()

    def _parts(self) -> tuple[tuple[str, Samples], ...]:
        return ("train", self.train), ("validation", self.validation), ("test", self.test)
