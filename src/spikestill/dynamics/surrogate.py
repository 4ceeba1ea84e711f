"""Surrogate gradients: what stands in for the derivative of the step function.

Each is a function of ``distance = v - threshold`` (any shape, the unit of the membrane potential) and of the
threshold, and gives two things: the ``derivative`` that training uses, and the ``smoothed_step`` whose derivative it
is, which tests differentiate numerically.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from spikestill.types import InputError

__all__ = ["ATan", "Linear", "Rectangular", "Sigmoid", "Surrogate", "Triangle"]


@dataclass(frozen=True)
class Surrogate(ABC):
    """A surrogate gradient; its parameters are positive, finite numbers.

    Raises:
        InputError: at construction, for a parameter that is not positive and finite.
    """

    def __post_init__(self) -> None:
        for parameter in fields(self):
            value = getattr(self, parameter.name)
            if not 0 < value < math.inf:
                raise InputError(f"{type(self).__name__}: {parameter.name} must be positive and finite, not {value}")

    @abstractmethod
    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:
        """``ds/dv`` at ``v - threshold = distance``; same shape as ``distance``."""

    @abstractmethod
    def smoothed_step(self, distance: Tensor, threshold: Tensor) -> Tensor:
        """The smooth function of ``distance`` whose derivative is :meth:`derivative`."""


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """``alpha * sg * (1 - sg)`` with ``sg = sigmoid(alpha * distance)`` (rate-based backpropagation uses alpha 4)."""

    alpha: float = 4.0

    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        gate = torch.sigmoid(self.alpha * distance)
        return self.alpha * gate * (1 - gate)

    def smoothed_step(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return torch.sigmoid(self.alpha * distance)


@dataclass(frozen=True)
class Linear(Surrogate):
    """``(gamma / threshold) * max(0, 1 - |distance| / threshold)`` (Bellec et al. 2018; LaSNN eq. 14-15).

    LaSNN prints the term ``max(0, 1 - |threshold|)``, which does not depend on the potential; this is the form of the
    work it cites.
    """

    gamma: float = 0.3

    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return self.gamma / threshold * torch.relu(1 - distance.abs() / threshold)

    def smoothed_step(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return self.gamma * _integrated_triangle(distance / threshold)


@dataclass(frozen=True)
class ATan(Surrogate):
    """``(alpha / 2) / (1 + (pi / 2 * alpha * distance)^2)`` (as in SpikingJelly and snnTorch)."""

    alpha: float = 2.0

    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        scaled = (math.pi / 2 * self.alpha) * distance
        return (self.alpha / 2) / (1 + scaled * scaled)

    def smoothed_step(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return torch.atan((math.pi / 2 * self.alpha) * distance) / math.pi + 0.5


@dataclass(frozen=True)
class Triangle(Surrogate):
    """``max(0, alpha - alpha^2 * |distance|)`` (SpikingJelly's PiecewiseQuadratic)."""

    alpha: float = 1.0

    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return torch.relu(self.alpha - self.alpha**2 * distance.abs())

    def smoothed_step(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return _integrated_triangle(self.alpha * distance)


@dataclass(frozen=True)
class Rectangular(Surrogate):
    """``alpha`` where ``|distance| < 1 / (2 * alpha)``, else 0 (SpikingJelly's Rect)."""

    alpha: float = 1.0

    def derivative(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return self.alpha * (distance.abs() < 0.5 / self.alpha).to(distance.dtype)

    def smoothed_step(self, distance: Tensor, threshold: Tensor) -> Tensor:  # noqa: D102
        return (self.alpha * distance + 0.5).clamp(0, 1)


def _integrated_triangle(x: Tensor) -> Tensor:
    """The integral of ``max(0, 1 - |x|)``, from 0 at ``x <= -1`` to 1 at ``x >= 1``."""
    rising = 0.5 * torch.relu(1 + x.clamp(max=0)) ** 2
    return rising + 0.5 * (1 - torch.relu(1 - x.clamp(min=0)) ** 2)
