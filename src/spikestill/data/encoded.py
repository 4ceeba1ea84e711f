"""Images too many for memory: where each one lies is known, and it is decoded when it is used."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from spikestill.data.decode import Framing, decode
from spikestill.data.depth import upper_bits
from spikestill.data.samples import Samples, check_labels
from spikestill.files import regular
from spikestill.types import InputError

__all__ = ["EncodedSet", "Files", "Shards", "Store", "encoded_set", "packed"]


class Store(ABC):
    """Encoded images by row.

    Names and places are held in arrays: worker processes share their memory, which a list of strings would lose.

    Attributes:
        names: of every image, bytes ``[N]``.
        sizes: in bytes, int64 ``[N]``.
    """

    names: np.ndarray
    sizes: np.ndarray

    @abstractmethod
    def place(self, row: int) -> str:
        """Where an image lies, as an error should say it."""

    @abstractmethod
    def read(self, row: int) -> bytes:
        """The content of an image; raises ``OSError`` where there is none."""


@dataclass(frozen=True, eq=False)
class Files(Store):
    """Every image is a file below ``root``; its name is the path from there."""

    root: Path
    names: np.ndarray
    sizes: np.ndarray

    def place(self, row: int) -> str:  # noqa: D102
        return f"'{self._path(row)}'"

    def read(self, row: int) -> bytes:  # noqa: D102
        return regular(self._path(row)).read_bytes()

    def _path(self, row: int) -> Path:
        return self.root / _unpacked(self.names[row])


@dataclass(frozen=True, eq=False)
class Shards(Store):
    """Images in tar files: image n is ``sizes[n]`` bytes of ``files[shard[n]]``, from ``offsets[n]`` on."""

    files: tuple[Path, ...]
    shard: np.ndarray
    offsets: np.ndarray
    names: np.ndarray
    sizes: np.ndarray

    def place(self, row: int) -> str:  # noqa: D102
        return f"'{_unpacked(self.names[row])}' in '{self.files[self.shard[row]]}'"

    def read(self, row: int) -> bytes:  # noqa: D102
        with regular(self.files[self.shard[row]]).open("rb") as file:
            file.seek(self.offsets[row])
            return file.read(self.sizes[row])


@dataclass(frozen=True, eq=False)
class EncodedSet(Samples):
    """Labelled images that are decoded when they are used.

    Attributes:
        store: where they lie.
        rows: which of the store's images these are, int64 ``[N]``.
        labels: class indices, int64 ``[N]``.
        size: height and width in which they are shown.
        mean: channel means on the [0, 1] scale, as published.
        std: channel standard deviations, likewise.

    Raises:
        InputError: for labels that do not fit.
    """

    store: Store
    rows: np.ndarray
    labels: Tensor
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse labels that do not fit."""
        check_labels(self.labels, len(self.rows))

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(3, size, size)``."""
        return 3, self.size, self.size

    def subset(self, rows: Tensor) -> EncodedSet:
        """The images at ``rows`` (int64 ``[M]``), in that order."""
        return replace(self, rows=self.rows[rows.cpu().numpy()], labels=self.labels[rows])

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The published ones."""
        return self.mean, self.std

    def hash_into(self, content: hashlib._Hash, part: str) -> None:
        """Names, sizes in bytes and labels: to hash the pixels would be to read everything."""
        content.update(repr((part, self.shape, len(self))).encode())
        for values in (self.store.names[self.rows], self.store.sizes[self.rows], self.labels.cpu().numpy()):
            content.update(values.tobytes())

    def decode(self, position: int, framing: Framing) -> np.ndarray:
        """The pixels of one image, uint8 ``[size, size, 3]``.

        Args:
            position: which of these images.
            framing: from the whole image to its square of ``size``.

        Raises:
            InputError: where it cannot be read, with its place.
        """
        row = int(self.rows[position])
        place = self.store.place(row)
        try:
            content = self.store.read(row)
        except OSError as error:
            raise InputError(f"{place} cannot be read ({error.strerror})") from error
        pixels = upper_bits(decode(place, content, framing))
        return np.broadcast_to(pixels, (self.size, self.size, 3))


def packed(names: Sequence[str]) -> np.ndarray:
    """Names as one array of bytes."""
    return np.array([name.encode(errors="surrogateescape") for name in names])


def _unpacked(name: bytes) -> str:
    """A name as the system gave it, which need not be valid UTF-8."""
    return name.decode(errors="surrogateescape")


def encoded_set(
    store: Store, labels: Sequence[int], size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> EncodedSet:
    """All images of a store."""
    return EncodedSet(store, np.arange(len(labels)), torch.tensor(labels, dtype=torch.int64), size, mean, std)
