"""The backward passes of rate-based backpropagation, on tensors of one time step's size (methods 6).

Each takes the layer's output rate as it was counted from the spikes, returns it as its value, and differentiates the
layer at the rate that came in. So no layer is computed twice. Convolutions: ``KnownConvolution``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["RateBatchNorm", "RateLinear"]


class RateLinear(torch.autograd.Function):
    """``y = r W^T + b`` with ``y`` counted already."""

    @staticmethod
    def forward(ctx: Any, rate: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor, module: Any) -> Tensor:
        """``rate [B, ..., inputs]``, ``weight [outputs, inputs]``; the value is ``output [B, ..., outputs]``."""
        ctx.save_for_backward(rate.to(output.dtype), weight)
        ctx.rate_dtype, ctx.has_bias = rate.dtype, bias is not None
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The ordinary gradients of a linear layer."""
        (delta,), (rate, weight) = gradients, ctx.saved_tensors
        rows = delta.flatten(0, -2)
        by_rate = (delta @ weight.to(delta.dtype)).to(ctx.rate_dtype) if ctx.needs_input_grad[0] else None
        by_weight = (rows.mT @ rate.flatten(0, -2)).to(weight.dtype) if ctx.needs_input_grad[1] else None
        by_bias = rows.sum(0).to(weight.dtype) if ctx.has_bias else None
        return by_rate, by_weight, by_bias, None, None


class RateBatchNorm(torch.autograd.Function):
    """Training batch normalisation at the rate, with the statistics of the whole sequence.

    The statistics are functions of the rates too: shifting the rate of an input shifts all its steps, so the mean moves
    by 1/M and the variance by 2 (r - mean) / M of it (M values a channel). That is the exact derivative of the mean
    over time of the normalised sequence. The rate batch's own variance in its place, which is the smaller one, would
    enlarge the gradient at every layer.
    """

    @staticmethod
    def forward(
        ctx: Any, rate: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, inverse_deviation: Tensor
    ) -> Tensor:
        """``rate [B, C, ...]``; ``weight``, ``bias`` and the sequence's statistics ``[C]``."""
        ctx.save_for_backward(rate, weight, mean, inverse_deviation)
        ctx.has_bias = bias is not None
        channels = (1, -1, *[1] * (rate.dim() - 2))
        scale = inverse_deviation if weight is None else inverse_deviation * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        return (rate * scale.view(channels) + shift.view(channels)).to(rate.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of batch normalisation whose batch has these statistics."""
        (delta,), (rate, weight, mean, inverse_deviation) = gradients, ctx.saved_tensors
        by_rate, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            *(delta, rate, weight, None, None, mean, inverse_deviation, True, 0.0),
            (ctx.needs_input_grad[0], weight is not None, ctx.has_bias),
        )
        return by_rate, by_weight if weight is not None else None, by_bias if ctx.has_bias else None, None, None
