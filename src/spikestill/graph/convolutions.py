"""The convolutions of a spiking graph: their values by the spikes that are there, where that is faster."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spikestill.dynamics import Moves, convolve_spikes, spikes_weight_gradient
from spikestill.graph.operations import is_watched

__all__ = ["KnownConvolution", "spike_output"]


def spike_output(module: nn.Module, spikes: Tensor) -> Tensor:
    """What a module makes of a batch of spikes ``[N, ...]``."""
    if type(module) is not nn.Conv2d or module.groups > 1 or not KnownConvolution.covers(module) or is_watched(module):
        return module(spikes)
    output = convolve_spikes(spikes, module.weight, module.bias, _moves(module))
    if output is None:
        return module(spikes)
    if not torch.is_grad_enabled():
        return output
    known: Tensor = KnownConvolution.apply(spikes.to(output.dtype), module.weight, module.bias, output, module)
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
        needs_given, needs_weight, *_ = ctx.needs_input_grad
        counted = None
        if needs_weight and type(module) is nn.Conv2d and module.groups == 1 and not torch.is_grad_enabled():
            counted = spikes_weight_gradient(given, delta, weight, _moves(module))
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
            (needs_given, needs_weight and counted is None, ctx.has_bias),
        )
        by_weight = by_weight if counted is None else counted
        dtypes = (ctx.given_dtype, weight.dtype, weight.dtype)
        results = zip((by_given, by_weight, by_bias), dtypes, strict=True)
        return *(None if result is None else result.to(dtype) for result, dtype in results), None, None


def _moves(module: nn.Conv2d) -> Moves:
    return Moves(module.stride, module.padding, module.dilation)  # type: ignore[arg-type]
