"""Batch normalisation as an operation of its own, for what does not go straight into neurons."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikestill.dynamics.current import Normalisation, normalise, through
from spikestill.dynamics.layout import Layout

__all__ = ["batch_norm"]


def batch_norm(values: Tensor, normalisation: Normalisation) -> Tensor:
    """The normalised values ``[B, C, ...]`` in their dtype, differentiable by them and by weight and bias.

    At the rates of a sequence, with the statistics of that sequence, it is the mean over time of the normalised
    sequence, with its exact derivative (methods 6).

    Args:
        values: ``[B, C, ...]``.
        normalisation: with the statistics of these values, or of the sequence whose mean over time they are.
    """
    normalised: Tensor = _BatchNorm.apply(normalisation, values, normalisation.weight, normalisation.bias)
    return normalised


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, normalisation: Normalisation, values: Tensor, weight: Tensor | None, bias: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(values, weight, bias)  # weights too: autograd then sees whether they changed
        ctx.normalisation = normalisation
        return normalise(values.unsqueeze(0), normalisation).squeeze(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (delta,), (values, *_) = gradients, ctx.saved_tensors
        layout = Layout.of(values.unsqueeze(0))
        rows = (layout.flat(tensor).to(delta.dtype).unsqueeze(0) for tensor in (delta, values))
        _, by_values, by_weight, by_bias = through(ctx.normalisation, next(rows), None, next(rows), layout)
        return None, layout.restore(by_values[0]).to(values.dtype), by_weight, by_bias
