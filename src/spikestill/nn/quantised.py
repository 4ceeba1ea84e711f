"""The activation of few levels that an ANN is trained with before it becomes spiking (QCFS; methods 3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from spikestill.nn.neurons import _Positive
from spikestill.types import InputError

__all__ = ["ClipFloorShift", "clip_floor_shift"]


class ClipFloorShift(nn.Module):
    """A rectifier of L levels above 0 up to a learnable threshold (Bu et al. 2022): see :func:`clip_floor_shift`.

    An IF neuron with this threshold and a soft reset, which starts half-way to it, fires at this rate (times the
    threshold) over L time steps of constant current.

    Attributes:
        threshold: the highest level, scalar, in the unit of the input; kept positive by its parametrisation.

    Args:
        levels: L.
        threshold: to start from.

    Raises:
        InputError: for fewer levels than 1, and for a threshold that is not positive and finite.
    """

    threshold: Tensor

    def __init__(self, levels: int = 4, threshold: float = 1.0) -> None:
        super().__init__()
        if levels < 1:
            raise InputError(f"the number of levels must be at least 1, not {levels}")
        self.levels = levels
        self.register_parameter("threshold", nn.Parameter(torch.tensor(1.0)))
        parametrize.register_parametrization(self, "threshold", _Positive())
        self.set_threshold(threshold)

    @torch.no_grad()
    def set_threshold(self, threshold: float | Tensor) -> None:
        """Give the layer another threshold.

        Raises:
            InputError: for one that is not positive and finite.
        """
        value = torch.as_tensor(threshold, dtype=self.threshold.dtype, device=self.threshold.device)
        if not (value > 0 and value.isfinite()):
            raise InputError(f"threshold must be positive and finite, not {value.item():g}")
        self.threshold = value

    def forward(self, values: Tensor) -> Tensor:
        """The levels that the values reach; any shape, and the same."""
        return clip_floor_shift(values, self.threshold, self.levels)

    def extra_repr(self) -> str:  # noqa: D102
        return f"levels={self.levels}, threshold={self.threshold.item():g}"


def clip_floor_shift(values: Tensor, threshold: Tensor, levels: int) -> Tensor:
    """``threshold * clip(floor(x L / threshold + 1/2) / L, 0, 1)``, differentiable straight through the floor.

    With ``h`` the result, ``dh/dx`` is 1 where ``0 < x L / threshold + 1/2 < L`` and 0 elsewhere, and ``dh/dthreshold``
    is ``(h - x) / threshold`` there, 0 below and 1 above: the derivatives of ``threshold / L * floor(clip(x L /
    threshold + 1/2, 0, L))``, the same function, with that of the floor taken as 1 (Bu et al. 2022).

    Args:
        values: x, any shape.
        threshold: positive scalar, in the unit of ``values``.
        levels: L, at least 1.
    """
    return _ClipFloorShift.apply(values, threshold, levels)  # type: ignore[no-any-return, unused-ignore]


class _ClipFloorShift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, threshold: Tensor, levels: int) -> Tensor:
        ctx.save_for_backward(values, threshold)
        ctx.levels = levels
        return _unrounded_level(values, threshold, levels).clamp(0, levels).floor() * (threshold / levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor | None, None]:
        (gradient,) = gradients
        values, threshold = ctx.saved_tensors
        level = _unrounded_level(values, threshold, ctx.levels)
        is_inside = (level > 0) & (level < ctx.levels)
        by_values = gradient * is_inside
        if not ctx.needs_input_grad[1]:
            return by_values, None, None
        share = level.clamp(0, ctx.levels).floor() / ctx.levels
        wide = torch.promote_types(values.dtype, torch.float32)
        by_threshold = (gradient * share).sum(dtype=wide) - (by_values * values).sum(dtype=wide) / threshold
        return by_values, by_threshold.to(threshold.dtype), None


def _unrounded_level(values: Tensor, threshold: Tensor, levels: int) -> Tensor:
    return values * (levels / threshold) + 0.5
