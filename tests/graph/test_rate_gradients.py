from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph.rate_gradients import RateBatchNorm, RateLinear
from tests.graph.judging import assert_same_gradients


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("shape", [(3, 6), (3, 2, 6)], ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_is_the_ordinary_layer(shape: tuple[int, ...], has_bias: bool) -> None:
    rate, weight, bias = leaves(shape, (5, 6), (5,))
    given = bias if has_bias else None
    output = functional.linear(rate, weight, given)
    inputs = [rate, weight, *([bias] if has_bias else [])]
    assert_same_gradients(RateLinear.apply(rate, weight, given, output.detach(), None), output, inputs)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_is_the_mean_over_time_of_the_normalised_sequence(shape: tuple[int, ...], affine: bool) -> None:
    """Its derivative by a rate is that of the whole sequence shifted with the rate, taken here by autograd."""
    rate, weight, bias = leaves(shape, (3,), (3,))
    scale, shift = (weight, bias) if affine else (None, None)
    changes = torch.randn(5, *shape, dtype=torch.float64)
    changes = changes - changes.mean(0)
    sequence = (rate + changes).flatten(0, 1)
    theirs = functional.batch_norm(sequence, None, None, scale, shift, True, 0.0, 1e-5).unflatten(0, (5, -1)).mean(0)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    mean = sequence.mean(axes).detach()
    deviation = sequence.var(axes, unbiased=False).add(1e-5).rsqrt().detach()
    ours = RateBatchNorm.apply(rate, scale, shift, mean, deviation)
    assert_same_gradients(ours, theirs, [rate, *([weight, bias] if affine else [])])


def test_gradients_come_in_the_dtype_of_what_they_are_for() -> None:
    rate = torch.rand(2, 4, requires_grad=True)
    layer = nn.Linear(4, 3)
    RateLinear.apply(rate, layer.weight, layer.bias, torch.zeros(2, 3, dtype=torch.bfloat16), None).sum().backward()
    assert rate.grad is not None
    assert layer.weight.grad is not None
    assert rate.grad.dtype == layer.weight.grad.dtype == torch.float32
