"""The quantised activation: its closed form, its gradients, and the neuron that it stands for."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from spikestill.nn import IF, ClipFloorShift, clip_floor_shift
from spikestill.types import InputError

CASES = [(1, 1.0), (2, 0.3), (4, 1.0), (8, 2.7), (32, 11.0)]


def values_around(threshold: float, count: int = 400) -> torch.Tensor:
    """From well below 0 to well above the threshold."""
    return (torch.rand(count, dtype=torch.float64) * 2 - 0.5) * threshold


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("levels", "threshold"), CASES)
def test_it_is_its_closed_form(levels, threshold):
    x = values_around(threshold)
    wanted = threshold * np.clip(np.floor(x.numpy() * levels / threshold + 0.5) / levels, 0, 1)
    given = clip_floor_shift(x, scalar(threshold), levels)
    np.testing.assert_allclose(given.detach().numpy(), wanted, rtol=1e-12)
    assert len(given.unique()) == levels + 1


@pytest.mark.parametrize(("levels", "threshold"), CASES)
def test_gradients_are_those_of_the_form_whose_floor_is_a_constant_shift(levels, threshold):
    x, weights = values_around(threshold), torch.randn(400, dtype=torch.float64)

    def smooth(x: torch.Tensor, scale: float) -> torch.Tensor:
        """The same, with what the floor takes away at the values of the test held fast."""
        inner = (x * levels / scale + 0.5).clamp(0, levels)
        at_first = (first * levels / threshold + 0.5).clamp(0, levels)
        return scale / levels * (inner + (at_first.floor() - at_first))

    first, threshold_ = x.clone(), scalar(threshold)
    x.requires_grad_()
    (clip_floor_shift(x, threshold_, levels) * weights).sum().backward()
    step = 1e-6
    by_x = (smooth(first + step, threshold) - smooth(first - step, threshold)) / (2 * step)
    torch.testing.assert_close(x.grad, by_x * weights, rtol=1e-6, atol=1e-6)
    by_threshold = (smooth(first, threshold + step) - smooth(first, threshold - step)) / (2 * step)
    torch.testing.assert_close(threshold_.grad, (by_threshold * weights).sum(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("levels", "threshold"), CASES)
def test_gradients_are_those_of_the_paper(levels, threshold):
    half_a_level = threshold / levels / 2
    for x in values_around(threshold, 40):
        value, learned = scalar(x.item()), scalar(threshold)
        h = clip_floor_shift(value, learned, levels)
        h.backward()
        if x < -half_a_level:
            wanted = (0.0, 0.0)
        elif x > threshold - half_a_level:
            wanted = (0.0, 1.0)
        else:
            wanted = (1.0, (h.item() - x.item()) / threshold)
        assert (value.grad.item(), learned.grad.item()) == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_many_levels_are_a_clipped_rectifier():
    x = values_around(2.0)
    torch.testing.assert_close(clip_floor_shift(x, scalar(2.0), 10**6), x.clamp(0, 2.0), rtol=0, atol=2e-6)


@pytest.mark.parametrize(("levels", "threshold"), CASES)
def test_a_neuron_that_starts_half_way_fires_at_this_rate(levels, threshold):
    module, neuron = ClipFloorShift(levels, threshold), IF(threshold)
    neuron.set_threshold(module.threshold)
    neuron.set_initial(neuron.threshold / 2)
    x = values_around(threshold).float()
    rate = neuron(x.unsqueeze(0), levels).mean(0)
    torch.testing.assert_close(rate * neuron.threshold, module(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_of_the_values_is_kept(dtype):
    module = ClipFloorShift(4, 2.0)
    x = torch.linspace(-1, 3, 81).to(dtype).requires_grad_()
    h = module(x)
    h.sum().backward()
    assert h.dtype == x.grad.dtype == dtype
    assert module.parametrizations.threshold.original.grad.dtype == torch.float32


def test_the_threshold_is_learned_and_stays_positive():
    module = ClipFloorShift(4, 4.0)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.02)
    x = torch.rand(300)
    for _ in range(60):
        optimiser.zero_grad()
        (module(x) - x).square().sum().backward()
        optimiser.step()
    assert 0.8 < module.threshold.item() < 1.2
    with torch.no_grad():
        module.parametrizations.threshold.original.fill_(-1e4)
    assert module.threshold.item() > 0


def test_state_dict_and_copies():
    first, second = ClipFloorShift(4, 3.0), ClipFloorShift(4)
    assert list(first.state_dict()) == ["parametrizations.threshold.original"]
    second.load_state_dict(first.state_dict())
    third = copy.deepcopy(first)
    first.set_threshold(0.5)
    assert [item.threshold.item() for item in (first, second, third)] == pytest.approx([0.5, 3.0, 3.0])
    assert "levels=4, threshold=0.5" in repr(first)


@pytest.mark.parametrize("levels", [0, -3])
def test_fewer_levels_than_one_are_refused(levels):
    with pytest.raises(InputError, match=f"the number of levels must be at least 1, not {levels}"):
        ClipFloorShift(levels)


@pytest.mark.parametrize("threshold", [0.0, -1.0, math.inf, math.nan])
def test_thresholds_that_are_not_positive_and_finite_are_refused(threshold):
    for make in (lambda: ClipFloorShift(4, threshold), lambda: ClipFloorShift(4).set_threshold(threshold)):
        with pytest.raises(InputError, match=f"threshold must be positive and finite, not {threshold:g}"):
            make()
