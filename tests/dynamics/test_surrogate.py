"""Surrogates against the numerical derivative of their smoothed steps, closed forms, and the two peers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikestill.dynamics import ATan, Linear, Rectangular, Sigmoid, Surrogate, Triangle
from spikestill.types import InputError

KINDS = (Sigmoid, Linear, ATan, Triangle, Rectangular)
parameters = st.floats(0.2, 8)


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@given(parameter=parameters, threshold=st.floats(0.2, 5))
def test_derivative_is_that_of_the_smoothed_step(kind: Callable[[float], Surrogate], parameter, threshold):
    surrogate, threshold = kind(parameter), scalar(threshold)
    distance = torch.linspace(-6, 6, 1201, dtype=torch.float64) + 0.00123
    step = 1e-6
    numerical = surrogate.smoothed_step(distance + step, threshold) - surrogate.smoothed_step(
        distance - step, threshold
    )
    numerical /= 2 * step
    # Within a step of a kink or a jump the two-sided difference means nothing.
    smooth = torch.ones_like(distance, dtype=torch.bool)
    for corner in (0.0, float(threshold), 1 / parameter, 0.5 / parameter):
        smooth &= (distance.abs() - corner).abs() > 2 * step
    torch.testing.assert_close(
        surrogate.derivative(distance, threshold)[smooth], numerical[smooth], rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("kind", KINDS)
@given(parameter=parameters, threshold=st.floats(0.2, 5))
def test_smoothed_step_climbs_from_0_and_the_derivative_is_even(kind, parameter, threshold):
    surrogate, threshold = kind(parameter), scalar(threshold)
    distance = torch.linspace(0, 8, 400, dtype=torch.float64)
    derivative = surrogate.derivative(distance, threshold)
    assert (derivative >= 0).all()
    assert derivative[0] == derivative.max() > 0
    torch.testing.assert_close(derivative, surrogate.derivative(-distance, threshold))
    total = surrogate.gamma if isinstance(surrogate, Linear) else 1.0
    below, above = (surrogate.smoothed_step(sign * distance, threshold) for sign in (-1, 1))
    torch.testing.assert_close(below + above, torch.full_like(below, total))
    far = surrogate.smoothed_step(scalar(-1e9), threshold)
    assert float(far) == pytest.approx(0, abs=1e-8)


def test_values_at_the_threshold_in_closed_form():
    zero, threshold = scalar(0.0), scalar(2.0)
    assert Sigmoid(4.0).derivative(zero, threshold) == 1
    assert Linear(0.3).derivative(zero, threshold) == pytest.approx(0.15)
    assert ATan(2.0).derivative(zero, threshold) == 1
    assert Triangle(1.5).derivative(zero, threshold) == 1.5
    assert Rectangular(1.5).derivative(zero, threshold) == 1.5
    assert ATan(2.0).derivative(scalar(1 / math.pi), threshold) == pytest.approx(0.5)


def test_linear_is_lasnn_s_printed_form_in_units_of_the_threshold():
    potential, threshold = torch.linspace(-2, 6, 81, dtype=torch.float64), scalar(1.7)
    printed = 0.3 / 1.7 * (1 - (potential / 1.7 - 1).abs()).clamp(min=0)
    torch.testing.assert_close(Linear().derivative(potential - threshold, threshold), printed)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dtype_and_shape_are_the_distance_s(kind, dtype):
    distance = torch.randn(2, 3, dtype=dtype)
    for result in (kind().derivative(distance, torch.tensor(1.0)), kind().smoothed_step(distance, torch.tensor(1.0))):
        assert result.dtype == dtype
        assert result.shape == distance.shape


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_parameters_that_are_not_positive_and_finite_are_refused(kind, value):
    with pytest.raises(InputError, match=f"{kind.__name__}: (alpha|gamma) must be positive and finite, not {value}"):
        kind(value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_surrogate_is_a_frozen_value(kind):
    assert kind(2.0) == kind(2.0) != kind(3.0)
    assert hash(kind(2.0)) == hash(kind(2.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, 1.0)


def gradient(spike: Callable[[Tensor], Tensor], distance: Tensor) -> Tensor:
    distance = distance.clone().requires_grad_(True)
    spike(distance).sum().backward()
    assert distance.grad is not None
    return distance.grad


@pytest.mark.parametrize("alpha", [0.7, 1.0, 2.0, 4.0])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Sigmoid, "Sigmoid"), (ATan, "ATan"), (Triangle, "PiecewiseQuadratic"), (Rectangular, "Rect")],
)
def test_gradients_are_spikingjelly_s(ours, theirs, alpha):
    peer = pytest.importorskip("spikingjelly.activation_based.surrogate")
    corners = torch.tensor([0.0, 0.5 / alpha, -0.5 / alpha, 1 / alpha, -1 / alpha])
    distance = torch.cat([torch.linspace(-4, 4, 997), corners])
    expected = gradient(getattr(peer, theirs)(alpha=alpha), distance)
    torch.testing.assert_close(ours(alpha).derivative(distance, torch.tensor(1.0)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.7, 2.0, 4.0])
@pytest.mark.parametrize(("ours", "theirs", "name"), [(ATan, "atan", "alpha"), (Sigmoid, "sigmoid", "slope")])
def test_gradients_are_snntorch_s(ours, theirs, name, alpha):
    peer = pytest.importorskip("snntorch.surrogate")
    distance = torch.linspace(-4, 4, 997)
    expected = gradient(getattr(peer, theirs)(**{name: alpha}), distance)
    torch.testing.assert_close(ours(alpha).derivative(distance, torch.tensor(1.0)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("distance", [-1e4, 1e4])
def test_sigmoid_far_from_the_threshold_is_0_and_not_nan(distance):
    # snnTorch's divides infinity by infinity here.
    assert Sigmoid(25.0).derivative(torch.tensor(distance), torch.tensor(1.0)) == 0
