"""Poisson spikes: their values, their mean at the binomial rate, their seed."""

from __future__ import annotations

import math

import pytest
import torch

from spikestill.dynamics import poisson_spikes


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("timesteps", [16, 256, 4096])
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_mean_over_time_converges_at_the_binomial_rate(timesteps, low):
    values = torch.linspace(low, 1, 200)
    mean = poisson_spikes(values, timesteps, generator()).mean(0)
    # Binomial: each mean errs by sqrt(p (1 - p) / T); 200 of them all within 4.5 of these, but for one case in 700.
    error = (values.abs() * (1 - values.abs()) / timesteps).sqrt()
    assert ((mean - values).abs() <= 4.5 * error + 2 / timesteps * (error > 0)).all()
    # And together neither more nor less: the squared errors, in their own units, average to 1.
    inner = error > 0.3 * error.max()
    assert ((mean - values)[inner] / error[inner]).square().mean().item() == pytest.approx(
        1, abs=5 * math.sqrt(2 / 200)
    )


def test_spikes_are_independent_between_steps_and_neurons():
    spikes = poisson_spikes(torch.full((2000,), 0.3), 64, generator()) - 0.3
    for product in (spikes[1:] * spikes[:-1], spikes[:, 1:] * spikes[:, :-1]):
        standard_error = 0.3 * 0.7 / math.sqrt(product.numel())
        assert abs(product.mean().item()) < 4 * standard_error


def test_signs_zeros_and_what_lies_beyond():
    values = torch.tensor([-7.0, -1.0, -0.5, 0.0, 0.5, 1.0, 7.0])
    spikes = poisson_spikes(values, 500, generator())
    assert set(spikes.unique().tolist()) == {-1, 0, 1}
    assert torch.equal(spikes[:, [0, 1, 3, 5, 6]], torch.tensor([-1.0, -1, 0, 1, 1]).expand(500, 5))
    assert set(spikes[:, 2].tolist()) == {-1, 0}
    assert set(spikes[:, 4].tolist()) == {0, 1}


def test_one_seed_gives_the_same_spikes_and_a_generator_goes_on():
    values = torch.rand(4, 3, 8, 8)
    source = generator()
    first, second = poisson_spikes(values, 5, source), poisson_spikes(values, 5, source)
    assert first.shape == (5, 4, 3, 8, 8)
    assert torch.equal(first, poisson_spikes(values, 5, generator()))
    assert not torch.equal(first, second)
    assert not torch.equal(first, poisson_spikes(values, 5, generator(4)))


def test_without_a_generator_the_global_one_draws():
    values = torch.rand(100)
    torch.manual_seed(9)
    first = poisson_spikes(values, 5)
    torch.manual_seed(9)
    assert torch.equal(first, poisson_spikes(values, 5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_is_that_of_the_values_and_the_draws_are_float32_s(dtype):
    values = torch.tensor([0.25, -0.5, 0.75]).to(dtype)
    spikes = poisson_spikes(values, 50, generator())
    assert spikes.dtype == dtype
    assert torch.equal(spikes.float(), poisson_spikes(values.float(), 50, generator()))


def test_nan_never_spikes():
    assert torch.equal(poisson_spikes(torch.tensor([float("nan")]), 3), torch.zeros(3, 1))
