"""The convolutions of a spiking graph: their values by the spikes that are there, where that is faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikestill.dynamics import convolve_spikes
from spikestill.graph.operations import is_watched

__all__ = ["KnownConvolution", "spike_output"]


def spike_output(module: nn.Module, spikes: Tensor) -> Tensor:
    """What a module makes of a batch of spikes ``[N, ...]``."""
    is_own = type(module) is nn.Conv2d and module.groups == 1 and KnownConvolution.covers(module)
    if not is_own or is_watched(module):
        return module(spikes)
    numbers = (module.stride, module.padding, module.dilation)
    output = convolve_spikes(spikes, module.weight, module.bias, *numbers)  # type: ignore[arg-type]
    if output is None:
        return module(spikes)
    if not torch.is_grad_enabled():
        return output
    known: Tensor = KnownConvolution.apply(spikes, module.weight, module.bias, output, module)
    return known


class KnownConvolution(torch.autograd.Function):
    """A convolution whose output is known: its value, and the gradient at the input.

    Under rate gradients the output was counted over the steps, and the input is a rate (methods 6).
    """

    @staticmethod
    def covers(module: nn.Conv1d | nn.Conv2d | nn.Conv3d) -> bool:
        """Whether this convolution pads with zeros, by numbers."""
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)

    @staticmethod
    def forward(ctx: Any, given: Tensor, weight: Tensor, bias: Tensor | None, output: Tensor, module: Any) -> Tensor:
        """``given [B, C, ...]``, ``weight`` and ``bias`` of ``module``; the value is ``output``."""
        ctx.save_for_backward(given.to(output.dtype), weight)
        ctx.given_dtype, ctx.has_bias, ctx.module = given.dtype, bias is not None, module
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The ordinary gradients of a convolution."""
        (delta,), (given, weight), module = gradients, ctx.saved_tensors, ctx.module
        by_given, by_weight, by_bias = torch.ops.aten.convolution_backward(
            delta,
            given,
            weight.to(delta.dtype),
            [weight.shape[0]] if ctx.has_bias else None,
            module.stride,
            module.padding,
            module.dilation,
            False,
            [0] * len(module.stride),
            module.groups,
            (ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has_bias),
        )
        by_given = by_given.to(ctx.given_dtype) if ctx.needs_input_grad[0] else None
        by_weight = by_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None
        return by_given, by_weight, by_bias.to(weight.dtype) if ctx.has_bias else None, None, None
