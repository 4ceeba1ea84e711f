"""Neurons are independent of each other, so a layer of any shape is a row of them: ``[T, ...]`` as ``[T, N]``.

The order of the neurons in that row is the order in which they lie in memory, so no layout (channels_last least of all)
is copied. What differs by channel finds its channel by two numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

from torch import Tensor

__all__ = ["Channels", "FlatTerm", "Layout"]


@dataclass(frozen=True)
class Channels:
    """Neuron ``n`` of a row belongs to channel ``(n // inner) % count``."""

    count: int
    inner: int


@dataclass(frozen=True)
class FlatTerm:
    """One summand of a current, as a row.

    Attributes:
        values: ``[T, N]``, or ``[1, N]`` where they are constant in time.
        scale: ``[C]``, what they are multiplied by; None for a term that is taken as it is.
        shift: ``[C]``, what is added to them after that; None with ``scale``.
        is_spare: whether a pass may write over the values.
    """

    values: Tensor
    scale: Tensor | None = None
    shift: Tensor | None = None
    is_spare: bool = False


@dataclass(frozen=True)
class Layout:
    """The way between a step's shape and a row of neurons.

    Attributes:
        shape: one step's shape, axes in the order in which they lie in memory.
        order: where each axis of ``shape`` stands in the tensor.
    """

    shape: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, current: Tensor) -> Layout:
        """The layout of a current ``[T, ...]``."""
        sizes, strides = current.shape[1:], current.stride()[1:]
        order = tuple(sorted(range(len(sizes)), key=lambda axis: (-strides[axis], axis)))
        return cls(tuple(sizes[axis] for axis in order), order)

    @property
    def channels(self) -> Channels:
        """Of steps ``[B, C, ...]``: where the axis after the batch lies in the row."""
        if len(self.order) < 2:
            return Channels(1, max(math.prod(self.shape), 1))
        place = self.order.index(1)
        return Channels(max(self.shape[place], 1), max(math.prod(self.shape[place + 1 :]), 1))

    def flat(self, tensor: Tensor) -> Tensor:
        """``[T, ...]`` as ``[T, N]``, ``[...]`` as ``[N]``; a view where the tensor lies in this layout."""
        leading = tensor.dim() - len(self.order)
        order = (*range(leading), *(axis + leading for axis in self.order))
        return tensor.permute(order).reshape(*tensor.shape[:leading], math.prod(self.shape))

    @overload
    def restore(self, tensor: Tensor) -> Tensor: ...
    @overload
    def restore(self, tensor: None) -> None: ...
    def restore(self, tensor: Tensor | None) -> Tensor | None:
        """The inverse of :meth:`flat`, always a view."""
        if tensor is None:
            return None
        leading = tensor.dim() - 1
        places = [0] * len(self.order)
        for place, axis in enumerate(self.order):
            places[axis] = place + leading
        return tensor.reshape((*tensor.shape[:leading], *self.shape)).permute((*range(leading), *places))
