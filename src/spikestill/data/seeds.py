"""Random streams that depend only on what they are named after: seed, purpose, epoch, batch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["Draws", "derive", "generator", "random_state"]


def derive(*parts: int | str) -> int:
    """One 64-bit seed out of several integers and names; any change in any part gives an unrelated seed."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def generator(*parts: int | str) -> torch.Generator:
    """A generator on the CPU, so that every device sees the same draws."""
    return torch.Generator().manual_seed(derive(*parts))


def random_state(*parts: int | str) -> np.random.RandomState:
    """NumPy's legacy generator: its stream is frozen for good, so a split is the same under every version."""
    seed = derive(*parts)
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32])


@dataclass(frozen=True)
class Draws:
    """Random numbers for the images of a batch, or of a part of one: these are then the same as within the whole.

    Attributes:
        generator: their source, on the CPU.
        count: how many images.
        part: the index of their first image in the larger batch, and that batch's size; None: they are the batch.
    """

    generator: torch.Generator
    count: int
    part: tuple[int, int] | None = None

    def integers(self, low: int, high: int, *, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> Tensor:
        """Whole numbers in [low, high), ``[*before, count, *after]``."""
        shape = (*before, self._whole, *after)
        return self._taken(torch.randint(low, high, shape, generator=self.generator), len(before))

    def uniform(self, *, after: tuple[int, ...] = ()) -> Tensor:
        """Numbers in [0, 1), ``[count, *after]``."""
        return self._taken(torch.rand(self._whole, *after, generator=self.generator), 0)

    @property
    def _whole(self) -> int:
        return self.count if self.part is None else self.part[1]

    def _taken(self, drawn: Tensor, axis: int) -> Tensor:
        return drawn.narrow(axis, 0 if self.part is None else self.part[0], self.count)
