from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spikestill.graph.rate_gradients import RateBatchNorm, RateConvolution, RateLinear


def leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def assert_same_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    expected = torch.autograd.grad(theirs, inputs, weights)
    for got, wanted in zip(torch.autograd.grad(ours, inputs, weights), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 6), (3, 2, 6)], ids=str)
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_is_the_ordinary_layer(shape: tuple[int, ...], has_bias: bool) -> None:
    rate, weight, bias = leaves(shape, (5, 6), (5,))
    given = bias if has_bias else None
    output = functional.linear(rate, weight, given)
    inputs = [rate, weight, *([bias] if has_bias else [])]
    assert_same_gradients(RateLinear.apply(rate, weight, given, output.detach(), None), output, inputs)


CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 7)),
    "2d": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "2d, strided": (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 4, 7, 6)),
    "2d, dilated": (nn.Conv2d(4, 6, 3, dilation=2, padding=2), (2, 4, 7, 6)),
    "2d, grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 7, 6)),
    "2d, depth-wise": (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 7, 6)),
    "3d": (nn.Conv3d(2, 3, 2), (2, 2, 3, 4, 3)),
}


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_is_the_ordinary_layer(name: str, has_bias: bool) -> None:
    module, shape = CONVOLUTIONS[name]
    module = module.double()
    (rate,) = leaves(shape)
    bias = module.bias if has_bias else None
    output = module._conv_forward(rate, module.weight, bias)  # type: ignore[operator]
    assert RateConvolution.covers(module)
    ours = RateConvolution.apply(rate, module.weight, bias, output.detach(), module)
    assert_same_gradients(ours, output, [rate, module.weight, *([bias] if bias is not None else [])])  # type: ignore[list-item]


def test_convolutions_that_pad_otherwise_are_not_covered() -> None:
    assert not RateConvolution.covers(nn.Conv2d(2, 2, 3, padding="same"))
    assert not RateConvolution.covers(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"))


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
