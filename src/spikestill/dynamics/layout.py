"""Neurons are independent of each other, so a layer of any shape is a row of them: ``[T, ...]`` as ``[T, N]``.

One shape for all layers means that the compiled functions meet one rank and one stride pattern. The order of the
neurons in that row is the order in which they lie in memory, so no layout (channels_last least of all) is copied.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import overload

from torch import Tensor

__all__ = ["Layout"]


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
